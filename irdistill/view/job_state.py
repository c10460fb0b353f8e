"""A job as the page shows it, and the words for its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

RUNNING, DONE, STOPPED, FAILED, WAITING = "running", "done", "stopped", "failed", "waiting"


@dataclass(frozen=True)
class Job:
    """A run, a training or a recipe, and how far it is.

    Attributes:
        key: of the artifact.
        kind: of the artifact.
        verb: that makes it, such as ``score``.
        state: ``running``, ``done``, ``stopped`` or ``failed``.
        done: finished units; ``total`` is None if it is not known.
        unit: noun of the units, in the plural.
        modified: time of the last change, in seconds since 1970.
        seconds: time that the job worked, over all attempts that were not killed.
        remaining: estimated seconds to the end of a running job.
        cost: of a server's answers, in the currency of the card's prices.
        figures: label and text of further figures.
        resumed: a sentence about resumed attempts, or an empty text.
        problem: the error that ended it, or an empty text.
    """

    key: str
    kind: str
    verb: str
    state: str
    done: float = 0
    total: float | None = None
    unit: str = "queries"
    modified: float = 0.0
    seconds: float | None = None
    remaining: float | None = None
    cost: float | None = None
    figures: Sequence[tuple[str, str]] = ()
    resumed: str = ""
    problem: str = ""

    @property
    def progress(self) -> str:
        """How far it is: ``120 of 300 steps``, or ``300 steps`` when it is done."""
        if self.total is None or self.state == DONE:
            return f"{self.done:,.0f} {self.unit}" if self.done else ""
        return f"{self.done:,.0f} of {self.total:,.0f} {self.unit}"

    @property
    def sentence(self) -> str:
        """The state in words, the headline of the job's page."""
        took = "" if self.seconds is None else f" in {format_duration(self.seconds)}"
        if self.state == RUNNING:
            left = ""
            if self.done and self.done == self.total:
                left = ", finishing"
            elif self.remaining is not None:
                left = f", about {format_duration(self.remaining)} left"
            return f"Running: {self.progress or 'preparing'}{left}."
        if self.state == DONE:
            amount = f": {self.done:,.0f} {self.unit}" if self.total else ""
            return f"Done{amount}{took if amount else ''}."
        where = f" at {self.progress}" if self.progress else ""
        if self.state == FAILED:
            return f"Failed{where}: {self.problem.rstrip('.')}."
        return f"Stopped{where}. Run the same command again to resume."

    def to_json(self) -> dict[str, Any]:
        """What the scripts of the page show."""
        return {
            "sentence": self.sentence,
            "key": self.key,
            "kind": self.kind,
            "verb": self.verb,
            "state": self.state,
            "share": self.done / self.total if self.total else None,
            "progress": self.progress,
            "remaining": format_duration(self.remaining) if self.remaining else "",
            "took": "" if self.seconds is None else format_duration(self.seconds),
            "cost": "" if self.cost is None else format_number(self.cost),
            "changed": format_time(self.modified),
            "modified": self.modified,
            "figures": [list(figure) for figure in self.figures],
            "resumed": self.resumed,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class JobDetails:
    """What the page of one job shows besides the job.

    Attributes:
        settings: name and value of each setting.
        stages: of a recipe: name, verb, state, text of the progress, time, and key of the artifact.
        warnings: of the job.
        notes: sentences about the result.
        has_log: whether there are training curves.
    """

    settings: Sequence[tuple[str, str]] = ()
    stages: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    has_log: bool = False


def format_duration(seconds: float) -> str:
    """A duration in its two largest units.

    Examples:
        >>> [format_duration(value) for value in (0.4, 9.26, 75, 3600, 200_000)]
        ['0.4 s', '9.3 s', '1 min 15 s', '1 h', '2 d 7 h']
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    for size, large, part, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if left >= size:
            whole, rest = divmod(left, size)
            return f"{whole} {large}" + (f" {rest // part} {small}" if rest >= part else "")
    whole, rest = divmod(left, 60)
    return f"{whole} min" + (f" {rest} s" if rest else "")


def format_number(value: float) -> str:
    """A figure as the command line prints it; whole numbers with separators.

    Examples:
        >>> format_number(1234567), format_number(0.123456789), format_number(12.0)
        ('1,234,567', '0.123457', '12')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


def format_time(seconds: float) -> str:
    """A time in seconds since 1970 as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else ""


def format_rate(value: float) -> str:
    """A number per second.

    Examples:
        >>> format_rate(14721.49), format_rate(81.127), format_rate(2.5352)
        ('14,721', '81.1', '2.54')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def read_time(text: object) -> float | None:
    """The seconds since 1970 of an ISO time in a journal."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def resumed_sentence(starts: Sequence[int], unit: str) -> str:
    """What is said of resumed attempts.

    Args:
        starts: units that were done at each start of the job.

    Examples:
        >>> resumed_sentence([0], "step"), resumed_sentence([0, 40, 100], "step")
        ('', 'resumed 2 times, last at step 100')
    """
    again = starts[1:]
    if not again:
        return ""
    times = "once" if len(again) == 1 else f"{len(again)} times"
    last = "" if len(again) == 1 else "last "
    where = f"{last}at {unit} {again[-1]:,}" if again[-1] else f"{last}from the start"
    return f"resumed {times}, {where}"


def flat_settings(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """The values of nested settings with dotted names; long lists are shortened.

    Examples:
        >>> flat_settings({"loss": "KL", "options": {"steps": 5, "gate": None}, "runs": ["a", "b"]})
        [('loss', 'KL'), ('options.steps', '5'), ('options.gate', 'none'), ('runs', 'a, b')]
    """
    if isinstance(value, Mapping) and value:
        return [
            row
            for name, inner in value.items()
            for row in flat_settings(inner, f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        return [
            row
            for number, inner in enumerate(value[:_SHOWN], 1)
            for row in flat_settings(inner, f"{prefix}.{number}")
        ]
    return [(prefix, _setting_text(value))]


_SHOWN = 20


def _setting_text(value: Any) -> str:
    if isinstance(value, list):
        more = f" … ({len(value):,})" if len(value) > _SHOWN else ""
        return ", ".join(map(_setting_text, value[:_SHOWN])) + more
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)
