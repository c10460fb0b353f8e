"""What the exports to all engines share: files of documents, each written and resumed alone."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from irdistill.bundles.indexed_rows import IndexedRows, IndexedText
from irdistill.bundles.package_options import PackageOptions
from irdistill.bundles.staged_package import StagedPackage
from irdistill.bundles.stored_rows import vectors_of
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, OptionError
from irdistill.search.vectors.vector_store import Store
from irdistill.students.student_base import Student

_BLOCK = 512
"""Documents whose vectors and texts are in memory."""
_SAFE_TERM = re.compile(r"[^\s.\x00-\x1f\x7f]+")
_NUMBERED = re.compile(r"#\d+")


@dataclass(frozen=True)
class EngineIndex:
    """What is exported.

    Attributes:
        name: of the index, collection or table.
        kind: dense, sparse or late-interaction.
        dimension: of the vectors; of sparse ones the size of the vocabulary.
        similarity: cosine (the vectors have length 1), dot, maxsim or meanmaxsim.
        passages: whether a row is a passage of a document.
        texts: whether titles and texts are included.
        terms: of a sparse model, the name of each term.
        facts: the contents of the manifest.
    """

    name: str
    kind: str
    dimension: int
    similarity: str
    passages: bool
    texts: bool
    terms: tuple[str, ...]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any], name: str, student: Student) -> EngineIndex:
        """The index of the contents of a package."""
        terms: tuple[str, ...] = ()
        if facts["kind"] == "sparse":
            tokenizer: Any = student._first("document").tokenizer
            terms = term_names(tokenizer.get_vocab(), facts["dimension"])
        keys = ("kind", "dimension", "similarity", "passages", "texts")
        return cls(name=name, terms=terms, facts=facts, **{key: facts[key] for key in keys})


class EngineFormat(ABC):
    """How one engine wants its files.

    Attributes:
        title: name of the engine in messages.
        kinds: the kinds of models whose vectors it holds.
        why_not: why it holds no others, after "has no field for the vectors of a KIND model".
        most_dimensions: of a dense vector; None if the engine has no limit.
        part_documents: documents per file.
        part_name: name of a file of documents, with a field for its number.
        head, between, tail: texts around the documents of a file.
    """

    title: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    why_not: ClassVar[str] = ""
    most_dimensions: ClassVar[int | None] = None
    part_documents: ClassVar[int] = 1000
    part_name: ClassVar[str]
    head: ClassVar[str] = ""
    between: ClassVar[str] = ""
    tail: ClassVar[str] = ""

    def check(self, index: EngineIndex, ids: Iterable[str]) -> None:
        """Refuse vectors and document ids that the engine cannot hold, before texts are encoded.

        Raises:
            OptionError: it has no field for the vectors.
            InputError: it cannot hold an id.
        """
        if index.kind not in self.kinds:
            raise OptionError(
                f"{self.title} has no field for the vectors of a {index.kind} model{self.why_not};"
                f" it holds {' and '.join(self.kinds)} ones. Late interaction can be exported to"
                " qdrant, or packaged as a bundle."
            )
        most = self.most_dimensions
        if index.kind == "dense" and most is not None and index.dimension > most:
            raise OptionError(
                f"the vectors have {index.dimension} dimensions; {self.title} holds at most {most}."
                " Truncate them with --dimension."
            )
        for doc_id in ids:
            if fault := self.id_fault(doc_id):
                raise InputError(
                    f"the document id {doc_id!r} {fault}. Change the id, or export to another"
                    " engine."
                )

    def id_fault(self, doc_id: str) -> str:
        """Why the engine cannot hold a document id; empty if it can."""
        return ""

    @abstractmethod
    def entry(self, index: EngineIndex, text: IndexedText, vector: Any) -> str:
        """The lines of one document.

        Args:
            vector: (D,) float32, (terms, weights) of a sparse one, or (tokens, D).
        """

    @abstractmethod
    def other_files(self, index: EngineIndex, parts: Sequence[str]) -> Mapping[str, str]:
        """Name and text of the files beside the documents: mapping, commands, query script."""

    def part(self, number: int) -> str:
        """The name of a file of documents."""
        return self.part_name.format(number)


def write_engine_files(
    staged: StagedPackage,
    engine: EngineFormat,
    index: EngineIndex,
    store: Store,
    rows: IndexedRows,
    present: np.ndarray,
    options: PackageOptions,
) -> None:
    """Write the documents in files of a fixed number of documents, then the other files."""
    size = options.part_documents or engine.part_documents
    parts = list(rows.blocks(present, size))
    names = [engine.part(number) for number in range(len(parts))]
    with progress(len(present), "documents", f"write for {engine.title}") as bar:
        for name, part in zip(names, parts, strict=True):

            def write(path: Path, part: np.ndarray = part) -> None:
                with open(path, "w", encoding="utf-8", newline="\n") as stream:
                    stream.write(engine.head)
                    for number, line in enumerate(_entries(engine, index, store, rows, part)):
                        stream.write((engine.between if number else "") + line)
                    stream.write(engine.tail)

            staged.write_file(name, write)
            bar.update(len(part))
    for name, text in engine.other_files(index, names).items():
        staged.write_text(name, text)


def _entries(
    engine: EngineFormat, index: EngineIndex, store: Store, rows: IndexedRows, part: np.ndarray
) -> Iterator[str]:
    for block in rows.blocks(part, _BLOCK):
        vectors = vectors_of(store, block)
        if index.kind == "sparse":
            vectors = [
                (
                    vectors.indices[vectors.indptr[row] : vectors.indptr[row + 1]],
                    vectors.data[vectors.indptr[row] : vectors.indptr[row + 1]],
                )
                for row in range(len(block))
            ]
        for text, vector in zip(rows.texts(block), vectors, strict=True):
            yield engine.entry(index, text, vector)


def compact_json(value: Any) -> str:
    """JSON on one line; characters beyond ASCII as they are.

    Examples:
        >>> compact_json({"id": "é", "n": [1, 2]})
        '{"id":"é","n":[1,2]}'
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def numbers(values: np.ndarray) -> str:
    """Float32 numbers with commas between them, in nine digits, which are exact.

    Examples:
        >>> numbers(np.array([0.1, -2.0], np.float32))
        '0.100000001,-2'
    """
    return ",".join(f"{value:.9g}" for value in values.tolist())


def payload(index: EngineIndex, text: IndexedText) -> dict[str, Any]:
    """The fields beside the vector: ``id``, ``passage`` of a passage, ``title`` and ``text``."""
    fields: dict[str, Any] = {"id": text.id}
    if text.passage is not None:
        fields["passage"] = text.passage
    return fields | ({"title": text.title, "text": text.text} if index.texts else {})


def row_id(text: IndexedText) -> str:
    """A UUID of a row, which depends on the ids of document and passage alone.

    A later export of a changed corpus therefore replaces documents instead of adding them.
    """
    return str(uuid5(NAMESPACE_URL, compact_json([text.id, text.passage])))


def term_names(vocabulary: Mapping[str, int], size: int) -> tuple[str, ...]:
    """A name without dots and spaces for each of the terms of a sparse model.

    It is the token, or ``#`` and its number if the token has such characters: fields of
    Elasticsearch refuse dots, and Lucene splits at spaces.

    Examples:
        >>> term_names({"cat": 0, ".": 1}, 3)
        ('cat', '#1', '#2')
    """
    names = [f"#{number}" for number in range(size)]
    for token, number in vocabulary.items():
        if number < size and _SAFE_TERM.fullmatch(token) and not _NUMBERED.fullmatch(token):
            names[number] = token
    return tuple(names)
