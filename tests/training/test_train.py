"""Training learns, resumes to the same bytes after any kill, and refuses what it must."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from irdistill.errors import IrdistillError
from irdistill.losses import ScoreBatch, parse_loss
from irdistill.runs import RankedList, compile_run, open_run, write_run
from irdistill.students import DenseStudent
from irdistill.training import checkpoints
from irdistill.training.data.collate import CachedTokenizer, Collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import LOSS, digests, stopped_after
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

OPTIONS = TrainOptions(
    steps=12,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    checkpoint_every=3,
    log_every=2,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


@pytest.fixture(scope="module")
def reference(place: Path) -> dict[str, str]:
    """An undisturbed training."""
    student = make_student(place / "backbone")
    train(make_collection(), place / "scores", student, LOSS, place / "reference", OPTIONS)
    return digests(place / "reference")


def test_every_step_is_logged(place: Path, reference: dict[str, str]) -> None:
    log = (place / "reference" / "train_log.jsonl").read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[3]["loss"] == pytest.approx(sum(rows[3]["terms"].values()))
    assert rows[0]["learning_rate"] == 0.0 and rows[1]["learning_rate"] == pytest.approx(1e-2)
    assert not (place / "reference" / "checkpoints").exists()


def test_it_learns(place: Path) -> None:
    options = replace(OPTIONS, steps=80, checkpoint_every=0)
    student, out = make_student(place / "backbone"), place / "long"
    train(make_collection(), place / "scores", student, LOSS, out, options)
    rows = [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert len(rows) == 80
    assert np.mean(rows[-10:]) < 0.5 * np.mean(rows[:5])


def test_the_model_loads_in_plain_sentence_transformers(
    place: Path, reference: dict[str, str]
) -> None:
    model = SentenceTransformer(str(place / "reference" / "model"), device="cpu")
    before = SentenceTransformer(str(place / "backbone"), device="cpu")
    assert not np.allclose(model.encode("w1 w2"), before.encode("w1 w2"), atol=1e-3)


def test_a_finished_training_is_recognised(place: Path, reference: dict[str, str]) -> None:
    student = make_student(place / "backbone")
    began = digests(place / "reference")
    stamp = (place / "reference" / "model" / "modules.json").stat().st_mtime_ns
    out = train(make_collection(), place / "scores", student, LOSS, place / "reference", OPTIONS)
    assert out == place / "reference" / "model"
    assert digests(place / "reference") == began == reference
    assert (out / "modules.json").stat().st_mtime_ns == stamp


def test_another_training_in_the_same_folder_is_refused(
    place: Path, reference: dict[str, str]
) -> None:
    student = make_student(place / "backbone")
    other = replace(OPTIONS, seed=8)
    with pytest.raises(IrdistillError, match=r"options\.seed: 7 there, 8 here"):
        train(make_collection(), place / "scores", student, LOSS, place / "reference", other)
    with pytest.raises(IrdistillError, match=r'loss: "KL.* there, "KL.tau=0.2." here'):
        train(
            make_collection(),
            place / "scores",
            student,
            "KL(tau=0.2)",
            place / "reference",
            OPTIONS,
        )


def run_and_kill(place: Path, out: Path, when: Callable[[], bool], pause: float = 0.0) -> int:
    """Start a training in a process of its own and kill it as soon as ``when`` holds; its exit
    status.
    """
    code = (
        "import sys, time; from pathlib import Path; from tests.training import test_train as t;\n"
        "import irdistill.training.checkpoints as c\n"
        f"inner = c.write_marker\nc.write_marker = lambda *a: (time.sleep({pause}), inner(*a))\n"
        "place, out = map(Path, sys.argv[1:])\n"
        "student = t.make_student(place / 'backbone')\n"
        "t.train(t.make_collection(), place / 'scores', student, t.LOSS, out, t.OPTIONS)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(place), str(out)],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if when():
            process.send_signal(signal.SIGKILL)
        time.sleep(0.001)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    place: Path, reference: dict[str, str]
) -> None:
    """While a checkpoint is staged, before its marker, between checkpoints, and while the model is
    saved.
    """
    out = place / "killed"
    checkpoints = out / "checkpoints"
    moments: list[tuple[Callable[[], bool], float]] = [
        (lambda: (checkpoints / ".checkpoint-irdistill-tmp-0").exists(), 0.0),
        (lambda: (checkpoints / ".checkpoint-irdistill-tmp-0" / "optimizer.pt").exists(), 2.0),
        (lambda: (checkpoints / "checkpoint-6" / "complete.json").exists(), 0.0),
        (lambda: (out / ".model-irdistill-tmp-0").exists(), 0.0),
    ]
    for when, pause in moments:
        shutil.rmtree(
            checkpoints / ".checkpoint-irdistill-tmp-0", ignore_errors=True
        )  # what the kill before left
        assert run_and_kill(place, out, when, pause) == -signal.SIGKILL
        assert (
            not (out / "model").exists()
            or not json.loads((out / "training.json").read_text())["finished"]
        )
    train(make_collection(), place / "scores", make_student(place / "backbone"), LOSS, out, OPTIONS)
    assert digests(out) == reference
    starts = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert [row["step"] for row in starts if row["event"] == "start"] == [0, 0, 0, 6, 12]


def test_a_damaged_checkpoint_is_not_trusted(place: Path, reference: dict[str, str]) -> None:
    out = place / "damaged"
    sixth = out / "checkpoints" / "checkpoint-6"
    assert run_and_kill(place, out, lambda: (sixth / "complete.json").exists()) == -signal.SIGKILL
    weights = sixth / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:-7])
    train(make_collection(), place / "scores", make_student(place / "backbone"), LOSS, out, OPTIONS)
    assert digests(out) == reference


def test_a_frozen_document_tower_needs_no_document_forward(place: Path) -> None:
    """Vectors made beforehand train to the same weights as encoding the documents in every step."""
    collection = make_collection()
    vectors = make_student(place / "backbone", frozen=True).encode(
        collection.corpus.texts(np.arange(len(collection.corpus))), "document", precision="float32"
    )
    weights = []
    for name, document_vectors in (("frozen-vectors", vectors), ("frozen-texts", None)):
        student = make_student(place / "backbone", frozen=True)
        before = {key: value.clone() for key, value in student.model.state_dict().items()}
        train(
            collection,
            place / "scores",
            student,
            LOSS,
            place / name,
            OPTIONS,
            document_vectors=document_vectors,
        )
        after = student.model.state_dict()
        changed = {key.split(".")[2] for key in before if not torch.equal(before[key], after[key])}
        assert changed == {"query"}, changed
        weights.append(after)
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], atol=1e-4), key
    with pytest.raises(IrdistillError, match="tower learns"):
        student = make_student(place / "backbone")
        train(collection, place / "scores", student, LOSS, place / "no", OPTIONS, vectors)
    with pytest.raises(IrdistillError, match=r"shape \(3, 16\); expected \(40, 16\)"):
        student = make_student(place / "backbone", frozen=True)
        train(collection, place / "scores", student, LOSS, place / "no", OPTIONS, vectors[:3])


def test_several_teachers(place: Path) -> None:
    collection = make_collection()
    make_run(place / "second", collection, shift=1.0)
    model = train(
        collection,
        [place / "scores", place / "second"],
        make_student(place / "backbone"),
        "KL(tau=0.2, teacher_tau=2)",
        place / "two",
        OPTIONS,
    )
    assert (model / "modules.json").exists()
    assert len(json.loads((place / "two" / "training.json").read_text())["identity"]["scores"]) == 2


def test_chunks_and_shared_documents_change_no_score_and_no_gradient(place: Path) -> None:
    """Against the plain way: every text of every list encoded alone by sentence-transformers."""
    collection = make_collection()
    student = make_student(place / "backbone")
    student.model.eval()
    sampler = ListSampler(
        [compile_run(open_run(place / "scores", collection), collection.corpus)],
        {},
        SamplerOptions(batch_size=6, list_size=6, seed=1),
    )
    query_texts = [collection.queries[query_id].text for query_id in sampler.query_ids]
    queries = CachedTokenizer(
        student, "query", lambda numbers: [query_texts[number] for number in numbers]
    )
    texts = collection.corpus.texts
    documents = CachedTokenizer(
        student, "document", lambda rows: texts(np.asarray(rows)), limit=2000
    )
    batch = Collator(sampler, queries, documents)(0)
    loss = parse_loss(LOSS.split(" + ")[0])
    scores = score_batch(Encoder(student, torch.float32, token_budget=40), batch, in_batch=True)
    loss(scores).backward()
    gradients = {
        name: p.grad.clone() for name, p in student.model.named_parameters() if p.grad is not None
    }
    student.model.zero_grad()
    lists = sampler(0)
    plain = torch.zeros(scores.student.shape)
    for i, query in enumerate(lists.queries.tolist()):
        vector = student.embed(student.tokenize([query_texts[query]], "query"), "query")[0]
        for j, row in enumerate(lists.rows[i].tolist()):
            if row >= 0:
                tokens = student.tokenize(texts(np.array([row])), "document")
                other = student.embed(tokens, "document")
                plain[i, j] = torch.cosine_similarity(vector, other[0], dim=0)
    assert torch.allclose(plain[scores.valid], scores.student[scores.valid], atol=1e-5)
    loss(ScoreBatch(student=plain, teacher=scores.teacher, mask=scores.mask)).backward()
    for name, parameter in student.model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, gradients[name], atol=1e-5), name


@pytest.mark.parametrize(
    "name",
    [
        "thesis.txt",
        "checkpoints/thesis.txt",
        "checkpoints/checkpoint-3/weights.pt",
        "checkpoints/best-4.pt",
        "model/README.md",
        "train_log.jsonl",
        "training.json",
    ],
)
def test_a_folder_with_files_of_others_is_refused(name: str, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "d" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(IrdistillError, match=f"holds {name}, which irdistill did not write there"):
        train(
            make_collection(),
            place / "scores",
            make_student(place / "backbone"),
            LOSS,
            tmp_path / "d",
            OPTIONS,
        )
    assert digests(tmp_path / "d").keys() == {name} and path.read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/thesis.txt",
        "checkpoints/checkpoint-3/thesis.txt",
        "checkpoints/checkpoint-99/x",
        "checkpoints/best-7.pt",
        "model/thesis.txt",
    ],
)
def test_going_on_touches_no_files_of_others(
    name: str, place: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "d"
    (out / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    for marker in ("checkpoint-3/x", "checkpoint-3/complete.json"):
        (out / "checkpoints" / marker).write_text('{"files": {"x": ""}}')
    identity = json.loads((place / "reference" / "training.json").read_text())["identity"]
    (out / "training.json").write_text(json.dumps({"identity": identity, "finished": False}))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(IrdistillError, match=f"holds {name}, which"):
        train(
            make_collection(),
            place / "scores",
            make_student(place / "backbone"),
            LOSS,
            out,
            OPTIONS,
        )
    (out / name).rename(tmp_path / "moved")
    train(make_collection(), place / "scores", make_student(place / "backbone"), LOSS, out, OPTIONS)
    assert (out / "notes.txt").read_text() == (tmp_path / "moved").read_text() == "mine"
    assert digests(out / "model") == digests(place / "reference" / "model")


def test_names_in_a_tampered_record_are_never_followed(
    place: Path, tmp_path: Path, reference: dict[str, str]
) -> None:
    (tmp_path / "victim").write_text("mine")
    out = tmp_path / "a" / "d"
    (out / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    names = {"../../victim": "", "../../../../victim": "", str(tmp_path / "victim"): ""}
    (out / "checkpoints" / "checkpoint-3" / "complete.json").write_text(
        json.dumps({"files": names})
    )
    identity = json.loads((place / "reference" / "training.json").read_text())["identity"]
    (out / "training.json").write_text(
        json.dumps({"identity": identity, "finished": False, "model": names})
    )
    train(make_collection(), place / "scores", make_student(place / "backbone"), LOSS, out, OPTIONS)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_training_of_other_scores_or_vectors_names_the_setting(
    place: Path, tmp_path: Path
) -> None:
    collection, options = make_collection(), replace(OPTIONS, steps=2)
    train(
        collection,
        place / "scores",
        make_student(place / "backbone", frozen=True),
        LOSS,
        tmp_path / "out",
        options,
        "stored",
        tmp_path / "work",
    )
    lists = list(open_run(place / "scores"))
    identity = replace(
        open_run(place / "scores").identity, producer={"model": "another", "max_length": 9}
    )
    other = write_run(tmp_path / "other", identity, lists)
    with pytest.raises(IrdistillError) as error:
        train(
            collection,
            other,
            make_student(place / "backbone", frozen=True),
            LOSS,
            tmp_path / "out",
            options,
            "stored",
            tmp_path / "work",
        )
    assert 'scores.producer.model: "made up" there, "another" here' in str(error.value)
    assert "scores.producer.max_length: not set there, 9 here" in str(
        error.value
    ) and "fingerprint" not in str(error.value)
    student = DenseStudent(
        str(place / "backbone"), freeze_documents=True, max_length=16, device="cpu"
    )
    with pytest.raises(IrdistillError, match=r"document_vectors.max_length: 32 there, 16 here"):
        train(
            collection,
            place / "scores",
            student,
            LOSS,
            tmp_path / "out",
            options,
            "stored",
            tmp_path / "work",
        )
    changed = [
        RankedList(ranked.query_id, ranked.doc_ids, ranked.scores * 2, ranked.flags)
        for ranked in lists
    ]
    rows = write_run(tmp_path / "rows", open_run(place / "scores").identity, changed)
    with pytest.raises(
        IrdistillError, match=r"scores: other contents .fingerprint .{16} there, .{16} here"
    ):
        train(
            collection,
            rows,
            make_student(place / "backbone", frozen=True),
            LOSS,
            tmp_path / "out",
            options,
            "stored",
            tmp_path / "work",
        )


def test_checkpoints_by_time_lose_no_steps_and_change_no_bytes(
    place: Path,
    reference: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = replace(OPTIONS, checkpoint_every=500, checkpoint_seconds=1e-9)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    stop = stopped_after(7, place, tmp_path / "out", options, monkeypatch)
    assert stop.__notes__ == [
        f"the checkpoint of step 7 of 12 in {tmp_path / 'out' / 'checkpoints'}"
    ]
    with caplog.at_level("INFO", logger="irdistill"):
        train(
            make_collection(),
            place / "scores",
            make_student(place / "backbone"),
            LOSS,
            tmp_path / "out",
            options,
        )
    assert f"{tmp_path / 'out'}: resumed at step 7 of 12" in caplog.text
    assert digests(tmp_path / "out") == reference


def test_without_a_checkpoint_it_says_that_it_starts_over(
    place: Path,
    reference: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for options in (
        replace(OPTIONS, checkpoint_every=0, checkpoint_seconds=1e-9),
        replace(OPTIONS, checkpoint_every=500),
    ):
        stop = stopped_after(4, place, tmp_path / "out", options, monkeypatch)
        assert not getattr(stop, "__notes__", []) and not list(
            (tmp_path / "out" / "checkpoints").glob("checkpoint-*")
        )
    with caplog.at_level("INFO", logger="irdistill"):
        train(
            make_collection(),
            place / "scores",
            make_student(place / "backbone"),
            LOSS,
            tmp_path / "out",
            OPTIONS,
        )
    assert "stopped before its first checkpoint; it starts again at step 0 of 12" in caplog.text
    assert digests(tmp_path / "out") == reference


def test_a_slow_checkpoint_comes_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    timer, never = checkpoints.CheckpointTimer(60.0), checkpoints.CheckpointTimer(0.0)
    answers = []
    for seconds, cost in ((159, 0.0), (160, 1.0), (219, 0.0), (220, 10.0), (419, 0.0), (420, 0.0)):
        now[0] = float(seconds)
        answers.append(timer.due())
        if cost:
            timer.record(cost)
    assert answers == [False, True, False, True, False, True] and not never.due()
