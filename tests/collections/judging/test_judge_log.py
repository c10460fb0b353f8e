"""A file of judgments: what is on the disk, after a kill too, and what is refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irdistill.collections.judging import JudgmentLog, read_judges
from irdistill.errors import (
    DamagedError,
    InputError,
    LockedError,
    NotFoundError,
    OptionError,
    WrongCollectionError,
)

PETS = {"id": "pets", "corpus": "c1", "queries": "q1"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_each_judgment_is_a_line(tmp_path: Path) -> None:
    with JudgmentLog(tmp_path / "all", "anna", PETS) as log:
        log.add("q1", "d1", 1, "run1")
        assert len(log.path.read_text().splitlines()) == 1
        log.add("q1", "d2", None, "run1")
        log.add("q2", "dé", 3, "run1", passage=2)
    lines = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    times = [line.pop("time") for line in lines]
    assert all(TIME.fullmatch(time) for time in times)
    common = {"judge": "anna", "run": "run1", "collection": PETS}
    assert lines == [
        {"query_id": "q1", "doc_id": "d1", "action": "judged", "grade": 1, **common},
        {"query_id": "q1", "doc_id": "d2", "action": "skipped", "grade": None, **common},
        {"query_id": "q2", "doc_id": "dé", "action": "judged", "grade": 3, "passage": 2, **common},
    ]


def test_the_newest_judgment_counts_and_undo_writes_a_newer_one(tmp_path: Path) -> None:
    with JudgmentLog(tmp_path, "anna", PETS) as log:
        log.add("q", "a", 1)
        log.add("q", "b", 1)
        log.add("q", "a", 0)
        assert {doc: it.grade for (_, doc), it in log.newest.items()} == {"a": 0, "b": 1}
        withdrawn = log.undo()
        assert withdrawn is not None and withdrawn.pair == ("q", "a")
        assert [doc for _, doc in log.newest] == ["b"]
        assert log.undo(among={("q", "z")}) is None
    with JudgmentLog(tmp_path, "anna", PETS) as log:
        assert [doc for _, doc in log.newest] == ["b"]
        assert log.undo() is not None and log.undo() is None
    actions = [json.loads(line)["action"] for line in log.path.read_text().splitlines()]
    assert actions == ["judged", "judged", "judged", "withdrawn", "withdrawn"]


def test_a_line_cut_anywhere_is_dropped(tmp_path: Path) -> None:
    with JudgmentLog(tmp_path, "anna", PETS) as log:
        log.add("q", "a", 1)
        log.add("q", "é", 0)
    data = log.path.read_bytes()
    first = data.index(b"\n") + 1
    for end in range(first, len(data)):
        log.path.write_bytes(data[:end])
        assert list(read_judges(tmp_path).judges["anna"]) == [("q", "a")]
        with JudgmentLog(tmp_path, "anna", PETS) as again:
            again.add("q", "b", 1)
        assert list(read_judges(tmp_path).judges["anna"]) == [("q", "a"), ("q", "b")]
        assert log.path.read_bytes().startswith(data[:first])


def test_a_killed_process_loses_no_finished_judgment(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from irdistill.collections.judging import JudgmentLog\n"
        f"with JudgmentLog({str(tmp_path)!r}, 'anna', {PETS!r}) as log:\n"
        "    for number in range(10_000):\n"
        "        log.add('q', f'd{number}', 1)\n"
        "        print(number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    with pytest.raises(LockedError, match="another process"), JudgmentLog(tmp_path, "anna", PETS):
        pass
    process.send_signal(signal.SIGKILL)
    finished = 20 + len(process.stdout.readlines())
    process.wait()
    with JudgmentLog(tmp_path, "anna", PETS) as log:
        count = len(log.newest)
        assert finished <= count <= finished + 1
        assert list(log.newest) == [("q", f"d{number}") for number in range(count)]


def test_two_judges_write_side_by_side(tmp_path: Path) -> None:
    with JudgmentLog(tmp_path, "anna", PETS) as anna, JudgmentLog(tmp_path, "ben", PETS) as ben:
        anna.add("q", "a", 1)
        ben.add("q", "a", 0)
        with pytest.raises(LockedError), JudgmentLog(tmp_path, "anna", PETS):
            pass
    records = read_judges(tmp_path)
    assert {judge: records.grades(judge) for judge in records.judges} == {
        "anna": {("q", "a"): 1},
        "ben": {("q", "a"): 0},
    }


def test_what_is_refused(tmp_path: Path) -> None:
    with JudgmentLog(tmp_path / "j", "anna", PETS) as log:
        log.add("q", "a", 1)
    for other in (PETS | {"corpus": "c2"}, PETS | {"queries": "q2"}):
        with (
            pytest.raises(WrongCollectionError, match="Choose another folder with --judgments"),
            JudgmentLog(tmp_path / "j", "ben", other),
        ):
            pass
    for name in ("", "../x", "a/b", ".hidden", "any", "Majority", "x" * 65):
        with pytest.raises(OptionError, match="--judge"):
            JudgmentLog(tmp_path, name, PETS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text('{\n "format": "irdistill-run"}')
    with pytest.raises(OptionError, match="is inside of"), JudgmentLog(tmp_path / "run/j", "a", {}):
        pass
    assert not (tmp_path / "run" / "j").exists()
    log.path.write_text("nonsense\n" + log.path.read_text())
    with pytest.raises(DamagedError, match="line 1"), JudgmentLog(tmp_path / "j", "anna", PETS):
        pass
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no file of judgments"):
        read_judges(tmp_path / "empty")
    with JudgmentLog(tmp_path / "none", "anna", PETS), pytest.raises(InputError, match="no judgm"):
        read_judges(tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        {"grade": 1.5},
        {"grade": True},
        {"grade": None},
        {"action": "skipped"},
        {"action": "x"},
        {"doc_id": 3},
        {"more": 1},
        {"collection": []},
    ],
)
def test_lines_that_are_no_judgments(tmp_path: Path, change: dict[str, object]) -> None:
    with JudgmentLog(tmp_path, "anna", PETS) as log:
        log.add("q", "a", 1)
    log.path.write_text(json.dumps(json.loads(log.path.read_text()) | change) + "\n")
    with pytest.raises(DamagedError, match="line 1 is not a judgment"):
        read_judges(tmp_path)
