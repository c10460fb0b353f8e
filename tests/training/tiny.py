"""A collection, teacher scores and a student so small that a training takes a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, BertTokenizerFast

from irdistill.collections import Collection
from irdistill.runs import RankedList, Run, RunIdentity, write_run
from irdistill.students import DenseStudent

torch.set_num_threads(1)  # nothing here gains from more, and a busy machine loses much
WORDS = [f"w{i}" for i in range(40)]


def make_collection(queries: int = 8, documents: int = 40) -> Collection:
    """Documents are random words; each query is a part of one document, which is its relevant
    one.
    """
    random = np.random.default_rng(3)
    docs = {f"d{i}": " ".join(random.choice(WORDS, 3 + i % 17)) for i in range(documents)}
    queries_by_id = {f"q{i}": " ".join(docs[f"d{i}"].split()[:3]) for i in range(queries)}
    return Collection.from_dicts(
        "tiny", docs, queries_by_id, {f"q{i}": {f"d{i}": 1} for i in range(queries)}
    )


def make_run(path: Path, collection: Collection, depth: int = 12, shift: float = 0.0) -> Run:
    """The relevant document gets 6, the others less; every fifth has no score."""
    random = np.random.default_rng(4)
    lists = []
    for i, query_id in enumerate(collection.queries):
        others = [
            f"d{j}" for j in random.choice(len(collection.corpus), depth, replace=False) if j != i
        ]
        scores = random.normal(size=len(others) + 1).astype(np.float32) + np.float32(shift)
        scores[0] = 6.0
        scores[5::5] = np.nan
        lists.append(RankedList(query_id, [f"d{i}", *others], scores, None))
    identity = RunIdentity(
        kind="teacher",
        producer={"model": "made up"},
        collection=collection.describe(),
        candidates=None,
        settings={},
    )
    return write_run(path, identity, lists)


def make_backbone(folder: Path, seed: int = 0) -> Path:
    """A saved sentence-transformers model: two layers, random weights, a vocabulary of forty
    words.
    """
    if (folder / "modules.json").exists():
        return folder
    inner = folder.with_name(folder.name + "-bert")
    inner.mkdir(parents=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizerFast(
        vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=32
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    first = Transformer(str(inner))
    pooling = Pooling(first.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[first, pooling], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def make_student(folder: Path, frozen: bool = False) -> DenseStudent:
    """A student on the tiny backbone; ``frozen`` gives it a document tower that does not learn."""
    return DenseStudent(str(make_backbone(folder)), freeze_documents=frozen, device="cpu")
