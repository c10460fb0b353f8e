"""The audit as a page: sections of sentences and tables, which the terminal and the HTML file show
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from irdistill.evaluation.auditing.bias import Correlation
from irdistill.evaluation.auditing.distribution import END, QUANTILES
from irdistill.evaluation.auditing.findings import Audit, TeacherAudit
from irdistill.evaluation.auditing.margins import PERCENTILES
from irdistill.evaluation.auditing.quality import DECIDING, measures
from irdistill.evaluation.auditing.scale import ENDS
from irdistill.evaluation.auditing.suspects import BOTTOM, FEWEST, Example
from irdistill.evaluation.auditing.verdict import LEARN, REPAIR, probability_words
from irdistill.evaluation.reporting import Table


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: names it for plots and links.
        quotes: examples to read, (what it is, text) each.
    """

    key: str
    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    quotes: Sequence[tuple[str, str]] = field(default_factory=tuple)


def sections(found: Audit) -> list[Section]:
    """The whole page, the verdicts first."""
    parts = [_verdicts(found), _quality(found), _scores(found), _margins(found)]
    if found.agreements:
        parts.append(_agreement(found))
    if found.judged:
        parts.append(_suspects(found))
    return [*parts, _bias(found), _method(found)]


def text_page(found: Audit) -> str:
    """The page for a terminal."""
    lines = []
    for part in sections(found):
        lines += [part.title, "=" * len(part.title), ""]
        for sentence in part.words:
            lines += [sentence, ""]
        for table in part.tables:
            lines += [table.markdown(), ""]
        for what, text in part.quotes:
            lines += [f"- {what}", *([f"    {text}"] if text else [])]
        if part.quotes:
            lines.append("")
    return "\n".join(lines)


def _verdicts(found: Audit) -> Section:
    return Section(
        "verdict",
        f"Audit of {', '.join(t.teacher for t in found.teachers)} on {found.dataset}",
        [*found.lines[: len(found.teachers)]],
    )


def _quality(found: Audit) -> Section:
    if not found.judged:
        return Section(
            "quality",
            "Quality",
            ["No query looked at is judged, so nothing is known of the quality."],
        )
    words, rows, names = [], [], measures(found.relevant_from)
    for teacher in found.teachers:
        quality = teacher.quality
        if quality is None:
            continue
        against = quality.against
        cells = [f"{quality.values[name]:.4f}" for name in names]
        if against is None:
            judged = f"{quality.judged:.0%}" if quality.negatives else "-"
            rows.append(
                [teacher.teacher, str(quality.queries), *cells, "-", "-", "-", "-", judged, "-"]
            )
            continue
        seen = against.deciding
        rows.append(
            [
                teacher.teacher,
                str(quality.queries),
                *cells,
                f"{seen.teacher:.4f}",
                f"{seen.first_stage:.4f}",
                (
                    f"{seen.difference.mean:+.4f} [{seen.difference.low:+.3f},"
                    f" {seen.difference.high:+.3f}]"
                ),
                f"{seen.difference.p:.2g} / {teacher.p_holm:.2g}",
                f"{against.judged:.0%} / {against.first_judged:.0%}" if quality.negatives else "-",
                f"{seen.difference.wins}/{seen.difference.ties}/{seen.difference.losses}",
            ]
        )
        words += _quality_words(teacher)
    header = [
        "teacher",
        "queries",
        *names,
        "same documents",
        "first stage",
        "difference [95%]",
        "p / Holm",
        "judged@10",
        "win/tie/loss",
    ]
    lead = [
        f"{' and '.join(names)} as evaluate counts them over the judged queries looked at. Same"
        f" documents: {DECIDING} of teacher and first stage when each is cut to the documents that"
        " both scored; the verdict follows this comparison. judged@10: share of the first ten that"
        " is judged, of both."
    ]
    if not _negatives(found):
        lead.append(_RELEVANT_ONLY)
    return Section("quality", "Quality", lead + words, [Table(header, rows)])


