"""Pairwise teachers: a language model compares two passages at a time (Qin et al. 2023,
arXiv:2306.17563).

Language models prefer a position, so each pair is presented twice, once in each order. If both
answers choose the same passage, it wins; if they choose different ones, it is a tie. If one of the
two answers is missing or unreadable, position bias cannot be separated from preference: the
comparison failed and counts as none.

* ``all``: all pairs; the score of a passage is its wins plus half its ties.
* ``heapsort``: the best ``top`` by a heap.
* ``sliding``: ``top`` passes from the bottom of the list to its top that exchange neighbors.

A pair is compared once per query, however often a method returns to it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from irdistill.errors import OptionError
from irdistill.storage.files import digest
from irdistill.teachers.llm.label_probability import MassWarning, label_mass
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request, total_usage
from irdistill.teachers.llm.prompt_templates import Template, cut_passage, cut_usage
from irdistill.teachers.llm.queue import (
    RequestJob,
    check_retry,
    check_thinking,
    run_jobs,
    with_retry,
)
from irdistill.teachers.llm.reading import GARBLED, ChoiceReader, read_answer
from irdistill.teachers.llm.sorting import heap_top, slide_up
from irdistill.teachers.llm.structured_answers import (
    JSON,
    check_structured,
    choice_schema,
    read_choice,
)
from irdistill.teachers.protocol import PartialOrder, TextPair

METHODS = ("all", "heapsort", "sliding")
WAYS = ("labels", "text", JSON)

#: Number of pairs of a query that are compared at a time, to keep few prompts in memory.
_SHARE = 512


class PairwiseTeacher:
    """A language model that compares two passages at a time."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: Mapping[str, Any],
        *,
        method: str = "all",
        by: str = "labels",
        top: int = 10,
        passage_words: int | None = 300,
        answer_tokens: int = 16,
        retry_tokens: int | None = None,
        thinking_tokens: int | None = None,
    ) -> None:
        """Create a teacher.

        Args:
            prompt: ``user`` (and ``system``, ``assistant``) with the placeholders ``{query}``,
                ``{first}`` and ``{second}``; ``labels``, the names of the first and the second
                passage in an answer (default: A and B); ``choice`` as in `ChoiceReader`.
            method: ``all``, ``heapsort`` or ``sliding``.
            by: ``labels`` compares the labels' log-probabilities; ``text`` reads the generated
                answer; ``json`` reads an answer that a server restricts to a JSON schema.
            top: number of passages that ``heapsort`` and ``sliding`` sort at the top.
            answer_tokens: token limit of a generated answer.
            retry_tokens: token limit of a second try for an answer that was cut (of its thinking,
                with ``thinking_tokens``); None for no second try.
            thinking_tokens: token limit of the thinking before the answer, of a model that thinks.
        """
        if method not in METHODS or by not in WAYS or top < 1:
            raise OptionError(
                f"the pairwise teacher has method {method!r}, by {by!r} and top {top}; expected one"
                f" of the methods {', '.join(METHODS)}, by labels, text or json, and a top of at"
                " least 1."
            )
        labels = prompt.get("labels", ["A", "B"])
        if (
            not isinstance(labels, list)
            or len(labels) != 2
            or len({str(label).strip() for label in labels} - {""}) != 2
        ):
            raise OptionError(
                f"the pairwise prompt's labels are {labels!r}; expected two different texts, such"
                " as [A, B]."
            )
        self._labels = (str(labels[0]), str(labels[1]))
        self._model, self._method, self._by, self._top = model, method, by, top
        self._words, self._answer_tokens = passage_words, answer_tokens
        self._thinking = check_thinking(thinking_tokens, prompt)
        retried = by != "labels" or self._thinking
        self.retry_tokens = (
            check_retry(retry_tokens, answer_tokens, self._thinking) if retried else None
        )
        check_structured(model, by, prompt)
        self._warning = MassWarning()
        self._template = Template(
            {key: value for key, value in prompt.items() if key not in ("labels", "choice")},
            ["query", "first", "second"],
            "the prompt of the pairwise teacher",
        )
        self._choices = [label.strip() for label in self._labels]
        self._reader = ChoiceReader(self._choices, prompt.get("choice"))
        self._digest = digest([self._template.digest, self._labels, prompt.get("choice")])

    @property
    def identity(self) -> dict[str, Any]:
        """The model, the method with its settings, and the prompt's fingerprint."""
        top = {} if self._method == "all" else {"top": self._top}
        tokens = {} if self._by == "labels" else {"answer_tokens": self._answer_tokens}
        tokens |= {} if self.retry_tokens is None else {"retry_tokens": self.retry_tokens}
        tokens |= {"thinking_tokens": self._thinking} if self._thinking else {}
        return {
            "kind": "llm-pairwise",
            "method": self._method,
            **top,
            "by": self._by,
            **tokens,
            "prompt": self._digest,
            "passage_words": self._words,
            "model": dict(self._model.identity),
        }

    def rank(self, lists: Sequence[Sequence[TextPair]]) -> list[PartialOrder]:
        """Order the documents of each query.

        A passage whose comparisons all failed is null; its flag is the model's error, ``cut`` or
        ``refused``, or ``garbled`` for an answer that names no label, or both. Failures with such a
        passage do not count for the other one. If another comparison of a passage failed, it is
        ranked and flagged ``doubtful``: in ``all``, its score is its share of wins among the
        comparisons that did not fail, times the number that it should have had; in the others a
        failed comparison is a tie, which keeps the candidates' order. ``heapsort`` and ``sliding``
        set aside a passage whose comparisons only failed, twice and once more with one that did not
        fail, and sort again, so that it does not block those below it. Below the sorted top, the
        flag is ``unsorted``.

        ``usage`` counts, besides the model's: ``comparisons``, their ``ties`` and
        ``failed_comparisons``; answers ``asked_again``; with labels, the label mass, as for the
        pointwise teacher.
        """
        return run_jobs(self._model, (self._job(pairs) for pairs in lists))

    def _job(self, pairs: Sequence[TextPair]) -> RequestJob[PartialOrder]:
        comparisons = _Comparisons(self, pairs)
        places = range(len(pairs))
        if self._method == "all":
            yield from comparisons.compare(list(combinations(places, 2)))
            values = comparisons.scores()
            order = sorted(places, key=lambda place: (-np.nan_to_num(values[place]), place))
            unsorted = []
        else:
            order = yield from self._sort(comparisons, places)
            values, unsorted = None, order[self._top :]
        flags = comparisons.flags()
        if len(unsorted) > 1:
            for place in unsorted:
                flags[place] = flags[place] or "unsorted"
        ranked = [place for place in order if place not in comparisons.never]
        usage = (
            total_usage(comparisons.answers)
            | comparisons.counts()
            | cut_usage((pair.text for pair in pairs), self._words)
        )
        if self._by == "labels" and not getattr(self._model, "relative_labels", False):
            usage |= label_mass(comparisons.answers)
            self._warning.look(usage, self._labels)
        return PartialOrder(ranked, flags, values, usage)

    def _sort(self, comparisons: _Comparisons, places: Sequence[int]) -> RequestJob[list[int]]:
        """Sort without the passages that only failed; each is tried once more with one that did
        not.
        """
        sort = heap_top if self._method == "heapsort" else slide_up
        while True:
            order = yield from sort(places, comparisons.before, self._top)
            suspects = [
                place
                for place in places
                if place in comparisons.never and comparisons.failed(place) > 1
            ]
            witness = next((place for place in order if comparisons.decided(place)), None)
            if witness is not None:
                yield from comparisons.compare(
                    [(min(place, witness), max(place, witness)) for place in suspects]
                )
            aside = comparisons.never.intersection(suspects)
            if not aside:
                return order
            places = [place for place in places if place not in aside]

    def requests(self, query: str, first: str, second: str) -> list[Request]:
        """The question in both orders."""
        labels, tokens = (self._labels, 1) if self._by == "labels" else ((), self._answer_tokens)
        schema = choice_schema(self._choices) if self._by == JSON else None
        return [
            Request(
                self._template.messages(query=query, first=one, second=other),
                labels,
                tokens,
                schema,
                self._thinking,
            )
            for one, other in ((first, second), (second, first))
        ]

    def choice(self, answer: Answer) -> float | None:
        """1 for the passage shown first, 0 for the second, 0.5 if both are equally likely, None if
        unknown.
        """
        return self.judge(answer)[0]

    def judge(self, answer: Answer) -> tuple[float | None, str | None]:
        """The choice of an answer; if there is none, the flag with the reason.

        A label that the model's interface did not report is less likely than one that it did.
        """
        if answer.error is not None:
            return None, answer.error
        if self._by == JSON:
            flag, index = read_choice(answer, self._choices)
            return (None, flag) if index is None else (1.0 - index, None)
        if self._by == "text":
            reply = read_answer(answer)
            if reply.flag not in (None, CUT):
                return None, reply.flag
            chosen = self._reader.read(reply.text, reply.flag == CUT)
            return (None, reply.flag or GARBLED) if chosen is None else (1.0 - chosen, None)
        if answer.labels is None or np.isnan(answer.labels).all():
            return None, GARBLED
        first, second = np.where(np.isnan(answer.labels), -np.inf, answer.labels).tolist()
        return (0.5 if first == second else float(first > second)), None

    def shown(self, text: str) -> str:
        """A passage on one line, cut."""
        return " ".join(cut_passage(text, self._words)[0].split())


