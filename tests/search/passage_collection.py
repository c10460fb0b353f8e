"""A small collection of documents that are split into passages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.collections.document_splitting import PassageOptions, split_into_passages
from tests.students.tiny import WORDS, tiny_backbone


def write_collection(folder: Path, documents: int = 24) -> Path:
    """A BEIR folder: documents of 3 to 60 words, two copies of one, an empty one, six queries."""
    random = np.random.default_rng(3)
    docs = {}
    for number in range(documents):
        words = random.choice(WORDS, size=int(random.integers(3, 60))).tolist()
        words = [word + "." * (random.random() < 0.2) for word in words]
        title = " ".join(random.choice(WORDS, size=2)) if number % 3 else ""
        docs[f"d{number}"] = title, " ".join(words).replace(". ", ". A ")
    docs |= {"twin-a": docs["d1"], "twin-b": docs["d1"], "empty": ("", "")}
    queries = {f"q{number}": " ".join(random.choice(WORDS, size=4)) for number in range(6)}
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": key, "title": title, "text": text}) + "\n"
            for key, (title, text) in docs.items()
        )
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in queries.items())
    )
    (folder / "qrels").mkdir()
    rows = [
        f"{query}\t{doc}\t1\n" for n, query in enumerate(queries) for doc in (f"d{n}", f"d{n + 8}")
    ]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def passage_collection(folder: Path, tokens: int = 16, overlap: int = 0) -> Collection:
    """The collection in ``folder/docs``, with passages; made on the first call."""
    encoder = folder / "encoder"
    if not encoder.is_dir():
        tiny_backbone(encoder, layers=1)
    if not (folder / "docs").is_dir():
        write_collection(folder / "docs")
    options = PassageOptions(tokens, overlap, str(encoder))
    whole = load_collection(folder / "docs", passages=False)
    return split_into_passages(whole, options, folder / "docs")
