"""The verb *audit*: is a teacher worth learning from?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from irdistill.collections import Collection
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.auditing.agreement import Agreement, compare_rankings
from irdistill.evaluation.auditing.audit_results import Audit
from irdistill.evaluation.auditing.bias import measure_bias
from irdistill.evaluation.auditing.matching import StudentScores, score_with_student
from irdistill.evaluation.auditing.quality import Quality, measure_quality
from irdistill.evaluation.auditing.query_sample import Lists, QuerySample, draw_sample, scored
from irdistill.evaluation.auditing.run_scores import describe_lists
from irdistill.evaluation.auditing.suspects import find_suspects
from irdistill.evaluation.auditing.teacher_audit import TeacherAudit
from irdistill.evaluation.auditing.verdict import decide
from irdistill.evaluation.diversity import Diversity, measure_diversity, shared_queries
from irdistill.evaluation.ranking_policies import (
    RunSource,
    SelfMatch,
    check_self_match,
    measured_run,
    warn_of_self_matches,
)
from irdistill.evaluation.significance import holm
from irdistill.runs import RankedList, Run

_DIVERSE = 500
"""Queries whose lists are compared by their texts."""


@dataclass(frozen=True)
class AuditOptions:
    """Options of the verb *audit*; ``student`` is a model and ``kind`` says how to read it."""

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
            raise OptionError(
                f"sample={self.sample}, list_size={self.list_size}, examples={self.examples} and"
                f" relevant_from={self.relevant_from} were given to an audit; at least 1, 2, 0 and"
                " 1 were expected."
            )


def audit(
    collection: Collection,
    teachers: Mapping[str, RunSource],
    first_stage: RunSource | None = None,
    seed: int = 42,
    options: AuditOptions | None = None,
) -> Audit:
    """Check teachers' scores before anything is trained on them.

    Args:
        teachers: name -> run with its scores.
        first_stage: the run that the teachers should be better than.
        seed: random seed if no options are given.

    Examples:
        >>> from irdistill.collections import Collection
        >>> collection = Collection.from_dicts(
        ...     "demo", {"d1": "a cat", "d2": "a dog"}, {"q": "cat"}, {"q": {"d1": 1, "d2": 0}}
        ... )
        >>> result = audit(collection, {"teacher": {"q": {"d1": 2.0, "d2": 0.5}}})
        >>> result.teachers[0].ruling.decision
        'cannot tell'
    """
    if not teachers:
        raise InputError("an audit got no run; give at least one with a teacher's scores.")
    options = options or AuditOptions(seed=seed)
    runs = {
        name: measured_run(run, collection, options.self_match) for name, run in teachers.items()
    }
    base = (
        measured_run(first_stage, collection, options.self_match)
        if first_stage is not None
        else None
    )
    sample = draw_sample(collection, runs, base, options.sample, options.seed)
    for name, ranked_lists in sample.lists.items():
        matches = _self_matches(ranked_lists)
        warn_of_self_matches(matches, len(sample.query_ids), collection, name)
    checks = _Checks(collection, options, sample)
    audits = []
    with progress(len(runs), "teachers", "audit") as bar:
        for name, run in runs.items():
            audits.append(checks.teacher(name, run))
            bar.update(1)
    lists = checks.lists
    pairs = [
        compare_rankings(left, right, lists[left], lists[right])
        for left, right in combinations(lists, 2)
    ]
    return Audit(
        collection.id,
        tuple(audits),
        (*pairs, *checks.student_agreements.values()),
        len(sample.query_ids),
        sample.population,
        sample.unheld,
        sum(query in collection.qrels for query in sample.query_ids),
        _run_name(first_stage),
        options.student,
        options.seed,
        options.relevant_from,
        _diversity(collection, runs, first_stage, base, sample, options.seed),
    )


def _diversity(
    collection: Collection,
    runs: Mapping[str, Run],
    first_stage: RunSource | None,
    base: Run | None,
    sample: QuerySample,
    seed: int,
) -> Diversity | None:
    """Of the first queries of the sample that all runs have."""
    systems = dict(runs)
    name = _run_name(first_stage)
    if base is not None and name is not None and name not in systems:
        systems[name] = base
    queries = shared_queries(sample.query_ids, systems)
    if not queries:
        return None
    baseline = name if base is not None and len(systems) > 1 else None
    return measure_diversity(collection, systems, baseline, seed=seed, only=queries[:_DIVERSE])


class _Checks:
    """All checks of each teacher; those that compare the teachers are made once."""

    def __init__(self, collection: Collection, options: AuditOptions, sample: QuerySample) -> None:
        self.collection, self.options, self.sample = collection, options, sample
        self.lists = {name: _scored_lists(lists) for name, lists in sample.lists.items()}
        self.first = _scored_lists(sample.first_stage) if sample.first_stage is not None else None
        self.qualities = {
            name: measure_quality(
                lists,
                self.first,
                collection.qrels,
                sample.query_ids,
                options.seed,
                options.relevant_from,
            )
            for name, lists in self.lists.items()
        }
        self.corrected = _corrected(self.qualities)
        self.student: StudentScores | None = None
        self.student_agreements: dict[str, Agreement] = {}
        if options.student is not None:
            self.student = score_with_student(
                collection,
                self.lists,
                options.student,
                options.seed,
                options.kind,
                options.trust_remote_code,
            )
            right = f"the untrained student {self.student.name}"
            self.student_agreements = {
                name: compare_rankings(name, right, lists, self.student.lists)
                for name, lists in self.lists.items()
            }

    def teacher(self, name: str, run: Run) -> TeacherAudit:
        """Check one teacher."""
        options, qrels, lists = self.options, self.collection.qrels, self.lists[name]
        grade, seed = options.relevant_from, options.seed
        scores = describe_lists(
            list(self.sample.lists[name].values()),
            run.identity.producer,
            qrels,
            options.list_size,
            seed,
            grade,
            self.student,
        )
        bias = measure_bias(self.collection.corpus, lists, self.first, qrels, seed)
        quality, p_holm = self.qualities[name], self.corrected.get(name)
        agreement = self.student_agreements.get(name)
        return TeacherAudit(
            name,
            run.fingerprint,
            scores.distribution,
            scores.scale,
            scores.margins,
            scores.matching,
            scores.advice,
            quality,
            p_holm,
            find_suspects(self.collection, lists, options.examples, grade),
            bias,
            decide(
                scores.distribution, scores.scale, quality, p_holm, scores.advice, bias, agreement
            ),
        )


def _run_name(source: RunSource | None) -> str | None:
    if source is None or isinstance(source, str | Path):
        return None if source is None else Path(source).name
    path = source.path if isinstance(source, Run) else None
    return path.name if path is not None else "in memory"


def _scored_lists(lists: Mapping[str, RankedList]) -> Lists:
    return {query: scored(ranked_list) for query, ranked_list in lists.items()}


def _corrected(qualities: Mapping[str, Quality | None]) -> dict[str, float]:
    """p of each comparison with the first stage by nDCG@10, after Holm's correction."""
    values = {
        name: quality.against.deciding.difference.p
        for name, quality in qualities.items()
        if quality is not None and quality.against is not None
    }
    return dict(zip(values, holm(list(values.values())), strict=True))


def _self_matches(lists: Mapping[str, RankedList]) -> dict[str, int]:
    """Query -> rank of the document that has the query's own id."""
    return {
        query: ranked_list.doc_ids.index(query) + 1
        for query, ranked_list in lists.items()
        if query in ranked_list.doc_ids
    }
