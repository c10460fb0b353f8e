"""The states and figures of jobs, from what they write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.runs import RankedList, RunIdentity, RunWriter
from irdistill.storage.json_lines import note_failure, read_json_lines, write_event
from irdistill.storage.locking import is_locked, lock_folder
from irdistill.view.job_board import JobBoard
from irdistill.view.job_state import Job, read_time
from irdistill.view.training_curves import TrainingCurves
from irdistill.view.workspace import Workspace

IDENTITY = RunIdentity("teacher", {"model": "made up"}, {"id": "tiny"})
QUERIES = [f"q{number}" for number in range(10)]


def job(folder: Path, key: str) -> Job:
    workspace = Workspace([folder])
    return JobBoard(workspace).job(workspace.artifact(key))


def write_parts(writer: RunWriter, count: int) -> None:
    for number, ids in writer.pending()[:count]:
        lists = [RankedList(name, ["a", "b"], np.array([1, np.nan], np.float32)) for name in ids]
        writer.write_part(number, lists, {"pairs": 3, "cost": 0.25, "tokens": 40})


def test_a_lock_is_seen_and_not_taken(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with lock_folder(tmp_path):
        assert is_locked(tmp_path) and is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with lock_folder(tmp_path):
        pass


def test_a_run_is_watched_from_its_first_part_to_its_last(tmp_path: Path) -> None:
    """Three parts of four queries, stopped after the first, then resumed."""
    writer = RunWriter(tmp_path / "run", IDENTITY, QUERIES, part_queries=4)
    with pytest.raises(KeyboardInterrupt), writer:
        write_parts(writer, 1)
        running = job(tmp_path, "run")
        raise KeyboardInterrupt
    assert (running.state, running.done, running.total) == ("running", 4, 10)
    assert running.remaining is not None and running.cost == 0.25 and running.resumed == ""
    figures = dict(running.figures)
    assert figures["rows"] == "8" and figures["rows without a score"] == "4"
    assert figures["pairs"] == "3" and figures["tokens"] == "40" and "pairs/s" in figures
    stopped = job(tmp_path, "run")
    assert (stopped.state, stopped.done, stopped.remaining) == ("stopped", 4, None)
    assert stopped.sentence.startswith("Stopped at 4 of 10 queries. Run the same command again")
    with RunWriter(tmp_path / "run", IDENTITY, QUERIES, part_queries=4) as writer:
        write_parts(writer, 2)
        writer.finish()
        assert job(tmp_path, "run").sentence == "Running: 10 of 10 queries, finishing."
    done = job(tmp_path, "run")
    assert (done.state, done.done, done.cost) == ("done", 10, 0.75)
    assert done.resumed == "resumed once, at part 1"
    assert done.verb == "score" and dict(done.figures)["rows"] == "20"


def test_a_shard_counts_its_own_queries(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", IDENTITY, QUERIES, part_queries=4, shard=(1, 2)) as writer:
        write_parts(writer, 1)
    shard = job(tmp_path, "run")  # the parts 0 and 2, of four and two queries
    assert (shard.done, shard.total, shard.state) == (4, 6, "stopped")


def test_an_error_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError), RunWriter(tmp_path / "run", IDENTITY, QUERIES) as writer:
        assert writer.pending()
        raise ValueError("no more\nmemory.")
    failed = job(tmp_path, "run")
    assert (failed.state, failed.problem) == ("failed", "no more memory")
    assert failed.sentence == "Failed at 0 of 10 queries: no more memory."


def test_events_survive_the_repair_of_a_journal(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", IDENTITY, QUERIES, part_queries=4) as writer:
        write_parts(writer, 1)
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"part": {"num')  # a line that a kill cut short
    with RunWriter(tmp_path / "run", IDENTITY, QUERIES, part_queries=4) as writer:
        write_parts(writer, 2)
        writer.finish()
    events = [line["event"] for line in read_json_lines(journal) if "event" in line]
    assert events == ["start", "start"]
    assert job(tmp_path, "run").state == "done"


def test_an_event_begins_a_new_line(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"event": "sta')
    with pytest.raises(OSError), note_failure(tmp_path):
        raise OSError("disk full")
    assert [line["error"] for line in read_json_lines(tmp_path / "journal.jsonl")] == ["disk full"]


def write_training(folder: Path, finished: bool, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    options = {"steps": 300, "batch_size": 4, "list_size": 8}
    identity = {"loss": "KL", "options": options, "validation": {}}
    record = {"identity": identity, "finished": finished}
    (folder / "training.json").write_text(json.dumps(record))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train_log.jsonl").write_text(text)


def test_a_training_that_was_resumed(tmp_path: Path) -> None:
    out = tmp_path / "student"
    rows: list[dict[str, Any]] = [{"step": 0, "validation": {"nDCG@10": 0.41}, "best_step": 0}]
    rows += [
        {"step": step, "loss": 2.0 - step / 100, "learning_rate": 1e-4} for step in range(1, 101)
    ]
    rows += [{"step": 100, "validation": {"nDCG@10": 0.5123456}, "best_step": 100}]
    write_training(out, False, rows)
    for step in (0, 40, 60, 80):
        write_event(out, event="start", step=step, steps=150)
    with lock_folder(out):
        running = job(tmp_path, "student")
    assert (running.state, running.progress) == ("running", "100 of 150 steps")
    assert running.resumed == "resumed 3 times, last at step 80"
    figures = dict(running.figures)
    assert figures["loss"] == "1.0000" and figures["held-out nDCG@10"] == "0.5123"
    assert figures["best step"] == "100" and figures["learning rate"] == "0.0001"
    write_event(out, event="finish", step=100, seconds=10.0, lists_per_second=8.0)
    write_training(out, True, rows)
    done = job(tmp_path, "student")
    assert done.state == "done" and done.seconds == 10.0
    assert dict(done.figures)["lists/s"] == "8" and dict(done.figures)["steps/s"] == "2"


def test_the_rate_and_the_end_of_a_training_are_estimated(tmp_path: Path) -> None:
    out = tmp_path / "student"
    write_training(out, False, [{"step": step, "loss": 1.0} for step in range(1, 51)])
    write_event(out, event="start", step=10, steps=130)
    began = read_json_lines(out / "journal.jsonl")[0]["time"]
    written = (read_time(began) or 0.0) + 20  # 40 steps in 20 seconds
    os.utime(out / "train_log.jsonl", (written, written))
    with lock_folder(out):
        running = job(tmp_path, "student")
    assert dict(running.figures)["steps/s"] == "2"
    assert dict(running.figures)["lists/s"] == "8"  # four lists a step
    assert running.remaining == pytest.approx(40.0)  # 80 steps


def test_long_logs_are_thinned_out_and_sent_once(tmp_path: Path) -> None:
    write_training(
        tmp_path, False, [{"step": step, "loss": float(step)} for step in range(1, 2501)]
    )
    curves = TrainingCurves(tmp_path)
    first = curves.to_json()
    [series] = first["charts"][0]["series"]
    assert series["replace"] and series["every"] == 4 and len(series["points"]) == 625
    assert [point[:2] for point in series["points"][:3]] == [[1, 1.0], [5, 5.0], [9, 9.0]]
    assert series["last"][:2] == [2500, 2500.0] and first["rows"] == 2500
    with open(tmp_path / "train_log.jsonl", "a") as stream:
        stream.writelines(f'{{"step": {step}, "loss": {step}.5}}\n' for step in range(2501, 2508))
        stream.write('{"step": 2508, "lo')
    later = curves.to_json(first["rows"], first["generation"])
    [series] = later["charts"][0]["series"]
    assert not series["replace"] and series["last"][:2] == [2507, 2507.5]
    assert [point[0] for point in series["points"]] == [2501, 2505]
    write_training(tmp_path / "other", False, [{"step": 1, "loss": 7.0}])
    os.replace(tmp_path / "other" / "train_log.jsonl", tmp_path / "train_log.jsonl")
    resumed = curves.to_json(later["rows"], later["generation"])
    [series] = resumed["charts"][0]["series"]
    assert series["replace"] and series["points"] == [[1, 7.0, 7.0]]


def test_the_stages_of_a_recipe(tmp_path: Path) -> None:
    out = tmp_path / "small"
    (out / "stages").mkdir(parents=True)
    stages = [["first", "retrieve"], ["second", "train"], ["third", "evaluate"]]

    def record(name: str, fingerprint: str | None) -> None:
        content = {"inputs": {"verb": "retrieve"}, "fingerprint": fingerprint}
        (out / "stages" / f"{name}.json").write_text(json.dumps(content))

    write_event(out, event="start", process="a", stages=stages)
    write_event(out, event="stage", stage="first")
    write_event(out, stage="first", seconds=2.0, done=True)
    record("first", "f")
    record("second", None)
    write_event(out, event="stage", stage="second")
    board = JobBoard(Workspace([tmp_path]))

    def states() -> list[str]:
        artifact = board.workspace.artifact("small")
        return [stage["state"] for stage in board.details(artifact).stages]

    with lock_folder(out):
        assert states() == ["done", "running", "waiting"]
        assert job(tmp_path, "small").progress == "1 of 3 stages"
    assert states() == ["done", "stopped", "waiting"]
    write_event(out, stage="second", seconds=1.0, done=False, error="the loss became nan")
    assert states() == ["done", "failed", "waiting"]
    failed = job(tmp_path, "small")
    assert (failed.state, failed.problem) == ("failed", "the loss became nan")
    write_event(out, event="start", process="b", stages=stages)
    assert job(tmp_path, "small").resumed == "resumed once, at stage 1"


def test_the_listing_counts_and_filters(tmp_path: Path) -> None:
    for name in ("bm25-train", "bm25-test"):
        with RunWriter(tmp_path / name, IDENTITY, QUERIES) as writer:
            write_parts(writer, 1)
            writer.finish()
    write_training(tmp_path / "student", False, [])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text('{"format": "irdistill-run"')
    board = JobBoard(Workspace([tmp_path]))
    with lock_folder(tmp_path / "student"):
        listing = board.listing()
    assert listing.verdict == "1 running, 2 done, 1 failed"
    assert [entry.key for entry in listing.running] == ["student"]
    assert {entry.key for entry in board.listing("TEST score").others} == {"bm25-test"}
    assert {entry.key for entry in board.listing(state="failed").others} == {"broken"}
    limited = board.listing(limit=1)
    assert len(limited.others) == 1 and limited.more == 3
