"""What a run says of the documents that have no score: loudly, where they are many."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from irdistill.errors import IrdistillError
from irdistill.runs import Run

logger = logging.getLogger(__name__)

#: From this share on, null scores are warned of; below, they are a note.
SHARE = 0.1

_ADVICE = {
    "cut": (
        "the limit of tokens ended the answers: give more (answer_tokens), a second try"
        " (retry_tokens), or switch thinking off (template_options or the server's parameters:"
        " enable_thinking: false)"
    ),
    "thinks first": (
        "the server's model begins with thinking, so that no label is its first token: switch it"
        " off (the server's parameters: {chat_template_kwargs: {enable_thinking: false}}), or use a"
        " listwise card"
    ),
    "garbled": (
        "the answers are not in the form that the prompt asks for: look at some in the response"
        " log, and change prompt or model"
    ),
    "omitted": (
        "the answers leave passages out: take smaller windows, shorter passages, or a stronger"
        " model"
    ),
    "refused": (
        "the model refuses: look at some answers in the response log, and change prompt or model"
    ),
    "too long": "prompts do not fit: cut passages (passage_words), or raise max_length",
    "no answer": "the model says nothing: look at the server's log, and try one request by hand",
    "labels not reported": (
        "the labels are not among the likeliest first tokens: upper and lower case count; see what"
        " the model says"
    ),
    "label not reported": (
        "a label is not among the likeliest first tokens: upper and lower case count; see what the"
        " model says"
    ),
    "no log-probabilities": (
        "scores need log-probabilities, and the card says labels: text; use a listwise teacher, or"
        " a pairwise by text"
    ),
    "empty text": "these documents are empty",
}


class NothingScoredError(IrdistillError):
    """A teacher gave no score at all. The run is complete and saved, and says of each document
    why.
    """


def report_unscored(run: Run) -> None:
    """Say how many scores of a finished run are null, and why.

    Raises:
        NothingScoredError: all of them are.
    """
    rows, nulls = run.manifest.rows, run.manifest.nulls
    if not nulls:
        return
    flags = unscored_flags(run)
    reasons = shares(flags, nulls)
    advice = _ADVICE.get(flags.most_common(1)[0][0])
    if nulls == rows:
        raise NothingScoredError(
            f"the teacher scored none of {rows:,} documents ({reasons}). The run is saved in"
            f" {run.path}, and there is nothing in it to learn"
            f" from{f'; {advice}' if advice else ''}. Give --overwrite to score it again."
        )
    if nulls >= SHARE * rows:
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


def unscored_flags(run: Run) -> Counter[str]:
    """How many documents of a finished run have no score, by flag; parts without nulls are not
    read.
    """
    counts: Counter[str] = Counter()
    for entry, table in (
        zip(run.manifest.parts, run.tables(), strict=True) if run.manifest.nulls else ()
    ):
        if entry.nulls:
            flags = table.column("flag").filter(table.column("score").is_null())
            counts.update(
                {
                    str(one["values"]): one["counts"]
                    for one in flags.combine_chunks().value_counts().to_pylist()
                }
            )
    return counts


def shares(counts: Mapping[str, int], total: int) -> str:
    """Counts by name, the largest first, in words."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(
        f"{count:,} {name}" if count < total else f"all {name}" for name, count in ordered
    )
