"""Rows of the log of a training, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOG = "train_log.jsonl"


def row_numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row by name, without its step; those of inner mappings as ``outer/inner``.

    Experiment trackers and the page of `irdistill view` get these numbers.

    Examples:
        >>> row_numbers({"step": 3, "loss": 0.5, "terms": {"KL": 0.3, "InfoNCE": 0.2}})
        {'loss': 0.5, 'terms/KL': 0.3, 'terms/InfoNCE': 0.2}
    """
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= row_numbers(value, f"{prefix}{name}/")
        elif name != "step":
            numbers[f"{prefix}{name}"] = value
    return numbers
