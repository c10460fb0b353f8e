"""A language model that judges one passage at a time by the probabilities of its labels."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.errors import OptionError
from irdistill.teachers.llm.label_probability import MassWarning, label_mass
from irdistill.teachers.llm.language_model import Answer, LanguageModel, Request, total_usage
from irdistill.teachers.llm.prompt_templates import Template, cut_passage
from irdistill.teachers.llm.queue import check_thinking
from irdistill.teachers.llm.structured_answers import (
    JSON,
    check_structured,
    choice_schema,
    read_choice,
)
from irdistill.teachers.protocol import TeacherScores, TextPair

logger = logging.getLogger(__name__)

#: Flag of a null score: the model's interface did not report the probability of every label.
NOT_REPORTED = "label not reported"
#: The prompt of cards without one.
PROMPT = {
    "system": "You judge whether a passage answers a search query. Answer yes or no.",
    "user": (
        "A passage is relevant if it answers the query, wholly or in part. A passage on the same"
        " subject that does not answer it is not relevant.\n\nQuery: {query}\nPassage:"
        " {passage}\n\nIs the passage relevant? Answer yes or no."
    ),
}


class PointwiseTeacher:
    """Asks whether, or how well, a passage answers a query.

    With two labels the score is the log-odds log p(first) - log p(second) of the answer's first
    token, as for the yes/no rerankers since monoT5 (Nogueira et al. 2020, arXiv:2003.06713); no
    sigmoid is applied. With ``gains`` it is the expected gain: the labels' probabilities,
    normalized to sum to 1, times their gains (fine-grained relevance labels, Zhuang et al. 2023,
    arXiv:2310.14122).

    A score is null, with a flag, if the model gave no answer (the flag is its error) or if its
    interface did not report all labels (`NOT_REPORTED`; servers report only the 5 to 20 most likely
    tokens). A bound in place of the missing probability would look like a score.

    With ``by: json`` the score is the gain of the label that the model writes.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Mapping[str, str],
        *,
        labels: Sequence[str] = ("yes", "no"),
        gains: Sequence[float] | None = None,
        by: str = "labels",
        passage_words: int | None = None,
        passage_characters: int | None = None,
        answer_tokens: int = 32,
        thinking_tokens: int | None = None,
    ) -> None:
        """Check the prompt and the labels.

        Args:
            prompt: ``user``, and optionally ``system`` and ``assistant``, with the placeholders
                ``{query}`` and ``{passage}``. If empty, `PROMPT`, which asks for yes or no and
                cannot be used with other labels. What all passages of a query share (instructions,
                examples, the query) should come before the passage: it is computed once.
            labels: possible answers, which differ in their first token; of two without gains, the
                first means relevant.
            gains: one per label.
            by: ``labels`` reads the labels' log-probabilities; ``json`` reads an answer that a
                server restricts to a JSON schema with the labels. The score is then the gain of the
                label that the model chooses, so many scores are equal.
            passage_words: passages with more words are cut; the usage counts them.
            passage_characters: passages with more characters are cut.
            answer_tokens: token limit of an answer in JSON.
            thinking_tokens: token limit of the thinking before the answer, of a model that thinks.
                Thinking that does not end gives a null score with the flag ``cut``.
        """
        self.model, self._by = model, by
        self._answer_tokens, self._thinking = answer_tokens, check_thinking(thinking_tokens, prompt)
        if by not in ("labels", JSON):
            raise OptionError(f"by is {by!r}; expected labels or json.")
        check_structured(model, by, prompt)
        if by == JSON and gains is None:
            raise OptionError(
                "by: json gives labels and no probabilities, so each label needs a number. Set one"
                " gain per label, such as gains: [1, 0] for yes and no."
            )
        self.labels, self.gains = _labels(labels, gains)
        if not prompt and self.labels != ("yes", "no"):
            raise OptionError(
                f"the labels {', '.join(self.labels)} need a prompt that asks for them. Add one to"
                " the card."
            )
        self._warning = MassWarning()
        self.template = Template(
            prompt or PROMPT, ("query", "passage"), "the prompt of a pointwise language model"
        )
        self.passage_words, self.passage_characters = passage_words, passage_characters
        for name, most in (
            ("passage_words", passage_words),
            ("passage_characters", passage_characters),
        ):
            if most is not None and most < 1:
                raise OptionError(f"{name} is {most}; expected at least 1.")
        if not self.template.order("query", "passage"):
            logger.warning(
                "the prompt has the passage before the query, so the passages of a query cannot"
                " share its computation. Put {query} before {passage} to score several times"
                " faster."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The model's identity, the prompt, and how answers become scores."""
        return {
            "kind": "llm-pointwise",
            **self.model.identity,
            "prompt": self.template.parts,
            "labels": list(self.labels),
            "gains": None if self.gains is None else list(self.gains),
            "score": (
                "gain"
                if self._by == JSON
                else "log-odds"
                if self.gains is None
                else "expected gain"
            ),
            "passage_words": self.passage_words,
            "passage_characters": self.passage_characters,
            **({"answer_tokens": self._answer_tokens} if self._by == JSON else {}),
            **({"thinking_tokens": self._thinking} if self._thinking else {}),
        }

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Log-odds, or expected gains, of pairs.

        The model gets the pairs query by query, so that a model with a cache (a server's prefix
        cache, too) reads each query once.
        """
        order = sorted(range(len(pairs)), key=lambda place: pairs[place].query.id)
        texts = [
            cut_passage(pairs[place].text, self.passage_words, self.passage_characters)
            for place in order
        ]
        answers = self.model.answer(
            [
                self._request(pairs[place].query.text, text)
                for place, (text, _) in zip(order, texts, strict=True)
            ]
        )
        values = np.full(len(pairs), np.nan, dtype=np.float32)
        flags: list[str | None] = [None] * len(pairs)
        for place, answer in zip(order, answers, strict=True):
            values[place], flags[place] = self._value(answer)
        usage = total_usage(answers)
        if self._by == "labels" and not getattr(self.model, "relative_labels", False):
            usage |= label_mass(answers)
            self._warning.look(usage, self.labels)
        cut = sum(was_cut for _, was_cut in texts)
        return TeacherScores(
            values, flags if any(flags) else None, usage | ({"passages_cut": cut} if cut else {})
        )

    def _request(self, query: str, text: str) -> Request:
        messages = self.template.messages(query=query, passage=text)
        if self._by == JSON:
            schema = choice_schema(self.labels)
            return Request(messages, (), self._answer_tokens, schema, self._thinking)
        return Request(messages, self.labels, max_tokens=1, thinking_tokens=self._thinking)

    def _value(self, answer: Answer) -> tuple[float, str | None]:
        if answer.error is not None:
            return math.nan, answer.error
        if self._by == JSON:
            flag, index = read_choice(answer, self.labels)
            assert self.gains is not None
            return (math.nan, flag) if index is None else (self.gains[index], None)
        logs = np.asarray(answer.labels, dtype=np.float64)
        if logs.shape != (len(self.labels),) or not np.isfinite(logs).all():
            return math.nan, NOT_REPORTED
        if self.gains is None:
            return float(logs[0] - logs[1]), None
        weights = np.exp(logs - logs.max())
        return float(weights @ np.asarray(self.gains) / weights.sum()), None


def _labels(
    labels: Sequence[str], gains: Sequence[float] | None
) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The checked labels. YAML reads unquoted yes and no as true and false, and 1 as a number."""
    if isinstance(labels, str) or not all(isinstance(label, str) and label for label in labels):
        raise OptionError(
            f"the labels are {labels!r}; expected a list of texts. Put quotes around them in YAML:"
            " ['yes', 'no']."
        )
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise OptionError(
            f"the labels are {', '.join(labels)}; expected at least two different ones."
        )
    if gains is None and len(labels) != 2:
        raise OptionError(
            f"there are {len(labels)} labels without gains. Set one gain per label, such as gains:"
            " [0, 1, 2, 3]."
        )
    if gains is not None and (
        len(gains) != len(labels) or not all(math.isfinite(gain) for gain in gains)
    ):
        raise OptionError(
            f"the gains {list(gains)} do not fit the labels {', '.join(labels)}; expected one"
            " number per label."
        )
    return tuple(labels), None if gains is None else tuple(float(gain) for gain in gains)
