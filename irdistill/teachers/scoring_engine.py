"""The verb *score*: teacher x collection x run -> run. The one loop that every teacher is run
by.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from irdistill.collections import Collection
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget, run_batches
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.runs import RankedList, Run, RunIdentity, RunWriter, check_out, open_run
from irdistill.runs.opening import subset_for
from irdistill.teachers.protocol import (
    NO_TOKENS,
    TOO_LONG,
    BatchTeacher,
    ListwiseTeacher,
    PartialOrder,
    Teacher,
    TeacherScores,
    TextPair,
)
from irdistill.teachers.teacher_spec import TeacherSpec
from irdistill.teachers.unscored import report_unscored

AnyTeacher = Teacher | BatchTeacher | ListwiseTeacher
Done = Callable[[int], Any]

logger = logging.getLogger(__name__)

EMPTY, EMPTY_QUERY = "empty text", "empty query"


class ScoredPart(NamedTuple):
    """A part's number in the run, its lists with the teacher's scores, and what the teacher used up
    for them.
    """

    number: int
    lists: list[RankedList]
    usage: dict[str, float]


class Scorer(Protocol):
    """What scores parts: this process, or workers elsewhere."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's."""
        ...

    def score(
        self, parts: Iterable[tuple[int, Sequence[RankedList]]], done: Done
    ) -> Iterator[ScoredPart]:
        """Score numbered parts; they come back in any order. ``done`` is told how many rows were
        finished.
        """
        ...


class ScoringEngine(Protocol):
    """Where a job runs."""

    def start(self, collection: Collection, teacher: TeacherSpec) -> AbstractContextManager[Scorer]:
        """Have the teacher loaded wherever parts are to be scored."""
        ...


class LocalScorer:
    """Scores parts one after another in this process."""

    def __init__(self, collection: Collection, teacher: AnyTeacher) -> None:
        self.collection, self.teacher = collection, teacher

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's."""
        return self.teacher.identity

    def score(
        self, parts: Iterable[tuple[int, Sequence[RankedList]]], done: Done
    ) -> Iterator[ScoredPart]:
        """Score parts in their order."""
        for number, lists in parts:
            yield ScoredPart(number, *score_part(self.collection, lists, self.teacher, done))


def score(
    collection: Collection,
    candidates: Run | str | Path,
    teacher: AnyTeacher | TeacherSpec,
    out: str | Path,
    depth: int | None = None,
    shard: tuple[int, int] | None = None,
    part_queries: int = 64,
    overwrite: bool = False,
    engine: ScoringEngine | None = None,
) -> Run:
    """Score the candidates of every query; a stopped job goes on where it was and ends with the
    same bytes.

    A part (``part_queries`` queries) is scored by itself: its pairs, each once, are sorted by
        length and cut into
    batches of a token budget. So parts give the same numbers in any order, on any shard, on any
    worker. A listwise teacher gets the part's lists as they are, and what it leaves out is null
    with a flag.

    Args:
        candidates: whose documents are scored.
        teacher: a teacher, or how to make it; an engine needs the latter, for its workers load it
            themselves.
        depth: only the first so many documents a query.
        shard: (i, n) scores every n-th part from the i-th (from 1); ``runs.merge`` joins the
            shards.
        part_queries: what a kill can cost at most.
        engine: this process where None; see ``irdistill.teachers.ray_scoring``.

    Raises:
        NothingScoredError: the teacher scored no document. The run is complete and saved all the
            same.
        IrdistillError: the candidates belong to another collection, ``out`` holds another run, a
            score is NaN or infinite, or the disk is full. What was written stays.
    """
    given = open_candidates(collection, candidates, depth)
    check_out(out, overwrite, [given])
    with _start(collection, teacher, engine) as scorer:
        identity = RunIdentity(
            "teacher",
            dict(scorer.identity),
            collection.describe(),
            given.fingerprint,
            {"depth": depth},
        )
        with RunWriter(
            out,
            identity,
            given.query_ids,
            part_queries,
            shard,
            overwrite,
            fingerprints=collection.query_fingerprints,
        ) as writer:
            pending = writer.pending()
            left = sum(len(ids) for _, ids in pending)
            parts = (
                (number, [first(given[query_id], depth) for query_id in ids])
                for number, ids in pending
            )
            with progress(left * (depth or _mean_depth(given)), "pairs", "score") as bar:
                warned = False
                for part in scorer.score(parts, bar.update):
                    writer.write_part(*part)
                    warned = warned or _warn_of_nothing(part)
            run = writer.finish()
    report_truncation(run, str(identity.producer.get("model", "the teacher")))
    report_unscored(run)
    return run


