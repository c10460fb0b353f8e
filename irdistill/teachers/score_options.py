"""Options of the verb *score*: their types, bounds and help texts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from irdistill.collections import Collection
from irdistill.errors import OptionError
from irdistill.option_checks import check_fields
from irdistill.teachers.function_teacher import LoadedTeacher, TeacherFunction
from irdistill.teachers.teacher_loading import TeacherSpec, responses_file

#: Kinds of a model that has no card.
ModelKind = Literal[
    "cross-encoder",
    "seq2seq",
    "causal",
    "retriever",
    "dense",
    "sparse",
    "late-interaction",
    "interaction",
]


@dataclass(frozen=True)
class TeacherOptions:
    """How a teacher is loaded. None leaves a setting as the teacher's card or class has it."""

    kind: Annotated[
        ModelKind | None,
        Field(
            description="Kind of a model without a card (sparse for SPLADE). Default: detected from"
            " the model's files."
        ),
    ] = None
    revision: Annotated[str | None, Field(description="Commit, tag or branch of a hub model.")] = (
        None
    )
    max_length: Annotated[
        int | None, Field(ge=1, description="Maximum tokens of query and document together.")
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        Field(description="Number format of the model's computations."),
    ] = None
    backend: Annotated[
        Literal["auto", "torch", "openvino"] | None,
        Field(description="What runs a cross-encoder."),
    ] = None
    label: Annotated[
        int | None,
        Field(
            ge=0,
            description="Index of the output that means relevant, for a classifier with more than"
            " two outputs.",
        ),
    ] = None
    states: Annotated[
        Literal["auto", "stored", "live"] | None,
        Field(
            description="For a split-cross-encoder or kernel student: store the document states of"
            " the whole corpus, or compute them part by part."
        ),
    ] = None
    storage: Annotated[
        Literal["float32", "float16"] | None,
        Field(description="Number format of stored document states."),
    ] = None
    trust_remote_code: Annotated[
        bool,
        Field(description="Run code that comes with the model, or a teacher given as module:name."),
    ] = False
    url: Annotated[
        str | None, Field(description="Address of the model's server (default: the card's).")
    ] = None
    key: Annotated[
        str | None,
        Field(
            description="Environment variable that holds the server's key (default: the card's)."
        ),
    ] = None
    parallel: Annotated[
        int | None, Field(ge=1, description="Maximum number of concurrent requests to a server.")
    ] = None
    max_cost: Annotated[
        float | None,
        Field(
            gt=0,
            description="Stop before a server's answers cost more, in the currency of the card's"
            " prices.",
        ),
    ] = None
    max_requests: Annotated[
        int | None, Field(gt=0, description="Stop before a server answers more requests.")
    ] = None
    max_tokens_total: Annotated[
        int | None, Field(gt=0, description="Stop before a server reads and writes more tokens.")
    ] = None
    responses: Annotated[
        str | Path | None,
        Field(
            description="File that keeps the answers of a server (default: OUT.responses.jsonl)."
        ),
    ] = None
    replay: Annotated[
        bool, Field(description="Take all answers from the response file; send no requests.")
    ] = False
    compare_generated: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="For a listwise teacher by labels: share of the queries whose windows are"
            " also ordered by a generated answer, to measure how well both orders agree.",
        ),
    ] = None
    settings: Annotated[
        dict[str, Any],
        Field(description="More settings of the teacher's class, or arguments of a function."),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    def teacher_settings(self) -> dict[str, Any]:
        """The settings that are not None, as `load_teacher` takes them."""
        names = [entry.name for entry in fields(TeacherOptions)]
        chosen = {name: value for name in names if (value := getattr(self, name))}
        chosen |= {"label": self.label} if self.label is not None else {}
        settings = chosen.pop("settings", {})
        if "responses" in chosen:
            chosen["log"] = chosen.pop("responses")
        chosen.pop("kind", None)
        if repeated := sorted(settings.keys() & chosen.keys()):
            raise OptionError(
                f"the teacher's settings {', '.join(repeated)} were given twice: as options and in"
                " settings. Give each once."
            )
        return chosen | settings

    def spec(
        self, teacher: str | TeacherFunction | LoadedTeacher, out: str | Path | None = None
    ) -> TeacherSpec:
        """What to load.

        Args:
            out: the run's folder; the answers of a server are kept next to it.
        """
        return TeacherSpec(
            teacher,
            self.kind,
            responses=None if out is None else responses_file(out),
            settings=self.teacher_settings(),
        )


@dataclass(frozen=True)
class ScoreOptions(TeacherOptions):
    """Options of `irdistill.teachers.scoring.score`.

    Examples:
        >>> ScoreOptions(k=10, shard="1/4").shard_numbers
        (1, 4)
    """

    k: Annotated[
        int | None, Field(ge=1, description="Score only the top k documents of each query.")
    ] = None
    score_passages: Annotated[
        str,
        Field(
            pattern=r"^(auto|best|all|[1-9][0-9]*)$",
            description="Passages of a split document that the teacher reads: best (the one that"
            " the candidates name, else the best by BM25), all, or a number of them. auto is all"
            " for BM25 and retrievers, which encode a passage once, and best for others.",
        ),
    ] = "auto"
    aggregate: Annotated[
        Literal["maxp", "firstp", "logsumexp", "whole"],
        Field(
            description="Score of a split document: its best passage, its first one, or the"
            " log-sum-exp of those read. whole reads documents whole, cut to the teacher's length."
        ),
    ] = "maxp"
    aggregate_tau: Annotated[
        float | None,
        Field(
            gt=0,
            description="Temperature of logsumexp (default: 0.05 for a dense retriever, else 1).",
        ),
    ] = None
    part_queries: Annotated[
        int, Field(ge=1, description="Queries per part (the most work a crash can lose).")
    ] = 64
    shard: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]+/[0-9]+$",
            description="i/n: score every n-th part, starting with the i-th (from 1). Join the"
            " shards with `irdistill runs merge`.",
        ),
    ] = None
    representations: Annotated[
        Literal["float16", "float32"] | None,
        Field(
            description="Store the teacher's vectors next to the scores, for losses that compare"
            " them, in this number format."
        ),
    ] = None
    engine: Annotated[Literal["local", "ray"], Field(description="Where parts are scored.")] = (
        "local"
    )
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="Number of Ray workers (default: one per GPU, or one per machine without"
            " GPUs).",
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        Field(
            description="Address of a Ray cluster; auto for the cluster of this machine (default:"
            " start one for the job)."
        ),
    ] = None
    overwrite: Annotated[bool, Field(description="Replace another run in the same folder.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_numbers is not None:
            number, count = self.shard_numbers
            if not 1 <= number <= count:
                raise OptionError(
                    f"shard is {self.shard!r}; expected i/n with i from 1 to n, such as 1/4 for the"
                    " first of four."
                )
        if self.engine == "local" and (self.workers is not None or self.ray_address):
            raise OptionError(
                "workers and ray_address need the engine ray. Add --engine ray (engine='ray'), or"
                " leave them out."
            )
        if self.representations and (self.shard or self.engine == "ray"):
            raise OptionError(
                "representations are stored by one process for the whole run. Leave out shard and"
                " the engine ray."
            )

    def check_passages(self, collection: Collection) -> None:
        """Check the options of passages before the teacher is loaded.

        Raises:
            OptionError: an option needs passages that the collection does not have, or cannot be
                used with them.
        """
        split = collection.corpus.passages is not None and self.aggregate != "whole"
        if not split and (self.aggregate not in ("maxp", "whole") or self.score_passages != "auto"):
            raise OptionError(
                f"aggregate is {self.aggregate} and score_passages {self.score_passages}, and the"
                f" documents of {collection.id!r} are read whole. Split them (collect with"
                " --passage-tokens), or leave the options out."
            )
        if self.aggregate_tau is not None and self.aggregate != "logsumexp":
            raise OptionError(
                f"aggregate_tau is the temperature of logsumexp, and aggregate is"
                f" {self.aggregate}; leave it out."
            )

    @property
    def shard_numbers(self) -> tuple[int, int] | None:
        """The shard's number and the number of shards."""
        if self.shard is None:
            return None
        number, _, count = self.shard.partition("/")
        return int(number), int(count)
