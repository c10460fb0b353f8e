"""The page of methods names every verb and every loss, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import irdistill.losses as losses
from irdistill.verbs import CATALOG

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"


def test_every_verb_and_loss_is_in_the_tables() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    words = {word for row in rows for word in re.findall("`([^`]+)`", row)}
    names = {word.partition(" --")[0] for word in words}
    ours = {  # other tests register losses of their own
        name
        for name, loss in losses.REGISTRY.items()
        if loss.__module__.startswith("irdistill.losses.")
    }
    folders = {word for word in names if word.endswith("/")}
    assert names - folders == set(CATALOG) | ours
