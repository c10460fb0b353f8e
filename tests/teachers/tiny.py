"""A tiny random cross-encoder, made in a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.students.tiny import tiny_backbone


def tiny_cross_encoder(folder: Path, labels: int = 1) -> Path:
    """A BERT of two layers with a classification head of so many outputs."""
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
