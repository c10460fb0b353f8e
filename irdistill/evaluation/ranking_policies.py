"""What is left out of a ranking before it is measured, and how often that was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import RankedList, Run, open_run
from irdistill.runs.ranked_lists import from_table, to_table
from irdistill.runs.trec import StreamedRun

logger = logging.getLogger(__name__)

SelfMatch = Literal["keep", "drop"]
SELF_MATCH: tuple[SelfMatch, ...] = ("keep", "drop")
"""What is done with a document that has the query's own id, in suites and wherever runs are
measured; ``keep`` by default.
"""
_LOOKED_AT = 200
"""Queries whose texts are compared with the document of the same id."""


class PolicyRun(Run):
    """A run as it is counted. Nothing is copied: lists are thinned out as they are read.

    What a query excludes is always left out.

    Attributes:
        excluded, self_matches, duplicates: documents left out in the last reading.
    """

    def __init__(
        self,
        run: Run,
        collection: Collection | None,
        self_match: bool = False,
        duplicates: bool = False,
        depth: int | None = None,
    ) -> None:
        """Thin out a run.

        Args:
            collection: None where judgments alone are at hand; then nothing is excluded and
                duplicates are not known.
            self_match: leave out a document whose id is the query's own (ArguAna's and Quora's
                queries are documents).
            duplicates: leave out a document with the text, but for white space, of one ranked above
                it.
            depth: documents a query that are left at most; all where None.
        """
        super().__init__(run.manifest, run.path)
        self._run, self._corpus = run, collection.corpus if collection is not None else None
        self._excluded = _excluded(collection)
        self._self_match, self._duplicates, self._depth = self_match, duplicates, depth
        self.excluded = self.self_matches = self.duplicates = 0

    @property
    def fingerprint(self) -> str:
        """That of the run itself."""
        return self._run.fingerprint

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self._run.query_ids

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and what is left of its rows."""
        self.excluded = self.self_matches = self.duplicates = 0
        for ids, table in self._run.parts():
            yield ids, to_table(self._thinned(found) for found in from_table(table, ids))

    def __iter__(self) -> Iterator[RankedList]:
        self.excluded = self.self_matches = self.duplicates = 0
        return map(self._thinned, self._run)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._run

    def __getitem__(self, query_id: str) -> RankedList:
        return self._thinned(self._run[query_id])

    def _thinned(self, found: RankedList) -> RankedList:
        given, found = found, found.without(self._excluded.get(found.query_id, ()))
        self.excluded += len(given.doc_ids) - len(found.doc_ids)
        keep = np.ones(len(found.doc_ids), dtype=bool)
        if self._self_match:
            keep = np.array([doc != found.query_id for doc in found.doc_ids], dtype=bool)
            self.self_matches += int((~keep).sum())
        if self._duplicates:
            first = self._first_of_its_text(found)
            self.duplicates += int((keep & ~first).sum())
            keep &= first
        places = np.flatnonzero(keep)[: self._depth].tolist()
        flags = None if found.flags is None else [found.flags[place] for place in places]
        return RankedList(
            found.query_id, [found.doc_ids[place] for place in places], found.scores[places], flags
        )

    def _first_of_its_text(self, found: RankedList) -> np.ndarray:
        assert self._corpus is not None
        seen: set[str] = set()
        first = []
        for text in self._corpus.texts(self._corpus.rows(found.doc_ids)):
            words = " ".join(text.split())
            first.append(words not in seen)
            seen.add(words)
        return np.array(first, dtype=bool)


def measured_run(
    source: Run | str | Path,
    collection: Collection | None,
    self_match: SelfMatch = "keep",
    once: bool = False,
) -> Run:
    """Open a run as it is measured everywhere: without the documents that its queries exclude.

    Args:
        collection: None where judgments alone are at hand.
        self_match: ``drop`` leaves out a document that has the query's own id as well.
        once: the lists are needed once, so a TREC file may be measured while it is read.

    Raises:
        IrdistillError: the policy is unknown, or as `irdistill.runs.open_run`.
    """
    check_self_match(self_match)
    if (
        once
        and self_match == "keep"
        and not isinstance(source, Run)
        and Path(source).is_file()
        and not _excluded(collection)
    ):
        return StreamedRun(Path(source), collection)
    run = open_run(source) if collection is None else open_run(source, collection)
    if self_match == "keep" and (isinstance(run, PolicyRun) or not _excluded(collection)):
        return run
    return PolicyRun(run, collection, self_match == "drop")


def check_self_match(self_match: str) -> None:
    """Check the name of a policy.

    Raises:
        IrdistillError: there is no such policy.
    """
    if self_match not in SELF_MATCH:
        raise IrdistillError(
            f"self_match is {self_match!r}; one of {', '.join(SELF_MATCH)} was expected."
        )


def _excluded(collection: Collection | None) -> dict[str, tuple[str, ...]]:
    queries = collection.queries.values() if collection is not None else ()
    return {query.id: query.excluded for query in queries if query.excluded}


def warn_of_self_matches(
    ranks: Mapping[str, int], queries: int, collection: Collection | None, system: str
) -> None:
    """Warn that a run holds documents that are the queries themselves.

    Ids that are numbers may be the same by chance (query 12 and document 12). They count where the
    texts are the same; without texts, where half of all queries have such a document in the first
    place.

    Args:
        ranks: query -> rank of the document that has the query's own id.
        queries: how many queries are judged.
        collection: whose texts are compared; None where judgments alone are at hand.
        system: the name of the run.
    """
    if not ranks:
        return
    if all(query_id.isdecimal() for query_id in ranks):
        if collection is not None and not _same_texts(list(ranks), collection):
            return
        if collection is None and 2 * sum(rank == 1 for rank in ranks.values()) < queries:
            return
    logger.warning(
        "%s: for %d of %d queries the run holds the document that has the query's own id, as if the"
        " query were a document of the corpus (ArguAna and Quora are such sets). It counts as any"
        " other. --self-match drop (self_match: drop in a recipe or a suite) leaves it out, as BEIR"
        " does.",
        system,
        len(ranks),
        queries,
    )


def _same_texts(query_ids: list[str], collection: Collection) -> bool:
    """Whether most of these queries have the words of the document with their id, its title
    aside.
    """
    looked_at = [query_id for query_id in query_ids if query_id in collection.queries][:_LOOKED_AT]
    texts = collection.corpus.texts(collection.corpus.rows(looked_at)) if looked_at else []
    same = [
        " ".join(collection.queries[query_id].text.split()) in " ".join(text.split())
        for query_id, text in zip(looked_at, texts, strict=True)
    ]
    return 2 * sum(same) > len(same)


def with_rewrites(collection: Collection) -> Collection:
    """The collection with each query's rewrite as its text.

    Raises:
        IrdistillError: a query has no rewrite.
    """
    without = [query.id for query in collection.queries.values() if not query.rewrite]
    if without:
        raise IrdistillError(
            f"{len(without)} of {len(collection.queries)} queries of {collection.id} have no"
            f" rewrite, as {without[0]!r}; the suite asks the rewrites of this dataset."
        )
    rewritten = {
        key: replace(query, text=str(query.rewrite)) for key, query in collection.queries.items()
    }
    return replace(collection, id=f"{collection.id} (rewrites)", queries=rewritten)
