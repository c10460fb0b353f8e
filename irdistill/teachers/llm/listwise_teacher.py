"""Listwise teachers: a language model orders one window of passages at a time.

* ``sliding``: from the bottom of the list to its top, as RankGPT (Sun et al. 2023,
  arXiv:2304.09542) and RankZephyr (Pradeep et al. 2023, arXiv:2312.02724). Each window waits for
  the one below it.
* ``top-down``: partitioning by a pivot (Parry et al. 2024, arXiv:2405.14589). Fewer windows, most
  of them concurrent.

The order of a window is written by the model (``by: text``), or it is that of the log-probabilities
of the passages' labels where the answer begins (``by: labels``), which takes one forward pass, as
FIRST (Gangi Reddy et al. 2024, arXiv:2406.15657), or a server restricts what the model writes to a
JSON schema (``by: json``).

In both methods, **the last window that contained a passage decides whether it is null.** If that
answer omits the passage, repeats it or cannot be read, or if there is no answer, the passage is
null and its flag gives the reason (``omitted``, ``repeated``, ``label not reported``, ``garbled``,
``cut``, ``refused``, or the model's error). Until then such a passage still moves with the others,
so that the sort can continue: an omitted one is placed after those that the window ranked, a
repeated one at its first position, and a window that failed keeps its order. A later window that
ranks the passage removes the flag.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

from irdistill.errors import OptionError
from irdistill.storage.files import digest
from irdistill.teachers.llm.label_probability import MassWarning, label_mass
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, total_usage
from irdistill.teachers.llm.order_agreement import in_sample, window_agreement
from irdistill.teachers.llm.prompt_templates import cut_usage
from irdistill.teachers.llm.queue import (
    RequestJob,
    check_retry,
    check_thinking,
    run_jobs,
    with_retry,
)
from irdistill.teachers.llm.reading import GARBLED
from irdistill.teachers.llm.window_prompt import LABELS, NOT_REPORTED, TEXT, WAYS, WindowPrompt
from irdistill.teachers.protocol import PartialOrder, TextPair

METHODS = ("sliding", "top-down")


class ListwiseLLMTeacher:
    """A language model that orders windows of passages."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: Mapping[str, Any],
        *,
        method: str = "sliding",
        by: str = TEXT,
        window: int = 20,
        step: int = 10,
        passes: int = 1,
        top: int = 10,
        passage_words: int | None = 300,
        shuffle: bool = False,
        seed: int = 0,
        answer_tokens: int | None = None,
        retry_tokens: int | None = None,
        thinking_tokens: int | None = None,
        compare_generated: float = 0.0,
    ) -> None:
        """Create a teacher.

        Args:
            prompt: ``user`` (and ``system``, ``assistant``) with the placeholders ``{query}`` and
                ``{passages}``, optionally ``{count}``; ``passage``, one passage with the
                placeholders ``{number}`` and ``{text}``; ``identifier`` and ``ranking`` as in
                `RankingReader`; ``labels``, which are shown instead of the numbers 1, 2, ….
            method: ``sliding`` or ``top-down``.
            by: ``text`` reads the order that the model writes; ``labels`` compares the
                log-probabilities of the passages' labels (default: A to Z) at the answer's first
                token; ``json`` reads an answer that a server restricts to a JSON schema.
            window: passages per request.
            step: how far a sliding window moves; ``window - step`` passages rise from one window to
                the next.
            passes: how often the whole list is processed; a pass without a change is the last.
            top: number of passages that top-down partitioning sorts; the pivot is the passage at
                that rank.
            shuffle: start from a random order, which depends on ``seed`` and the query's id,
                instead of the candidates'.
            answer_tokens: token limit of an answer; None for the tokens of the identifiers of a
                window.
            retry_tokens: token limit of a second try for an answer that was cut before it ranked
                the window (of its thinking, with ``thinking_tokens``); None for no second try.
            thinking_tokens: token limit of the thinking before the answer, of a model that thinks.
                Thinking that does not end is a cut answer.
            compare_generated: share of the queries whose windows are also ordered by a text, to
                measure how well both orders agree. Needs ``by: labels``; the scores do not change.
        """
        _check(method, window, step, passes, top)
        _check_way(by, compare_generated)
        self._model, self._method, self._window, self._step = model, method, window, step
        self._passes, self._top = passes, top
        self._words, self._shuffle, self._seed = passage_words, shuffle, seed
        self._answer_tokens = answer_tokens
        self._thinking = check_thinking(thinking_tokens, prompt)
        self._retry_tokens = check_retry(retry_tokens, answer_tokens, self._thinking)
        self._prompt = WindowPrompt(prompt, by, passage_words, answer_tokens, self._thinking)
        self._prompt.check(model, window)
        self._compared = compare_generated
        self._generated = WindowPrompt(
            dict(prompt) | {"labels": list(self._prompt.labels) or None},
            TEXT,
            passage_words,
            answer_tokens,
            self._thinking,
        )
        self._missing = NOT_REPORTED if by == LABELS else "omitted"
        self._warning = MassWarning()

    @property
    def identity(self) -> dict[str, Any]:
        """The model, the method with its settings, and the prompt's fingerprint."""
        steps = (
            {"step": self._step, "passes": self._passes}
            if self._method == "sliding"
            else {"top": self._top}
        )
        return {
            "kind": "llm-listwise",
            "method": self._method,
            "window": self._window,
            **steps,
            **({} if self._prompt.by == TEXT else {"by": self._prompt.by}),
            "prompt": self._prompt.digest,
            "passage_words": self._words,
            "shuffle": self._seed if self._shuffle else None,
            "answer_tokens": self._answer_tokens,
            **({} if self._retry_tokens is None else {"retry_tokens": self._retry_tokens}),
            **({"thinking_tokens": self._thinking} if self._thinking else {}),
            **({"compare_generated": self._compared} if self._compared else {}),
            "model": dict(self._model.identity),
        }

    def rank(self, lists: Sequence[Sequence[TextPair]]) -> list[PartialOrder]:
        """Order the documents of each query; see the module for which of them stay null.

        ``usage`` counts, besides the model's: ``windows``; ``windows_ok`` that name each passage
        once and nothing else; ``windows_failed`` without an answer; ``windows_cut`` whose answer
        was cut; how often passages were ``omitted``, ``repeated`` or ``garbled`` in a window;
        ``unknown`` identifiers; by labels, labels that were ``unreported``, passages that were
        ``tied``, and the label mass, as for the pointwise teacher; and the agreement with generated
        orders (see `window_agreement`).
        """
        return run_jobs(self._model, (self._job(pairs) for pairs in lists))

    def _job(self, pairs: Sequence[TextPair]) -> RequestJob[PartialOrder]:
        order = list(range(len(pairs)))
        if self._shuffle:
            random.Random(digest([self._seed, pairs[0].query.id])).shuffle(order)
        documents = _List(
            [self._prompt.shown(pair.text) for pair in pairs],
            in_sample(pairs[0].query.id, self._compared),
        )
        if self._method == "sliding":
            order = yield from self._slide(documents, pairs[0].query.text, order)
        else:
            order = yield from self._partition(documents, pairs[0].query.text, order)
        ranked = [place for place in order if documents.flags[place] is None]
        flags = [
            flag or ("unsorted" if place in documents.unsorted else None)
            for place, flag in enumerate(documents.flags)
        ]
        usage = (
            total_usage(documents.answers)
            | documents.counts
            | cut_usage((pair.text for pair in pairs), self._words)
        )
        if self._prompt.by == LABELS and not getattr(self._model, "relative_labels", False):
            usage |= label_mass(documents.answers)
            self._warning.look(usage, self._prompt.labels)
        return PartialOrder(ranked, flags, usage=usage)

    def _slide(self, documents: _List, query: str, order: list[int]) -> RequestJob[list[int]]:
        for _ in range(self._passes):
            before = list(order)
            for start in window_starts(len(order), self._window, self._step):
                shown = order[start : start + self._window]
                [answer] = yield from self._ask(documents, query, [shown])
                ranked, rest = self._read(documents, shown, answer)
                order[start : start + self._window] = ranked + rest
            if order == before:
                break
        return order

    def _partition(self, documents: _List, query: str, order: list[int]) -> RequestJob[list[int]]:
        """The sorted top, followed by passages that are below a pivot, marked as unsorted."""
        below: list[int] = []
        while True:
            shown, others = order[: self._window], order[self._window :]
            [answer] = yield from self._ask(documents, query, [shown])
            ranked, rest = self._read(documents, shown, answer)
            placed = [place for place in ranked if documents.flags[place] is None]
            if not others:
                return ranked + rest + below
            if not placed:  # no pivot can be had here, and these are null: the next window begins
                below = ranked + rest + below
                order = others
                continue
            pivot = placed[min(self._top, len(placed)) - 1]
            cut = ranked.index(pivot)
            first, beaten = ranked[:cut], ranked[cut + 1 :] + rest
            windows = pivot_windows(others, pivot, self._window)
            answers = yield from self._ask(documents, query, windows)
            better = []
            for shown, answer in zip(windows, answers, strict=True):
                above, under = self._split(documents, shown, answer, pivot)
                better.append(above)
                beaten += under
            if len(beaten) > 1:
                documents.unsorted.update(beaten)
            below = [pivot, *beaten, *below]
            if not any(better):
                return first + below
            # The best of each window come first, so that the next pivot is strong and few
            # are left above it.
            order = [
                place
                for places in zip_longest(first, *better)
                for place in places
                if place is not None
            ]

    def _split(
        self, documents: _List, shown: list[int], answer: Answer, pivot: int
    ) -> tuple[list[int], list[int]]:
        """The passages above the pivot, and the others.

        Nothing is known about them if the answer omits the pivot. But if the pivot's label was not
        reported, it is less likely than those that were.
        """
        keep = documents.flags[pivot]
        ranked, rest = self._read(documents, shown, answer)
        documents.flags[pivot] = keep
        if pivot not in ranked and self._prompt.by == LABELS:
            return ranked, [place for place in rest if place != pivot]
        if pivot not in ranked:
            for place in ranked:
                documents.flags[place] = "pivot omitted"
            return [], [place for place in ranked + rest if place != pivot]
        cut = ranked.index(pivot)
        return ranked[:cut], ranked[cut + 1 :] + rest

    def _read(
        self, documents: _List, shown: list[int], answer: Answer
    ) -> tuple[list[int], list[int]]:
        """Passages as the answer ranks them, best first, and those it omits; records their flags
        and counts.
        """
        documents.count("windows", 1)
        flag, numbers = self._prompt.read(answer, len(shown))
        if numbers is None:
            count, number = {CUT: ("windows_cut", 1), GARBLED: ("garbled", len(shown))}.get(
                flag or "", ("windows_failed", 1)
            )
            documents.count(count, number)
            documents.flag(shown, flag)
            return [], list(shown)
        documents.count("unknown", numbers.unknown)
        documents.count("windows_ok", int(numbers.complete))
        documents.count(
            "unreported" if self._prompt.by == LABELS else "omitted", len(numbers.omitted)
        )
        documents.count("tied", numbers.tied)
        documents.count("repeated", len(numbers.repeated))
        ranked = [shown[place] for place in numbers.order]
        rest = [shown[place] for place in numbers.omitted]
        documents.flag(ranked, None)
        documents.flag([shown[place] for place in numbers.repeated], "repeated")
        documents.flag(rest, self._missing)
        return ranked, rest

    def _ask(
        self, documents: _List, query: str, windows: Sequence[Sequence[int]]
    ) -> RequestJob[list[Answer]]:
        answers = yield from self._send(documents, self._prompt, query, windows)
        if documents.compared:
            texts = yield from self._send(documents, self._generated, query, windows)
            for shown, answer, text in zip(windows, answers, texts, strict=True):
                agreement = window_agreement(
                    self._prompt.read(answer, len(shown))[1],
                    self._generated.read(text, len(shown))[1],
                )
                for name, number in agreement.items():
                    documents.add(name, number)
        return answers

    def _send(
        self,
        documents: _List,
        prompt: WindowPrompt,
        query: str,
        windows: Sequence[Sequence[int]],
    ) -> RequestJob[list[Answer]]:
        answers = yield from with_retry(
            [
                prompt.request(query, [documents.texts[place] for place in shown])
                for shown in windows
            ],
            None if prompt.by == LABELS and not self._thinking else self._retry_tokens,
            lambda place, answer: prompt.read(answer, len(windows[place]))[0] == CUT,
        )
        documents.answers += answers.all
        documents.count("asked_again", len(answers.all) - len(answers.last))
        return answers.last