_RELEVANT_ONLY = (
    "The judgments name relevant documents only. What they do not name counts as not relevant, and"
    " whether anybody looked at it is not known."
)


def _negatives(found: Audit) -> bool:
    return any(
        teacher.quality is not None and teacher.quality.negatives for teacher in found.teachers
    )


def _quality_words(teacher: TeacherAudit) -> list[str]:
    quality = teacher.quality
    assert quality is not None and quality.against is not None
    against = quality.against
    other = against.measures[1]
    text = (
        f"{teacher.teacher}: {other.measure} {other.teacher:.4f} against {other.first_stage:.4f}"
        f" ({probability_words(other.difference.p)}); {against.shared:.0%} of the documents are"
        " shared with the first stage"
    )
    if against.detectable < 1:
        text += (
            f"; a true difference of {against.detectable:.3f} in {DECIDING} would be found four"
            " times in five"
        )
    alone = against.judged_only
    if alone is not None and (against.judged < 1 or against.first_judged < 1):
        text += (
            f"; on judged documents alone {DECIDING} is {alone.teacher:.4f} against"
            f" {alone.first_stage:.4f} ({probability_words(alone.difference.p)})"
        )
    return [text + "."]


def _scores(found: Audit) -> Section:
    words, quantiles, shares = [], [], []
    for teacher in found.teachers:
        spread, scale = teacher.distribution, teacher.scale
        ends = f" {scale.ends:.1%} lie within {ENDS:g} of 0 or 1." if scale.ends is not None else ""
        told = [
            f"{teacher.teacher}: the scores are {scale.words}.{ends}",
            scale.remedy,
            scale.grid_words,
        ]
        words.append(" ".join(filter(None, told)))
        if spread.flags:
            words.append(
                f"{teacher.teacher}: flagged documents: "
                + ", ".join(f"{count} {reason!r}" for reason, count in spread.flags.items())
                + "."
            )
        if spread.quantiles is not None:
            quantiles.append(
                [
                    teacher.teacher,
                    *(f"{value:.4g}" for value in spread.quantiles),
                    f"{spread.deviation:.3g}",
                    "-" if spread.skew is None else f"{spread.skew:+.2f}",
                    f"{spread.spread:.3g}",
                ]
            )
        shares.append(
            [
                teacher.teacher,
                str(spread.rows),
                f"{spread.tied:.1%}",
                f"{spread.tied_rows:.1%}",
                f"{spread.tied_top:.1%}",
                f"{spread.low_end:.1%}",
                f"{spread.high_end:.1%}",
                f"{spread.unscored / spread.rows:.1%}" if spread.rows else "-",
                f"{sum(spread.flags.values()) / spread.rows:.1%}" if spread.rows else "-",
                f"{spread.constant:.1%}",
            ]
        )
    return Section(
        "scores",
        "Scores",
        [
            *words,
            (
                "Tied: neighbours in rank with one score; documents with the score of another of"
                f" their list; lists whose best score is shared. At the ends: scores within {END:g}"
                " of the whole range from the least and from the greatest."
            ),
        ],
        [
            Table(
                [
                    "quantile",
                    *(f"{value:.0%}" for value in QUANTILES),
                    "sd",
                    "skew",
                    "sd in a list",
                ],
                quantiles,
            ),
            Table(
                [
                    "share",
                    "documents",
                    "tied ranks",
                    "tied docs",
                    "tied tops",
                    "low end",
                    "high end",
                    "null",
                    "flagged",
                    "flat lists",
                ],
                shares,
            ),
        ],
    )


