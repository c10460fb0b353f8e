"""The base class of runs: what every run can do, and its conversions to other libraries."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from irdistill.console.terminal import counted
from irdistill.errors import MissingExtraError
from irdistill.runs.label_injection import refuse_labels
from irdistill.runs.manifest import Manifest, RunIdentity
from irdistill.runs.ranked_lists import PASSAGE, SCHEMA, RankedList, from_table
from irdistill.runs.trec_writing import write_trec_lines


class Run(ABC):
    """Each query's ranked list of (document, score).

    Iterating over a run yields one `RankedList` per query, in order; ``run[query_id]`` returns the
    list of one query. Reading a run changes nothing in it.

    Attributes:
        path: the run's folder; None for a run that is not stored.
    """

    def __init__(self, manifest: Manifest | None = None, path: Path | None = None) -> None:
        self.path = path
        self._manifest = manifest

    @property
    def manifest(self) -> Manifest:
        """Identity, parts and counts."""
        assert self._manifest is not None
        return self._manifest

    @property
    def identity(self) -> RunIdentity:
        """What decides the run's numbers."""
        return self.manifest.identity

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any row or setting."""
        return self.manifest.fingerprint

    @property
    @abstractmethod
    def query_ids(self) -> list[str]:
        """All queries in order, including those with an empty list."""

    @abstractmethod
    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and its table ``query_id, doc_id, rank, score, flag``, in order.

        A run over passages has the column ``passage`` too: the number of each document's best one.
        """

    @abstractmethod
    def __getitem__(self, query_id: str) -> RankedList: ...

    @property
    def query_fingerprints(self) -> dict[str, str]:
        """Query id -> fingerprint of the query, as in `Collection.query_fingerprints`.

        Empty for a run that does not store them.
        """
        return {}

    @property
    def num_rows(self) -> int:
        """Number of (query, document) rows."""
        return sum(table.num_rows for table in self.tables())

    @property
    def num_unscored(self) -> int:
        """Number of rows without a score."""
        return sum(table.column("score").null_count for table in self.tables())

    def tables(self) -> Iterator[pa.Table]:
        """The rows of each part: ``query_id, doc_id, rank, score, flag`` (and ``passage``)."""
        return (table for _, table in self.parts())

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {query_id: position for position, query_id in enumerate(self.query_ids)}

    def __iter__(self) -> Iterator[RankedList]:
        for query_ids, table in self.parts():
            yield from from_table(table, query_ids)

    def __len__(self) -> int:
        return self.manifest.queries

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._positions

    def get(self, query_id: str) -> RankedList | None:
        """The list of one query; None if the run does not have the query."""
        return self[query_id] if query_id in self else None  # noqa: SIM401

    # -- conversions ----------------------------------------------------------------------------

    def to_dict(self, *, scored_only: bool = False) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score, best first; NaN where a document is not scored.

        Args:
            scored_only: leave out documents without a score, as pytrec_eval expects.

        Examples:
            >>> from irdistill.runs import as_run
            >>> as_run({"q": {"a": 1.0, "b": 2.5}}).to_dict()
            {'q': {'b': 2.5, 'a': 1.0}}
        """
        return {
            ranked.query_id: {
                doc_id: score
                for doc_id, score in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)
                if score == score or not scored_only
            }
            for ranked in self
        }

    def to_arrow(self) -> pa.Table:
        """All rows in one table: ``query_id, doc_id, rank, score, flag`` (and ``passage``)."""
        tables = [SCHEMA.empty_table(), *self.tables()]
        return pa.concat_tables(tables, promote_options="default")

    def to_pandas(self) -> Any:
        """A data frame as PyTerrier uses it: ``qid, docno, score, rank``.

        Ranks begin at 0, as in PyTerrier. A score is NaN where a document is not scored. The column
        ``flag`` is there only if a document has a flag, and ``passage`` if the run names passages.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        table = self.to_arrow()
        columns = {
            "qid": table.column("query_id"),
            "docno": table.column("doc_id"),
            "score": table.column("score"),
            "rank": pc.subtract(table.column("rank"), 1),
        }
        if table.column("flag").null_count < table.num_rows:
            columns["flag"] = table.column("flag")
        if PASSAGE.name in table.column_names:
            columns["passage"] = table.column(PASSAGE.name)
        _library("pandas")
        return pa.table(columns).to_pandas()

    def to_ranx(self, name: str | None = None) -> Any:
        """A `ranx.Run`, which cannot hold documents without a score: they are left out.

        Raises:
            MissingExtraError: ranx is not installed.
        """
        lists = {query: docs for query, docs in self.to_dict(scored_only=True).items() if docs}
        return _library("ranx").Run(lists, name=name)

    def to_dataset(self) -> Any:
        """A Hugging Face dataset with the columns ``query_id, doc_id, rank, score, flag``.

        Ranks begin at 1. A score is null where a document is not scored.

        Raises:
            MissingExtraError: datasets is not installed.
        """
        return _library("datasets").Dataset(self.to_arrow())

    def to_trec(self, path: str | Path, tag: str = "irdistill") -> int:
        """Write a TREC run file, compressed if the name ends in .gz, .zst, .bz2 or .xz.

        Documents without a score are left out.

        Returns:
            The number of lines.

        Raises:
            InputError: an id is empty or contains white space.
            OptionError: the tag is not one word.
            LabelLeakError: the scores contain labels.
        """
        refuse_labels(self, "exported")
        return write_trec_lines(self, Path(path), tag)

    def to_json(self) -> dict[str, Any]:
        """What the run is, and its counts, as JSON values."""
        return {
            "run": str(self.path) if self.path is not None else None,
            "kind": self.identity.kind,
            "producer": self.identity.producer,
            "collection": self.identity.collection.get("id"),
            "queries": len(self),
            "rows": self.num_rows,
            "unscored": self.num_unscored,
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        place = str(self.path) if self.path is not None else "in memory"
        counts = f"{counted(len(self), 'query')}, {counted(self.num_rows, 'row')}"
        return f"{type(self).__name__}({place!r}, {counts})"

    def _repr_html_(self) -> str:
        """The summary as a table, for notebooks."""
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for name, value in self.to_json().items()
        )
        return f"<table>{cells}</table>"


def _library(name: str) -> Any:
    """Import an optional library."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, "interchange", "this conversion of a run") from error
