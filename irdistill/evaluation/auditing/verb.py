"""The verb *audit*: is a teacher worth learning from?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.evaluation.auditing.advice import advise
from irdistill.evaluation.auditing.agreement import agree
from irdistill.evaluation.auditing.bias import bias
from irdistill.evaluation.auditing.distribution import describe
from irdistill.evaluation.auditing.findings import Audit, TeacherAudit
from irdistill.evaluation.auditing.margins import margins
from irdistill.evaluation.auditing.matching import match, student_scores
from irdistill.evaluation.auditing.quality import Quality, quality
from irdistill.evaluation.auditing.sample import draw_sample, scored
from irdistill.evaluation.auditing.scale import recognise
from irdistill.evaluation.auditing.suspects import suspects
from irdistill.evaluation.auditing.verdict import judge
from irdistill.evaluation.ranking_policies import (
    SelfMatch,
    check_self_match,
    measured_run,
    warn_of_self_matches,
)
from irdistill.evaluation.significance import holm
from irdistill.runs import RankedList, Run


@dataclass(frozen=True)
class AuditOptions:
    """How much an audit looks at.

    Attributes:
        student: a model whose untrained scores are compared with the teachers': folder,
            ``package:`` path or hub id.
        sample: queries looked at, at most.
        list_size: documents of a training list, for which temperatures are fitted.
        examples: of each kind of contradiction with the judgments, how many to show.
        relevant_from: the grade from which a document is relevant, for all but nDCG@10, which
            weighs the grades.
        self_match: ``drop`` leaves out a document that has the query's own id, see
            `irdistill.evaluation.evaluator`.
        kind: how the student's model is read; detected from its files where None.
    """

    student: str | None = None
    sample: int = 2000
    list_size: int = 8
    examples: int = 5
    seed: int = 42
    relevant_from: int = 1
    self_match: SelfMatch = "keep"
    kind: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_self_match(self.self_match)
        if self.list_size < 2 or self.examples < 0 or self.sample < 1 or self.relevant_from < 1:
            raise IrdistillError(
                f"an audit was asked for with sample={self.sample}, list_size={self.list_size},"
                f" examples={self.examples} and relevant_from={self.relevant_from}; at least 1, 2,"
                " 0 and 1 were expected."
            )


def audit(
    collection: Collection,
    teachers: Mapping[str, Run | str | Path],
    first_stage: Run | str | Path | None = None,
    seed: int = 42,
    options: AuditOptions | None = None,
) -> Audit:
    """Look at teachers' scores before anything is trained on them.

    Args:
        teachers: name -> run with its scores.
        first_stage: the run that the teachers are to be better than.
        seed: where no options are given.

    Raises:
        IrdistillError: no teacher is given, a run belongs to another collection, or the student
            cannot be loaded.
    """
    if not teachers:
        raise IrdistillError("an audit got no run; give at least one with a teacher's scores.")
    options = options or AuditOptions(seed=seed)
    runs = {
        name: measured_run(run, collection, options.self_match) for name, run in teachers.items()
    }
    base = (
        measured_run(first_stage, collection, options.self_match)
        if first_stage is not None
        else None
    )
    drawn = draw_sample(collection, runs, base, options.sample, options.seed)
    for name, own in drawn.lists.items():
        warn_of_self_matches(_self_matches(own), len(drawn.query_ids), collection, name)
    lists = {
        name: {query: scored(found) for query, found in own.items()}
        for name, own in drawn.lists.items()
    }
    first = (
        {query: scored(found) for query, found in drawn.first_stage.items()}
        if drawn.first_stage is not None
        else None
    )
    qualities = {
        name: quality(
            own, first, collection.qrels, drawn.query_ids, options.seed, options.relevant_from
        )
        for name, own in lists.items()
    }
    adjusted = _corrected(qualities)
    settings: dict[str, Any] = {
        "kind": options.kind,
        "trust_remote_code": options.trust_remote_code,
    }
    student = (
        student_scores(collection, lists, options.student, options.seed, **settings)
        if options.student is not None
        else None
    )
    alike = (
        {
            name: agree(name, f"the untrained student {student.name}", own, student.lists)
            for name, own in lists.items()
        }
        if student is not None
        else {}
    )
    found = []
    with progress(len(runs), "teachers", "audit") as bar:
        for name, run in runs.items():
            rows = lists[name]
            spread = describe(drawn.lists[name].values())
            scale = recognise(list(rows.values()), run.identity.producer)
            gaps = margins(
                list(rows.values()), collection.qrels, options.seed, options.relevant_from
            )
            matched = match(
                rows,
                student,
                collection.qrels,
                options.list_size,
                options.seed,
                options.relevant_from,
            )
            advice = advise(scale, matched, gaps, gaps.labelled is not None)
            leaning = bias(collection.corpus, rows, first, collection.qrels, options.seed)
            found.append(
                TeacherAudit(
                    name,
                    run.fingerprint,
                    spread,
                    scale,
                    gaps,
                    matched,
                    advice,
                    qualities[name],
                    adjusted.get(name),
                    suspects(collection, rows, options.examples, options.relevant_from),
                    leaning,
                    judge(
                        spread,
                        scale,
                        qualities[name],
                        adjusted.get(name),
                        advice,
                        leaning,
                        alike.get(name),
                    ),
                )
            )
            bar.update(1)
    pairs = [
        agree(left, right, lists[left], lists[right]) for left, right in combinations(lists, 2)
    ]
    return Audit(
        collection.id,
        tuple(found),
        (*pairs, *alike.values()),
        len(drawn.query_ids),
        drawn.population,
        drawn.unheld,
        sum(query in collection.qrels for query in drawn.query_ids),
        _name(first_stage),
        options.student,
        options.seed,
        options.relevant_from,
    )


def _corrected(qualities: Mapping[str, Quality | None]) -> dict[str, float]:
    """The p of each comparison with the first stage by nDCG@10, after Holm's correction over the
    teachers.
    """
    values = {
        name: found.against.deciding.difference.p
        for name, found in qualities.items()
        if found is not None and found.against is not None
    }
    return dict(zip(values, holm(list(values.values())), strict=True))


def _self_matches(lists: Mapping[str, RankedList]) -> dict[str, int]:
    """Query -> rank of the document that has the query's own id."""
    return {
        query: ranked.doc_ids.index(query) + 1
        for query, ranked in lists.items()
        if query in ranked.doc_ids
    }


def _name(run: Run | str | Path | None) -> str | None:
    if isinstance(run, Run):
        return run.path.name if run.path is not None else "in memory"
    return None if run is None else Path(run).name