def _margins(found: Audit) -> Section:
    rows, fits, words = [], [], []
    for teacher in found.teachers:
        seen, fit, advice = teacher.margins, teacher.matching, teacher.advice
        for name, values in (
            ("relevant - other", seen.labelled),
            ("best - other", seen.top),
            ("any two", seen.any),
        ):
            if values is not None:
                rows.append([f"{teacher.teacher}: {name}", *(f"{value:.4g}" for value in values)])
        if seen.wrong is not None:
            words.append(
                f"{teacher.teacher}: of {seen.pairs} pairs of a document judged relevant and one"
                f" that is not, {seen.wrong:.1%} do not have the relevant one above."
            )
        if teacher.scale.spoilt:
            words.append(
                f"{teacher.teacher}: no loss fits these numbers as they are; see the scores above."
            )
        else:
            words += [f"{teacher.teacher}: {sentence}" for sentence in advice.words]
        words += _choices(teacher)
        fits.append(
            [
                teacher.teacher,
                *(
                    _figure(value)
                    for value in (
                        fit.entropy_at_one,
                        fit.teacher_tau,
                        fit.entropy,
                        fit.tau,
                        fit.student_entropy,
                        fit.scale,
                    )
                ),
            ]
        )
    return Section(
        "margins",
        "Margins and temperatures",
        words,
        [
            Table(["margin at percentile", *map(str, PERCENTILES)], rows),
            Table(
                [
                    "temperature",
                    "entropy at 1",
                    "teacher_tau",
                    "entropy",
                    "tau",
                    "student's entropy",
                    "MarginMSE scale",
                ],
                fits,
            ),
        ],
    )


def _choices(teacher: TeacherAudit) -> list[str]:
    """The losses that fit the numbers; whether to use them is the verdict's to say."""
    advice = teacher.advice
    if advice.loss is None:
        return []
    second = f", or {advice.other}" if advice.other else ""
    hint = "" if teacher.ruling.decision == LEARN else " (see the verdict before you do)"
    return [f"{teacher.teacher}: losses that fit these numbers{hint}: {advice.loss}{second}."]


def _agreement(found: Audit) -> Section:
    rows = [
        [
            f"{pair.left} and {pair.right}",
            str(pair.queries),
            _figure(pair.tau),
            f"{pair.overlap:.1%}",
            f"{pair.top:.1%}",
        ]
        for pair in found.agreements
    ]
    return Section(
        "agreement",
        "Agreement",
        [
            "Over the documents that both scored: mean Kendall tau-b, mean share of the first ten"
            " in common, and share of the queries with the same best document."
        ],
        [Table(["pair", "queries", "tau", "overlap@10", "same best"], rows)],
    )


def _suspects(found: Audit) -> Section:
    rows, words, quotes = [], [], []
    for teacher in found.teachers:
        seen = teacher.suspects
        if not seen.queries:
            words.append(
                f"{teacher.teacher}: no list holds a scored document that is judged relevant, so"
                " nothing is suspected."
            )
            continue
        rows.append(
            [
                teacher.teacher,
                str(seen.queries),
                f"{seen.judged:.1%}",
                str(seen.unjudged),
                _part(seen.above, seen.unjudged),
                _part(seen.queries_above, seen.queries),
                _part(seen.bottom, seen.positives),
            ]
        )
        if seen.fully_judged:
            words.append(
                f"{teacher.teacher}: every document in these lists is judged, so no relevant one"
                " can have been missed."
            )
        elif seen.above and teacher.ruling.decision not in (LEARN, REPAIR):
            words.append(
                f"{teacher.teacher}: as it is not shown to be better than the first stage, what it"
                " puts above the judged documents says more of the teacher than of the judgments."
            )
        quotes += [
            (
                (
                    f"{teacher.teacher}, unjudged, above the best judged-relevant document"
                    f" {_place(example)}"
                ),
                _contrast(example),
            )
            for example in seen.missed
        ]
        quotes += [
            (
                (
                    f"{teacher.teacher}, judged relevant (grade {example.grade}) and at the bottom"
                    f" {_place(example)}"
                ),
                example.text,
            )
            for example in seen.doubtful
        ]
    lead = (
        "Suspected false negatives: documents without a judgment that the teacher puts above the"
        " best judged-relevant one of the query. Suspected false positives: documents judged"
        f" relevant in the lowest {BOTTOM:.0%} of the teacher's list (lists of {FEWEST} or more; a"
        f" random order would have about {BOTTOM:.0%} of them there). Only lists with a"
        " judged-relevant document count. Read the examples before you believe either side."
    )
    words = words if _negatives(found) else [_RELEVANT_ONLY, *words]
    tables = (
        [
            Table(
                [
                    "suspects",
                    "lists",
                    "judged",
                    "unjudged",
                    "above the best relevant",
                    "lists with one",
                    "relevant at the bottom",
                ],
                rows,
            )
        ]
        if rows
        else []
    )
    return Section("suspects", "Suspects", [lead, *words], tables, quotes)