def _warn_of_nothing(part: ScoredPart) -> bool:
    """Warn, long before the end, of a part in which nothing was scored; whether that was needed."""
    flags = Counter(flag for one in part.lists for flag in one.flags or ())
    if not part.lists or not flags or not all(np.isnan(one.scores).all() for one in part.lists):
        return False
    logger.warning(
        "WARNING: the teacher scored none of the %d documents of part %d (most often: %s); stop the"
        " job unless you expect this",
        sum(flags.values()),
        part.number,
        flags.most_common(1)[0][0],
    )
    return True


def open_candidates(collection: Collection, candidates: Run | str | Path, depth: int | None) -> Run:
    """Open the run whose documents are to be scored.

    Raises:
        IrdistillError: it belongs to another collection, or the depth is below 1.
    """
    if depth is not None and depth < 1:
        raise IrdistillError(
            f"depth={depth} was asked for; give the number of documents a query, at least 1."
        )
    given = subset_for(open_run(candidates, collection), collection)
    if not len(given):
        raise IrdistillError(
            f"the candidates have no query of {collection.id}; score candidates of this collection."
        )
    return given


def _start(
    collection: Collection, teacher: AnyTeacher | TeacherSpec, engine: ScoringEngine | None
) -> AbstractContextManager[Scorer]:
    if engine is None:
        built = teacher.build(collection.corpus) if isinstance(teacher, TeacherSpec) else teacher
        return nullcontext(LocalScorer(collection, built))
    if not isinstance(teacher, TeacherSpec):
        raise IrdistillError(
            f"an engine was given the teacher {type(teacher).__name__}, which is loaded already;"
            " its workers load the teacher themselves, so give a TeacherSpec."
        )
    return engine.start(collection, teacher)


def _mean_depth(run: Run) -> int:
    return max(1, run.num_rows // max(1, len(run)))


def first(found: RankedList, depth: int | None) -> RankedList:
    """The first so many documents of a list."""
    return (
        found
        if depth is None
        else RankedList(found.query_id, found.doc_ids[:depth], found.scores[:depth])
    )


def score_part(
    collection: Collection,
    lists: Sequence[RankedList],
    teacher: AnyTeacher,
    done: Done = lambda count: None,
) -> tuple[list[RankedList], dict[str, float]]:
    """Score one part: each unique pair once, or each list as a whole; empty documents and queries
    are never given to a teacher.

    Nothing is remembered from one part to the next, not even a token budget that was halved:
    batches decide the last digits of a score, and a part must give the same bytes whatever was
    scored before it.

    Returns:
        The lists with the teacher's scores, in the order given, and what was used up.
    """
    corpus = collection.corpus
    rows = [corpus.rows(found.doc_ids) for found in lists]
    needed = np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)
    texts = dict(zip(needed.tolist(), corpus.texts(needed), strict=True))
    given = [
        [TextPair(collection.queries[found.query_id], row, texts[row]) for row in own.tolist()]
        for found, own in zip(lists, rows, strict=True)
    ]
    if isinstance(teacher, ListwiseTeacher):
        return _rank_lists(lists, given, teacher, done)
    places: dict[tuple[Any, ...], int] = {}
    pairs: list[TextPair] = []
    where: list[list[int]] = []
    for own_pairs in given:
        line = []
        for pair in own_pairs:
            if not pair.text.strip() or not pair.query.text.strip():
                line.append(-2 if pair.text.strip() else -1)
                continue
            key = (pair.query.text, pair.query.history, pair.row)
            if key not in places:
                places[key] = len(pairs)
                pairs.append(pair)
            line.append(places[key])
        where.append(line)
    before = snapshot(teacher)
    result, tokens = score_pairs(teacher, pairs, done=done)
    _check(result, pairs, corpus.id)
    values = np.append(result.values, np.full(2, np.nan, np.float32))
    flags = [*(result.flags or [None] * len(pairs)), EMPTY_QUERY, EMPTY]
    scored = [
        RankedList(
            found.query_id,
            found.doc_ids,
            values[line] if line else np.empty(0, np.float32),
            [flags[place] for place in line],
        )
        for found, line in zip(lists, where, strict=True)
    ]
    usage: dict[str, float] = {"pairs": len(pairs)}
    usage |= ({"tokens": tokens} if tokens else {}) | dict(result.usage)
    return scored, usage | _truncation_usage(changes(snapshot(teacher), before))


