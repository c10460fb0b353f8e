"""A small collection in BEIR layout, and a recipe with every verb over it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from irdistill.collections import load_collection
from tests.students.tiny import WORDS, tiny_backbone

RECIPE = """
name: small
description: Every verb once, on made-up texts.
settings: {model: MODEL, data: DATA, steps: 24, k: 10}
stages:
  - {name: "bm25-${split}", verb: retrieve, for: {split: [train, test]}, collection: "${data}#${split}", k: "${k}"}
  - {name: "dense-${split}", verb: retrieve, for: {split: [train, test]}, collection: "${data}#${split}", model: "${model}",
     k: "${k}"}
  - {name: "pool-${split}", verb: fuse, for: {split: [train, test]}, runs: ["${bm25-${split}}", "${dense-${split}}"], method: rrf}
  - {name: "${teacher}-scores-${split}", verb: score, for: {teacher: [one, two], split: [train, test]},
     collection: "${data}#${split}", candidates: "${pool-${split}}", teacher: "${${teacher}}"}
  - {name: "teacher-${split}", verb: fuse, for: {split: [train, test]}, runs: ["${one-scores-${split}}", "${two-scores-${split}}"]}
  - {name: audit, verb: audit, collection: "${data}#train", first_stage: "${bm25-train}",
     runs: {one: "${one-scores-train}", fused: "${teacher-train}"}}
  - {name: "${loss}", verb: train, for: {loss: [labels, distilled]}, collection: "${data}#train", scores: "${teacher-train}",
     loss: "${${loss}-loss}", backbone: "${model}", query_layers: 1, steps: "${steps}", batch_size: 4, list_size: 4,
     checkpoint_every: 2}
  - {name: "${loss}-test", verb: retrieve, for: {loss: [labels, distilled]}, collection: "${data}#test", model: "${${loss}}", k: 10,
     index: hnsw}
  - name: figures
    verb: evaluate
    measures: nDCG@10 RR@10
    baseline: {distilled: labels}
    datasets:
      "${data}#test": {BM25: "${bm25-test}", teacher: "${teacher-test}", labels: "${labels-test}", distilled: "${distilled-test}"}
  - {name: costs, verb: measure, collection: "${data}#test", queries: 4, k: 5,
     models: {BM25: bm25, teacher: [bm25, "${model}"], distilled: "${distilled}"}}
"""


def beir_folder(folder: Path, documents: int = 60, queries: int = 24) -> Path:
    """Random words; a query is three words of its one relevant document."""
    draw = random.Random(5)
    (folder / "qrels").mkdir(parents=True)
    texts = {
        f"d{n:03}": [draw.choice(WORDS) for _ in range(draw.randint(4, 20))]
        for n in range(documents)
    }
    with open(folder / "corpus.jsonl", "w") as stream:
        for doc, words in texts.items():
            stream.write(json.dumps({"_id": doc, "title": "", "text": " ".join(words)}) + "\n")
    sources = {f"q{n:03}": draw.choice(list(texts)) for n in range(queries)}
    with open(folder / "queries.jsonl", "w") as stream:
        for query, doc in sources.items():
            stream.write(
                json.dumps({"_id": query, "text": " ".join(draw.sample(texts[doc], 3))}) + "\n"
            )
    for split, chosen in (
        ("train", list(sources)[: queries * 2 // 3]),
        ("test", list(sources)[queries * 2 // 3 :]),
    ):
        lines = [
            "query-id\tcorpus-id\tscore",
            *(f"{query}\t{sources[query]}\t1" for query in chosen),
        ]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def small_recipe(folder: Path) -> Path:
    """The recipe over a collection and a model made in the same folder."""
    model, data = tiny_backbone(folder / "model", layers=2), beir_folder(folder / "data")
    text = RECIPE.replace("MODEL", str(model)).replace("DATA", str(data))
    text = text.replace(
        "k: 10}\nstages",
        f"k: 10, one: bm25, two: {model}, labels-loss: InfoNCE(tau=0.05),\n"
        "  distilled-loss: KL(tau=0.05) + 0.5*InfoNCE(tau=0.05)}\nstages",
    )
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def pydocs_folder(folder: Path, documents: int = 60) -> Path:
    """The first documents of the embedded collection, in BEIR layout, with the queries of each
    split that one of them answers.
    """
    (folder / "qrels").mkdir(parents=True)
    queries: dict[str, str] = {}
    for split in ("train", "test"):
        whole = load_collection(f"pydocs/{split}")
        judged = {
            query: {doc for doc, grade in answers.items() if grade > 0}
            for query, answers in whole.qrels.items()
        }
        if split == "train":
            answers = [doc for docs in judged.values() for doc in sorted(docs)][: documents // 2]
        else:
            answers += [doc for docs in judged.values() for doc in sorted(docs)][
                : documents - len(answers)
            ]
        sources = {query: docs for query, docs in judged.items() if docs <= set(answers)}
        queries |= {query: whole.queries[query].text for query in sources}
        lines = [
            "query-id\tcorpus-id\tscore",
            *(f"{query}\t{doc}\t1" for query, docs in sources.items() for doc in sorted(docs)),
        ]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    rows = whole.corpus.rows(list(dict.fromkeys(answers)))
    (folder / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": whole.corpus.id(row), "title": "", "text": whole.corpus.text(row)})
            + "\n"
            for row in rows
        )
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in queries.items())
    )
    return folder
