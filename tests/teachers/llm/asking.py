"""A minimal yes-or-no teacher, for tests of language models."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.teachers.llm import LanguageModel, Message, Request, total_usage
from irdistill.teachers.llm import llm_loading as loading
from irdistill.teachers.protocol import TeacherScores, TextPair


class AskingTeacher:
    """The difference of two labels' log-probabilities."""

    def __init__(self, model: LanguageModel, prompt: Mapping[str, Any]) -> None:
        self._model = model

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "asking", "model": dict(self._model.identity)}

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        prompts = [f"{pair.query.text} | {pair.text}" for pair in pairs]
        answers = self._model.answer(
            [Request((Message("user", prompt),), ("yes", "no")) for prompt in prompts]
        )
        values = [
            np.nan if answer.labels is None else answer.labels[0] - answer.labels[1]
            for answer in answers
        ]
        return TeacherScores(
            np.array(values, dtype=np.float32),
            [answer.error for answer in answers],
            total_usage(answers),
        )


def stand_in() -> dict[str, tuple[str, str]]:
    """Where `loading` finds this teacher for cards of kind llm-pointwise."""
    sys.modules["irdistill.teachers.llm.asking"] = sys.modules[__name__]
    return loading._TEACHERS | {"llm-pointwise": ("asking", "AskingTeacher")}


if __name__ == "__main__":
    from irdistill.cli.entry_point import main

    loading._TEACHERS = stand_in()
    main(sys.argv[1:])
