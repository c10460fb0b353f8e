"""Exported folders whose networks are run by torch, so that tests need neither ONNX nor its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.students.student_base import Student
from irdistill.students.tower_network import TowerNetwork, TowerPart


def run_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports write a number to the file of a network, and torch run the network itself."""
    networks: list[TowerNetwork] = []

    def write(student: Student, part: TowerPart, inputs: list[str], path: Path, form: str) -> None:
        cut = getattr(student.model, "truncate_dim", None)
        path.write_text(str(len(networks)))
        networks.append(TowerNetwork(part, inputs, student.kind, cut).eval())

    def open_network(path: Path, inputs: Sequence[str]) -> Callable[..., list[np.ndarray]]:
        network = networks[int(path.read_text())]

        @torch.inference_mode()
        def run(arrays: Mapping[str, Any]) -> list[np.ndarray]:
            return [network(*(torch.from_numpy(arrays[name]) for name in inputs)).numpy()]

        return run

    monkeypatch.setattr("irdistill.students.exporting._check_extras", lambda form: None)
    monkeypatch.setattr("irdistill.students.exporting._write_network", write)
    monkeypatch.setattr("irdistill.students.exported_model.open_network", open_network)
    monkeypatch.setattr("irdistill.bundles.bundle_searcher.find_spec", lambda name: name)
