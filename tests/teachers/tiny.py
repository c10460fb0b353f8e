"""Tiny teachers with random weights, and a small collection for them."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from tests.students.tiny import tiny_backbone

DOCS = {
    "a": "the cat sat in the red mat",
    "b": "dog and bird",
    "c": "heat shock wave in the cell " * 20,
    "d": "rain and snow and small fish",
    "e": "why is the gene slow",
}
QUERIES = {"q1": "how does the cat sat", "q2": "what is heat", "q3": "small dog"}


def tiny_cross_encoder(folder: Path, labels: int = 1) -> Path:
    """A BERT of two layers with a classification head of ``labels`` outputs."""
    tiny_backbone(folder, layers=2)
    torch.manual_seed(11)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
    with torch.no_grad():
        network.classifier.weight.mul_(20.0)
        network.classifier.bias.fill_(0.5)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_splade(folder: Path) -> Path:
    """A SPLADE of random weights."""
    tiny_backbone(folder / "mlm", layers=2)
    tokenizer, config = (
        AutoTokenizer.from_pretrained(folder / "mlm"),
        AutoConfig.from_pretrained(folder / "mlm"),
    )
    torch.manual_seed(3)
    network = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2)
    network.save_pretrained(folder / "mlm")
    tokenizer.save_pretrained(folder / "mlm")
    transformer = Transformer(str(folder / "mlm"), transformer_task="fill-mask")
    model = SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu")
    model.save(str(folder / "splade"))
    return folder / "splade"


def tiny_colbert(folder: Path) -> Path:
    """A ColBERT of random weights, with its own lengths and query expansion."""
    MultiVectorEncoder(str(tiny_backbone(folder / "bert", layers=2)), device="cpu").save(
        str(folder / "colbert")
    )
    return folder / "colbert"
