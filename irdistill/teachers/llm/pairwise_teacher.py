"""Pairwise teachers: a language model says which of two passages fits a query better (Qin et al.
2023, arXiv:2306.17563).

Language models favour a position, so every pair is asked about twice, once in each order. The same
passage chosen both times is a win; different ones are a tie. Where one of the two answers cannot be
had or read, position bias cannot be told from preference, and the comparison has failed: it counts
as none.

* ``all``: every pair; a passage's score is its wins and half its ties.
* ``heapsort``: the best ``top`` by a heap.
* ``sliding``: ``top`` passes from the bottom of the list to its top that exchange neighbours.

A pair is asked about once in a query, however often a method comes back to it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.storage.files import digest
from irdistill.teachers.llm.label_probability import MassWarning, label_mass
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request, total_usage
from irdistill.teachers.llm.prompt_templates import Template, cut_passage, cut_usage
from irdistill.teachers.llm.queue import RequestJob, check_retry, run_jobs, with_retry
from irdistill.teachers.llm.reading import GARBLED, ChoiceReader, read_answer
from irdistill.teachers.llm.sorting import heap_top, slide_up
from irdistill.teachers.protocol import PartialOrder, TextPair

METHODS = ("all", "heapsort", "sliding")
WAYS = ("labels", "text")

#: All pairs of a query are asked about in shares of so many, to hold few prompts in memory.
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
    ) -> None:
        """Make a teacher.

        Args:
            prompt: ``user`` (and ``system``, ``assistant``) with the places ``{query}``,
                ``{first}`` and ``{second}``; ``labels``, the names of the first and the second
                passage in an answer, A and B if not given; ``choice`` as of `ChoiceReader`.
            by: ``labels`` compares the labels' log-probabilities; ``text`` reads what the model
                writes.
            top: how many ``heapsort`` and ``sliding`` bring to the top, sorted.
            passage_words: longer passages are cut.
            answer_tokens: of a written answer. A model that thinks needs thousands.
            retry_tokens: a written answer that the limit cut is asked for once more, with this
                limit; None for no second try.

        Raises:
            IrdistillError: a setting or the prompt cannot be used.
        """
        if method not in METHODS or by not in WAYS or top < 1:
            raise IrdistillError(
                f"a pairwise teacher with method {method!r}, by {by!r}, top {top} is none that"
                f" there is; the methods are {', '.join(METHODS)}, by is labels or text, and top is"
                " at least 1."
            )
        labels = prompt.get("labels", ["A", "B"])
        if (
            not isinstance(labels, list)
            or len(labels) != 2
            or len({str(label).strip() for label in labels} - {""}) != 2
        ):
            raise IrdistillError(
                f"the pairwise prompt's labels are {labels!r}; two different texts were expected,"
                " as [A, B]."
            )
        self._labels = (str(labels[0]), str(labels[1]))
        self._model, self._method, self._by, self._top = model, method, by, top
        self._words, self._answer_tokens = passage_words, answer_tokens
        self.retry_tokens = check_retry(retry_tokens, answer_tokens) if by == "text" else None
        self._warning = MassWarning()
        self._template = Template(
            {key: value for key, value in prompt.items() if key not in ("labels", "choice")},
            ["query", "first", "second"],
            "the prompt of the pairwise teacher",
        )
        self._reader = ChoiceReader([label.strip() for label in self._labels], prompt.get("choice"))
        self._digest = digest([self._template.digest, self._labels, prompt.get("choice")])

    @property
    def identity(self) -> dict[str, Any]:
        """The model, the method with its settings, and the prompt's fingerprint."""
        top = {} if self._method == "all" else {"top": self._top}
        tokens = {} if self._by == "labels" else {"answer_tokens": self._answer_tokens}
        tokens |= {} if self.retry_tokens is None else {"retry_tokens": self.retry_tokens}
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

        A passage all of whose comparisons failed is null; its flag is the model's error, ``cut`` or
        ``refused``, or ``garbled`` for an answer that names none of the labels, or both. Failures
        with such a passage count for nobody else. Where another comparison of a passage failed, it
        is ranked and flagged ``doubtful``: by ``all``, its score is the share that it won of those
        that did not fail, of as many as it should have had; by the others a failed comparison is a
        tie, which leaves the candidates' order. ``heapsort`` and ``sliding`` set a passage aside
        that only ever failed, twice and once more with one that did not, and sort again, so that it
        does not stand in the way of those below it. Below the top that they sort, the flag is
        ``unsorted``.

        ``usage`` counts, besides the model's: ``comparisons``, how many of them were ``ties``, and
        how many failed (``failed_comparisons``); answers ``asked_again``; by labels, the label
        mass, as of the pointwise teacher.
        """
        return run_jobs(self._model, (self._job(pairs) for pairs in lists))

    def _job(self, pairs: Sequence[TextPair]) -> RequestJob[PartialOrder]:
        held = _Comparisons(self, pairs)
        places = range(len(pairs))
        if self._method == "all":
            yield from held.compare(list(combinations(places, 2)))
            values = held.scores()
            order, unsorted = (
                sorted(places, key=lambda place: (-np.nan_to_num(values[place]), place)),
                [],
            )
        else:
            order = yield from self._sort(held, places)
            values, unsorted = None, order[self._top :]
        flags = held.flags()
        if len(unsorted) > 1:
            for place in unsorted:
                flags[place] = flags[place] or "unsorted"
        ranked = [place for place in order if place not in held.never]
        usage = (
            total_usage(held.answers)
            | held.counts()
            | cut_usage((pair.text for pair in pairs), self._words)
        )
        if self._by == "labels" and not getattr(self._model, "relative_labels", False):
            usage |= label_mass(held.answers)
            self._warning.look(usage, self._labels)
        return PartialOrder(ranked, flags, values, usage)

    def _sort(self, held: _Comparisons, places: Sequence[int]) -> RequestJob[list[int]]:
        """Sort, without those at fault: who only ever failed is tried once more, with one who did
        not.
        """
        sort = heap_top if self._method == "heapsort" else slide_up
        while True:
            order = yield from sort(places, held.before, self._top)
            suspects = [place for place in places if place in held.never and held.failed(place) > 1]
            witness = next((place for place in order if held.held(place)), None)
            if witness is not None:
                yield from held.compare(
                    [(min(place, witness), max(place, witness)) for place in suspects]
                )
            aside = held.never.intersection(suspects)
            if not aside:
                return order
            places = [place for place in places if place not in aside]

    def requests(self, query: str, first: str, second: str) -> list[Request]:
        """The same question in both orders."""
        labels, tokens = (self._labels, 1) if self._by == "labels" else ((), self._answer_tokens)
        return [
            Request(self._template.messages(query=query, first=one, second=other), labels, tokens)
            for one, other in ((first, second), (second, first))
        ]

    def choice(self, answer: Answer) -> float | None:
        """1 for the passage shown first, 0 for the second, 0.5 where both are as likely, None where
        it cannot be told.
        """
        return self.judge(answer)[0]

    def judge(self, answer: Answer) -> tuple[float | None, str | None]:
        """The choice of an answer; where there is none, the flag that says why.

        A label that the model's interface did not report is less likely than one that it did.
        """
        if answer.error is not None:
            return None, answer.error
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
        """On one line, cut."""
        return " ".join(cut_passage(text, self._words)[0].split())


class _Comparisons:
    """One query's comparisons: what was asked, and how each came out."""

    def __init__(self, teacher: PairwiseTeacher, pairs: Sequence[TextPair]) -> None:
        self._teacher = teacher
        self._query, self._texts = pairs[0].query.text, [teacher.shown(pair.text) for pair in pairs]
        self._outcomes: dict[tuple[int, int], float | None] = {}
        self._points, self._held = [0.0] * len(pairs), [0] * len(pairs)
        #: Whom each passage's comparisons failed with, and why the first did.
        self._failed: list[list[int]] = [[] for _ in pairs]
        self._reasons = [""] * len(pairs)
        self.answers: list[Answer] = []
        self._again = 0

    @property
    def never(self) -> set[int]:
        """Passages all of whose comparisons failed."""
        return {
            place for place, failed in enumerate(self._failed) if failed and not self._held[place]
        }

    def failed(self, place: int) -> int:
        return len(self._failed[place])

    def held(self, place: int) -> int:
        return self._held[place]

    def compare(
        self, pairs: Sequence[tuple[int, int]]
    ) -> Generator[Sequence[Request], list[Answer], None]:
        """Ask about pairs that were not asked about yet, the lower place first in each."""
        pairs = [pair for pair in pairs if pair not in self._outcomes]
        for start in range(0, len(pairs), _SHARE):
            share = pairs[start : start + _SHARE]
            answers = yield from with_retry(
                [
                    request
                    for one, other in share
                    for request in self._teacher.requests(
                        self._query, self._texts[one], self._texts[other]
                    )
                ],
                self._teacher.retry_tokens,
                lambda _, answer: self._teacher.judge(answer)[1] == CUT,
            )
            self.answers += answers.all
            self._again += len(answers.all) - len(answers.last)
            for number, (one, other) in enumerate(share):
                self._note(one, other, *answers.last[2 * number : 2 * number + 2])

    def before(self, one: int, other: int) -> Generator[Sequence[Request], list[Answer], bool]:
        """Whether a passage belongs before another; ties and failed comparisons leave the
        candidates' order.
        """
        pair = (min(one, other), max(one, other))
        yield from self.compare([pair])
        outcome = self._outcomes[pair]
        lower_first = outcome is None or outcome >= 0.5
        return lower_first == (one < other)

    def _note(self, one: int, other: int, forward: Answer, backward: Answer) -> None:
        (first, why_first), (second, why_second) = (
            self._teacher.judge(forward),
            self._teacher.judge(backward),
        )
        if first is None or second is None:
            self._outcomes[one, other] = None
            reason = (why_first if first is None else why_second) or GARBLED
            for place, opponent in ((one, other), (other, one)):
                self._failed[place].append(opponent)
                self._reasons[place] = self._reasons[place] or reason
            return
        outcome = first if first == 1.0 - second else 0.5
        self._outcomes[one, other] = outcome
        for place, points in ((one, outcome), (other, 1.0 - outcome)):
            self._held[place] += 1
            self._points[place] += points

    def _doubts(self) -> list[int]:
        """How many comparisons of each passage failed with one that is not itself at fault."""
        never = self.never
        return [sum(opponent not in never for opponent in failed) for failed in self._failed]

    def scores(self) -> np.ndarray:
        """(n,) float32 wins and half the ties, for as many comparisons as there would be if none
        had failed; NaN for none.
        """
        never = self.never
        values = np.full(len(self._held), np.nan, dtype=np.float32)
        for place, (points, held, doubts) in enumerate(
            zip(self._points, self._held, self._doubts(), strict=True)
        ):
            if place not in never:
                values[place] = points * (held + doubts) / held if held else 0.0
        return values

    def flags(self) -> list[str | None]:
        never = self.never
        return [
            self._reasons[place] if place in never else "doubtful" if doubts else None
            for place, doubts in enumerate(self._doubts())
        ]

    def counts(self) -> dict[str, float]:
        outcomes = list(self._outcomes.values())
        found = {
            "comparisons": len(outcomes),
            "ties": outcomes.count(0.5),
            "failed_comparisons": outcomes.count(None),
            "asked_again": self._again,
        }
        return {name: number for name, number in found.items() if number}
