"""What a job would take, told from a small sample: pairs, tokens, hours, bytes and money, before
any of it is spent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import t as students_t

from irdistill.collections import Collection
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs import PartEntry, RankedList, Run, parquet
from irdistill.runs.ranked_lists import ranked, to_table
from irdistill.teachers.protocol import BatchTeacher, ListwiseTeacher, TextPair
from irdistill.teachers.scoring_engine import AnyTeacher, first, open_candidates, score_part

LEAST = 5
GROUPS = 10


class EstimatedValue(NamedTuple):
    """An estimate and its 95% interval; the interval is None where the sample was a single
    group.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> EstimatedValue:
        """In another unit."""
        return EstimatedValue(*(None if part is None else part * factor for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class CostEstimate:
    """What the whole job would take on one worker like this one.

    Attributes:
        queries: of the candidates; ``sampled`` of them were scored.
        pairs: counted, not estimated: rows of the candidates, down to the depth.
        load_seconds: to load the teacher, once a worker; not part of ``hours``.
        figures: ``hours``, ``bytes`` (the run on disk), ``unscored`` rows, and whatever the teacher
            counts (``tokens``, ``requests``, ``cost`` …); ``machine_cost`` where a price an hour
            was given.
    """

    queries: int
    sampled: int
    pairs: int
    load_seconds: float
    figures: Mapping[str, EstimatedValue]

    def to_json(self) -> dict[str, Any]:
        """Plain values; of a figure ``value``, ``low`` and ``high``."""
        plain = {key: value for key, value in asdict(self).items() if key != "figures"}
        return plain | {key: figure._asdict() for key, figure in self.figures.items()}

    def lines(self) -> dict[str, str]:
        """What to print, by name."""
        shown = {
            "sample": f"{self.sampled:,} of {self.queries:,} queries",
            "pairs": f"{self.pairs:,}",
        }
        for name, figure in self.figures.items():
            show = _bytes if name == "bytes" else _hours if name == "hours" else _count
            between = (
                ""
                if figure.low is None or figure.high is None or figure.low == figure.high
                else (f"  ({show(figure.low)} to {show(figure.high)})")
            )
            shown["time" if name == "hours" else name.replace("_", " ")] = (
                show(figure.value) + between
            )
        return shown | {"loading": f"{self.load_seconds:.1f} seconds more, once a worker"}


def estimate(
    collection: Collection,
    candidates: Run | str | Path,
    teacher: AnyTeacher,
    depth: int | None = None,
    share: float = 0.01,
    seed: int = 42,
    part_queries: int = 64,
    load_seconds: float = 0.0,
    hourly_price: float | None = None,
) -> CostEstimate:
    """Score a sample of the queries' candidates, write nothing, and scale up what that took.

    With y what a group of sampled queries took and x its pairs (its lists, for a listwise teacher),
    a figure is X * sum(y) / sum(x), X being the whole job's pairs: the ratio estimator (Cochran,
    *Sampling Techniques*, 1977, chapter 6), with its interval from the spread of y - x * sum(y) /
    sum(x) over the groups (Student's t).

    A small sample gives a teacher less to do at a time than the job would, so that hours are more
    often too many than too few.

    Args:
        share: of the queries; at least 5 are scored.
        part_queries: as of the job; the sample is scored in groups of at most so many queries.
        load_seconds: what loading the teacher took; handed on.
        hourly_price: of the machine, for ``machine_cost``.

    Raises:
        IrdistillError: as ``score``; or the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise IrdistillError(
            f"a share of {share} was to be sampled; give more than 0 and at most 1."
        )
    given = open_candidates(collection, candidates, depth)
    count = min(len(given), max(LEAST, round(share * len(given))))
    chosen = np.sort(np.random.default_rng(seed).choice(len(given), count, replace=False)).tolist()
    size = min(part_queries, max(1, count // GROUPS))
    names = [given.query_ids[place] for place in chosen]
    groups = [
        [first(given[name], depth) for name in names[start : start + size]]
        for start in range(0, count, size)
    ]
    load_seconds += _warm_up(collection, groups[0], teacher)
    scored: list[RankedList] = []
    took: list[dict[str, float]] = []
    with progress(sum(map(_rows, groups)), "pairs", "estimate") as bar:
        for group in groups:
            began = time.perf_counter()
            found, usage = score_part(collection, group, teacher, bar.update)
            seconds = time.perf_counter() - began
            scored += map(ranked, found)
            nulls = sum(int(np.isnan(one.scores).sum()) for one in found)
            took.append(usage | {"hours": seconds / 3600} | ({"unscored": nulls} if nulls else {}))
    pairs = _count_rows(given, depth)
    if isinstance(teacher, ListwiseTeacher):
        units, total = np.array([len(group) for group in groups], np.float64), len(given)
    else:
        units, total = np.array([_rows(group) for group in groups], np.float64), pairs
    keys = sorted(
        {key for one in took for key in one if not key.startswith("label_mass")} - {"pairs"}
    )
    figures = {
        key: scale_up(
            units, np.array([one.get(key, 0.0) for one in took]), total, count / len(given)
        )
        for key in keys
    }
    if hourly_price is not None:
        figures["machine_cost"] = figures["hours"].times(hourly_price)
    figures["bytes"] = _size(scored, given, pairs, part_queries)
    return CostEstimate(len(given), count, pairs, load_seconds, figures)


def scale_up(units: np.ndarray, took: np.ndarray, total: float, share: float) -> EstimatedValue:
    """The ratio estimator.

    Args:
        units, took: (G,) of each group.
        total: units of the whole job. share: of all queries, that were sampled; where all were,
            nothing is uncertain.
    """
    if not units.sum():
        return EstimatedValue(0.0)
    ratio = took.sum() / units.sum()
    groups = len(units)
    if groups < 2:
        return EstimatedValue(
            float(ratio * total), *((float(ratio * total),) * 2 if share >= 1 else ())
        )
    spread = ((took - ratio * units) ** 2).sum() / (groups - 1)
    error = np.sqrt((1 - share) * spread / groups) / units.mean()
    reach = float(students_t.ppf(0.975, groups - 1) * error * total)
    return EstimatedValue(
        float(ratio * total), max(0.0, float(ratio * total) - reach), float(ratio * total) + reach
    )


def _warm_up(collection: Collection, group: Sequence[RankedList], teacher: AnyTeacher) -> float:
    """Seconds of a local model's first batch, which count as loading: kernels are chosen and memory
    is taken there.
    """
    if not isinstance(teacher, BatchTeacher) or not group[0].doc_ids:
        return 0.0
    began = time.perf_counter()
    row = collection.corpus.row(group[0].doc_ids[0])
    tokens, lengths = teacher.tokenize(
        [TextPair(collection.queries[group[0].query_id], row, collection.corpus.text(row))]
    )
    if lengths[0] > 0:
        teacher.forward(tokens, np.zeros(1, np.int64))
    return time.perf_counter() - began


def _rows(group: Sequence[RankedList]) -> int:
    return sum(len(found.doc_ids) for found in group)


def _count_rows(run: Run, depth: int | None) -> int:
    if depth is None:
        return run.num_rows
    return sum(int((table.column("rank").to_numpy() <= depth).sum()) for table in run.tables())


def _size(scored: Sequence[RankedList], run: Run, rows: int, part_queries: int) -> EstimatedValue:
    """Bytes of the run: rows as the sample's are packed, and what each part, the query ids and the
    manifest take.
    """
    empty = parquet.encode(to_table([])).size
    table = to_table(scored)
    a_row = (parquet.encode(table).size - empty) / table.num_rows if table.num_rows else 0.0
    entry = len(
        json.dumps(
            asdict(PartEntry(0, "part-00000.parquet", 0, part_queries, 6400, 0, 50_000, "0" * 64))
        )
    )
    ids = parquet.encode(pa.table({"query_id": pa.array(run.query_ids, pa.string())})).size
    # A part has its entry in the manifest, and in the journal too.
    return EstimatedValue(
        round(a_row * rows + -(-len(run) // part_queries) * (empty + 2 * entry) + ids)
    )


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _hours(value: float) -> str:
    if value >= 1:
        return f"{value:,.1f} hours"
    return f"{value * 60:.1f} minutes" if value * 60 >= 1 else f"{value * 3600:.2g} seconds"


def _bytes(value: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
