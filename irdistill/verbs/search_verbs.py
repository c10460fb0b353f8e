"""The verbs `retrieve` and `search`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.search.retrieve_options import RetrieveOptions
from irdistill.verbs.argument_types import (
    AddressOption,
    CollectionLike,
    ModelLike,
    OverwriteOption,
    WorkersOption,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_collection, ray_cluster, with_hosted
from irdistill.verbs.result_cache import open_cached_run

if TYPE_CHECKING:
    from irdistill.runs import Run

MODEL_HELP = (
    "bm25, lucene (BM25 by Lucene; lucene:INDEX for an existing index), or a dense, sparse or"
    " late-interaction model: folder, hub id or package: path, or the card of a hosted embedder."
)
ModelOption = Annotated[ModelLike, Field(description=MODEL_HELP)]


@verb(
    "retrieve",
    positional=("collection",),
    examples=("irdistill retrieve pydocs/train --model bm25 --k 100 --out out/bm25",),
    reopen=open_cached_run,
)
def retrieve(
    collection: Annotated[CollectionLike, Field(description="The queries and the corpus.")],
    model: ModelOption = "bm25",
    k: Annotated[int, Field(ge=1, description="Documents per query.")] = 100,
    *,
    out: Annotated[Path | None, Field(description="Folder of the run.")] = None,
    options: RetrieveOptions = RetrieveOptions(),
    engine: Annotated[
        Literal["local", "ray"], Field(description="Where the corpus is encoded.")
    ] = "local",
    workers: WorkersOption = None,
    ray_address: AddressOption = None,
    overwrite: OverwriteOption = False,
    **settings: Any,
) -> Run:
    """Retrieve the top documents of each query of a collection.

    The result is a run: candidates for a teacher to score, or the results of a model to evaluate.
    A stopped search resumes where it stopped.
    """
    from irdistill.search.retrieval import retrieve as retrieve_run

    assert out is not None
    return retrieve_run(
        open_collection(collection),
        with_hosted(model),
        out,
        k,
        options,
        overwrite=overwrite,
        cluster=ray_cluster(engine, workers, ray_address),
    )


@dataclass(frozen=True)
class SearchHit:
    """A document that a search returned.

    Attributes:
        text: the best passage if the documents are split, else the document.
        passage: the number of that passage in the document, from 0; None if it is not split.
    """

    rank: int
    doc_id: str
    score: float
    text: str
    passage: int | None = None


@verb(
    "search",
    positional=("collection", "query"),
    examples=(
        'irdistill search pydocs/howto "how do I merge two dictionaries"',
        'irdistill search pydocs/howto "how do I merge two dictionaries" --model bm25 --k 3',
    ),
)
def search_text(
    collection: Annotated[CollectionLike, Field(description="The corpus.")],
    query: Annotated[
        str, Field(description="The question. Without one the command asks for questions.")
    ],
    model: ModelOption = "bm25",
    k: Annotated[int, Field(ge=1, description="Documents to show.")] = 5,
    *,
    options: RetrieveOptions = RetrieveOptions(),
    **settings: Any,
) -> list[SearchHit]:
    """Search a corpus for one question and show the documents.

    Vectors and indexes are kept in the cache, so the next question is fast.
    """
    import tempfile

    from irdistill.collections import LoadReport, Qrels, Query
    from irdistill.runs.named_passages import list_texts
    from irdistill.search.retrieval import retrieve as retrieve_run

    if not query.strip():
        raise OptionError("the query is empty; give some words to search for.")
    corpus = open_collection(collection, queries=False)
    single = replace(
        corpus, queries={"query": Query("query", query)}, qrels=Qrels({}), report=LoadReport()
    )
    options = replace(options, check_recall=False)
    with tempfile.TemporaryDirectory() as scratch:
        ranked = retrieve_run(single, with_hosted(model), Path(scratch) / "run", k, options)[
            "query"
        ]
    texts = list_texts(corpus.corpus, ranked)
    numbers = [None] * len(texts) if ranked.passages is None else ranked.passages.tolist()
    return [
        SearchHit(rank, doc_id, score, text, number)
        for rank, (doc_id, score, text, number) in enumerate(
            zip(ranked.doc_ids, ranked.scores.tolist(), texts, numbers, strict=True), 1
        )
    ]
