"""Label mass: how much of a model's probability is on the labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from irdistill.teachers.llm.language_model import Answer

logger = logging.getLogger(__name__)

#: Below this label mass, the difference between the labels is mostly noise.
LOW = 0.1
#: Names of the sums in a run's manifest; see `irdistill.runs.manifest` for the mean and the share.
SUM, COUNT, LOW_COUNT = "label_mass_sum", "label_mass_count", "label_mass_low_count"


def label_mass(answers: Sequence[Answer]) -> dict[str, float]:
    """Sum, number, and number below `LOW` of the label mass of the answers with labels.

    The mass of an answer is the sum of its labels' probabilities. A label that a server did not
    report counts as 0, because it is less likely than all that were reported.
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
    """Warns once of a model that usually would not answer with the labels."""

    def __init__(self) -> None:
        self._warned = False

    def look(self, usage: Mapping[str, float], labels: Sequence[str]) -> None:
        """Check the label mass of some answers."""
        count = usage.get(COUNT, 0)
        if self._warned or not count or usage[LOW_COUNT] * 2 <= count:
            return
        self._warned = True
        logger.warning(
            "the model rarely begins its answers with the labels %s: their probabilities sum to"
            " %.2g on average, and to less than %g for %d of %d answers, so the scores are mostly"
            " noise. Switch thinking off if the model thinks first (template_options or the"
            " server's parameters: enable_thinking: false); else change the labels, which are"
            " case-sensitive, or begin the answer in the prompt (assistant).",
            ", ".join(map(repr, labels)),
            usage[SUM] / count,
            LOW,
            usage[LOW_COUNT],
            count,
        )
