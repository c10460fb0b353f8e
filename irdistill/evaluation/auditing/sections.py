"""The sections of an audit: sentences, tables, plots and examples of each check."""

from __future__ import annotations

from collections.abc import Sequence

from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.bias import Correlation
from irdistill.evaluation.auditing.distribution import END, QUANTILES, Distribution
from irdistill.evaluation.auditing.margins import PERCENTILES
from irdistill.evaluation.auditing.quality import DECIDING, AgainstFirstStage, quality_measures
from irdistill.evaluation.auditing.run_scores import RunScores
from irdistill.evaluation.auditing.scale import ENDS
from irdistill.evaluation.auditing.suspects import BOTTOM, FEWEST, Example, Suspects
from irdistill.evaluation.auditing.teacher_audit import TeacherAudit
from irdistill.evaluation.auditing.verdict import LEARN, REPAIR, probability_words
from irdistill.evaluation.reporting.findings import Finding, Plot, Table, cell, cells

Teachers = Sequence[TeacherAudit]
Described = Sequence[TeacherAudit | RunScores]

_RELEVANT_ONLY = (
    "The judgments name relevant documents only. Documents that they do not name count as not"
    " relevant, and it is not known whether anybody looked at them."
)


def _negatives(teachers: Teachers) -> bool:
    return any(teacher.quality is not None and teacher.quality.negatives for teacher in teachers)


def quality_section(teachers: Teachers, relevant_from: int) -> Finding:
    """nDCG@10 and RR@10 of each teacher, and its comparison with the first stage."""
    measured = [(teacher, teacher.quality) for teacher in teachers if teacher.quality is not None]
    if not measured:
        nothing = "No query looked at is judged, so nothing is known of the quality."
        return Finding("quality", "Quality", [nothing])
    names = quality_measures(relevant_from)
    text = [
        f"{' and '.join(names)} as evaluate counts them over the judged queries looked at. Same"
        f" documents: {DECIDING} of teacher and first stage when each is cut to the documents that"
        " both scored; the verdict follows this comparison. judged@10: share of the first ten that"
        " is judged, of both."
    ]
    if not _negatives(teachers):
        text.append(_RELEVANT_ONLY)
    rows, plots = [], []
    for number, (teacher, quality) in enumerate(measured):
        against = quality.against
        compared = ["-", "-", "-", "-", f"{quality.judged:.0%}", "-"]
        if against is not None:
            compared = _compared(against, teacher.p_holm)
            text.append(f"{teacher.teacher}: {_details(against)}.")
            title = f"{teacher.teacher} minus the first stage"
            edges = range(len(against.changes) + 1)
            plots.append(Plot(title, "queries, sorted", DECIDING, edges, against.changes, number))
        if not quality.negatives:
            compared[4] = "-"
        values = [f"{quality.values[name]:.4f}" for name in names]
        rows.append([teacher.teacher, str(quality.queries), *values, *compared])
    header = "same documents,first stage,difference [95%],p / Holm,judged@10,win/tie/loss"
    table = Table(["teacher", "queries", *names, *header.split(",")], rows)
    figures = {teacher.teacher: quality.values for teacher, quality in measured}
    return Finding("quality", "Quality", text, [table], plots=plots, values=figures)


def _compared(against: AgainstFirstStage, p_holm: float | None) -> list[str]:
    gap, judged = against.deciding.difference, "{0.judged:.0%} / {0.first_judged:.0%}"
    return [
        *cells(against.deciding, "{0.teacher:.4f}", "{0.first_stage:.4f}"),
        *cells(gap, "{0.mean:+.4f} [{0.low:+.3f}, {0.high:+.3f}]"),
        f"{gap.p:.2g} / {p_holm:.2g}",
        *cells(against, judged),
        *cells(gap, "{0.wins}/{0.ties}/{0.losses}"),
    ]


