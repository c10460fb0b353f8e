"""Label mass: how much of a model's probability is on the labels that it may answer with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from irdistill.teachers.llm.language_model import Answer

logger = logging.getLogger(__name__)

#: Below this share of the probability, what decides between the labels is mostly noise.
LOW = 0.1
#: The names under which a run's manifest sums it up; see `irdistill.runs.manifest` for the mean and
#: the share that it adds.
SUM, COUNT, LOW_COUNT = "label_mass_sum", "label_mass_count", "label_mass_low_count"


def label_mass(answers: Sequence[Answer]) -> dict[str, float]:
    """Over the answers that have labels: the sum of their mass, their number, and how many are
    below `LOW`.

    The mass of an answer is the sum of its labels' probabilities; a label that a server did not
    report counts as 0, as it is less likely than all that were reported.
    """
    masses = np.array(
        [
            min(
                1.0,
                float(
                    np.exp(
                        np.minimum(
                            0.0, np.asarray(answer.labels, np.float64)[np.isfinite(answer.labels)]
                        )
                    ).sum()
                ),
            )
            for answer in answers
            if answer.labels is not None and answer.error is None
        ]
    )
    if not len(masses):
        return {}
    return {SUM: float(masses.sum()), COUNT: len(masses), LOW_COUNT: int((masses < LOW).sum())}


class MassWarning:
    """Warns once, of a model that mostly would not answer with the labels."""

    def __init__(self) -> None:
        self._warned = False

    def look(self, usage: Mapping[str, float], labels: Sequence[str]) -> None:
        """Look at what some answers' label mass was."""
        count = usage.get(COUNT, 0)
        if self._warned or not count or usage[LOW_COUNT] * 2 <= count:
            return
        self._warned = True
        logger.warning(
            "the model would mostly begin its answer with something else than the labels %s: their"
            " probabilities sum to %.2g on average, and to less than %g for %d of %d answers, so"
            " the scores are little more than noise. A model that thinks first needs its thinking"
            " switched off (template_options or the server's parameters: enable_thinking: false);"
            " otherwise change the labels (upper and lower case count), or lead the answer there"
            " (assistant, in the card's prompt).",
            ", ".join(map(repr, labels)),
            usage[SUM] / count,
            LOW,
            usage[LOW_COUNT],
            count,
        )
