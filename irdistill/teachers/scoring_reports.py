"""Messages about a scored run: documents without a score, and truncated texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from irdistill.errors import NothingScoredError
from irdistill.modeling.truncation import Truncation
from irdistill.runs import Run

logger = logging.getLogger(__name__)

#: Share of null scores from which the message is a warning.
WARNING_SHARE = 0.1

_ADVICE = {
    "cut": (
        "the token limit ended the answers. Raise answer_tokens (thinking_tokens for a model that"
        " thinks), allow a longer retry (retry_tokens), or switch thinking off (template_options or"
        " the server's parameters: enable_thinking: false)"
    ),
    "thinks first": (
        "the server's model thinks before it answers, so that no label is its first token. Switch"
        " thinking off (the server's parameters: {chat_template_kwargs: {enable_thinking: false}}),"
        " allow it (thinking_tokens), or read text or JSON (by: text, by: json)"
    ),
    "garbled": (
        "the answers do not have the form that the prompt asks for. Read some answers in the"
        " response log, and change the prompt or the model"
    ),
    "omitted": (
        "the answers leave passages out. Use smaller windows, shorter passages or a stronger model"
    ),
    "refused": (
        "the model refuses. Read some answers in the response log, and change the prompt or the"
        " model"
    ),
    "too long": (
        "prompts do not fit. Shorten the passages (passage_words, or document_characters of a"
        " hosted reranker), or raise max_length"
    ),
    "no answer": "the model does not answer. Read the server's log, and send one request by hand",
    "labels not reported": (
        "the labels are not among the most likely first tokens. Labels are case-sensitive; read"
        " what the model answers"
    ),
    "label not reported": (
        "a label is not among the most likely first tokens. Labels are case-sensitive; read what"
        " the model answers"
    ),
    "no log-probabilities": (
        "scores need log-probabilities, and the card has labels: text. Use a listwise teacher, or"
        " a pairwise one with text labels"
    ),
    "empty text": "these documents are empty",
}


def report_unscored(run: Run) -> None:
    """Log how many scores of a finished run are null, and why."""
    rows, nulls = run.manifest.rows, run.manifest.nulls
    if not nulls:
        return
    flags = unscored_flags(run)
    reasons = counts_in_words(flags, nulls)
    advice = _ADVICE.get(flags.most_common(1)[0][0])
    if nulls == rows:
        raise NothingScoredError(
            f"the teacher scored none of {rows:,} documents ({reasons}). The run is saved in"
            f" {run.path} and cannot be used for training{f': {advice}' if advice else ''}. Use"
            " --overwrite to score it again."
        )
    if nulls >= WARNING_SHARE * rows:
        logger.warning(
            "WARNING: %s of %s scores (%.0f%%) are null: %s%s.",
            f"{nulls:,}",
            f"{rows:,}",
            100 * nulls / rows,
            reasons,
            f"; {advice}" if advice else "",
        )
    else:
        logger.info("%s of %s scores are null: %s", f"{nulls:,}", f"{rows:,}", reasons)


def report_agreement(run: Run) -> None:
    """Log how well a listwise teacher's orders by labels agree with those that its model writes."""
    usage = run.manifest.usage
    if not usage.get("agreement_windows"):
        return
    unread = int(usage.get("agreement_unread", 0))
    means = (
        "the same first passage in {agreement_first_mean:.0%}, Kendall's tau"
        " {agreement_tau_mean:.2f} over the {agreement_passages_mean:.1f} passages on average that"
        " both contain".format(**usage)
        if "agreement_tau_mean" in usage
        else "none could be compared"
    )
    logger.info(
        "orders by labels and generated orders of %s windows: %s%s",
        f"{int(usage['agreement_windows']):,}",
        means,
        f"; {unread:,} could not be compared" if unread and "agreement_tau_mean" in usage else "",
    )


def unscored_flags(run: Run) -> Counter[str]:
    """Number of documents without a score in a finished run, by flag."""
    counts: Counter[str] = Counter()
    if not run.manifest.nulls:
        return counts
    for entry, table in zip(run.manifest.parts, run.tables(), strict=True):
        if entry.nulls:
            flags = table.column("flag").filter(table.column("score").is_null())
            counts.update(map(str, flags.to_pylist()))
    return counts


def counts_in_words(counts: Mapping[str, int], total: int) -> str:
    """Counts by name, the largest first.

    Examples:
        >>> counts_in_words({"refused": 2, "cut": 1}, 3)
        '2 refused, 1 cut'
    """
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(
        f"{count:,} {name}" if count < total else f"all {name}" for name, count in ordered
    )


def run_truncation(run: Run) -> dict[str, Truncation]:
    """What the teacher of a scored run did not read of its texts, by kind of text."""
    usage = run.manifest.usage
    return {
        "pair": Truncation.from_usage({**usage, "pairs_tokens": usage.get("tokens", 0)}, "pair"),
        "document": Truncation.from_usage(usage, "document"),
    }


def truncation_shares(run: Run) -> dict[str, float]:
    """Shares of the texts and tokens of a scored run that were cut, for a table of results."""
    return {
        name: share
        for kind, counts in run_truncation(run).items()
        for name, share in counts.shares(kind).items()
    }


def report_truncation(run: Run, model: str) -> None:
    """Log how much of the texts of a scored run its teacher did not read."""
    for kind, counts in run_truncation(run).items():
        counts.report(kind, model, logger)
    for name in ("queries", "passages"):
        if cut := int(run.manifest.usage.get(f"{name}_cut", 0)):
            logger.warning(
                "%d %s are longer than %s reads; their ends were left out", cut, name, model
            )