def _truncation_usage(counts: Mapping[str, Truncation]) -> dict[str, float]:
    """The usage that says what a teacher did not read of a part's texts. Queries are named where
    one was cut; documents always, and pairs by what was cut of them, as their number and tokens are
    named anyway.
    """
    usage: dict[str, float] = {}
    for kind, one in counts.items():
        if kind == "document" and one.read:
            usage |= one.usage(kind)
        elif one.cut:
            usage |= {key: value for key, value in one.usage(kind).items() if key.endswith("_cut")}
    return usage


def run_truncation(run: Run) -> dict[str, Truncation]:
    """What the teacher of a scored run did not read of its texts, by their kind."""
    usage = run.manifest.usage
    return {
        "pair": Truncation.from_usage({**usage, "pairs_tokens": usage.get("tokens", 0)}, "pair"),
        "document": Truncation.from_usage(usage, "document"),
    }


def truncation_shares(run: Run) -> dict[str, float]:
    """The shares of texts and tokens that were cut, for a table of results."""
    return {
        name: share
        for kind, counts in run_truncation(run).items()
        for name, share in counts.shares(kind).items()
    }


def report_truncation(run: Run, model: str) -> None:
    """Say how much of the texts of a scored run its teacher did not read."""
    for kind, counts in run_truncation(run).items():
        counts.report(kind, model, logger)
    usage = run.manifest.usage
    for name in ("queries", "passages"):
        if cut := int(usage.get(f"{name}_cut", 0)):
            logger.warning(
                "%d %s were longer than %s reads, and their ends were left out", cut, name, model
            )


def _rank_lists(
    lists: Sequence[RankedList],
    given: Sequence[Sequence[TextPair]],
    teacher: ListwiseTeacher,
    done: Done,
) -> tuple[list[RankedList], dict[str, float]]:
    kept = [
        [place for place, pair in enumerate(own) if pair.text.strip() and pair.query.text.strip()]
        for own in given
    ]
    asked = [number for number, own in enumerate(kept) if own]
    orders = dict(
        zip(
            asked,
            teacher.rank([[given[number][place] for place in kept[number]] for number in asked]),
            strict=True,
        )
    )
    scored: list[RankedList] = []
    usage: dict[str, float] = {"pairs": sum(map(len, kept))}
    for number, (found, pairs, own) in enumerate(zip(lists, given, kept, strict=True)):
        values = np.full(len(found.doc_ids), np.nan, dtype=np.float32)
        flags: list[str | None] = [EMPTY_QUERY if pair.text.strip() else EMPTY for pair in pairs]
        if own:
            order = orders[number]
            values[own] = _values(order, found.query_id, len(own))
            for place, flag in zip(own, order.flags, strict=True):
                flags[place] = flag
            for key, value in order.usage.items():
                usage[key] = usage.get(key, 0) + value
        scored.append(RankedList(found.query_id, found.doc_ids, values, flags))
        done(len(found.doc_ids))
    return scored, usage


