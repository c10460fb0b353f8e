"""Saving students: staged folders, tokenizers, and the comparison of saved models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from irdistill.errors import ModelError
from irdistill.storage.files import (
    explain_os_errors,
    make_folder,
    read_json,
    staging_path,
    temporary_path,
    write_json,
)
from irdistill.students.fingerprints import backend_digest

#: Texts on which a model is compared with its saved copy: case, accents, punctuation, numbers,
#: other scripts, and a long text.
PROBES = (
    "the cat sat on the mat",
    "The CAT, and a Dog: is it FAST?",
    "Über naïve café résumé",
    "x86_64 costs $3.50 (2024)",
    "данные 数据 データ",
    "Python's str.split() returns a LIST of words; see PEP-8 " * 40,
)
#: Numbers may differ by this much, times the largest number if it is above 1, because adding
#: adapters to weights rounds.
TOLERANCE = 1e-4


@contextmanager
def staged_folder(path: str | Path) -> Iterator[Path]:
    """A new folder whose files replace those of the same names at ``path`` on success.

    On a failure nothing at ``path`` changes.
    """
    folder = Path(path)
    make_folder(folder.parent)
    staged = temporary_path(folder)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with explain_os_errors(folder):
            staged.mkdir()
            yield staged
            for file in sorted(entry for entry in staged.rglob("*") if entry.is_file()):
                final = folder / file.relative_to(staged)
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def check_folder(beside: Path) -> Iterator[Path]:
    """A new folder in ``beside`` that is removed afterwards."""
    folder = staging_path(beside / "checking")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Let a tokenizer that was saved in a folder load as it is in memory.

    Some classes of transformers rebuild their normalizer from a few settings, and so lose one that
    was put in front of it (lower case, as ``do_lower_case`` of sentence-transformers does). The
    general class keeps what is in ``tokenizer.json``.
    """
    from transformers import AutoTokenizer

    path = folder / "tokenizer_config.json"
    saved = path.is_file() and (folder / "tokenizer.json").is_file()
    if not (hasattr(tokenizer, "backend_tokenizer") and saved):
        return
    config = read_json(path)
    if "auto_map" in config:
        return
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if backend_digest(loaded) != backend_digest(tokenizer):
        changes = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": tokenizer.model_input_names,
        }
        write_json(path, config | changes)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer so that it loads as it is in memory."""
    tokenizer.save_pretrained(str(folder))
    keep_tokenizer(tokenizer, folder)


def compare_behavior(
    before: Mapping[str, Any], after: Mapping[str, Any], what: str, source: str
) -> None:
    """Compare the settings, tokens and numbers of a model with those of its saved copy.

    Raises:
        ModelError: they differ; the message names the differences.
    """
    reasons: list[str] = []
    for name, value in before.items():
        if name == "numbers" or value == after[name]:
            continue
        if name.startswith("tokens of "):
            reasons.append(f"{name.removeprefix('tokens of ')} has other tokens")
            break
        reasons.append(f"the {name} is {after[name]!r} instead of {value!r}")
    if not reasons:
        difference = largest_difference(before["numbers"], after["numbers"])
        if not difference <= TOLERANCE:
            reasons.append(f"its numbers differ by up to {difference:.3g}")
    if reasons:
        raise ModelError(
            f"the {what} of {source!r} cannot be saved without changing it, so nothing was written:"
            f" after loading it again {'; '.join(reasons)}. Start from a backbone whose saved"
            " folder loads as the same model."
        )


def largest_difference(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest difference of two lists of tensors, relative to the largest number above 1."""
    if [value.shape for value in before] != [value.shape for value in after]:
        return float("inf")
    largest = 0.0
    for first, second in zip(before, after, strict=True):
        both_nan = first.isnan() & second.isnan()
        differences = (first - second).abs()[~both_nan].nan_to_num(float("inf"))
        if differences.numel():
            scale = max(1.0, float(first.nan_to_num().abs().max()))
            largest = max(largest, float(differences.max()) / scale)
    return largest
