"""Padding: from token lists of different lengths to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

TokenRow = Mapping[str, Sequence[int] | np.ndarray]

#: Key of an (n,) bool tensor in the features of a batch: True for texts without tokens.
TOKENLESS = "tokenless"


def pad_rows(
    rows: Sequence[TokenRow], fill: Mapping[str, int], left: bool = False
) -> dict[str, Tensor]:
    """Tensors (n, length) of tokenized texts, padded to the longest, with an attention mask.

    Args:
        rows: the features of each text by name; ``input_ids`` decides the lengths.
        fill: padding value by feature name; 0 for features that are not in it.
        left: pad on the left, as decoders need it.

    Examples:
        >>> padded = pad_rows([{"input_ids": [5, 6]}, {"input_ids": [7]}], {"input_ids": 9})
        >>> padded["input_ids"].tolist(), padded["attention_mask"].tolist()
        ([[5, 6], [7, 9]], [[1, 1], [1, 0]])
    """
    longest = max((len(row["input_ids"]) for row in rows), default=0)
    names = [name for name in (rows[0] if rows else ()) if name != "attention_mask"]
    shape = (len(rows), longest)
    arrays = {name: np.full(shape, fill.get(name, 0), dtype=np.int64) for name in names}
    mask = arrays["attention_mask"] = np.zeros(shape, dtype=np.int64)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        columns = slice(longest - length, longest) if left else slice(0, length)
        mask[place, columns] = 1
        for name in names:
            arrays[name][place, columns] = row[name]
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def pad_texts(
    rows: Sequence[TokenRow], fill: Mapping[str, int], left: bool = False
) -> dict[str, Tensor]:
    """As `pad_rows`, but a text without tokens gets one padding token and is marked in `TOKENLESS`.

    A network cannot read a text of length 0, and gives NaN where the whole mask is 0.
    """
    tokenless = torch.tensor([len(row["input_ids"]) == 0 for row in rows])
    if not tokenless.any():
        return pad_rows(rows, fill, left)
    filled = [
        row if len(row["input_ids"]) else {name: [fill.get(name, 0)] for name in row}
        for row in rows
    ]
    return pad_rows(filled, fill, left) | {TOKENLESS: tokenless}
