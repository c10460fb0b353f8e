"""Reading answers: what is thinking, a refusal or cut, which passages an answer ranks, which label
it chooses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from irdistill.errors import InputError
from irdistill.teachers.llm.language_model import CUT, Answer
from irdistill.teachers.llm.thinking import split_thinking

IDENTIFIER = r"\[(\d+)\]"
REFUSED, NO_ANSWER, GARBLED = "refused", "no answer", "garbled"

#: Number of characters before a ranking that are read.
_LINE = 300
#: Longer numbers name no passage.
_DIGITS = 6

_ABLE = (
    r"(?:assist|help"
    r" (?:you|with)|provide|answer|generate|create|write|fulfil|comply|rewrite|reformulate"
    r"|formulate|produce"
    r"|rank|"
    r"determine|complete (?:this|the|your)|engage|discuss|offer|do"
    r" (?:that|this|so)|judge|order|compare|continue"
    r"|see (?:any|the|a))"
)
_REFUSAL = re.compile(
    r"(?:(?:i['’]?m |i am )?(?:very |so |truly |really"
    r" )?(?:sorry|afraid)\b[,.:;!]?\s+(?:but|i|we|that|this|the|there|as)\b"
    r"|(?:i['’]?m |i am )?(?:very |so )?sorry[.!]?\s*$|my apologies\b|i"
    r" apologi[sz]e\b|apologies[,.!]"
    rf"|(?:i|we) (?:can ?not|can['’]?t|could ?n[o'’]t|could not|won['’]?t|will"
    rf" not|do(?:n['’]?t| not) feel "
    r"comfortable|am (?:unable|not able) to|['’]?m (?:unable|not able) to|must decline)(?:"
    rf" to)?\s*(?:{_ABLE}\b|$|[.!])"
    rf"|i['’]m (?:unable|not able) to\b|as an? (?:ai|artificial intelligence|language model|large"
    rf" language model)(?: language)?"
    r"(?: model| assistant)?,|as an? ai (?:language )?(?:model|assistant)\b"
    r"|(?:the|this) (?:passage|text|document) (?:does not|doesn['’]t)"
    r" (?:contain|provide|include|have|support|give)\b"
    r"|(?:there is|there['’]s) (?:no|not enough) (?:passage|information|context|text)\b"
    r"|no (?:passage|text|answer|relevant \w+)s? (?:was|were|is|are)"
    r" (?:provided|given|available|found|possible)\b"
    r"|no passage provided\b"
    r"|no (?:suitable |relevant |valid )?(?:query|question|claim|title|answer|keyword)s?"
    r" (?:can|could) be \w+"
    r"|(?:please |could you (?:please )?|can you (?:please )?)(?:provide|share|paste|send) (?:me"
    r" with |me )?(?:the|a|more|your) "
    r"(?:passage|text|conversation|context|question|document)"
    r"|(?:i|we) (?:do not|don['’]t) (?:have|see) (?:enough |sufficient |any |a |the |access )(?:\w+"
    r" )?(?:information|context"
    r"|passage|text|document|question|to\b)|i need (?:more|additional|further)"
    r" (?:context|information|details)\b(?:[.!]?\s*$| to\b)"
    r"|(?:it (?:seems|looks like|appears)(?: that| like)?|looks like) (?:the"
    r" (?:passage|text|document|question|conversation)"
    r"(?: you)?\b.{0,60}\b(?:missing|empty|provided?|included?|incomplete)|you (?:did"
    r" not|didn['’]t|have not|haven['’]t|forgot)\b)"
    r"|the (?:passage|text|document) (?:is|seems|appears)(?: to be)?"
    r" (?:empty|missing|incomplete)\b|i am an? ai\b|i['’]m an? ai\b"
    r"|(?:hello[!,.]? |hi[!,.]? )?how (?:can|may) i (?:help|assist) you(?: today| with)?\b"
    r"|there (?:are|is) no (?:questions?|quer(?:y|ies)|claims?|titles?)[.!]?\s*$"
    r"|(?:i am |i['’]m )?unable to (?:generate|provide|produce|create|formulate|write)"
    r" (?:a|an|the|any|this|that)\b"
    r"|unable to (?:generate|comply|answer|rank)[.!]?\s*$"
    r"|抱歉|对不起|很抱歉|我无法|我不能|申し訳|すみません|es tut mir leid|leider kann ich|je suis"
    r" désolée?|désolée?,|lo siento|"
    r"mi dispiace|desculpe|извините|к сожалению)",
    re.IGNORECASE,
)
#: Ends of a turn that a server leaves in the text; what follows is invented by the model.
_TURN_END = re.compile(
    r"<\|(?:im_end|im_start|eot_id|eom_id|end_of_text|endoftext|end_of_turn|end|user|assistant)\|>"
    r"|<(?:end|start)_of_turn>|</s>\s*\Z|<[|｜]end[▁_]of[▁_]sentence[|｜]>"
)
_NOT_BEFORE = re.compile(
    r"^[\s\"'“”‘’`>#(\[-]+(?:(?:unfortunately|regrettably)[,:]?\s+)?"
    r"|^(?:unfortunately|regrettably)[,:]?\s+",
    re.IGNORECASE,
)


class Reply(NamedTuple):
    """An answer after reading.

    Attributes:
        text: without thinking and code fences. Empty if there is a flag other than `CUT`.
        flag: why the answer must not be used as it is: the model's error, ``refused``, ``no
            answer``; or ``cut`` if the token limit ended it, so that only the parts of ``text``
            that are certainly complete may be used. None for a complete answer.
    """

    text: str
    flag: str | None = None


def read_answer(answer: Answer) -> Reply:
    """Read an answer; all teachers read answers in this way."""
    if answer.error is not None:
        return Reply("", answer.error)
    said = split_thinking(answer.text)
    if not said.whole:
        return Reply("", CUT)
    first_turn = _TURN_END.split(said.text, maxsplit=1)[0]
    if is_refusal(first_turn):
        return Reply("", REFUSED)
    text = without_fences(first_turn)
    if not text:
        return Reply("", CUT if answer.cut else NO_ANSWER)
    return Reply(text, CUT if answer.cut else None)


def is_refusal(text: str) -> bool:
    """Whether a text begins like a refusal: *I'm sorry, but …*, *I cannot assist …*, *As an AI
    language model …*.
    """
    return bool(_REFUSAL.match(_NOT_BEFORE.sub("", re.sub(r"[*_]", "", text[:400]))))


def without_fences(text: str) -> str:
    """A text without the fences of its code blocks; the content of the blocks stays."""
    lines = []
    for line in text.strip().splitlines():
        bare = line.strip()
        if not bare.startswith(("```", "~~~")):
            lines.append(line)
        elif len(bare) > 6 and bare.endswith(bare[:3]):  # ```all on one line```
            lines.append(bare.strip(bare[0]))
        else:
            lines.append("")
    return "\n".join(lines).strip() or text.strip("`~ \t\r\n")


class Reading(NamedTuple):
    """What an answer says about ``count`` passages, numbered from 0.

    Attributes:
        order: passages in the order of the answer, best first, each once, at its first position.
        repeated: those of ``order`` that it names more than once.
        omitted: those it does not name, in their old order.
        unknown: number of identifiers that name no passage.
        certain: whether the ranking is valid even if the answer was cut: only a label stands before
            it, no words follow on its line, its identifiers are separated by ``>`` or lines, and it
            names all passages or other lines follow.
        tied: number of passages that the answer ranks like another one, for orders by labels.
    """

    order: list[int]
    repeated: list[int]
    omitted: list[int]
    unknown: int
    certain: bool = True
    tied: int = 0

    @property
    def garbled(self) -> bool:
        """Whether the answer has no ranking of passages."""
        return not self.order

    @property
    def complete(self) -> bool:
        """Whether every passage is named once, and nothing else."""
        return not (self.repeated or self.omitted or self.unknown)


#: Separators of two identifiers of one ranking.
_BETWEEN = re.compile(
    r"(?:[\s>,;:|=≥≻→\"'`*_()\[\]{}<-]|\.(?=[\"'*_]*(?:\n|\.))|(?<![a-z])(?:and|then|passage|document|doc"
    r"|finally|(?:rank )?\d{1,3}[.):])(?![a-z]))*",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n\s*\n\W*[a-z]", re.IGNORECASE)
_ITEM = re.compile(
    r"\s*(?:(?P<number>\d{1,3})[.):]|[-*•])?\s*[\"'`*_(]*(?:passage|document|doc)?\s*",
    re.IGNORECASE,
)
#: Text before identifiers that are not a ranking, best first: *the order is not*, *none of … are
#: relevant:*, *from least to most:*.
_DENIED = re.compile(
    r"(?:\b(?:not|isn['’]t|aren['’]t|never)\s+(?:the case that\s+|that\s+|simply\s+|be\s+|as"
    r" follows\W*)?"
    r"|\bnone of\b[^.,;!?\n]*|\bleast (?:\w+ )?(?:to|first)\b[^.;!?\n]*"
    r"|\b(?:can ?not|can['’]t|could not|unable to)\b[^.,;:!?\n]*)[^\w.;!?\n]*\Z",
    re.IGNORECASE,
)
_ANNOUNCES = re.compile(r"rank|order|answer|result|best|relevan|sort|list", re.IGNORECASE)
_BEFORE = re.compile(r"(?:[^\n]{0,200}[:：]|[\W_]*)\s*(?:1[.):]\s*)?\Z")


class RankingReader:
    """Finds the identifiers of passages in an answer such as ``[2] > [3] > [1]``.

    Identifiers count if they follow one another as a ranking, or if each begins a line of a list.
    Of several such chains in an answer, the one with ``>``, else the longest, else the last is
    read. Identifiers spread over sentences are not a ranking: the order in which a model *mentions*
    passages says nothing.
    """

    def __init__(
        self,
        identifier: str = IDENTIFIER,
        ranking: str | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """Compile the patterns of a card.

        Args:
            identifier: regular expression of one identifier; its group, or the whole match, is the
                passage's number, from 1, or its name.
            ranking: if not None, only the last match in the answer (its group, or the whole match)
                is read, with all its identifiers in their order. It may contain the marker that
                ends the thinking.
            names: the names of the passages, in their order; empty if they have numbers.
        """
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._identifier = compile_pattern(identifier, "identifier")
        self._ranking = None if ranking is None else compile_pattern(ranking, "ranking")

    def read(self, text: str, count: int) -> Reading:
        """Read an answer about passages 1 to ``count``; its thinking is not read."""
        said = split_thinking(text)
        certain = True
        if self._ranking is not None:
            matches = find_groups(self._ranking, said.text) or find_groups(self._ranking, said.raw)
            numbers = [
                self._number(match, count)
                for match in self._identifier.finditer(next(reversed(matches), ""))
            ]
        else:
            numbers, certain = self._chain(without_fences(said.text), count)
        order: dict[int, int] = {}
        for number in numbers:
            if number:
                order[number - 1] = order.get(number - 1, 0) + 1
        repeated = [place for place, times in order.items() if times > 1]
        omitted = [place for place in range(count) if place not in order]
        return Reading(list(order), repeated, omitted, numbers.count(0), certain)

    def _number(self, match: re.Match[str], count: int) -> int:
        """The number of the passage that an identifier names, from 1; 0 if there is none."""
        name = (match[self._identifier.groups] or "").strip()
        if self._numbers:
            number = self._numbers.get(name, 0)
        else:
            number = int(name) if name.isdecimal() and len(name) <= _DIGITS else 0
        return number if 1 <= number <= count else 0

    def _chain(self, text: str, count: int) -> tuple[list[int], bool]:
        """The numbers of the ranking in a text, and whether it is certain."""
        matches = [
            match for match in self._identifier.finditer(text) if match.end() > match.start()
        ]
        chains: list[list[re.Match[str]]] = []
        for match in matches:
            between = (chains[-1][-1].end(), match.start()) if chains else (0, 0)
            if (
                chains
                and _BETWEEN.fullmatch(text, *between)
                and not _PARAGRAPH.search(text, *between)
            ):
                chains[-1].append(match)
            else:
                chains.append([match])
        if len(chains) > 1 and all(len(chain) == 1 for chain in chains):
            return self._list(text, matches, count)
        if not chains:
            return [], True
        best = max(enumerate(chains), key=lambda item: self._weight(text, item[0], item[1], count))
        chain = best[1]
        if (
            len(chain) == 1
            and count > 1
            and not (_BEFORE.match(text[: chain[0].start()]) and _ends(text, chain[0]))
        ):
            return [], True
        closed = _ends(text, chain[-1]) or not re.search(
            r"\w", re.split(r"[\n.;!?]", text[chain[-1].end() :], maxsplit=1)[0]
        )
        signed = self._weight(text, best[0], chain, count)[0]
        if not closed and not signed:  # "[1], [2] and [3] are about …"
            return [], True
        numbers, after = [self._number(match, count) for match in chain], text[chain[-1].end() :]
        before = text[max(0, chain[0].start() - _LINE) : chain[0].start()]
        inside = text[chain[0].end() : chain[-1].start()]
        if (
            _DENIED.search(before)
            or re.match(r"[\s\"'`*_)\]]*\?", after)
            or ("<" in inside and ">" not in inside)
        ):
            return [], True
        if not signed and self._is_mention(before, inside, numbers):
            return [], True
        apart = all(
            re.search(r"[>≻\n]", text[link.end() : following.start()])
            for link, following in pairwise(chain)
        )
        ended = bool(re.match(r"[^\w\n]*\n\s*\S", after)) or {*range(1, count + 1)} <= {*numbers}
        return numbers, closed and apart and ended and bool(_BEFORE.match(text[: chain[0].start()]))

    def _is_mention(self, before: str, inside: str, numbers: list[int]) -> bool:
        """Whether passages are named in the order in which they were shown, after words that
        announce no ranking.
        """
        line = before.rpartition("\n")[2]
        return (
            len(numbers) > 1
            and "\n" not in inside
            and numbers == sorted(numbers)
            and bool(re.search(r"[^\W\d_]{3}", line))
            and not _ANNOUNCES.search(line)
        )

    def _weight(
        self, text: str, place: int, chain: list[re.Match[str]], count: int
    ) -> tuple[bool, int, int]:
        """Sort key of a chain: signs of order, then length, then position."""
        inside = text[chain[0].end() : chain[-1].start()]
        return (
            ">" in inside or "≻" in inside,
            len({self._number(match, count) for match in chain} - {0}),
            place,
        )

    def _list(self, text: str, matches: list[re.Match[str]], count: int) -> tuple[list[int], bool]:
        """The numbers of a list whose items begin with an identifier followed by words.

        A list in the order in which the passages were shown may just describe them one by one, and
        is not a ranking.
        """
        numbers: list[int] = []
        markers: list[int] = []
        for match in matches:
            start = text.rfind("\n", 0, match.start()) + 1
            item = _ITEM.fullmatch(text, start, match.start())
            if item is None:
                continue
            numbers.append(self._number(match, count))
            markers.append(int(item["number"] or 0))
        ranks = markers == list(range(1, len(markers) + 1))
        if (
            len(numbers) < 2
            or numbers == sorted(numbers)
            or not (ranks or set(numbers) == set(range(1, count + 1)))
        ):
            return [], True
        return numbers, False


def _ends(text: str, match: re.Match[str]) -> bool:
    """Whether nothing but the beginning of another identifier follows an identifier."""
    return bool(re.fullmatch(r"[\W_]*(?:\d{1,6})?[\W_]*", text[match.end() :]))


#: Text around a negated label: *not A*, *better than A*, *A is not relevant*,
#: *A does not answer*.
_NOT_CHOSEN_BEFORE = re.compile(
    r"\b(?:not|nor|neither|than|unlike|instead of|rather"
    r" than)\s+(?:the\s+)?(?:passage|document|text"
    r"|answer|option)?[\s\"'`*_(\[]*\Z",
    re.IGNORECASE,
)
_NOT_CHOSEN_AFTER = re.compile(
    r"[\s\"'`*_)\]]*(?:(?:is|was|does|do|did|has|would|can|could|should|seems|appears)(?:\s+(?:not|less"
    r"|no|irrelevant|worse|to be (?:less|irrelevant))\b|n['’]t\b)"
    r"|cannot\b|lacks\b|fails\b)",
    re.IGNORECASE,
)
#: *A* as a possible article: *A cat …*, and not *A is …*, *A answers …*, *A
#: because …*.
_ARTICLE_AFTER = re.compile(
    r"\s+(?!because\b|since\b|and\b|or\b|but\b|would\b|over\b|than\b|for\b|with\b|contain|directly\b)"
    r"[a-z][\w-]*(?<!s)\b"
)
_ARTICLE_BEFORE = re.compile(
    r"(?:\b(?:passage|document|text|answer|option|choice|doc|label|is|choose|select|prefer|pick)"
    r"|[:：(\[\"'`*])[\s\"'`*_(\[]*\Z",
    re.IGNORECASE,
)


class ChoiceReader:
    """Finds which of two labels an answer chooses."""

    def __init__(self, labels: Sequence[str], choice: str | None = None) -> None:
        """Compile the pattern of a card.

        Args:
            labels: the two labels.
            choice: regular expression whose group, or whole match, is a label; if None, each label
                as a word.
        """
        words = "|".join(re.escape(label) for label in labels)
        self._labels, self._free = list(labels), choice is None
        self._pattern = compile_pattern(
            choice if choice is not None else rf"(?<!\w)(?:{words})(?!\w)", "choice"
        )

    def read(self, text: str, cut: bool = False) -> int | None:
        """The index of the label; None if the answer names none, or both, or negates it.

        Args:
            cut: whether the answer was cut, so that the other label may have followed. Then only a
                first line that consists of the label, or a match of the card's pattern, is a
                choice.
        """
        text = split_thinking(text).text
        if cut and self._free:
            line, newline, _ = text.strip().partition("\n")
            text = line if newline and len(re.findall(r"\w+", line)) <= 4 else ""
        if self._free:
            matches = [
                match for match in self._pattern.finditer(text) if not _is_article(text, match)
            ]
            if any(_is_denied(text, match) for match in matches):
                return None
            chosen = {match[0] for match in matches}
        else:
            chosen = {name.strip() for name in find_groups(self._pattern, text)} & set(self._labels)
        return self._labels.index(chosen.pop()) if len(chosen) == 1 else None


def _is_denied(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - _LINE) : match.start()]
    return bool(_NOT_CHOSEN_BEFORE.search(before) or _NOT_CHOSEN_AFTER.match(text, match.end()))


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether a label *A* may be the article of the word after it."""
    return (
        match[0] == "A"
        and bool(_ARTICLE_AFTER.match(text, match.end()))
        and not _ARTICLE_BEFORE.search(text[max(0, match.start() - _LINE) : match.start()])
    )


def compile_pattern(pattern: str, name: str) -> re.Pattern[str]:
    """Compile a card's regular expression."""
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InputError(
            f"the prompt's {name} {pattern!r} is not a regular expression: {error}."
        ) from error
    if compiled.groups > 1:
        raise InputError(
            f"the prompt's {name} {pattern!r} has {compiled.groups} groups; expected at most one."
            " Write (?:…) for groups that only hold parts together."
        )
    return compiled


def find_groups(pattern: re.Pattern[str], text: str) -> list[str]:
    """The group of each match (the whole match if there is no group); "" for a group that took no
    part.
    """
    return [match[pattern.groups] or "" for match in pattern.finditer(text)]
