"""Estimating what a scoring job takes from a sample: pairs, tokens, hours, bytes and money."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from irdistill.collections import Collection
from irdistill.collections.split_collections import passage_view, without_passages
from irdistill.console.progress_bars import progress
from irdistill.errors import OptionError
from irdistill.option_checks import check_fields
from irdistill.runs import PartEntry, RankedList, Run
from irdistill.runs.part_files import encode_table
from irdistill.runs.ranked_lists import ranked, to_table
from irdistill.teachers.function_teacher import LoadedTeacher, TeacherFunction
from irdistill.teachers.part_scoring import score_part, top_k
from irdistill.teachers.passage_reading import PassageReading
from irdistill.teachers.protocol import BatchTeacher, ListwiseTeacher, TeacherScores, TextPair
from irdistill.teachers.score_options import ScoreOptions
from irdistill.teachers.scoring_engine import open_candidates
from irdistill.teachers.teacher_card import HOSTED_KINDS, card_of
from irdistill.teachers.teacher_loading import TeacherSpec

#: The fewest queries that are sampled, and the number of groups that the sample is divided into.
MIN_QUERIES = 5
GROUPS = 10
#: Beginnings of the names of sums that only give a mean.
_MEANS = ("label_mass", "agreement")


@dataclass(frozen=True)
class EstimateOptions:
    """Options of `estimate_cost`."""

    sample: Annotated[
        float,
        Field(gt=0, le=1, description="Share of the queries that is scored (at least 5 queries)."),
    ] = 0.01
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="Random seed.")] = 42
    hourly_price: Annotated[
        float | None, Field(ge=0, description="Price of the machine per hour.")
    ] = None
    dry_run: Annotated[
        bool,
        Field(
            description="Of a hosted teacher: send nothing; count the requests and tokens of the"
            " whole job, and their cost by the card's prices."
        ),
    ] = False

    def __post_init__(self) -> None:
        check_fields(self)


class EstimatedValue(NamedTuple):
    """An estimate and its 95% interval; None where the sample was a single group."""

    value: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> EstimatedValue:
        """The estimate in another unit."""
        return EstimatedValue(
            self.value * factor,
            None if self.low is None else self.low * factor,
            None if self.high is None else self.high * factor,
        )


@dataclass(frozen=True)
class CostEstimate:
    """What a scoring job takes on one worker like this one.

    Attributes:
        queries: number of queries of the candidates.
        sampled: number of queries that were scored; 0 for a dry run.
        pairs: rows of the candidates down to rank k; counted, not estimated, unless documents are
            split into passages.
        load_seconds: seconds to load the teacher, once per worker; not part of ``hours``.
        figures: ``hours``, ``bytes`` (size of the run), ``unscored`` rows, and what the teacher
            counts (``tokens``, ``requests``, ``cost``, …); ``machine_cost`` if a price per hour
            was given.
    """

    queries: int
    sampled: int
    pairs: int
    load_seconds: float
    figures: Mapping[str, EstimatedValue]

    def to_json(self) -> dict[str, Any]:
        """Plain values; each figure has ``value``, ``low`` and ``high``."""
        plain = {key: value for key, value in asdict(self).items() if key != "figures"}
        return plain | {key: figure._asdict() for key, figure in self.figures.items()}

    def lines(self) -> dict[str, str]:
        """The figures as text, by name."""
        sample = f"{self.sampled:,} of {self.queries:,} queries"
        shown = {
            "sample": sample if self.sampled else "none; nothing was sent",
            "pairs": f"{self.pairs:,}",
        }
        for name, figure in self.figures.items():
            show = _bytes if name == "bytes" else _hours if name == "hours" else _count
            text = show(figure.value)
            if figure.low is not None and figure.high is not None and figure.low != figure.high:
                text += f"  ({show(figure.low)} to {show(figure.high)})"
            shown["time" if name == "hours" else name.replace("_", " ")] = text
        if not self.sampled:
            return shown
        return shown | {"loading": f"{self.load_seconds:.1f} seconds more, once per worker"}


def estimate_cost(
    collection: Collection,
    candidates: Run | str | Path,
    teacher: str | TeacherFunction | LoadedTeacher,
    options: ScoreOptions | None = None,
    estimate: EstimateOptions | None = None,
) -> CostEstimate:
    """Score a sample of the queries' candidates without writing a run, and scale up what it took.

    With y what a group of sampled queries took and x its pairs (its lists, for a listwise
    teacher), a figure is X * sum(y) / sum(x), where X is the number of pairs of the whole job: the
    ratio estimator (Cochran, *Sampling Techniques*, 1977, chapter 6). Its interval comes from the
    spread of y - x * sum(y) / sum(x) over the groups (Student's t).

    A small sample gives the teacher smaller batches than the job, so hours are overestimated more
    often than underestimated.
    """
    options, estimate = options or ScoreOptions(), estimate or EstimateOptions()
    options.check_passages(collection)
    if options.aggregate == "whole":
        collection = without_passages(collection)
    run = open_candidates(collection, candidates)
    split = collection.corpus.passages is not None
    view = passage_view(collection) if split else collection
    if estimate.dry_run:
        return _foresee(collection, run, options.spec(teacher), options)
    began = time.perf_counter()
    loaded = options.spec(teacher).load(view.corpus)
    load_seconds = time.perf_counter() - began
    documents = groups = _sample_groups(run, options, estimate)
    reading = PassageReading.of(collection, run, options, loaded.identity) if split else None
    if reading is not None:
        groups = [list(map(reading.expand, group)) for group in documents]
    count = sum(map(len, groups))
    load_seconds += _warm_up(view, groups[0], loaded)
    scored: list[RankedList] = []
    took: list[dict[str, float]] = []
    with progress(sum(map(_rows, groups)), "pairs", "estimate") as bar:
        for whole, group in zip(documents, groups, strict=True):
            began = time.perf_counter()
            scored_lists, usage = score_part(view, group, loaded, bar.update)
            seconds = time.perf_counter() - began
            if reading is not None:
                pairs_of_lists = zip(whole, scored_lists, strict=True)
                scored_lists = [reading.collapse(*pair) for pair in pairs_of_lists]
            scored += map(ranked, scored_lists)
            nulls = sum(int(np.isnan(scores.scores).sum()) for scores in scored_lists)
            took.append(usage | {"hours": seconds / 3600} | ({"unscored": nulls} if nulls else {}))
    rows = pairs = _count_rows(run, options.k)
    if reading is not None:
        pairs = round(rows * sum(map(_rows, groups)) / max(1, sum(map(_rows, documents))))
    if isinstance(loaded, ListwiseTeacher):
        units, total = np.array([len(group) for group in groups], np.float64), len(run)
    else:
        units, total = np.array([_rows(group) for group in groups], np.float64), pairs
    keys = {key for usage in took for key in usage if not key.startswith(_MEANS)} - {"pairs"}
    figures = {
        key: scale_up(
            units, np.array([usage.get(key, 0.0) for usage in took]), total, count / len(run)
        )
        for key in sorted(keys)
    }
    if estimate.hourly_price is not None:
        figures["machine_cost"] = figures["hours"].times(estimate.hourly_price)
    figures["bytes"] = _size(scored, run, rows, options.part_queries)
    return CostEstimate(len(run), count, pairs, load_seconds, figures)


def _foresee(
    collection: Collection, run: Run, spec: TeacherSpec, options: ScoreOptions
) -> CostEstimate:
    """What a hosted teacher would send for all queries; it needs no key."""
    name = spec.teacher
    if not isinstance(name, str) or card_of(name, spec.kind).kind not in HOSTED_KINDS:
        raise OptionError(
            f"a dry run was asked of the teacher {spec.name!r}, which is not hosted; only hosted"
            " teachers know what they would send. Leave out dry_run to score a sample."
        )
    split = collection.corpus.passages is not None
    view = passage_view(collection) if split else collection
    dry = _DryTeacher(replace(spec, settings={**spec.settings, "replay": True}), view)
    reading = PassageReading.of(collection, run, options, dry.identity) if split else None
    totals: dict[str, float] = {}
    size, query_ids = options.part_queries, run.query_ids
    with progress(len(run), "queries", "count") as bar:
        for start in range(0, len(query_ids), size):
            group = [top_k(run[name], options.k) for name in query_ids[start : start + size]]
            expanded = group if reading is None else list(map(reading.expand, group))
            for key, amount in score_part(view, expanded, dry)[1].items():
                totals[key] = totals.get(key, 0) + amount
            bar.update(len(group))
    pairs = round(totals.pop("pairs", 0))
    figures = {key: EstimatedValue(totals[key]) for key in sorted(totals)}
    return CostEstimate(len(run), 0, pairs, 0.0, figures)


class _DryTeacher:
    """Scores nothing; its usage is what a hosted teacher would take."""

    def __init__(self, spec: TeacherSpec, collection: Collection) -> None:
        self._teacher: Any = spec.load(collection.corpus)
        self.identity: Mapping[str, Any] = self._teacher.identity

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """No scores, and the usage of the pairs."""
        values = np.full(len(pairs), np.nan, np.float32)
        return TeacherScores(values, ["not sent"] * len(pairs), self._teacher.foresee(pairs))


def _sample_groups(
    run: Run, options: ScoreOptions, estimate: EstimateOptions
) -> list[list[RankedList]]:
    """The lists of the sampled queries, in groups of at most the queries of a part."""
    count = min(len(run), max(MIN_QUERIES, round(estimate.sample * len(run))))
    rng = np.random.default_rng(estimate.seed)
    chosen = np.sort(rng.choice(len(run), count, replace=False)).tolist()
    size = min(options.part_queries, max(1, count // GROUPS))
    lists = [top_k(run[run.query_ids[place]], options.k) for place in chosen]
    return [lists[start : start + size] for start in range(0, count, size)]


def scale_up(units: np.ndarray, took: np.ndarray, total: float, share: float) -> EstimatedValue:
    """The ratio estimator.

    Args:
        units: (G,) units of each group.
        took: (G,) what each group took.
        total: units of the whole job.
        share: share of the queries that were sampled; the estimate is exact for 1.
    """
    if not units.sum():
        return EstimatedValue(0.0)
    ratio = took.sum() / units.sum()
    value, groups = float(ratio * total), len(units)
    if groups < 2:
        return EstimatedValue(value, value, value) if share >= 1 else EstimatedValue(value)
    spread = ((took - ratio * units) ** 2).sum() / (groups - 1)
    error = np.sqrt((1 - share) * spread / groups) / units.mean()
    from scipy.stats import t as students_t  # which takes a second to load

    reach = float(students_t.ppf(0.975, groups - 1) * error * total)
    return EstimatedValue(value, max(0.0, value - reach), value + reach)


def _warm_up(collection: Collection, group: Sequence[RankedList], teacher: LoadedTeacher) -> float:
    """Seconds of a local model's first batch; they count as loading, because kernels are chosen and
    memory is allocated there.
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
    return sum(len(ranked_list.doc_ids) for ranked_list in group)


def _count_rows(run: Run, k: int | None) -> int:
    if k is None:
        return run.num_rows
    return sum(int((table.column("rank").to_numpy() <= k).sum()) for table in run.tables())


def _size(scored: Sequence[RankedList], run: Run, rows: int, part_queries: int) -> EstimatedValue:
    """Bytes of the run: its rows, packed as the sample's are, its query ids and its manifest."""
    empty = encode_table(to_table([])).size
    table = to_table(scored)
    row_bytes = (encode_table(table).size - empty) / table.num_rows if table.num_rows else 0.0
    entry = len(
        json.dumps(
            asdict(PartEntry(0, "part-00000.parquet", 0, part_queries, 6400, 0, 50_000, "0" * 64))
        )
    )
    ids = encode_table(pa.table({"query_id": pa.array(run.query_ids, pa.string())})).size
    # A part has an entry in the manifest and one in the journal.
    return EstimatedValue(
        round(row_bytes * rows + -(-len(run) // part_queries) * (empty + 2 * entry) + ids)
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