def _details(against: AgainstFirstStage) -> str:
    other, alone = against.measures[1], against.judged_only
    detectable = against.deciding.difference.detectable
    text = (
        f"{other.measure} {other.teacher:.4f} against {other.first_stage:.4f}"
        f" ({probability_words(other.difference.p)}); {against.shared:.0%} of the documents are"
        " shared with the first stage"
    )
    if detectable is not None and detectable < 1:
        text += (
            f"; a true difference of {detectable:.3f} in {DECIDING} would be found four times in"
            " five"
        )
    if alone is not None and (against.judged < 1 or against.first_judged < 1):
        text += (
            f"; on judged documents alone {DECIDING} is {alone.teacher:.4f} against"
            f" {alone.first_stage:.4f} ({probability_words(alone.difference.p)})"
        )
    return text


def scores_section(teachers: Described) -> Finding:
    """Scale, quantiles and ties of each teacher's scores."""
    text, quantiles, shares, plots, spreads = [], [], [], [], []
    for number, teacher in enumerate(teachers):
        name, spread, scale = teacher.teacher, teacher.distribution, teacher.scale
        ends = f" {scale.ends:.1%} lie within {ENDS:g} of 0 or 1." if scale.ends is not None else ""
        sentence = f"{name}: the scores are {scale.words}.{ends}"
        text.append(" ".join(filter(None, [sentence, scale.remedy, scale.grid_words])))
        if spread.flags:
            flags = ", ".join(f"{count} {reason!r}" for reason, count in spread.flags.items())
            text.append(f"{name}: flagged documents: {flags}.")
        if spread.quantiles is not None:
            values = (f"{value:.4g}" for value in spread.quantiles)
            moments = cells(spread, "{0.deviation:.3g}", "{0.skew:+.2f}", "{0.spread:.3g}")
            quantiles.append([name, *values, *moments])
        shares.append([name, str(spread.rows), *_shares(spread)])
        if spread.histogram is not None:
            edges, counts = spread.histogram.edges, spread.histogram.counts
            plots.append(Plot(f"Scores of {name}", "score", "documents", edges, counts, number))
        if spread.spreads is not None:
            edges, counts = spread.spreads.edges, spread.spreads.counts
            title, x = f"Spread of {name}", "standard deviation in a list"
            spreads.append(Plot(title, x, "lists", edges, counts, number))
    text.append(
        "Tied: neighbors in rank with one score; documents with the score of another document of"
        " their list; lists whose best score is shared. At the ends: scores within"
        f" {END:g} of the whole range from the least and from the greatest."
    )
    header = [f"{value:.0%}" for value in QUANTILES]
    columns = "share,documents,tied ranks,tied docs,tied tops,low end,high end,null,flagged"
    tables = [
        Table(["quantile", *header, "sd", "skew", "sd in a list"], quantiles),
        Table([*columns.split(","), "flat lists"], shares),
    ]
    kinds = {teacher.teacher: teacher.scale.kind for teacher in teachers}
    return Finding("scores", "Scores", text, tables, plots=[*plots, *spreads], values=kinds)


def _shares(spread: Distribution) -> list[str]:
    flagged, rows = sum(spread.flags.values()), spread.rows
    counted = [count / rows if rows else None for count in (spread.unscored, flagged)]
    return [
        *cells(spread, "{0.tied:.1%}", "{0.tied_rows:.1%}", "{0.tied_top:.1%}"),
        *cells(spread, "{0.low_end:.1%}", "{0.high_end:.1%}"),
        *(cell(value, ".1%") for value in (*counted, spread.constant)),
    ]


