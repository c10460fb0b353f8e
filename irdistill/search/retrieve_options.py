"""Options of the verb *retrieve*: one declaration for Python, the command line and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.option_checks import check_fields

Index = Literal["flat", "hnsw", "ivfflat", "ivfpq", "sq8", "plaid", "seismic", "lucene"]
Storage = Literal["float32", "float16"]
Codes = Literal["float", "int8", "binary"]

_FAISS = ("flat", "hnsw", "ivfflat", "ivfpq", "sq8")
INDEXES: Mapping[str, tuple[str, ...]] = {
    "dense": (*_FAISS, "lucene"),
    "late-interaction": (*_FAISS, "plaid"),
    "sparse": ("flat", "seismic", "lucene"),
}
"""Indexes of each kind of model; ``flat`` is exact for all of them."""


_FACTOR = 4
"""Candidates per result that are scored again by default."""


@dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """Document vectors of a dense model as short codes, and their rescoring.

    Examples:
        >>> CodeOptions(vectors="binary").factor, CodeOptions(vectors="int8").factor
        (4, 0)
    """

    vectors: Annotated[
        Codes,
        Field(
            description="Document vectors of a dense model that a search reads: float, int8 (a byte"
            " per number, in the range of its dimension over the corpus) or binary (the sign of"
            " each number, found by Hamming distance)."
        ),
    ] = "float"
    rescore: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(
            description="Score the best k times this many documents of the codes again with the"
            " float query; 0 does not. Default: 4 for binary vectors or rescore_by=float, else 0."
        ),
    ] = None
    rescore_by: Annotated[
        Literal["codes", "float"],
        Field(
            description="Document vectors of the rescoring: the codes, or the float vectors, which"
            " then have to be kept."
        ),
    ] = "codes"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.vectors == "float" and (self.rescore is not None or self.rescore_by != "codes"):
            raise OptionError(
                "rescore or rescore_by was given with vectors=float, which are exact; choose"
                " vectors=binary or vectors=int8."
            )
        if self.rescore == 0 and self.rescore_by == "float":
            raise OptionError(
                "rescore=0 was given with rescore_by=float; leave out one of them, or set"
                f" rescore={_FACTOR}."
            )

    @property
    def factor(self) -> int:
        """Candidates per result that are scored again; 0 without rescoring."""
        if self.rescore is not None:
            return self.rescore
        return _FACTOR if self.vectors == "binary" or self.rescore_by == "float" else 0


@dataclass(frozen=True, kw_only=True)
class RetrieveOptions(CodeOptions):
    """Options of `irdistill.search.retrieve`.

    Examples:
        >>> RetrieveOptions(index="hnsw").storage
        'float32'
    """

    index: Annotated[
        Index,
        Field(
            description="Index of a model's vectors. flat is exact. Dense models: hnsw, ivfflat,"
            " ivfpq, sq8, lucene. Late interaction: hnsw, ivfflat, ivfpq, sq8, plaid. Sparse"
            " models: seismic, lucene."
        ),
    ] = "flat"
    storage: Annotated[
        Storage,
        Field(description="Number type of the vectors on disk; scores are computed in float32."),
    ] = "float32"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="Precision of the encoder; auto is bfloat16 where the hardware has it."),
    ] = "auto"
    dimension: Annotated[
        int | None,
        Field(ge=1, description="Truncate the vectors of a Matryoshka model to this dimension."),
    ] = None
    kind: Annotated[
        Literal["dense", "sparse", "late-interaction", "cross-encoder"] | None,
        Field(
            description="How to load the model when its files do not say (sparse for SPLADE)."
            " Default: detected from its files."
        ),
    ] = None
    trust_remote_code: Annotated[bool, Field(description="Run code that comes with the model.")] = (
        False
    )
    aggregate: Annotated[
        Literal["maxp", "firstp", "logsumexp", "vector", "whole"],
        Field(
            description="Score of a document that is split into passages: its best passage, its"
            " first one, or the log-sum-exp of all. vector learns one vector of a dense model for"
            " each document from the log-sum-exp. whole reads documents whole, cut to the model's"
            " length."
        ),
    ] = "maxp"
    aggregate_tau: Annotated[
        float | None,
        Field(
            gt=0,
            description="Temperature of logsumexp and vector (default: for a dense model 0.05, and"
            " 0.02 for vector; 1 for others).",
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Random seed of an index.")] = 42
    k1: Annotated[float, Field(ge=0, description="BM25: saturation of the term frequency.")] = 0.9
    b: Annotated[float, Field(ge=0, le=1, description="BM25: length normalization.")] = 0.4
    part_queries: Annotated[
        int, Field(ge=1, description="Queries per part (the most work a crash can lose).")
    ] = 64
    check_recall: Annotated[
        bool,
        Field(
            description="With an approximate index, search the first two parts exactly too, and"
            " record the recall."
        ),
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors != "float" and self.index != "flat":
            raise OptionError(
                f"vectors={self.vectors} was given with index={self.index}; short codes are"
                " searched without another index, so leave out index."
            )

    @property
    def searched(self) -> Index | CodeOptions:
        """The index, or the codes in its place."""
        if self.vectors == "float":
            return self.index
        return CodeOptions(vectors=self.vectors, rescore=self.rescore, rescore_by=self.rescore_by)
