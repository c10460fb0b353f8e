"""Two processes make the same update as one with the doubled batch; only the first writes; a killed
one costs nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from irdistill.errors import IrdistillError
from irdistill.teachers import score
from irdistill.training.processes import Processes
from tests.training import two_processes
from tests.training.support import digests
from tests.training.tiny import make_backbone, make_collection, make_run


def torchrun(place: Path, what: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "tests.training.two_processes",
        str(place),
        what,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    make_run(folder / "scores", make_collection())
    score(make_collection(), folder / "scores", "bm25", folder / "bm25-scores")
    make_backbone(folder / "backbone")
    done = torchrun(folder, "all")
    assert done.returncode == 0, done.stderr
    return folder


def weights(model: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(model)}:{name}": value
        for path in sorted(model.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", two_processes.CASES)
def test_two_processes_make_the_update_of_one_with_the_doubled_batch(
    case: str, place: Path
) -> None:
    two_processes.descend(place, place / f"one-{case}", case, 4)
    one, two = weights(place / f"one-{case}" / "model"), weights(place / f"two-{case}" / "model")
    two_processes.student(place, case).save(place / f"began-{case}")
    began = weights(place / f"began-{case}")
    for name in one:  # towers that are equal are saved once
        if name not in began:
            began[name] = began[name.replace("query_", "document_", 1)]
    assert one.keys() == two.keys() == began.keys()
    assert max(float((one[name] - value).abs().max()) for name, value in began.items()) > 3e-4
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=0, atol=1e-6), name
    logs = [
        [
            json.loads(line)
            for line in (place / f"{count}-{case}" / "train_log.jsonl").read_text().splitlines()
        ]
        for count in ("one", "two")
    ]
    for first, second in zip(*logs, strict=True):
        if "validation" in first:
            assert second["validation"] == pytest.approx(first["validation"], rel=1e-5)
        else:
            assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert len(logs[0]) == (7 if case in two_processes.SHARES else 3)


@pytest.mark.slow
def test_two_processes_align_as_one_with_the_doubled_batch(tmp_path: Path) -> None:
    for name, seed in (("backbone", 0), ("teacher", 3)):
        make_backbone(tmp_path / name, seed=seed)
    done = torchrun(tmp_path, "align")
    assert done.returncode == 0, done.stderr
    two_processes.aligned(tmp_path, tmp_path / "one-align", 4)
    one, two = (weights(tmp_path / f"{count}-align" / "model") for count in ("one", "two"))
    began = weights(tmp_path / "backbone")
    changed = [float((value - one[name]).abs().max()) for name, value in began.items()]
    assert one.keys() == two.keys() and max(changed) > 1e-4
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
def test_the_guard_of_two_processes_decides_as_that_of_one(tmp_path: Path) -> None:
    make_run(tmp_path / "scores", make_collection())
    make_backbone(tmp_path / "backbone")
    done = torchrun(tmp_path, "guard")
    assert done.returncode == 0, done.stderr
    for case in two_processes.GUARDED:
        two_processes.guarded(tmp_path, tmp_path / f"one-{case}", case, 4)
        one, two = (
            json.loads((tmp_path / f"{count}-{case}" / "training.json").read_text())["keep"]
            for count in ("one", "two")
        )
        assert one["verdict"] == two["verdict"] and one["weight"] == two["weight"]
        first, second = (
            weights(tmp_path / f"{count}-{case}" / "model") for count in ("one", "two")
        )
        assert first.keys() == second.keys()
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
def test_a_training_with_a_killed_process_goes_on_to_the_same_bytes(place: Path) -> None:
    done = torchrun(place, "killed")
    assert done.returncode != 0 and "Signal 9 (SIGKILL)" in done.stderr
    assert (place / "killed" / "checkpoints" / "checkpoint-2" / "complete.json").exists()
    done = torchrun(place, "again")
    assert done.returncode == 0, done.stderr
    assert digests(place / "killed") == digests(place / "whole")
    journal = [
        json.loads(line) for line in (place / "killed" / "journal.jsonl").read_text().splitlines()
    ]
    starts = [
        row["step"] for row in journal if row["event"] == "start"
    ]  # one line a start: the second process writes nothing
    assert starts[0] == 0 and starts[1] in (2, 3) and len(starts) == 2
    with pytest.raises(IrdistillError, match="processes: 2 there, not set here"):
        two_processes.run(place, place / "killed", "late", 2, steps=5, dropout=True)


@pytest.mark.slow
def test_what_is_gathered_has_its_order_and_its_gradients(place: Path) -> None:
    """Of five texts the first process has 0, 2 and 4, the second 1, 3 and once more 0, which is not
    counted.
    """
    assert [Processes(rank, 2).share(5).tolist() for rank in range(2)] == [[0, 2, 4], [1, 3, 0]]
    results = [json.loads((place / f"gather-{rank}.json").read_text()) for rank in range(2)]
    for result in results:
        assert result["dense"] == np.arange(10.0).reshape(5, 2).tolist()
        assert [len(vectors) for vectors in result["ragged"]] == [3, 1, 4, 2, 5]
        assert all(
            value == len(vectors)
            for vectors in result["ragged"]
            for row in vectors
            for value in row
        )
    # the derivative is the place counted from 1; twice, as gradients are averaged over two
    # processes
    assert [row[0] for row in results[0]["dense_gradient"]] == [2, 6, 10]
    assert [row[0] for row in results[1]["dense_gradient"]] == [4, 8, 0]
    assert results[0]["ragged_gradient"] == [2, 6, 10] and results[1]["ragged_gradient"] == [
        4,
        8,
        0,
    ]


@pytest.mark.parametrize(("world", "count"), [(1, 4), (2, 5), (3, 2), (4, 9), (5, 1)])
def test_shares_are_of_one_size_and_hold_every_text(world: int, count: int) -> None:
    shares = [Processes(rank, world).share(count) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-count // world)}
    assert np.stack(shares, axis=1).reshape(-1)[:count].tolist() == list(range(count))
