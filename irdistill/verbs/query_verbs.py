"""Verbs that make collections: `rewrite`, `split`, `generate`, `filter`; and `critic_curve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.queries.generating import Generation
from irdistill.queries.rewriting import RewriteOptions
from irdistill.verbs.argument_types import CollectionLike, LanguageModelLike, RunLike, SeedOption
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_collection, optional_run
from irdistill.verbs.result_cache import open_cached_collection

if TYPE_CHECKING:
    from irdistill.collections import Collection

OutOption = Annotated[
    Path | None, Field(description="Folder of the new collection; the corpus is not copied.")
]


@verb(
    "rewrite",
    positional=("collection",),
    examples=(
        'irdistill rewrite talks --history "newest questions tokens=128" --out out/history',
        "irdistill rewrite talks --by human --out out/human",
        "irdistill rewrite talks --llm smollm2-pointwise --out out/llm",
    ),
    reopen=open_cached_collection,
)
def rewrite(
    collection: Annotated[CollectionLike, Field(description="Conversations.")],
    by: Annotated[
        Literal["human", "last-turn"] | None,
        Field(
            description="human: the rewrites that come with the collection; last-turn: the question"
            " as it was asked."
        ),
    ] = None,
    *,
    out: OutOption = None,
    history: Annotated[
        str | None,
        Field(
            description="Write the question with the turns before it, in this layout: 'newest"
            " questions tokens=128 turns=6', 'oldest all'."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        Field(
            description="Model whose tokenizer counts tokens= of history: folder, hub id or"
            " package: path (default: words)."
        ),
    ] = None,
    llm: Annotated[
        LanguageModelLike | None,
        Field(description="Card of a language model that writes the questions."),
    ] = None,
    options: RewriteOptions = RewriteOptions(),
    **settings: Any,
) -> Collection:
    """Make the questions of conversations stand alone.

    Give one of ``by``, ``history`` and ``llm``; ``history`` with ``llm`` is the layout of the turns
    that the language model reads.
    """
    from irdistill.queries import rewrite as rewrite_collection

    assert out is not None
    return rewrite_collection(
        open_collection(collection),
        out,
        by,
        history=history,
        tokenizer=tokenizer,
        llm=llm,
        options=options,
    )


@verb(
    "split",
    positional=("collection",),
    examples=(
        "irdistill split mydocs --folds 5 --out out/folds",
        "# Then train on out/folds#0-train and test on out/folds#0-test:",
        "irdistill retrieve out/folds#0-test --model bm25 --out out/fold0",
    ),
    reopen=open_cached_collection,
)
def split(
    collection: Annotated[CollectionLike, Field(description="The queries to split.")],
    folds: Annotated[int, Field(ge=2, description="Number of folds.")] = 5,
    *,
    out: OutOption = None,
    seed: SeedOption = 42,
) -> Collection:
    """Split queries into folds for cross-validation; the turns of a conversation stay together."""
    from irdistill.queries import split as split_collection

    assert out is not None
    return split_collection(open_collection(collection), out, folds, seed)


@verb(
    "generate",
    positional=("collection",),
    examples=(
        "irdistill generate mydocs --kinds title sentence --out out/queries",
        "# Written by a language model:",
        "irdistill generate mydocs --kinds questions --llm smollm2-pointwise --passages 500 --out"
        " out/asked",
    ),
    reopen=open_cached_collection,
)
def generate(
    collection: Annotated[CollectionLike, Field(description="The corpus; labels are not used.")],
    *,
    out: OutOption = None,
    llm: Annotated[
        LanguageModelLike | None,
        Field(description="Card of a language model that writes queries."),
    ] = None,
    examples: Annotated[
        CollectionLike | None,
        Field(description="Collection whose queries and relevant passages few-shot shows."),
    ] = None,
    options: Generation = Generation(),
    **settings: Any,
) -> Collection:
    """Generate synthetic queries from a corpus, with or without a language model."""
    from irdistill.queries import generate as generate_queries

    assert out is not None
    return generate_queries(
        open_collection(collection, queries=False),
        out,
        options,
        llm,
        open_collection(examples) if examples is not None else (),
    )


@verb(
    "filter",
    positional=("collection",),
    examples=(
        "irdistill filter out/queries#train --scores out/teacher --rules first=1 --out out/good",
    ),
    reopen=open_cached_collection,
)
def filter(
    collection: Annotated[CollectionLike, Field(description="Synthetic queries.")],
    rules: Annotated[
        list[str],
        Field(description="consistency=K, first=K, percentile=P, critic=T; one or several."),
    ],
    *,
    out: OutOption = None,
    scores: Annotated[
        RunLike | None, Field(description="The teacher's run of these queries.")
    ] = None,
    retrieved: Annotated[
        RunLike | None, Field(description="The retriever's run of these queries, for consistency.")
    ] = None,
) -> Collection:
    """Keep the synthetic queries whose source passages a retriever and a teacher rank high."""
    from irdistill.queries import filter_queries

    assert out is not None
    opened = open_collection(collection)
    runs = (optional_run(run, opened) for run in (scores, retrieved))
    return filter_queries(opened, out, rules, *runs)


@verb(
    "critic-curve",
    positional=("collection", "scores"),
    examples=("irdistill critic-curve out/queries#train out/teacher",),
)
def critic_curve(
    collection: Annotated[CollectionLike, Field(description="Synthetic queries.")],
    scores: Annotated[RunLike, Field(description="The teacher's run of these queries.")],
) -> list[dict[str, float]]:
    """Size and quality of synthetic queries at thresholds of the teacher's score."""
    from irdistill.queries import critic_curve as curve
    from irdistill.runs import as_run

    opened = open_collection(collection)
    return curve(opened, as_run(scores, opened))
