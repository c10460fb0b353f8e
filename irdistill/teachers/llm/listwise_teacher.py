"""Listwise teachers: a language model orders one window of passages at a time.

* ``sliding``: from the bottom of the list to its top, as RankGPT (Sun et al. 2023,
  arXiv:2304.09542) and RankZephyr (Pradeep et al. 2023, arXiv:2312.02724). Each window waits for
  the one below it.
* ``top-down``: partitioning by a pivot (Parry et al. 2024, arXiv:2405.14589). Fewer windows, most
  of them concurrent.

In both methods, **the last window that contained a passage decides whether it is null.** If that
answer omits the passage, repeats it or cannot be read, or if there is no answer, the passage is
null and its flag gives the reason (``omitted``, ``repeated``, ``garbled``, ``cut``, ``refused``, or
the model's error). Until then such a passage still moves with the others, so that the sort can
continue: an omitted one is placed after those that the window ranked, a repeated one at its first
position, and a window that failed keeps its order. A later window that ranks the passage removes
the flag.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

from irdistill.errors import OptionError
from irdistill.storage.files import digest
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request, total_usage
from irdistill.teachers.llm.prompt_templates import Template, cut_passage, cut_usage
from irdistill.teachers.llm.queue import RequestJob, check_retry, run_jobs, with_retry
from irdistill.teachers.llm.reading import GARBLED, IDENTIFIER, RankingReader, Reading, read_answer
from irdistill.teachers.protocol import PartialOrder, TextPair

METHODS = ("sliding", "top-down")

#: Tokens of an answer: per identifier (brackets, digits, separator), and at its beginning and end.
_TOKENS_EACH, _TOKENS_MORE = 6, 16

_OWN_IDENTIFIER = re.compile(IDENTIFIER)


class ListwiseLLMTeacher:
    """A language model that orders windows of passages."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: Mapping[str, Any],
        *,
        method: str = "sliding",
        window: int = 20,
        step: int = 10,
        passes: int = 1,
        top: int = 10,
        passage_words: int | None = 300,
        shuffle: bool = False,
        seed: int = 0,
        answer_tokens: int | None = None,
        retry_tokens: int | None = None,
    ) -> None:
        """Create a teacher.

        Args:
            prompt: ``user`` (and ``system``, ``assistant``) with the placeholders ``{query}`` and
                ``{passages}``, optionally ``{count}``; ``passage``, one passage with the
                placeholders ``{number}`` and ``{text}``; ``identifier`` and ``ranking`` as in
                `RankingReader`.
            method: ``sliding`` or ``top-down``.
            window: passages per request.
            step: how far a sliding window moves; ``window - step`` passages rise from one window to
                the next.
            passes: how often the whole list is processed; a pass without a change is the last.
            top: number of passages that top-down partitioning sorts; the pivot is the passage at
                that rank.
            shuffle: start from a random order, which depends on ``seed`` and the query's id,
                instead of the candidates'.
            answer_tokens: token limit of an answer; None for the tokens of the identifiers of a
                window. A model that thinks needs thousands.
            retry_tokens: token limit of a second try for an answer that was cut before it ranked
                the window; None for no second try.
        """
        _check(method, window, step, passes, top)
        self._model, self._method, self._window, self._step = model, method, window, step
        self._passes, self._top = passes, top
        self._words, self._shuffle, self._seed = passage_words, shuffle, seed
        self._answer_tokens = answer_tokens
        self._retry_tokens = check_retry(retry_tokens, answer_tokens)
        defaults = {"passage": "[{number}] {text}", "identifier": IDENTIFIER, "ranking": None}
        defaults |= {key: prompt[key] for key in defaults if key in prompt}
        self._template = Template(
            {key: value for key, value in prompt.items() if key not in defaults},
            ["query", "passages"],
            "the prompt of the listwise teacher",
            ["count"],
        )
        self._passage = Template(
            {"user": defaults["passage"] or ""}, ["number", "text"], "the listwise prompt's passage"
        )
        self._reader = RankingReader(defaults["identifier"] or IDENTIFIER, defaults["ranking"])
        self._digest = digest([self._template.digest, defaults])

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
            "prompt": self._digest,
            "passage_words": self._words,
            "shuffle": self._seed if self._shuffle else None,
            "answer_tokens": self._answer_tokens,
            **({} if self._retry_tokens is None else {"retry_tokens": self._retry_tokens}),
            "model": dict(self._model.identity),
        }

    def rank(self, lists: Sequence[Sequence[TextPair]]) -> list[PartialOrder]:
        """Order the documents of each query; see the module for which of them stay null.

        ``usage`` counts, besides the model's: ``windows``; ``windows_ok`` that name each passage
        once and nothing else; ``windows_failed`` without an answer; ``windows_cut`` whose answer
        was cut; how often passages were ``omitted``, ``repeated`` or ``garbled`` in a window; and
        ``unknown`` identifiers.
        """
        return run_jobs(self._model, (self._job(pairs) for pairs in lists))

    def _job(self, pairs: Sequence[TextPair]) -> RequestJob[PartialOrder]:
        order = list(range(len(pairs)))
        if self._shuffle:
            random.Random(digest([self._seed, pairs[0].query.id])).shuffle(order)
        documents = _List([self._shown(pair.text) for pair in pairs])
        if self._method == "sliding":
            order = yield from self._slide(documents, pairs[0].query.text, order)
        else:
            order = yield from self._partition(documents, pairs[0].query.text, order)
        ranked = [place for place in order if documents.flags[place] is None]
        flags = [
            flag or ("unsorted" if place in documents.unsorted else None)
            for place, flag in enumerate(documents.flags)
        ]
        return PartialOrder(
            ranked,
            flags,
            usage=total_usage(documents.answers)
            | documents.counts
            | cut_usage((pair.text for pair in pairs), self._words),
        )

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
        """The passages above the pivot, and the others; nothing is known about them if the answer
        omits the pivot.
        """
        keep = documents.flags[pivot]
        ranked, rest = self._read(documents, shown, answer)
        documents.flags[pivot] = keep
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
        flag, numbers = self._understand(answer, len(shown))
        if numbers is None:
            count, number = {CUT: ("windows_cut", 1), GARBLED: ("garbled", len(shown))}.get(
                flag or "", ("windows_failed", 1)
            )
            documents.count(count, number)
            documents.flag(shown, flag)
            return [], list(shown)
        documents.count("unknown", numbers.unknown)
        documents.count("windows_ok", int(numbers.complete))
        documents.count("omitted", len(numbers.omitted))
        documents.count("repeated", len(numbers.repeated))
        ranked = [shown[place] for place in numbers.order]
        rest = [shown[place] for place in numbers.omitted]
        documents.flag(ranked, None)
        documents.flag([shown[place] for place in numbers.repeated], "repeated")
        documents.flag(rest, "omitted")
        return ranked, rest

    def _understand(self, answer: Answer, count: int) -> tuple[str | None, Reading | None]:
        """The ranking of an answer, or why it has none. A cut answer counts if the whole ranking
        comes first.
        """
        if answer.error is not None:
            return answer.error, None
        text = self._template.parts.get("assistant", "") + answer.text
        reply = read_answer(answer._replace(text=text))
        if reply.flag not in (None, CUT):
            return reply.flag, None
        reading = self._reader.read(text, count)
        if reply.flag == CUT and (reading.garbled or not reading.certain):
            return CUT, None
        return (GARBLED, None) if reading.garbled else (None, reading)

    def _ask(
        self, documents: _List, query: str, windows: Sequence[Sequence[int]]
    ) -> RequestJob[list[Answer]]:
        answers = yield from with_retry(
            [self._request(documents, query, shown) for shown in windows],
            self._retry_tokens,
            lambda place, answer: self._understand(answer, len(windows[place]))[0] == CUT,
        )
        documents.answers += answers.all
        documents.count("asked_again", len(answers.all) - len(answers.last))
        return answers.last

    def _request(self, documents: _List, query: str, shown: Sequence[int]) -> Request:
        passages = "\n".join(
            self._passage.messages(number=str(number), text=documents.texts[place])[0].content
            for number, place in enumerate(shown, 1)
        )
        tokens = self._answer_tokens or _TOKENS_EACH * len(shown) + _TOKENS_MORE
        return Request(
            self._template.messages(query=query, passages=passages, count=str(len(shown))),
            max_tokens=tokens,
        )

    def _shown(self, text: str) -> str:
        """A passage on one line, cut, with ``[3]`` written as ``(3)``, so that it is not read as an
        identifier.
        """
        return _OWN_IDENTIFIER.sub(r"(\1)", " ".join(cut_passage(text, self._words)[0].split()))


class _List:
    """The passages of one query while they are being ordered."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.flags: list[str | None] = ["omitted"] * len(texts)
        self.unsorted: set[int] = set()
        self.answers: list[Answer] = []
        self.counts: dict[str, float] = {}

    def flag(self, places: Sequence[int], flag: str | None) -> None:
        for place in places:
            self.flags[place] = flag

    def count(self, name: str, number: int) -> None:
        if number:
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
