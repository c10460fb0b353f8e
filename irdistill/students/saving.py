"""Saving without losing anything: what was written is opened again and compared with the model
before it gets its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.storage.files import (
    explain_os_errors,
    make_folder,
    read_json,
    staging_path,
    temporary_path,
    write_json,
)
from irdistill.students.fingerprints import backend_digest

if TYPE_CHECKING:
    from irdistill.students.base import Kind, Student

#: Texts on which a model is compared with what was saved of it: cases, accents, marks, numbers,
#: other scripts, and a long one.
PROBES = (
    "the cat sat on the mat",
    "The CAT, and a Dog: is it FAST?",
    "Über naïve café résumé",
    "x86_64 costs $3.50 (2024)",
    "данные 数据 データ",
    "Python's str.split() returns a LIST of words; see PEP-8 " * 40,
)
#: Numbers may differ by this much, times the largest where that is above 1: adapters that were
#: added to the weights round.
TOLERANCE = 1e-4


@contextmanager
def staged_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside ``path``; on success its files take the place of those of the same names
    at ``path``.

    On any failure nothing at ``path`` is changed.
    """
    folder = Path(path)
    make_folder(folder.parent)
    staged = temporary_path(folder)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with explain_os_errors(folder):
            staged.mkdir()
            yield staged
            for file in sorted(one for one in staged.rglob("*") if one.is_file()):
                final = folder / file.relative_to(staged)
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def keep_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Let a tokenizer that was saved in a folder load as it is in memory.

    Some classes of transformers build their normalizer anew from a few settings, so that one that
    was put in front (lower case, as ``do_lower_case`` of sentence-transformers does) would be lost;
    the general class takes what stands in ``tokenizer.json``.
    """
    from transformers import AutoTokenizer

    path = folder / "tokenizer_config.json"
    if not (
        hasattr(tokenizer, "backend_tokenizer")
        and path.is_file()
        and (folder / "tokenizer.json").is_file()
    ):
        return
    config = read_json(path)
    if "auto_map" in config:
        return
    if backend_digest(
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ) != backend_digest(tokenizer):
        write_json(
            path,
            config
            | {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_input_names": tokenizer.model_input_names,
            },
        )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer so that it loads as it is in memory."""
    tokenizer.save_pretrained(str(folder))
    keep_tokenizer(tokenizer, folder)


def check_saving(student: Student, beside: Path) -> None:
    """Save a student into a temporary folder and compare, before time is spent on training it.

    Args:
        beside: the folder in which the temporary one is made.

    Raises:
        IrdistillError: it would load as another model.
    """
    folder = staging_path(beside / "checking")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        student._write(folder)
        check_saved(student, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_saved(student: Student, folder: Path) -> None:
    """Open what was saved and compare it with the student: settings, tokens, and what it makes of
    some texts.

    Raises:
        IrdistillError: they differ, or the folder cannot be opened.
    """
    trust = bool(getattr(student.model, "trust_remote_code", False))
    try:
        saved = type(student).load(str(folder), device=str(student.device), trust_remote_code=trust)  # type: ignore[attr-defined]
    except IrdistillError as error:
        raise IrdistillError(
            f"the {student.kind} student cannot be saved, as it does not load again: {error}"
        ) from error
    reasons = list(_differences(student, saved))
    if reasons:
        raise IrdistillError(
            f"the {student.kind} student of {student.source!r} cannot be saved without changing it,"
            f" so nothing was left: after loading it again {'; '.join(reasons)}. Start from a"
            " backbone whose saved folder loads as the same model."
        )


def _differences(student: Student, saved: Student) -> Iterator[str]:
    for name in ("similarity", "dimension"):
        if name == "dimension" and "pair" in student.sides:
            continue
        before, after = getattr(student, name), getattr(saved, name)
        if before != after:
            yield f"{name} is {after!r} instead of {before!r}"
    for kind in student.sides:
        for name, read in (
            ("the length", lambda one, kind=kind: one.max_length(kind)),
            ("the prompt", lambda one, kind=kind: one._prompt(kind) or ""),
        ):
            before, after = read(student), read(saved)
            if before != after:
                yield f"{name} of a {kind} is {after!r} instead of {before!r}"
        texts: Any = list(PROBES) if kind != "pair" else [(PROBES[0], text) for text in PROBES]
        before, after = (
            dict(student.tokenize(texts, kind))["input_ids"],
            dict(saved.tokenize(texts, kind))["input_ids"],
        )
        if before != after:
            place = next(place for place in range(len(texts)) if before[place] != after[place])
            yield f"the {kind} {PROBES[place][:40]!r} has other tokens"
            return
    difference = largest_difference(_outputs(student), _outputs(saved))
    if not difference <= TOLERANCE:
        yield f"its numbers differ by up to {difference:.3g}"


@torch.no_grad()
def _outputs(student: Student) -> list[Tensor]:
    """What a student makes of the short probes on each side, and its scores of them."""
    probes = PROBES[
        :-1
    ]  # the long one is for the tokens alone, as it takes far longer than the others together
    keep_representations, training = student.keep_representations, student.model.training
    student.keep_representations = False
    student.model.eval()
    try:
        sides: dict[Kind, Any] = {}
        for kind in student.sides:
            texts: Any = list(probes) if kind != "pair" else [(probes[0], text) for text in probes]
            sides[kind] = student.join(
                [student.embed(student.pad(student.tokenize(texts, kind), kind), kind)],
                torch.arange(len(texts), device=student.device),
            )
        outputs = [
            value
            for side in sides.values()
            for value in (side if isinstance(side, list) else [side])
        ]
        if "pair" not in sides:
            index = torch.arange(len(probes), device=student.device).expand(len(probes), -1)
            outputs.append(student.scores(sides["query"], sides["document"], index, every=False)[0])
        return [value.float().cpu() for value in outputs]
    finally:
        student.keep_representations = keep_representations
        student.model.train(training)


def largest_difference(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest difference of two lists of tensors, divided by the largest number where that is
    above 1.
    """
    if [value.shape for value in before] != [value.shape for value in after]:
        return float("inf")
    largest = 0.0
    for one, two in zip(before, after, strict=True):
        apart = (one - two).abs()[~(one.isnan() & two.isnan())].nan_to_num(float("inf"))
        if apart.numel():
            largest = max(
                largest, float(apart.max()) / max(1.0, float(one.nan_to_num().abs().max()))
            )
    return largest
