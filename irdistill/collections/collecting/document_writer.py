"""Writes documents as JSON lines; repeated ids and texts are sorted out with bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from irdistill.collections.collecting.collect_report import CollectReport
from irdistill.collections.corpus import id_hash
from irdistill.collections.document_table import Document
from irdistill.errors import InputError

CORPUS = "corpus.jsonl"


class DocumentWriter:
    """Writes ``corpus.jsonl``. 25 bytes of memory per document.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CORPUS
        self._ids = array("Q")
        self._contents = array("Q")
        self._foldable = bytearray()

    def write(
        self,
        sources: Iterable[tuple[Iterable[Document], bool, bool]],
        report: CollectReport,
    ) -> int:
        """Write all documents.

        Args:
            sources: documents; whether those with the same text are left out; and whether the
                title is a part of that text.

        Returns:
            The number of documents that are kept.

        Raises:
            InputError: two documents have the same id and different texts.
        """
        with open(self._path, "w", encoding="utf-8", newline="\n") as stream:
            for documents, foldable, titled in sources:
                for document in documents:
                    stream.write(_line(document))
                    content = f"{document.title}\0{document.text}" if titled else document.text
                    self._ids.append(id_hash(document.id))
                    self._contents.frombytes(
                        hashlib.blake2b(content.encode(), digest_size=16).digest()
                    )
                    self._foldable.append(foldable)
        suspects = self._suspects()
        return self._rewrite(suspects, report) if suspects else len(self._ids)

    def _suspects(self) -> set[int]:
        """Rows whose id, or whose text, occurs several times."""
        ids = np.frombuffer(self._ids, np.uint64)
        foldable = np.flatnonzero(np.frombuffer(self._foldable, np.uint8))
        contents = np.frombuffer(self._contents, np.uint64).reshape(-1, 2)[foldable]
        order = np.lexsort((contents[:, 1], contents[:, 0]))
        same = (contents[order[1:]] == contents[order[:-1]]).all(axis=1)
        rows = set(foldable[order[1:][same]].tolist()) | set(foldable[order[:-1][same]].tolist())
        order = np.argsort(ids, kind="stable")
        same = ids[order[1:]] == ids[order[:-1]]
        return rows | set(order[1:][same].tolist()) | set(order[:-1][same].tolist())

    def _rewrite(self, suspects: set[int], report: CollectReport) -> int:
        """Write the file again without repeated documents; the first of each is kept."""
        contents = np.frombuffer(self._contents, np.uint64).reshape(-1, 2)
        repeats = _Repeats(report)
        kept = 0
        first = self._path.with_name(f"first-{CORPUS}")
        os.replace(self._path, first)
        with open(first, "rb") as lines, open(self._path, "wb") as stream:
            for row, line in enumerate(lines):
                if row in suspects:
                    doc_id, content = json.loads(line)["_id"], contents[row].tobytes()
                    if repeats.add(doc_id, content, bool(self._foldable[row])):
                        continue
                stream.write(line)
                kept += 1
        first.unlink()
        return kept


class _Repeats:
    """Documents whose ids or texts occur several times."""

    def __init__(self, report: CollectReport) -> None:
        self._report = report
        self._contents: dict[str, bytes] = {}
        self._first_ids: dict[bytes, str] = {}

    def add(self, doc_id: str, content: bytes, foldable: bool) -> bool:
        """Whether a document repeats an earlier one; this is reported.

        Raises:
            InputError: it has the id of an earlier one and another text.
        """
        if doc_id in self._contents:
            if self._contents[doc_id] != content:
                raise InputError(
                    f"the document id {doc_id!r} occurs twice with different texts. Rename or"
                    " remove one of the documents; --id - makes the ids of tables from file name"
                    " and row number."
                )
            self._report.fold(doc_id, doc_id)
            return True
        self._contents[doc_id] = content
        if not foldable:
            return False
        first = self._first_ids.setdefault(content, doc_id)
        if first != doc_id:
            self._report.fold(doc_id, first)
        return first != doc_id


def _line(document: Document) -> str:
    entry = {"_id": document.id, "title": document.title, "text": document.text}
    return json.dumps(entry, ensure_ascii=False) + "\n"
