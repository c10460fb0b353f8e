"""Options of the verb *package*."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from irdistill.option_checks import check_fields

Format = Literal["bundle", "opensearch", "elasticsearch", "qdrant", "pgvector", "anserini"]
BundleIndex = Literal["flat", "hnsw", "ivfflat", "ivfpq", "sq8"]


@dataclass(frozen=True, kw_only=True)
class PackageOptions:
    """Options of `irdistill.package`.

    Examples:
        >>> PackageOptions(format="qdrant").texts
        True
    """

    format: Annotated[
        Format,
        Field(
            description="bundle: the index for irdistill search, ird.Searcher and the search.py in"
            " the folder. The others: files that the engine loads, the commands that load them, and"
            " a script that writes its queries."
        ),
    ] = "bundle"
    index: Annotated[
        BundleIndex,
        Field(description="FAISS index in the bundle of a dense model; flat is exact."),
    ] = "flat"
    aggregate: Annotated[
        Literal["maxp", "vector"],
        Field(
            description="Vectors of documents that are split: those of all passages (maxp), or one"
            " for each document, which learns the log-sum-exp of its passages (vector)."
        ),
    ] = "maxp"
    texts: Annotated[
        bool, Field(description="Include titles and texts; without them only ids are returned.")
    ] = True
    onnx: Annotated[
        bool | None,
        Field(
            description="Also write the query tower as an ONNX network, so that the bundle is"
            " searched without torch (default: if the extra onnx is installed and the network"
            " agrees with the model)."
        ),
    ] = None
    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9_-]{0,62}$",
            description="Name of the index, collection or table in the engine.",
        ),
    ] = "documents"
    part_documents: Annotated[
        int | None,
        Field(
            ge=1,
            description="Documents per file of an engine, which is the most work that a crash can"
            " lose (default: 1000 for HTTP engines, 50,000 for the others).",
        ),
    ] = None
    dimension: Annotated[
        int | None,
        Field(ge=1, description="Truncate the vectors of a Matryoshka model to this dimension."),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(description="Precision of the encoder; auto is bfloat16 where the hardware has it."),
    ] = "auto"
    kind: Annotated[
        Literal["dense", "sparse", "late-interaction"] | None,
        Field(
            description="How to load the model when its files do not say (sparse for SPLADE)."
            " Default: detected from its files."
        ),
    ] = None
    trust_remote_code: Annotated[bool, Field(description="Run code that comes with the model.")] = (
        False
    )
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Random seed of an index.")] = 42

    def __post_init__(self) -> None:
        check_fields(self)