def margins_section(teachers: Described) -> Finding:
    """Margins, temperatures and the losses that fit."""
    text, rows, fits, sharp, plots = [], [], [], [], []
    for number, teacher in enumerate(teachers):
        name, margins, fit = teacher.teacher, teacher.margins, teacher.matching
        kinds = {
            "relevant - other": margins.labelled,
            "best - other": margins.top,
            "any two": margins.any,
        }
        for kind, values in kinds.items():
            if values is not None:
                rows.append([f"{name}: {kind}", *(f"{value:.4g}" for value in values)])
        if margins.wrong is not None:
            text.append(
                f"{name}: of {margins.pairs} pairs of a document judged relevant and one that is"
                f" not, {margins.wrong:.1%} do not have the relevant one above."
            )
        text += [f"{name}: {sentence}" for sentence in _advice(teacher)]
        figures = (fit.entropy_at_one, fit.teacher_tau, fit.entropy, fit.tau, fit.student_entropy)
        fits.append([name, *(cell(value, ".3g") for value in (*figures, fit.scale))])
        sharp += [
            [
                f"{name}: {row.tau:g}",
                *cells(row, "{0.entropy:.1%}", "{0.documents:.2f}", "{0.best:.1%}"),
            ]
            for row in fit.sharpness
        ]
        if margins.histogram is not None:
            title, x = f"Margins of {name}", "relevant minus other"
            edges, counts = margins.histogram.edges, margins.histogram.counts
            plots.append(Plot(title, x, "pairs", edges, counts, number))
    columns = "temperature,entropy at 1,teacher_tau,entropy,tau,student's entropy,MarginMSE scale"
    tables = [
        Table(["margin at percentile", *map(str, PERCENTILES)], rows),
        Table(columns.split(","), fits),
        Table(
            ["softmax(scores / teacher_tau)", "entropy", "documents", "weight of the best"], sharp
        ),
    ]
    sharpness = (
        f"Softmax of the teacher's scores over lists of {teachers[0].matching.list_size} documents,"
        " at several temperatures: entropy as a share of the maximum, number of documents that"
        " share the weight (the exponential of the entropy), and weight of the best one."
    )
    losses = {teacher.teacher: teacher.advice.loss for teacher in teachers}
    return Finding(
        "margins",
        "Margins and temperatures",
        text,
        tables if sharp else tables[:-1],
        [sharpness] if sharp else (),
        plots=plots,
        values=losses,
    )


def _advice(teacher: TeacherAudit | RunScores) -> list[str]:
    advice = teacher.advice
    if teacher.scale.spoilt:
        return ["no loss fits these numbers as they are; see the scores above."]
    if advice.loss is None:
        return list(advice.words)
    second = f", or {advice.other}" if advice.other else ""
    return [*advice.words, f"losses that fit these numbers{teacher.hint}: {advice.loss}{second}."]


def agreement_section(agreements: Sequence[Agreement]) -> Finding:
    """How similarly each two rankers order the documents."""
    columns = (
        "{0.left} and {0.right}",
        "{0.queries}",
        "{0.tau:.3g}",
        "{0.overlap:.1%}",
        "{0.top:.1%}",
    )
    rows = [cells(pair, *columns) for pair in agreements]
    text = (
        "Over the documents that both scored: mean Kendall tau-b, mean share of the first ten in"
        " common, and share of the queries with the same best document."
    )
    table = Table(["pair", "queries", "tau", "overlap@10", "same best"], rows)
    taus = {f"{pair.left} and {pair.right}": pair.tau for pair in agreements}
    return Finding("agreement", "Agreement", [text], [table], values=taus)


