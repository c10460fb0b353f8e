"""The cost of a server's answers, and a budget that is checked before anything is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from irdistill.errors import BudgetError, InputError, OptionError
from irdistill.storage.plain_data import check_values


class Spent(NamedTuple):
    """Requests that were or may have been billed, their tokens (read and written), and their cost.

    Examples:
        >>> Spent(1, 20, 0.5).plus(Spent(2, 30, 0.25))
        Spent(requests=3, tokens=50, cost=0.75)
    """

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """The sum."""
        return Spent(
            self.requests + other.requests, self.tokens + other.tokens, self.cost + other.cost
        )

    def minus(self, other: Spent) -> Spent:
        """The difference."""
        return Spent(
            self.requests - other.requests, self.tokens - other.tokens, self.cost - other.cost
        )


@dataclass(frozen=True)
class Prices:
    """The prices of a server, as its card declares them.

    Attributes:
        input, output: price of ``per`` tokens.
        cached_input: price of ``per`` tokens read from the server's cache; that of ``input`` if
            None.
        search: price of ``per`` search units, of rerankers that bill those.
        currency: name of the currency, for messages.
        read: the day on which these prices were read.

    Examples:
        >>> Prices(input=2.0, output=8.0).cost(input_tokens=1_000_000, output_tokens=500_000)
        6.0
        >>> Prices(search=2.0, per=1000).cost(0, 0, searches=3)
        0.006
    """

    input: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0
    cached_input: Annotated[float | None, Field(ge=0)] = None
    search: Annotated[float, Field(ge=0)] = 0.0
    currency: str = "USD"
    per: Annotated[int, Field(ge=1)] = 1_000_000
    read: str = ""

    @classmethod
    def of(cls, prices: Mapping[str, Any] | None) -> Prices | None:
        """The prices of a card; None if it has none."""
        if not prices:
            return None
        if not {"input", "output"} <= prices.keys() and "search" not in prices:
            raise InputError(
                f"the prices of the card have the keys {', '.join(prices)}; input and output are"
                " needed, or search."
            )
        check_values(prices, cls, "the prices of the card")
        return cls(**prices)

    def cost(
        self, input_tokens: int, output_tokens: int, cached_tokens: int = 0, searches: float = 0
    ) -> float:
        """Cost of a request; the cached tokens are part of the input tokens."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        return (
            (input_tokens - cached_tokens) * self.input
            + cached_tokens * cached_price
            + output_tokens * self.output
            + searches * self.search
        ) / self.per


class Budget:
    """Limits on what is spent, over all starts of a job.

    A request is reserved at its worst case before it is sent, so that concurrent requests cannot
    exceed a limit together. A request that does not fit waits for those in flight, which usually
    cost less than they reserved. If none is in flight and it still does not fit, the budget is
    spent.

    Args:
        spent: returns what was spent so far, by this start and by earlier ones.
        prices: needed for a limit on the cost.
        max_cost: limit on the cost.
        max_requests: limit on the number of requests.
        max_tokens_total: limit on the tokens read and written.
    """

    def __init__(
        self,
        spent: Callable[[], Spent],
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_requests: int | None = None,
        max_tokens_total: int | None = None,
        log: str = "the response log",
    ) -> None:
        self._spent, self._prices, self._log = spent, prices, log
        #: option -> the field of `Spent` that it limits, and the limit
        self._limits = {
            "max_requests": ("requests", max_requests),
            "max_tokens_total": ("tokens", max_tokens_total),
            "max_cost": ("cost", max_cost),
        }
        for option, (_, limit) in self._limits.items():
            if limit is not None and not limit > 0:
                raise OptionError(
                    f"the budget is {option}={limit}; expected a number above 0. Leave it out for"
                    " no limit."
                )
        if max_cost is not None and prices is None:
            raise OptionError(
                f"the budget is max_cost={max_cost}, but the server's prices are not known. Add"
                " prices: {input: …, output: …, currency: …} to the card's server, or limit"
                " max_requests or max_tokens_total."
            )
        self._reserved, self._count = Spent(), 0
        self._changed = threading.Condition()

    def worst(self, input_tokens: int, output_tokens: int, searches: float = 0) -> Spent:
        """The most that one request can take."""
        prices = self._prices
        cost = prices.cost(input_tokens, output_tokens, searches=searches) if prices else 0.0
        return Spent(1, input_tokens + output_tokens, cost)

    @contextmanager
    def reserve(self, worst: Spent) -> Iterator[None]:
        """Reserve what a request can take while it is in flight; what it took must be in ``spent``
        at the end.
        """
        with self._changed:
            while (option := self._exceeded(worst)) is not None:
                if not self._count:
                    raise BudgetError(self._message(option, worst))
                self._changed.wait()
            self._count += 1
            self._reserved = self._reserved.plus(worst)
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._reserved = self._reserved.minus(worst) if self._count else Spent()
                self._changed.notify_all()

    def _exceeded(self, worst: Spent) -> str | None:
        """The option whose limit a request would exceed."""
        total = self._spent().plus(self._reserved).plus(worst)
        for option, (name, limit) in self._limits.items():
            if limit is not None and getattr(total, name) > limit:
                return option
        return None

    def _message(self, option: str, worst: Spent) -> str:
        name, limit = self._limits[option]
        spent = self._spent()
        currency = f" {self._prices.currency}" if self._prices else ""
        unit = currency if name == "cost" else f" {name}"
        left = max(0, (limit or 0) - getattr(spent, name))
        return (
            f"the budget {option}={limit:g} is spent: {spent.requests} requests took {spent.tokens}"
            f" tokens{f' and {spent.cost:.6g}{currency}' if self._prices else ''} over all starts"
            f" of this job. {left:.6g}{unit} are left, and the next request may take"
            f" {getattr(worst, name):.6g}{unit}. All answers are kept in {self._log}: run the same"
            " command with a larger budget to resume."
        )
