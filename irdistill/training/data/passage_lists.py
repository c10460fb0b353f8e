"""Training lists of documents that are split: each document is the passage that stands for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.collections.passage_corpus import passage_id
from irdistill.collections.split_collections import passage_view
from irdistill.runs import CompiledRun, RankedList, Run, compile_run
from irdistill.runs.named_passages import check_passages
from irdistill.runs.ranked_lists import SCHEMA, from_table
from irdistill.search.passage_choice import PassageChoice
from irdistill.storage.files import digest
from irdistill.training.data.list_source import Judgments


class PassageLists:
    """What stands for the documents of a training: one passage for each query and document.

    It is the passage that the first of the runs names, else the next, else the best by BM25. So all
    runs have the same passage of a document, and the scores of the document belong to it.

    Args:
        collection: with passages.
        runs: the runs of the training, in order.

    Raises:
        WrongCollectionError: a run names passages of another split.
    """

    def __init__(self, collection: Collection, runs: Sequence[Run]) -> None:
        check_passages(runs, collection)
        self.collection, self.runs = collection, list(runs)
        self.choice = PassageChoice(collection.corpus)
        self.view = passage_view(collection)

    def compile(self, run: Run) -> CompiledRun:
        """A run whose documents are passages, compiled."""
        return compile_run(_PassageRun(run, self), self.view.corpus)

    def numbers(self, ranked: RankedList, more: Sequence[Run] = ()) -> np.ndarray:
        """The number of the passage of each document of a list, (n,) int32.

        Args:
            more: runs that name passages too, after those of the training.
        """
        named: dict[str, int] = {}
        for run in (*self.runs, *more):
            row = run.get(ranked.query_id)
            if row is not None and row.passages is not None:
                for doc_id, number in zip(row.doc_ids, row.passages.tolist(), strict=True):
                    if number >= 0:
                        named.setdefault(doc_id, number)
        known = np.array([named.get(doc_id, -1) for doc_id in ranked.doc_ids], np.int32)
        if (known >= 0).all():
            return known
        query = self.collection.queries[ranked.query_id]
        return self.choice.best(query, ranked._replace(passages=known))

    def judgments(self) -> Judgments:
        """For each query the passages of the judged documents: row -> grade."""
        judgments: dict[str, dict[int, int]] = {}
        corpus, passages = self.collection.corpus, self.choice.passages
        for query_id, judged in self.collection.qrels.items():
            rows = corpus.find(list(judged))
            present = [doc for doc, row in zip(judged, rows.tolist(), strict=True) if row >= 0]
            judgments[query_id] = {}
            if present and query_id in self.collection.queries:
                ranked = RankedList(query_id, present, np.zeros(len(present), np.float32))
                places = passages.rows(rows[rows >= 0], self.numbers(ranked)).tolist()
                judgments[query_id] = {
                    place: judged[doc] for place, doc in zip(places, present, strict=True)
                }
        return judgments

    def siblings(self, rows: np.ndarray) -> np.ndarray:
        """All passages of the documents of some passages, (n,) int64."""
        return self.choice.passages.all_of(np.unique(self.choice.passages.documents_of(rows)))


class _PassageRun(Run):
    """A run with the passages that stand for its documents, in its order."""

    def __init__(self, run: Run, lists: PassageLists) -> None:
        super().__init__(run.manifest, run.path)
        self._run, self._lists = run, lists

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprints of the run, of the runs that name passages, and of the passages."""
        naming = [run.fingerprint for run in self._lists.runs]
        passages = self._lists.choice.passages.fingerprint
        return digest([self._run.fingerprint, digest(self.query_ids), naming, passages])

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self._run.query_ids

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self._run.num_rows

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The parts of the run, with passages for documents."""
        for query_ids, table in self._run.parts():
            ids = [
                name
                for ranked in from_table(table, query_ids)
                for name in self._named(ranked).doc_ids
            ]
            place = table.schema.get_field_index("doc_id")
            rows = table.select(SCHEMA.names)
            yield query_ids, rows.set_column(place, "doc_id", pa.array(ids, pa.string()))

    def __getitem__(self, query_id: str) -> RankedList:
        return self._named(self._run[query_id])

    def _named(self, ranked: RankedList) -> RankedList:
        if not ranked.doc_ids:
            return ranked
        numbers = self._lists.numbers(ranked, [self._run]).tolist()
        ids = [passage_id(doc, number) for doc, number in zip(ranked.doc_ids, numbers, strict=True)]
        return ranked._replace(doc_ids=ids, passages=None)
