"""Two Ray workers encode a corpus with the bytes of one process, also after a crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill import IrdistillError
from irdistill.distributed.ray_cluster import RayCluster
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.vectors import ray_encoding
from irdistill.search.vectors.ray_encoding import EncodingJob, RayEncoding
from irdistill.search.vectors.vector_store import STORES
from irdistill.students import load_student
from tests.ray_here import cluster  # noqa: F401
from tests.search.tiny_collection import make_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_colbert, tiny_splade

SHARDS: Any = {"shard_rows": 10, "precision": "float32"}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """One thread, as in each worker: float sums depend on how they are split."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Troubled(EncodingJob):
    """A job that records its process for each shard, and fails where a file says so."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.notes = Path(os.environ["NOTES"])

    def do(self, arguments: tuple[int, int]) -> Mapping[str, np.ndarray]:
        with open(self.notes / "processes", "a") as stream:
            stream.write(f"{arguments[0]} {os.getpid()}\n")
        if (self.notes / f"kill-{arguments[0]}").exists():
            (self.notes / f"kill-{arguments[0]}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.notes / f"raise-{arguments[0]}").exists():
            raise RuntimeError("no luck")
        return super().do(arguments)


@pytest.fixture()
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(ray_encoding, "EncodingJob", Troubled)
    return tmp_path / "notes"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_workers_write_the_bytes_of_one_process_when_one_is_killed(
    tmp_path: Path, notes: Path
) -> None:
    collection, model = make_collection(), str(tiny_colbert(tmp_path / "model"))
    student = load_student(model, device="cpu")
    TokenStore: Any = STORES["late-interaction"]
    TokenStore.build(collection.corpus, student, tmp_path / "local", **SHARDS)
    (notes / "kill-20").touch()
    encoding = RayEncoding(RayCluster(2), collection, model, {"device": "cpu"})
    TokenStore.build(
        collection.corpus, student, tmp_path / "ray", encode_shards=encoding.shards, **SHARDS
    )
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    had = [line.split() for line in (notes / "processes").read_text().splitlines()]
    assert sorted(int(start) for start, _ in had) == [0, 10, 20, 20, 30, 40, 50, 60]
    assert len({process for _, process in had}) >= 2 and str(os.getpid()) not in {
        process for _, process in had
    }


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_shards_encoded_before_a_failure_are_kept(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, model = make_collection(), str(tiny_splade(tmp_path / "model"))
    student = load_student(model, device="cpu")
    SparseStore: Any = STORES["sparse"]
    SparseStore.build(collection.corpus, student, tmp_path / "local", **SHARDS)
    (notes / "raise-40").touch()
    encoding = RayEncoding(RayCluster(1), collection, model, {"device": "cpu"})
    with pytest.raises(
        IrdistillError, match=r"the shard of the documents 40 to 49 failed 3 times.*no luck"
    ):
        SparseStore.build(
            collection.corpus, student, tmp_path / "ray", encode_shards=encoding.shards, **SHARDS
        )
    encode, arguments = type(student).search_vectors, []
    monkeypatch.setattr(
        type(student),
        "search_vectors",
        lambda self, texts, *rest: (arguments.append(len(texts)), encode(self, texts, *rest))[1],
    )
    SparseStore.build(collection.corpus, student, tmp_path / "ray", **SHARDS)
    assert arguments == [10, 10, 3], "the first four shards are not encoded again"
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_workers_give_the_same_run_and_do_not_start_for_existing_vectors(
    tmp_path: Path, notes: Path
) -> None:
    collection, model = make_collection(), str(tiny_backbone(tmp_path / "model", layers=2))
    one = retrieve(
        collection,
        model,
        tmp_path / "one",
        9,
        RetrieveOptions(precision="float32"),
        work=tmp_path / "a",
    )
    other = retrieve(
        collection,
        model,
        tmp_path / "other",
        9,
        RetrieveOptions(precision="float32"),
        work=tmp_path / "b",
        cluster=RayCluster(1),
    )
    assert one.fingerprint == other.fingerprint
    assert len((notes / "processes").read_text().splitlines()) == 1
    again = retrieve(
        collection,
        model,
        tmp_path / "again",
        9,
        RetrieveOptions(precision="float32"),
        work=tmp_path / "b",
        cluster=RayCluster(1),
    )
    assert (
        again.fingerprint == one.fingerprint
        and len((notes / "processes").read_text().splitlines()) == 1
    )
    wrong = RayEncoding(
        RayCluster(1),
        collection,
        str(tiny_backbone(tmp_path / "wrong", layers=1)),
        {"device": "cpu"},
    )
    with pytest.raises(IrdistillError, match="what is encoded differs between workers"):
        STORES["dense"].build(
            collection.corpus,
            load_student(model, device="cpu"),
            tmp_path / "c",
            encode_shards=wrong.shards,
            **SHARDS,
        )


def test_workers_need_a_model_name(tmp_path: Path) -> None:
    collection, model = make_collection(), str(tiny_backbone(tmp_path / "model"))
    for arguments in ("bm25", load_student(model, device="cpu")):
        with pytest.raises(IrdistillError, match="needs a model given by folder"):
            retrieve(collection, arguments, tmp_path / "run", cluster=RayCluster())
    with pytest.raises(IrdistillError, match="at least 1"):
        retrieve(collection, model, tmp_path / "run", work=tmp_path, cluster=RayCluster(0))
