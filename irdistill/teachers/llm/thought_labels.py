"""Labels after thinking: a model on this machine writes its thinking first, and then the labels are
read where its answer begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irdistill.teachers.llm.chat import ChatTokenizer, Prompt
from irdistill.teachers.llm.language_model import CUT, Answer, Request
from irdistill.teachers.llm.thinking import answer_start

#: Token limit of what a model writes after its thinking, of which nothing is used.
_ANSWER_TOKENS = 8


def answer_all(
    chat: ChatTokenizer,
    requests: Sequence[Request],
    answer: Callable[[Sequence[Request]], list[Answer]],
    read_labels: Callable[[Sequence[Prompt]], list[Answer]],
) -> list[Answer]:
    """Answer requests, of which some ask for labels after thinking.

    Args:
        chat: the model's tokenizer.
        answer: answers the other requests, in their order.
        read_labels: the labels' log-probabilities at the end of prompts.
    """
    thoughtful = [bool(request.labels and request.thinking_tokens) for request in requests]
    if not any(thoughtful):
        return answer(requests)
    texts = answer(
        [
            request._replace(labels=(), max_tokens=_ANSWER_TOKENS) if thinks else request
            for request, thinks in zip(requests, thoughtful, strict=True)
        ]
    )
    places = [
        place
        for place, text in enumerate(texts)
        if thoughtful[place] and text.error is None and answer_start(text.text) is not None
    ]
    labels = read_labels(
        [chat.prompt_after(requests[place], texts[place].text) for place in places]
    )
    for place, text in enumerate(texts):
        if thoughtful[place] and text.error is None:
            texts[place] = text._replace(text="", error=CUT, cut=True)
    for place, scored in zip(places, labels, strict=True):
        text = texts[place]
        texts[place] = scored._replace(
            input_tokens=text.input_tokens + scored.input_tokens,
            output_tokens=text.output_tokens + scored.output_tokens,
            cached_tokens=text.cached_tokens + scored.cached_tokens,
            thinking_tokens=text.thinking_tokens,
        )
    return texts