def suspects_section(teachers: Teachers) -> Finding:
    """Contradictions between teacher and judgments, with examples."""
    text = [
        "Suspected false negatives: documents without a judgment that the teacher puts above the"
        " best judged-relevant one of the query. Suspected false positives: documents judged"
        f" relevant in the lowest {BOTTOM:.0%} of the teacher's list (lists of {FEWEST} or more; a"
        f" random order would have about {BOTTOM:.0%} of them there). Only lists with a"
        " judged-relevant document count. Read the examples before you believe either side."
    ]
    if not _negatives(teachers):
        text.append(_RELEVANT_ONLY)
    rows, examples = [], []
    for teacher in teachers:
        name, suspects = teacher.teacher, teacher.suspects
        if not suspects.queries:
            text.append(
                f"{name}: no list has a scored document that is judged relevant, so nothing is"
                " suspected."
            )
            continue
        rows.append([name, *_suspect_counts(suspects)])
        if suspects.fully_judged:
            text.append(
                f"{name}: every document in these lists is judged, so no relevant one can have been"
                " missed."
            )
        elif suspects.above and teacher.ruling.decision not in (LEARN, REPAIR):
            text.append(
                f"{name}: as it is not shown to be better than the first stage, what it puts above"
                " the judged documents says more about the teacher than about the judgments."
            )
        for example in suspects.missed:
            what = f"{name}, unjudged, above the best judged-relevant document"
            contrast = f"best judged-relevant, {example.positive}: {example.positive_text}"
            examples.append((f"{what} {_place(example)}", f"{example.text} || {contrast}"))
        for example in suspects.doubtful:
            what = f"{name}, judged relevant (grade {example.grade}) and at the bottom"
            examples.append((f"{what} {_place(example)}", example.text))
    columns = "suspects,lists,judged,unjudged,above the best relevant,lists with one"
    tables = [Table([*columns.split(","), "relevant at the bottom"], rows)] if rows else []
    above = {teacher.teacher: teacher.suspects.above for teacher in teachers}
    return Finding("suspects", "Suspects", text, tables, examples=examples, values=above)


def _suspect_counts(suspects: Suspects) -> list[str]:
    def part(count: int, whole: int) -> str:
        return f"{count} ({count / whole:.1%})" if whole else str(count)

    return [
        str(suspects.queries),
        f"{suspects.judged:.1%}",
        str(suspects.unjudged),
        part(suspects.above, suspects.unjudged),
        part(suspects.queries_above, suspects.queries),
        part(suspects.bottom, suspects.positives),
    ]


def _place(example: Example) -> str:
    distance = "above it" if example.positive is not None else "below the first"
    return (
        f"(query {example.query_id}: {example.query} | {example.doc_id}, rank {example.rank} of"
        f" {example.of}, {example.margin:.3g} {distance})"
    )


def bias_section(teachers: Teachers, with_first_stage: bool) -> Finding:
    """Correlation of the scores with length and with the first stage's order."""
    text = [
        "Mean over lists of Spearman's correlation of the scores with the document's length in"
        " words, and with the first stage's order (1: the same order, 0: unrelated). Where"
        " documents of several grades are judged, the same is shown for teacher and grades on"
        " these; the excess is the teacher's correlation minus that of the grades."
    ]
    rows = []
    for teacher in teachers:
        name, bias = teacher.teacher, teacher.bias
        for what, correlation in (("length", bias.length), ("first stage's order", bias.position)):
            if correlation is not None and correlation.value is not None:
                rows.append([f"{name}: {what}", *_correlation(correlation)])
        if bias.unchanged is not None:
            text.append(
                f"{name}: {bias.unchanged:.1%} of the lists have the first stage's order unchanged."
            )
    if not with_first_stage:
        text.append("Without a first stage nothing is known of the effect of the position.")
    columns = "correlation with,lists,teacher [95%],judged lists,teacher there,grades there"
    tables = [Table([*columns.split(","), "excess [95%]"], rows)] if rows else []
    lengths = {teacher.teacher: teacher.bias.length.value for teacher in teachers}
    return Finding("bias", "Length and position", text, tables, values=lengths)


def _correlation(correlation: Correlation) -> list[str]:
    return cells(
        correlation,
        "{0.lists}",
        "{0.value:+.3f} [{0.low:+.3f}, {0.high:+.3f}]",
        "{0.judged_lists}",
        "{0.teacher_judged:+.3f}",
        "{0.labels:+.3f}",
        "{0.excess:+.3f} [{0.excess_low:+.3f}, {0.excess_high:+.3f}]",
    )
