"""The verbs `retrieve`, `search` and `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.search.feedback import FeedbackOptions
from irdistill.search.retrieve_options import RetrieveOptions
from irdistill.verbs.argument_types import (
    AddressOption,
    CollectionLike,
    ModelLike,
    OverwriteOption,
    RunLike,
    RunsLike,
    WorkersOption,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import (
    named_runs,
    open_collection,
    optional_run,
    ray_cluster,
    with_encoder,
)
from irdistill.verbs.result_cache import open_cached_run

if TYPE_CHECKING:
    from irdistill.bundles.bundle_searcher import Searcher, SearchHit
    from irdistill.bundles.collection_search import CollectionSearch
    from irdistill.evaluation.explaining import Explanation
    from irdistill.runs import Run

MODEL_HELP = (
    "bm25, lucene (BM25 by Lucene; lucene:INDEX for an existing index), or a dense, sparse or"
    " late-interaction model: folder (also of irdistill export), hub id or package: path, or the"
    " card of a hosted embedder."
)
ModelOption = Annotated[ModelLike, Field(description=MODEL_HELP)]


def _check_retrieve(values: Mapping[str, Any]) -> None:
    if values["feedback_options"] != FeedbackOptions() and "feedback" not in values:
        raise OptionError(
            "feedback_k or feedback_weight was given without feedback; name the run whose first"
            " documents expand the queries, or leave them out."
        )


@verb(
    "retrieve",
    positional=("collection",),
    examples=(
        "irdistill retrieve pydocs/train --model bm25 --k 100 --out out/bm25",
        "# Queries expanded by the first documents of an earlier run:",
        "irdistill retrieve pydocs/train --model out/student/model --feedback out/bm25"
        " --out out/expanded",
    ),
    check=_check_retrieve,
    reopen=open_cached_run,
)
def retrieve(
    collection: Annotated[CollectionLike, Field(description="The queries and the corpus.")],
    model: ModelOption = "bm25",
    k: Annotated[int, Field(ge=1, description="Documents per query.")] = 100,
    *,
    out: Annotated[Path | None, Field(description="Folder of the run.")] = None,
    feedback: Annotated[
        RunLike | None,
        Field(
            description="Move the queries of a dense model toward the first documents of this run"
            " (pseudo-relevance feedback)."
        ),
    ] = None,
    feedback_options: FeedbackOptions = FeedbackOptions(),
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
    opened = open_collection(collection)
    return retrieve_run(
        opened,
        with_encoder(model),
        out,
        k,
        options,
        overwrite=overwrite,
        cluster=ray_cluster(engine, workers, ray_address),
        feedback=optional_run(feedback, opened),
        feedback_options=feedback_options,
    )


def _check_search(values: Mapping[str, Any]) -> None:
    from irdistill.bundles.bundle_manifest import is_bundle
    from irdistill.bundles.bundle_searcher import check_questions

    if "query" in values:
        check_questions([values["query"]])
    chosen = values.get("model", "bm25") != "bm25" or values["options"] != RetrieveOptions()
    if chosen and is_bundle(values["collection"]):
        raise OptionError(
            f"{values['collection']} is a bundle, which holds its model and index; leave out the"
            " model and the options of retrieval."
        )


@verb(
    "search",
    positional=("collection", "query"),
    examples=(
        'irdistill search bundle "how do I calibrate the device"',
        'irdistill search pydocs/howto "how do I merge two dictionaries"',
        'irdistill search pydocs/howto "how do I merge two dictionaries" --model bm25 --k 3',
        "# Asks for questions; with a pipe, one question per line:",
        "irdistill search bundle",
        "irdistill search bundle --json - < questions.txt > hits.jsonl",
    ),
    check=_check_search,
)
def search_text(
    collection: Annotated[
        CollectionLike, Field(description="A bundle that irdistill package made, or a corpus.")
    ],
    query: Annotated[
        str, Field(description="The question. Without one the command asks for questions.")
    ],
    model: ModelOption = "bm25",
    k: Annotated[int, Field(ge=1, description="Documents to show.")] = 5,
    *,
    options: RetrieveOptions = RetrieveOptions(),
    **settings: Any,
) -> list[SearchHit]:
    """Search a bundle or a corpus for a question and show the documents.

    Vectors and indexes are kept in the cache, so the next question is fast. Without a question the
    command asks for one after the other and keeps the model loaded.
    """
    return open_search(collection, model, options).search(query, k)


@verb(
    "explain",
    positional=("collection", "query", "doc"),
    examples=(
        'irdistill explain pydocs/howto "how do I merge two dictionaries" dict.update',
        "irdistill explain pydocs/train q:locals locals --model out/student/model --runs"
        " out/bm25 out/a",
        'irdistill explain bundle "how do I ask for leave" leave.md --json why.json',
    ),
    check=_check_search,
)
def explain(
    collection: Annotated[
        CollectionLike, Field(description="A collection, or a bundle that irdistill package made.")
    ],
    query: Annotated[str, Field(description="A question, or the id of a query of the collection.")],
    doc: Annotated[str, Field(description="The id of a document.")],
    model: Annotated[
        ModelLike,
        Field(
            description="Explain the score of this model too: dense, sparse, late interaction or"
            " cross-encoder."
        ),
    ] = "bm25",
    *,
    runs: Annotated[
        RunsLike | None, Field(description="Runs of teachers and others, whose scores are shown.")
    ] = None,
    options: RetrieveOptions = RetrieveOptions(),
    **settings: Any,
) -> Explanation:
    """Explain why a document is in a ranking, part by part.

    Shows the BM25 weight of each word; what a model's score is made of: its tower and the vectors
    of words, the terms in common, or the most similar tokens; what runs have for the document; and
    its judgment. The parts add up to the score.
    """
    from irdistill.bundles.bundle_manifest import is_bundle
    from irdistill.evaluation.explaining import DocumentExplainer
    from irdistill.runs import as_run

    if is_bundle(collection):
        from irdistill.bundles.bundle_corpus import bundle_collection
        from irdistill.bundles.bundle_searcher import Searcher

        searcher = Searcher(str(collection))
        opened, searched = bundle_collection(searcher), searcher
    else:
        opened, searched = open_collection(collection, queries=False), with_encoder(model)
    several = {} if runs is None else named_runs(runs)
    named = {name: as_run(run, opened) for name, run in several.items()}
    return DocumentExplainer(opened, searched, named, options).explain(query, doc)


def open_search(
    collection: CollectionLike, model: ModelLike = "bm25", options: RetrieveOptions | None = None
) -> Searcher | CollectionSearch:
    """Open a bundle, or a corpus and a model, for many questions."""
    from irdistill.bundles.bundle_manifest import is_bundle

    if is_bundle(collection):
        from irdistill.bundles.bundle_searcher import Searcher

        return Searcher(str(collection))
    from irdistill.bundles.collection_search import CollectionSearch

    loaded = open_collection(collection, queries=False)
    return CollectionSearch(loaded, with_encoder(model), options or RetrieveOptions())