def _values(found: PartialOrder, query_id: str, count: int) -> np.ndarray:
    """(count,) float32: the method's own scores, or count for the first of the order, count - 1 for
    the next, and so on.
    """
    if (
        len(set(found.order)) != len(found.order)
        or not set(found.order) <= set(range(count))
        or len(found.flags) != count
    ):
        raise IrdistillError(
            f"the teacher's order of query {query_id!r} is no order of {count} documents:"
            f" {found.order[:20]}."
        )
    if any(found.flags[place] is None for place in set(range(count)) - set(found.order)):
        raise IrdistillError(
            f"the teacher left documents of query {query_id!r} out of its order without a flag."
        )
    if found.values is not None:
        return np.asarray(found.values, dtype=np.float32)
    values = np.full(count, np.nan, dtype=np.float32)
    values[found.order] = count - np.arange(len(found.order), dtype=np.float32)
    return values


def score_pairs(
    teacher: Teacher | BatchTeacher,
    pairs: Sequence[TextPair],
    budget: TokenBudget | None = None,
    done: Done = lambda count: None,
) -> tuple[TeacherScores, int]:
    """Score pairs in memory.

    Args:
        budget: remembers a halving from one call to the next.
        done: is told how many pairs were finished.

    Returns:
        The scores in the order of the pairs, and the tokens read, without padding (0 where a
        teacher reads none).
    """
    if not isinstance(teacher, BatchTeacher):
        found = teacher.score(pairs) if pairs else TeacherScores(np.empty(0, np.float32))
        done(len(pairs))
        return found, 0
    values = np.full(len(pairs), np.nan, dtype=np.float32)
    if not pairs:
        return TeacherScores(values), 0
    tokens, lengths = teacher.tokenize(pairs)
    readable = np.flatnonzero(lengths > 0)
    padded = 0

    def forward(places: np.ndarray) -> None:
        nonlocal padded
        rows = readable[places]
        values[rows] = teacher.forward(tokens, rows)
        padded += len(rows) * int(lengths[rows].max())
        done(len(rows))

    run_batches(lengths[readable], budget or TokenBudget(teacher.token_budget), forward)
    total = int(lengths[readable].sum())
    if len(readable) < len(pairs):
        flags = [
            None if length > 0 else NO_TOKENS if length == 0 else TOO_LONG
            for length in lengths.tolist()
        ]
        done(len(pairs) - len(readable))
        logger.warning(
            "%d of %d pairs have no score: %s",
            len(pairs) - len(readable),
            len(pairs),
            "; ".join(sorted({flag for flag in flags if flag})),
        )
        return TeacherScores(values, flags), total
    logger.debug(
        "%d pairs, %d tokens, %.1f%% of what was computed was padding",
        len(pairs),
        total,
        100 * (1 - total / max(1, padded)),
    )
    return TeacherScores(values), total


def _check(found: TeacherScores, pairs: Sequence[TextPair], name: Callable[[int], str]) -> None:
    """A score that is no number, without a flag, is a fault of the model or its precision, and
    stops the job.
    """
    if found.values.shape != (len(pairs),):
        raise IrdistillError(
            f"the teacher gave scores of shape {found.values.shape} for {len(pairs)} pairs."
        )
    flags = found.flags or [None] * len(pairs)
    for place in np.flatnonzero(~np.isfinite(found.values)).tolist():
        if flags[place] is None or np.isinf(found.values[place]):
            raise IrdistillError(
                f"the teacher's score of query {pairs[place].query.id!r} and document"
                f" {name(pairs[place].row)!r} is {found.values[place]}, and a finite number was"
                " expected. Often half precision overflows: try --precision float32. The parts"
                " written so far stay."
            )
