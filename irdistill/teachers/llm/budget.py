"""What a server's answers cost, and a budget that is checked before anything is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from irdistill.errors import IrdistillError


class Spent(NamedTuple):
    """Requests that were or may have been billed, the tokens read and written for them, and their
    cost.
    """

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """The sum of two."""
        return Spent(
            self.requests + other.requests, self.tokens + other.tokens, self.cost + other.cost
        )

    def minus(self, other: Spent) -> Spent:
        """The difference of two."""
        return Spent(
            self.requests - other.requests, self.tokens - other.tokens, self.cost - other.cost
        )


@dataclass(frozen=True)
class Prices:
    """A server's prices, as a card declares them.

    Attributes:
        input, output: of ``per`` tokens.
        cached_input: of ``per`` tokens read out of the server's cache; as ``input`` where None.
        currency: only to be shown.
        read: the day these prices were read.
    """

    input: float
    output: float
    cached_input: float | None = None
    currency: str = "USD"
    per: int = 1_000_000
    read: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Prices | None:
        """The prices of a card; None where it has none.

        Raises:
            IrdistillError: a price is missing, negative or no number, or a key is unknown.
        """
        if not given:
            return None
        known = [entry.name for entry in fields(cls)]
        if not {"input", "output"} <= given.keys() <= set(known):
            raise IrdistillError(
                f"the prices of the card have the keys {', '.join(map(str, given))}; input and"
                f" output are needed, and {', '.join(known)} are known."
            )
        numbers = [
            given[key]
            for key in ("input", "output", "cached_input", "per")
            if given.get(key) is not None
        ]
        well = all(
            isinstance(one, int | float) and not isinstance(one, bool) and one >= 0
            for one in numbers
        )
        if not well or given.get("per") == 0:
            raise IrdistillError(
                f"the prices of the card are {dict(given)}; numbers from 0 were expected, for `per`"
                " tokens each."
            )
        return cls(**dict(given))

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """Of one request; the cached tokens are some of those read."""
        cached = self.input if self.cached_input is None else self.cached_input
        return (
            (input_tokens - cached_tokens) * self.input
            + cached_tokens * cached
            + output_tokens * self.output
        ) / self.per


class Budget:
    """Limits on what is spent, over all starts of a job.

    A request is reserved at its worst case before it is sent, so that requests in flight together
    cannot exceed a limit. One that does not fit waits for those in flight, which mostly cost less
    than they reserved; when none is in flight and it still does not fit, the budget is spent.

    Args:
        spent: gives what was spent so far, by this start and by earlier ones.
        prices: needed for a limit on the cost.
        kept: where the answers are kept, for the error.

    Raises:
        IrdistillError: a limit is no positive number, or is a cost and there are no prices.
    """

    def __init__(
        self,
        spent: Callable[[], Spent],
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_requests: int | None = None,
        max_tokens_total: int | None = None,
        kept: str = "the response log",
    ) -> None:
        given = {
            "max_cost": max_cost,
            "max_requests": max_requests,
            "max_tokens_total": max_tokens_total,
        }
        wrong = [
            f"{key}={value}" for key, value in given.items() if value is not None and not value > 0
        ]
        if wrong:
            raise IrdistillError(
                f"the budget {', '.join(wrong)} was given; give a number above 0, or leave it out"
                " for no limit."
            )
        if max_cost is not None and prices is None:
            raise IrdistillError(
                f"a budget of max_cost={max_cost} was given and the server's prices are not known;"
                " add prices: {input: …, output: …, currency: …}} to the card's server, or"
                " limit max_requests or max_tokens_total."
            )
        self._spent, self._prices, self._kept = spent, prices, kept
        self._limits = (
            ("requests", max_requests),
            ("tokens", max_tokens_total),
            ("cost", max_cost),
        )
        self._flying = Spent()
        self._count = 0
        self._changed = threading.Condition()

    def worst(self, input_tokens: int, output_tokens: int) -> Spent:
        """What one request may take at most."""
        cost = self._prices.cost(input_tokens, output_tokens) if self._prices else 0.0
        return Spent(1, input_tokens + output_tokens, cost)

    @contextmanager
    def reserve(self, worst: Spent) -> Iterator[None]:
        """Hold what a request may take, for as long as it is in flight; what it took must be in
        ``spent`` at the end.

        Raises:
            IrdistillError: the budget is spent.
        """
        with self._changed:
            while (full := self._over(worst)) is not None:
                if not self._count:
                    raise IrdistillError(self._message(*full, worst))
                self._changed.wait()
            self._count += 1
            self._flying = self._flying.plus(worst)
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._flying = self._flying.minus(worst) if self._count else Spent()
                self._changed.notify_all()

    def _over(self, worst: Spent) -> tuple[str, float] | None:
        total = self._spent().plus(self._flying).plus(worst)
        return next(
            (
                (key, limit)
                for key, limit in self._limits
                if limit is not None and getattr(total, key) > limit
            ),
            None,
        )

    def _message(self, key: str, limit: float, worst: Spent) -> str:
        currency = f" {self._prices.currency}" if self._prices else ""
        option = {"requests": "max_requests", "tokens": "max_tokens_total", "cost": "max_cost"}[key]
        spent = self._spent()
        unit = currency if key == "cost" else f" {key}"
        return (
            f"the budget {option}={limit:g} is spent: {spent.requests} requests took {spent.tokens}"
            f" tokens{f' and {spent.cost:.6g}{currency}' if self._prices else ''} over all starts"
            f" of this job. {max(0, limit - getattr(spent, key)):.6g}{unit} are left, and the next"
            f" request may take {getattr(worst, key):.6g}{unit}. All answers are kept in"
            f" {self._kept}: the same command with a larger budget goes on and pays for none of"
            " them again."
        )
