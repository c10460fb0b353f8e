"""Variants of the inference-free sparse student at equal active terms.

Each variant trains from the same model on the same lists, with a controller that aims at the same
number of active terms of documents, and is measured on the judged queries of another collection.
Before the search the smallest weights of a corpus are left out, so that its documents have as many
terms on average as those of the variant with the fewest. The temperature of KL is set so that the
scores of the lists are equally spread before the first step, since weights that start at the IDF
give larger scores than weights that start at 1. Run with

    python benchmarks/inference_free.py cranfield --train out/queries#train \\
        --scores out/bm25-scores out/minilm-scores --out out/inference-free

A second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

import irdistill as ird
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from irdistill.search.ranking import best_rows
from irdistill.search.vectors.vector_store import SparseStore, corpus_vectors

MODEL, K = "package:cognition/model", 100
#: Options of the training, and of the student.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ones": ({}, {}),
    "IDF": ({"idf_start": True}, {}),
    "IDF, double log": ({"idf_start": True}, {"activation": "log1p_relu"}),
    "IDF, threshold": ({"idf_start": True, "document_above": "active"}, {}),
    "ones, IDF penalty": ({"idf_penalty": True}, {}),
    "IDF, IDF penalty": ({"idf_start": True, "idf_penalty": True}, {}),
    "all": (
        {"idf_start": True, "idf_penalty": True, "document_above": "active"},
        {"activation": "log1p_relu"},
    ),
}
UNTRAINED = ", untrained"
NAMES = [*VARIANTS, "ones" + UNTRAINED, "IDF" + UNTRAINED]
#: What each variant is compared with.
COMPARED = {
    "ones": ["ones" + UNTRAINED],
    "IDF": ["ones", "IDF" + UNTRAINED],
    "IDF, double log": ["IDF"],
    "IDF, threshold": ["IDF"],
    "ones, IDF penalty": ["ones"],
    "IDF, IDF penalty": ["IDF", "ones, IDF penalty"],
    "all": ["ones", "IDF"],
}


def build(settings: argparse.Namespace, architecture: dict[str, Any]) -> Any:
    shared = {"inference_free": True, "max_length": settings.length, "device": "cpu"}
    frozen = settings.freeze
    return ird.SparseStudent(settings.model, freeze_documents=frozen, **shared, **architecture)


def untrained(settings: argparse.Namespace, name: str, collection: Any) -> Any:
    """The student of a variant before the first step."""
    from irdistill.training.objectives.token_idf import corpus_idf

    training, architecture = VARIANTS[name]
    student = build(settings, architecture)
    if training.get("idf_start"):
        idf = corpus_idf(collection.corpus, student.model.tokenizer, student.dimension)
        student.set_query_weights(idf.weights)
    return student


def spread(settings: argparse.Namespace, name: str, collection: Any) -> float:
    """Standard deviation of the scores of a list before the first step, over 16 lists."""
    student = untrained(settings, name, collection)
    deviations = []
    for number, ranked in enumerate(ird.open_run(settings.scores[0])):
        if number == 16:
            break
        rows = collection.corpus.find(list(ranked.doc_ids)[:4])
        documents = student.encode(list(collection.corpus.texts(rows)), show_progress=False)
        query = student.encode(
            [collection.queries[ranked.query_id].text], "query", show_progress=False
        )
        deviations.append((query @ documents.T).toarray().std())
    return float(np.mean(deviations))


def learn(settings: argparse.Namespace, name: str, collection: Any, facts: dict[str, Any]) -> Path:
    """Train a variant, or save it as it is before the first step."""
    out = settings.out / f"{name.replace(', ', '-').replace(' ', '-')}-{settings.seed}"
    if name.endswith(UNTRAINED):
        if not out.exists():
            untrained(settings, name.removesuffix(UNTRAINED), collection).save(out / "model")
        return out / "model"
    training, architecture = VARIANTS[name]
    facts["tau"] = spread(settings, name, collection) / 2
    training = {
        key: settings.active if value == "active" else value for key, value in training.items()
    }
    options = ird.TrainOptions(
        steps=settings.steps,
        batch_size=settings.batch,
        list_size=settings.list,
        learning_rate=settings.rate,
        head_learning_rate=settings.head_rate,
        document_active=0 if settings.freeze else settings.active,
        document_flops=0.0 if settings.freeze else 0.001,
        ramp=settings.ramp,
        schedule="constant",
        mix="zscore",
        checkpoint_every=50,
        seed=settings.seed,
        **training,
    )
    ird.train(
        collection,
        settings.scores,
        build(settings, architecture),
        loss=f"KL(tau={facts['tau']:.3g}, teacher_tau=0.5)",
        out=out,
        options=options,
    )
    return out / "model"


def encode(test: Any, model: str | Path) -> tuple[csr_matrix, csr_matrix]:
    """The vectors of the judged queries and of all documents."""
    student = ird.load_student(str(model), kind="sparse")
    store = corpus_vectors(test.corpus, student)
    assert isinstance(store, SparseStore)
    texts = [query.text for query in test.queries.values()]
    return student.encode(texts, "query", show_progress=False), store.part(0, len(store))


def active(documents: csr_matrix) -> float:
    """Terms of a document on average."""
    return float(documents.nnz / documents.shape[0])


def cut(documents: csr_matrix, terms: float) -> csr_matrix:
    """The documents with the largest weights of the corpus, ``terms`` of each on average."""
    kept = documents.copy()
    surplus = kept.nnz - round(terms * kept.shape[0])
    if surplus > 0:
        kept.data[kept.data < np.partition(kept.data, surplus)[surplus]] = 0
        kept.eliminate_zeros()
    return kept


def search(test: Any, queries: csr_matrix, documents: csr_matrix) -> MemoryRun:
    """The best documents of each query."""
    lists = []
    for query, scores in zip(test.queries.values(), queries @ documents.T, strict=True):
        hits = best_rows(test.corpus, scores.toarray()[0], K + len(query.excluded), above=0)
        ranked = RankedList(query.id, test.corpus.ids_at(hits.rows), hits.scores, None)
        lists.append(ranked.without(query.excluded, K))
    return MemoryRun(RunIdentity("student", {}, test.describe()), lists)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", help="collection with judgments")
    parser.add_argument("--train", required=True, help="collection of the training queries")
    parser.add_argument("--scores", nargs="+", required=True, help="runs of the teachers")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--variants", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--freeze", action="store_true", help="train the query weights alone")
    parser.add_argument("--length", type=int, default=128, help="tokens of a text")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--ramp", type=float, default=0.33)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--list", type=int, default=8)
    parser.add_argument("--active", type=int, default=100, help="active terms of a document")
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--head-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=1)
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    collection = ird.load_collection(settings.train)
    facts: dict[str, dict[str, Any]] = {name: {} for name in settings.variants}
    test = ird.load_collection(settings.test)
    vectors = {}
    for name in settings.variants:
        vectors[name] = encode(test, learn(settings, name, collection, facts[name]))
        facts[name]["active"] = active(vectors[name][1])
        print(name, facts[name], flush=True)
    terms = min(row["active"] for row in facts.values())
    runs = {}
    for name, (queries, documents) in vectors.items():
        kept = cut(documents, terms)
        facts[name]["searched"] = active(kept)
        runs[name] = search(test, queries, kept)
        if kept.nnz < documents.nnz:
            runs[name + ", uncut"] = search(test, queries, documents)
    (settings.out / f"facts-{settings.seed}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{terms:.1f} active terms of a document")
    pairs = {name: [base for base in COMPARED.get(name, []) if base in runs] for name in runs}
    baseline: dict[str, str | list[str]] = {name: bases for name, bases in pairs.items() if bases}
    print(ird.evaluate(test, runs, measures="nDCG@10", baseline=baseline))


if __name__ == "__main__":
    main()