def _place(example: Example) -> str:
    distance = "above it" if example.positive is not None else "below the first"
    return (
        f"(query {example.query_id}: {example.query} | {example.doc_id}, rank {example.rank} of"
        f" {example.of}, {example.margin:.3g} {distance})"
    )


def _contrast(example: Example) -> str:
    return f"{example.text} || best judged-relevant, {example.positive}: {example.positive_text}"


def _bias(found: Audit) -> Section:
    rows, words = [], []
    for teacher in found.teachers:
        for name, seen in (
            ("length", teacher.bias.length),
            ("first stage's order", teacher.bias.position),
        ):
            if seen is not None and seen.value is not None:
                rows.append([f"{teacher.teacher}: {name}", *_correlation(seen)])
        if teacher.bias.unchanged is not None:
            words.append(
                f"{teacher.teacher}: {teacher.bias.unchanged:.1%} of the lists have the first"
                " stage's order unchanged."
            )
    if found.first_stage is None:
        words.append(
            "Without a first stage nothing can be said of the position in which the documents were"
            " given."
        )
    lead = (
        "Mean over lists of Spearman's correlation of the scores with the document's length in"
        " words, and with the first stage's order (1: the same order, 0: unrelated). Where"
        " documents of several grades are judged, the same is shown for teacher and grades on"
        " these; the excess is what the teacher has over them."
    )
    return Section(
        "bias",
        "Length and position",
        [lead, *words],
        (
            [
                Table(
                    [
                        "correlation with",
                        "lists",
                        "teacher [95%]",
                        "judged lists",
                        "teacher there",
                        "grades there",
                        "excess [95%]",
                    ],
                    rows,
                ),
            ]
            if rows
            else []
        ),
    )


def _correlation(seen: Correlation) -> list[str]:
    own = f"{seen.value:+.3f} [{seen.low:+.3f}, {seen.high:+.3f}]"
    if not seen.judged_lists:
        return [str(seen.lists), own, "0", "-", "-", "-"]
    return [
        str(seen.lists),
        own,
        str(seen.judged_lists),
        f"{seen.teacher_judged:+.3f}",
        f"{seen.labels:+.3f}",
        f"{seen.excess:+.3f} [{seen.excess_low:+.3f}, {seen.excess_high:+.3f}]",
    ]


def _method(found: Audit) -> Section:
    drawn = "all" if found.sampled == found.population else f"{found.sampled} drawn at random of"
    words = [
        f"Looked at {drawn} {found.population} queries that at least one teacher holds (seed"
        f" {found.seed}); {found.judged} of them are judged."
    ]
    if found.relevant_from > 1:
        words.append(
            f"Documents of grade {found.relevant_from} or above count as relevant; {DECIDING}"
            " weighs all grades."
        )
    if found.unheld:
        words.append(
            f"{found.unheld} judged queries of the collection are in no run and are left out here;"
            " evaluate counts 0."
        )
    words.append(
        "Differences are tested with a paired t-test, corrected by Holm's method over the teachers;"
        " intervals are bootstrapped over queries."
    )
    if found.student is not None:
        words.append(f"Student before training: {found.student}.")
    return Section("method", "How it was done", words)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _part(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.1%})" if whole else str(count)
