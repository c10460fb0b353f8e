"""Options of the verb `specialise`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.queries.query_kinds import DEFAULT_KINDS
from irdistill.verbs.argument_types import KindOption, SeedOption, TrustOption

FUSED = "fused"
_WRITTEN = ("questions", "keywords", "paraphrases")
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")


@dataclass(frozen=True)
class SpecialiseOptions:
    """How a retriever is specialised to a corpus."""

    teacher: Annotated[
        str, Field(description="fused: the model with BM25; or a teacher's card or model.")
    ] = FUSED
    llm: Annotated[str, Field(description="Card of a language model that writes queries.")] = ""
    kinds: Annotated[
        tuple[str, ...],
        Field(
            description="Kinds of queries, see generate (default: title and sentence; with a"
            " language model questions, keywords and paraphrases, which are not copied)."
        ),
    ] = ()
    time: Annotated[
        str | float,
        Field(
            description="Time limit on this machine: 90s, 20m, 2h; a number is minutes. Training"
            " gets the time that the other stages leave."
        ),
    ] = "30m"
    k: Annotated[
        int, Field(ge=1, description="Candidates per query from BM25 and from the model, each.")
    ] = 50
    batch_size: Annotated[int, Field(ge=1, description="Lists (queries) per step.")] = 32
    list_size: Annotated[int, Field(ge=2, description="Documents per list.")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 2e-5
    tau: Annotated[float, Field(gt=0, description="Temperature of the student's scores.")] = 0.05
    teacher_tau: Annotated[
        float, Field(gt=0, description="Temperature of the teacher's scores.")
    ] = 0.5
    rules: Annotated[
        tuple[str, ...], Field(description="Filter the queries with these rules, see filter.")
    ] = ()
    avoid: Annotated[
        Literal["always", "where-possible", "never"],
        Field(
            description="Whether passages judged relevant to queries of the collection are avoided"
            " as sources."
        ),
    ] = "where-possible"
    refine: Annotated[
        bool | None,
        Field(
            description="Train the query tower after its term vectors (default: only if the teacher"
            " is not fused)."
        ),
    ] = None
    keep: Annotated[
        tuple[str, ...],
        Field(
            description="More probes: collections with judgments on which training may not make the"
            " term vectors worse, see train."
        ),
    ] = ()
    control: Annotated[
        bool,
        Field(description="Train two more students, with KL and with InfoNCE alone, to compare."),
    ] = False
    kind: KindOption = None
    trust_remote_code: TrustOption = False
    seed: SeedOption = 42

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise OptionError(f"time is {self.time!r}; expected more than 0 minutes.")

    @property
    def minutes(self) -> float:
        """The time limit in minutes."""
        return parse_minutes(self.time) if isinstance(self.time, str) else float(self.time)

    @property
    def refined(self) -> bool:
        """Whether the query tower is trained after its term vectors."""
        return self.teacher != FUSED if self.refine is None else self.refine

    @property
    def trainings(self) -> int:
        """How many students are trained by gradients."""
        return self.refined + 2 * self.control

    @property
    def model_options(self) -> dict[str, Any]:
        """Options with which stages open the model."""
        kind = {} if self.kind is None else {"kind": self.kind}
        return kind | ({"trust_remote_code": True} if self.trust_remote_code else {})

    @property
    def query_kinds(self) -> tuple[str, ...]:
        """The kinds of queries, with defaults filled in."""
        return self.kinds or (_WRITTEN if self.llm else DEFAULT_KINDS)


def parse_minutes(text: str) -> float:
    """A duration in minutes; a number without a unit is minutes.

    Examples:
        >>> parse_minutes("90s"), parse_minutes("2h")
        (1.5, 120.0)
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"the time {text!r} cannot be read; write 90s, 20m or 2h.")
    return float(match[1]) * {"s": 1 / 60, "h": 60.0}.get(match[2], 1.0)
