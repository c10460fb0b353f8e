"""The documents that are left out of a ranking before it is measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.errors import InputError, OptionError
from irdistill.runs import RankedList, Run, as_run
from irdistill.runs.label_injection import refuse_labels
from irdistill.runs.ranked_lists import from_table, to_table
from irdistill.runs.trec import StreamedRun

logger = logging.getLogger(__name__)

RunSource = Run | str | Path | Mapping[str, Mapping[str, float]] | Any
"""A run, or whatever `irdistill.runs.as_run` makes one of."""
SelfMatch = Literal["keep", "drop"]
SELF_MATCH: tuple[SelfMatch, ...] = ("keep", "drop")
"""What happens to a document that has the query's own id; ``keep`` is the default everywhere."""
_COMPARED = 200
"""Number of queries whose texts are compared with the document of the same id."""


class LeftOut(NamedTuple):
    """Numbers of documents that a `PolicyRun` leaves out, by reason."""

    excluded: int
    self_matches: int
    duplicates: int


class PolicyRun(Run):
    """A run as it is measured: some documents are left out of its lists.

    Documents that a query excludes are always left out. Reading does not change the object.

    Args:
        collection: None if only judgments are available; then nothing is excluded and duplicates
            are not known.
        self_match: leave out a document whose id is the query's own (in ArguAna and Quora queries
            are documents).
        duplicates: leave out a document with the text, apart from white space, of a document
            ranked above it.
        k: maximum number of documents per query; all if None.
    """

    def __init__(
        self,
        run: Run,
        collection: Collection | None,
        self_match: bool = False,
        duplicates: bool = False,
        k: int | None = None,
    ) -> None:
        super().__init__(run.manifest, run.path)
        self._run, self._corpus = run, collection.corpus if collection is not None else None
        self._excluded = _excluded(collection)
        self._self_match, self._duplicates, self._k = self_match, duplicates, k

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the run itself."""
        return self._run.fingerprint

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self._run.query_ids

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and remaining rows."""
        for ids, table in self._run.parts():
            yield ids, to_table(map(self._filtered, from_table(table, ids)))

    def __iter__(self) -> Iterator[RankedList]:
        return map(self._filtered, self._run)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._run

    def __getitem__(self, query_id: str) -> RankedList:
        return self._filtered(self._run[query_id])

    @cached_property
    def left_out(self) -> LeftOut:
        """Counts of the documents that are left out; reads the run."""
        counts = [(0, 0, 0), *(self._policy(whole)[1] for whole in self._run)]
        return LeftOut(*np.sum(counts, axis=0).tolist())

    def _filtered(self, whole: RankedList) -> RankedList:
        return self._policy(whole)[0]

    def _policy(self, whole: RankedList) -> tuple[RankedList, LeftOut]:
        """What remains of a list, and the counts of what is left out."""
        ranked = whole.without(self._excluded.get(whole.query_id, ()))
        excluded, self_matches, duplicates = len(whole.doc_ids) - len(ranked.doc_ids), 0, 0
        keep = np.ones(len(ranked.doc_ids), dtype=bool)
        if self._self_match:
            keep = np.array([doc != ranked.query_id for doc in ranked.doc_ids], dtype=bool)
            self_matches = int((~keep).sum())
        if self._duplicates:
            first = self._first_of_its_text(ranked)
            duplicates = int((keep & ~first).sum())
            keep &= first
        places = np.flatnonzero(keep)[: self._k].tolist()
        return ranked.take(places), LeftOut(excluded, self_matches, duplicates)

    def _first_of_its_text(self, ranked: RankedList) -> np.ndarray:
        assert self._corpus is not None
        texts = self._corpus.texts(self._corpus.rows(ranked.doc_ids))
        words = [" ".join(text.split()) for text in texts]
        first = {text: place for place, text in reversed(list(enumerate(words)))}
        return np.array([first[text] == place for place, text in enumerate(words)], dtype=bool)


def measured_run(
    source: RunSource,
    collection: Collection | None,
    self_match: SelfMatch = "keep",
    once: bool = False,
) -> Run:
    """Open a run without the documents that its queries exclude, as all verbs measure it.

    Args:
        collection: None if only judgments are available.
        self_match: ``drop`` also leaves out a document that has the query's own id.
        once: the lists are read once, so a TREC file can be measured while it is read.

    Raises:
        LabelLeakError: the scores of the run contain labels.
    """
    check_self_match(self_match)
    keep = self_match == "keep"
    path = Path(source) if once and keep and isinstance(source, str | Path) else None
    if path is not None and path.is_file() and not _excluded(collection):
        return StreamedRun(path, collection)
    run = as_run(source, collection)
    refuse_labels(run, "measured")
    if keep and (isinstance(run, PolicyRun) or not _excluded(collection)):
        return run
    return PolicyRun(run, collection, not keep)


def check_self_match(self_match: str) -> None:
    """Check the name of a policy."""
    if self_match not in SELF_MATCH:
        raise OptionError(
            f"self_match is {self_match!r}; one of {', '.join(SELF_MATCH)} was expected."
        )


def _excluded(collection: Collection | None) -> dict[str, tuple[str, ...]]:
    queries = collection.queries.values() if collection is not None else ()
    return {query.id: query.excluded for query in queries if query.excluded}


def warn_of_self_matches(
    ranks: Mapping[str, int], queries: int, collection: Collection | None, system: str
) -> None:
    """Warn that a run has documents that are the queries themselves.

    Numeric ids may be equal by chance (query 12 and document 12). They count if most texts are the
    same, or, without texts, if half of all queries have such a document at rank 1.

    Args:
        ranks: query -> rank of the document that has the query's own id.
        queries: number of judged queries.
        collection: for the texts; None if only judgments are available.
        system: name of the run.
    """
    if not ranks:
        return
    if all(query_id.isdecimal() for query_id in ranks):
        if collection is not None and not _same_texts(list(ranks), collection):
            return
        if collection is None and 2 * sum(rank == 1 for rank in ranks.values()) < queries:
            return
    logger.warning(
        "%s: for %d of %d queries the run has the document with the query's own id, as if the query"
        " were a document of the corpus (as in ArguAna and Quora). It counts as any other document."
        " --self-match drop (self_match: drop in a recipe or a suite) leaves it out, as BEIR does.",
        system,
        len(ranks),
        queries,
    )


def _same_texts(query_ids: list[str], collection: Collection) -> bool:
    """Whether most queries have the text of the document with their id, apart from its title."""
    compared = [query_id for query_id in query_ids if query_id in collection.queries][:_COMPARED]
    texts = collection.corpus.texts(collection.corpus.rows(compared)) if compared else []
    same = [
        " ".join(collection.queries[query_id].text.split()) in " ".join(text.split())
        for query_id, text in zip(compared, texts, strict=True)
    ]
    return 2 * sum(same) > len(same)


def with_rewrites(collection: Collection) -> Collection:
    """The collection with each query's rewrite as its text."""
    without = [query.id for query in collection.queries.values() if not query.rewrite]
    if without:
        raise InputError(
            f"{len(without)} of {len(collection.queries)} queries of {collection.id} have no"
            f" rewrite, such as {without[0]!r}; the suite uses the rewrites of this dataset."
        )
    rewritten = {
        key: replace(query, text=str(query.rewrite)) for key, query in collection.queries.items()
    }
    return replace(collection, id=f"{collection.id} (rewrites)", queries=rewritten)