class _List:
    """The passages of one query while they are being ordered."""

    def __init__(self, texts: list[str], compared: bool) -> None:
        self.texts, self.compared = texts, compared
        self.flags: list[str | None] = ["omitted"] * len(texts)
        self.unsorted: set[int] = set()
        self.answers: list[Answer] = []
        self.counts: dict[str, float] = {}

    def flag(self, places: Sequence[int], flag: str | None) -> None:
        for place in places:
            self.flags[place] = flag

    def count(self, name: str, number: int) -> None:
        if number:
            self.add(name, number)

    def add(self, name: str, number: float) -> None:
        self.counts[name] = self.counts.get(name, 0) + number


def window_starts(count: int, window: int, step: int) -> Iterator[int]:
    """Starts of sliding windows, the lowest of the list first; the last is at its top.

    There are ``1 + ceil((count - window) / step)`` windows, or one if all passages fit.

    Examples:
        >>> list(window_starts(10, 4, 2))
        [6, 4, 2, 0]
    """
    start = count - window
    while start > 0:
        yield start
        start -= step
    yield 0


def pivot_windows(places: Sequence[int], pivot: int, window: int) -> list[list[int]]:
    """As few windows of nearly equal size as possible, each with the pivot in its middle.

    A model that prefers what comes first, or last, then puts about half of a window above the
    pivot, not all of it.
    """
    count = -(-len(places) // (window - 1))
    bounds = [len(places) * number // count for number in range(count + 1)]
    windows = []
    for start, end in pairwise(bounds):
        middle = (start + end) // 2
        windows.append([*places[start:middle], pivot, *places[middle:end]])
    return windows


def _check(method: str, window: int, step: int, passes: int, top: int) -> None:
    if method not in METHODS:
        raise OptionError(
            f"the listwise method {method!r} is unknown; expected one of {', '.join(METHODS)}."
        )
    if window < 2 or passes < 1 or (method == "sliding" and not 1 <= step < window):
        raise OptionError(
            f"window is {window}, step is {step} and passes is {passes}; expected a window of at"
            " least 2, a step from 1 to window - 1, and at least one pass."
        )
    if method == "top-down" and not 1 <= top < window:
        raise OptionError(
            f"top is {top} and window is {window}; expected a top from 1 to window - 1."
        )


def _check_way(by: str, compare_generated: float) -> None:
    if by not in WAYS:
        raise OptionError(f"by is {by!r}; expected one of {', '.join(WAYS)}.")
    if not 0 <= compare_generated <= 1:
        raise OptionError(
            f"compare_generated is {compare_generated}; expected a share of the queries from 0 to"
            " 1, such as 0.05."
        )
    if compare_generated and by != LABELS:
        raise OptionError(
            "compare_generated measures how well orders by labels agree with generated ones, and"
            f" this teacher orders by {by}. Set by: labels, or leave compare_generated out."
        )
