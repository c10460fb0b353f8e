"""The documents of a bundle as a collection, for BM25 over the same texts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.bundles.bundle_searcher import Searcher
from irdistill.collections import Collection, Corpus, Document, Qrels
from irdistill.collections.compiling import open_or_compile
from irdistill.collections.passage_corpus import Passages, passage_id
from irdistill.errors import OptionError
from irdistill.storage.files import cache_folder


def bundle_collection(searcher: Searcher) -> Collection:
    """The documents of a bundle, without queries. They are compiled in the cache on first use.

    Raises:
        OptionError: the bundle holds no texts.
    """
    bundle = searcher.bundle
    if not bundle.contents["texts"]:
        raise OptionError(
            f"{bundle.path} holds no texts, so its documents cannot be searched with BM25; make it"
            " again with the texts."
        )
    folder = cache_folder() / "bundle-corpora" / bundle.fingerprint
    corpus = open_or_compile(lambda: _documents(searcher), folder / "documents", str(bundle.path))
    if bundle.contents["passages"]:
        corpus = corpus.with_passages(_passages(searcher, corpus, folder))
    return Collection(str(bundle.path), corpus, {}, Qrels({}))


def _documents(searcher: Searcher) -> Iterator[Document]:
    for doc_id, rows in groupby(
        searcher.fields_of(range(len(searcher))), lambda fields: str(fields["id"])
    ):
        fields = list(rows)
        title = str(fields[0].get("title", ""))
        texts = [_text(one, title) for one in fields]
        yield Document(doc_id, title, "\n\n".join(texts))


def _text(fields: dict[str, Any], title: str) -> str:
    """The text of a row without the title, with which passages begin."""
    text = str(fields["text"])
    return text.removeprefix(title).lstrip() if "passage" in fields else text


def _passages(searcher: Searcher, corpus: Corpus, folder: Path) -> Passages:
    def rows() -> Iterator[Document]:
        for fields in searcher.fields_of(range(len(searcher))):
            yield Document(passage_id(fields["id"], fields["passage"]), "", str(fields["text"]))

    compiled = open_or_compile(rows, folder / "passages", str(searcher.bundle.path))
    counts = np.zeros(len(corpus), np.int64)
    for fields in searcher.fields_of(range(len(searcher))):
        counts[corpus.row(fields["id"])] += 1
    return Passages(compiled, np.concatenate([[0], np.cumsum(counts)]), {})