class _Comparisons:
    """The comparisons of one query and their outcomes."""

    def __init__(self, teacher: PairwiseTeacher, pairs: Sequence[TextPair]) -> None:
        self._teacher = teacher
        self._query, self._texts = pairs[0].query.text, [teacher.shown(pair.text) for pair in pairs]
        self._outcomes: dict[tuple[int, int], float | None] = {}
        self._points, self._decided = [0.0] * len(pairs), [0] * len(pairs)
        #: The opponents of each passage's failed comparisons, and the reason of the first failure.
        self._failed: list[list[int]] = [[] for _ in pairs]
        self._reasons = [""] * len(pairs)
        self.answers: list[Answer] = []
        self._again = 0

    @property
    def never(self) -> set[int]:
        """Passages whose comparisons all failed."""
        return {
            place
            for place, failed in enumerate(self._failed)
            if failed and not self._decided[place]
        }

    def failed(self, place: int) -> int:
        return len(self._failed[place])

    def decided(self, place: int) -> int:
        return self._decided[place]

    def compare(
        self, pairs: Sequence[tuple[int, int]]
    ) -> Generator[Sequence[Request], list[Answer], None]:
        """Compare pairs that were not compared yet, the lower position first in each."""
        pairs = [pair for pair in pairs if pair not in self._outcomes]
        for start in range(0, len(pairs), _SHARE):
            share = pairs[start : start + _SHARE]
            answers = yield from with_retry(
                [
                    request
                    for first, second in share
                    for request in self._teacher.requests(
                        self._query, self._texts[first], self._texts[second]
                    )
                ],
                self._teacher.retry_tokens,
                lambda _, answer: self._teacher.judge(answer)[1] == CUT,
            )
            self.answers += answers.all
            self._again += len(answers.all) - len(answers.last)
            for number, (first, second) in enumerate(share):
                self._note(first, second, *answers.last[2 * number : 2 * number + 2])

    def before(self, first: int, second: int) -> Generator[Sequence[Request], list[Answer], bool]:
        """Whether a passage belongs before another; ties and failed comparisons keep the
        candidates' order.
        """
        pair = (min(first, second), max(first, second))
        yield from self.compare([pair])
        outcome = self._outcomes[pair]
        lower_first = outcome is None or outcome >= 0.5
        return lower_first == (first < second)

    def _note(self, first: int, second: int, forward: Answer, backward: Answer) -> None:
        win, why_not = self._teacher.judge(forward)
        loss, why_not_backward = self._teacher.judge(backward)
        if win is None or loss is None:
            self._outcomes[first, second] = None
            reason = (why_not if win is None else why_not_backward) or GARBLED
            for place, opponent in ((first, second), (second, first)):
                self._failed[place].append(opponent)
                self._reasons[place] = self._reasons[place] or reason
            return
        outcome = win if win == 1.0 - loss else 0.5
        self._outcomes[first, second] = outcome
        for place, points in ((first, outcome), (second, 1.0 - outcome)):
            self._decided[place] += 1
            self._points[place] += points

    def _doubts(self) -> list[int]:
        """Number of failed comparisons of each passage with passages that did not always fail."""
        never = self.never
        return [sum(opponent not in never for opponent in failed) for failed in self._failed]

    def scores(self) -> np.ndarray:
        """(n,) float32 wins plus half the ties, scaled to the number of comparisons without
        failures; NaN if there are none.
        """
        never = self.never
        values = np.full(len(self._decided), np.nan, dtype=np.float32)
        for place, (points, decided, doubts) in enumerate(
            zip(self._points, self._decided, self._doubts(), strict=True)
        ):
            if place not in never:
                values[place] = points * (decided + doubts) / decided if decided else 0.0
        return values

    def flags(self) -> list[str | None]:
        never = self.never
        return [
            self._reasons[place] if place in never else "doubtful" if doubts else None
            for place, doubts in enumerate(self._doubts())
        ]

    def counts(self) -> dict[str, float]:
        outcomes = list(self._outcomes.values())
        usage = {
            "comparisons": len(outcomes),
            "ties": outcomes.count(0.5),
            "failed_comparisons": outcomes.count(None),
            "asked_again": self._again,
        }
        return {name: number for name, number in usage.items() if number}
