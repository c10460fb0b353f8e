"""Fake language models that order passages by the worth written in them, or misbehave."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irdistill.collections import Query
from irdistill.teachers.llm.language_model import Answer, Request
from irdistill.teachers.protocol import TextPair

LISTWISE = {"user": "Order {count} passages for: {query}\n{passages}"}
PAIRWISE = {"user": "Which is better for {query}?\nA: {first}\nB: {second}"}


def query_pairs(worths: Sequence[int], query: str = "q") -> list[TextPair]:
    """The pairs of one query; each passage states its worth."""
    return [
        TextPair(Query(query, f"about {query}"), row, f"passage worth {worth} points")
        for row, worth in enumerate(worths)
    ]


def best_first(worths: Sequence[int]) -> list[int]:
    return sorted(range(len(worths)), key=lambda place: -worths[place])


def worths_in(request: Request) -> list[int]:
    return [
        int(number)
        for message in request.messages
        for number in re.findall(r"worth (\d+) points", message.content)
    ]


def list_answer(worths: Sequence[int]) -> str:
    return " > ".join(f"[{place + 1}]" for place in best_first(worths))


class FakeModel:
    """Answers by a function of what a request's passages are worth; keeps the requests."""

    def __init__(
        self,
        reply: Callable[[list[int]], Answer | str] = list_answer,
        parallel: int = 4,
        concurrent: bool = False,
        delay: float = 0.0,
    ) -> None:
        self.reply, self.parallel, self.concurrent, self.delay = reply, parallel, concurrent, delay
        self.requests: list[Request] = []
        self.batches: list[int] = []
        self._lock = threading.Lock()

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": "fake"}

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        with self._lock:
            self.requests += requests
            self.batches.append(len(requests))
        if self.delay:
            time.sleep(random.random() * self.delay)
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Answer:
        reply = self.reply(worths_in(request))
        answer = reply if isinstance(reply, Answer) else Answer(reply)
        return answer._replace(input_tokens=len(request.messages[-1].content.split()))


def choose_better(worths: list[int]) -> Answer:
    """Log-probabilities of the labels, the better passage's the higher."""
    return Answer(labels=np.array([float(worths[0]), float(worths[1])], np.float32))
