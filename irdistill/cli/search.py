"""``irdistill candidates`` and ``irdistill search``."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irdistill.cli.options import (
    cluster_settings,
    engine_options,
    examples,
    json_option,
    model_options,
    out_option,
    overwrite_option,
    seed_option,
    show,
    write_result,
)
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError

if TYPE_CHECKING:
    from irdistill.distributed.ray_cluster import RayCluster
    from irdistill.runs import Run

INDEXES = ("flat", "hnsw", "ivfflat", "ivfpq", "sq8", "plaid", "seismic", "lucene")
MODELS = (
    "bm25, lucene (BM25 by Lucene; lucene:INDEX for one there is), or a dense, sparse or"
    " late-interaction model: folder, hub id or package: path."
)


@click.command(
    epilog=examples(
        "irdistill candidates pydocs/train --retriever bm25 --depth 100 --out out/bm25",
    )
)
@click.argument("collection")
@click.option("--retriever", default="bm25", show_default=True, help=MODELS)
@click.option("--depth", default=100, show_default=True, help="Documents a query.")
@model_options()
@engine_options("Where a model encodes the corpus.")
@out_option("The run's folder.")
@overwrite_option()
@seed_option()
@json_option()
def candidates(
    collection: str,
    retriever: str,
    depth: int,
    kind: str | None,
    trust_remote_code: bool,
    engine: str,
    workers: int | None,
    ray_address: str | None,
    out: Path,
    overwrite: bool,
    seed: int,
    json_file: Path | None,
) -> None:
    """Find each query's candidates for a teacher to score."""
    from irdistill.collections import load_collection
    from irdistill.search import RetrieveOptions, retrieve

    cluster = _cluster(engine, workers, ray_address)
    found = retrieve(
        load_collection(collection),
        retriever,
        out,
        depth,
        RetrieveOptions(seed=seed, kind=kind, trust_remote_code=trust_remote_code),  # type: ignore[arg-type]
        overwrite=overwrite,
        cluster=cluster,
    )
    show(_summary(out, found), json_file)


def _cluster(engine: str, workers: int | None, ray_address: str | None) -> RayCluster | None:
    given = cluster_settings(engine, workers, ray_address)
    if given is None:
        return None
    from irdistill.distributed.ray_cluster import RayCluster

    return RayCluster(*given)


def _summary(out: Path, found: Run) -> dict[str, Any]:
    from irdistill.modeling.truncation import Truncation
    from irdistill.search import recall

    share, usage = recall(found), found.manifest.usage
    measured = {} if share is None else {"recall of exact search": share}
    for kind in ("document", "query"):
        measured |= Truncation.from_usage(usage, kind).shares(kind)
    return {
        "run": str(out),
        "queries": len(found),
        "rows": found.num_rows,
        **measured,
        "fingerprint": found.fingerprint,
    }


@click.command(
    epilog=examples(
        'irdistill search pydocs/howto --model bm25 --query "how do I merge two dictionaries"',
        "irdistill search pydocs/test --model bm25 --k 100 --out out/bm25-test",
    )
)
@click.argument("collection")
@click.option("--model", required=True, help=MODELS)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run's folder; searches for all queries of the collection.",
)
@click.option(
    "--query", "text", help="Search for this instead, and print the hits with their text."
)
@click.option(
    "--index",
    type=click.Choice(INDEXES),
    default="flat",
    show_default=True,
    help=(
        "flat is exact; of the others the recall is printed. plaid is for late-interaction models,"
        " seismic for sparse ones, lucene for sparse and dense ones, the rest for dense and"
        " late-interaction ones."
    ),
)
@click.option(
    "--storage",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the vectors on disk.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the encoder; auto is bfloat16 where the machine is made for it.",
)
@click.option("--k", type=int, help="Documents a query; 1000, or 5 with --query.")
@click.option(
    "--dimension",
    type=int,
    help="Cut the vectors of a Matryoshka model to their first so many numbers.",
)
@model_options()
@engine_options("Where the corpus is encoded.")
@overwrite_option()
@seed_option()
@json_option()
def search(
    collection: str,
    model: str,
    out: Path | None,
    text: str | None,
    index: str,
    storage: str,
    precision: str,
    k: int | None,
    dimension: int | None,
    kind: str | None,
    trust_remote_code: bool,
    engine: str,
    workers: int | None,
    ray_address: str | None,
    overwrite: bool,
    seed: int,
    json_file: Path | None,
) -> None:
    """Search with a model: for all queries of a collection, or for one of your own."""
    from irdistill.collections import LoadReport, Qrels, Query, load_collection
    from irdistill.search import RetrieveOptions, retrieve

    if (text is None) == (out is None):
        raise IrdistillError(
            "give either --out RUN, to search for the collection's queries, or --query TEXT, for"
            " one of your own."
        )
    loaded = load_collection(collection, queries=text is None)
    settings: dict[str, Any] = {
        "index": index,
        "storage": storage,
        "precision": precision,
        "seed": seed,
        "dimension": dimension,
        "kind": kind,
        "trust_remote_code": trust_remote_code,
        "check_recall": text is None,
    }
    options = RetrieveOptions(**settings)
    cluster = _cluster(engine, workers, ray_address)
    if out is not None:
        show(
            _summary(
                out,
                retrieve(
                    loaded,
                    model,
                    out,
                    1000 if k is None else k,
                    options,
                    overwrite=overwrite,
                    cluster=cluster,
                ),
            ),
            json_file,
        )
        return
    assert text is not None
    if not text.strip():
        raise IrdistillError("the query is empty; give some words to search for.")
    own = replace(
        loaded, queries={"query": Query("query", text)}, qrels=Qrels({}), report=LoadReport()
    )
    with tempfile.TemporaryDirectory() as scratch:
        hits = retrieve(
            own, model, Path(scratch) / "run", 5 if k is None else k, options, cluster=cluster
        )["query"]
    rows = [
        {"rank": rank, "doc_id": doc, "score": score}
        for rank, (doc, score) in enumerate(zip(hits.doc_ids, hits.scores.tolist(), strict=True), 1)
    ]
    write_result(json_file, {"query": text, "hits": rows})
    for rank, (doc_id, score) in enumerate(zip(hits.doc_ids, hits.scores.tolist(), strict=True), 1):
        words = " ".join(loaded.corpus.text(loaded.corpus.row(doc_id)).split())
        echo(
            f"{rank:>3}. {doc_id}  ({score:.4f})\n    "
            f" {words[:200]}{'…' if len(words) > 200 else ''}"
        )
    if not hits.doc_ids:
        echo("nothing found: no document shares a word with the query.")
