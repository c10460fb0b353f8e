"""The response log on the disk: what survives, what is dropped, who may write."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.teachers.llm import Answer
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.response_log import ResponseLog, open_log

ANSWERS = {
    "a" * 32: Answer("text \u00e9 \ud83d \U0001f600\nline", None, None, 10, 2, 4, 0.1 + 0.2),
    "b" * 32: Answer("", np.array([-0.1, np.nan, -7.25e-5], np.float32), None, 9, 1),
    "c" * 32: Answer("", np.array([np.nan], np.float32), "refused"),
}


def filled(path: Path) -> ResponseLog:
    log = ResponseLog(path)
    for key, answer in ANSWERS.items():
        log.add(
            key,
            answer,
            Spent(1, answer.input_tokens + answer.output_tokens, answer.cost),
            {"model": "m"},
        )
    return log


def check(log: ResponseLog, keys: str = "abc") -> None:
    for letter in keys:
        answer_read, expected = log.get(letter * 32), ANSWERS[letter * 32]
        assert answer_read is not None and answer_read._replace(labels=None) == expected._replace(
            labels=None
        )
        if expected.labels is not None:
            assert (
                answer_read.labels is not None
                and answer_read.labels.tobytes() == expected.labels.tobytes()
            )


def test_answers_round_trip(tmp_path: Path) -> None:
    log = filled(tmp_path / "deep" / "log.jsonl")
    log.add_spent(Spent(1, 5, 0.5), "garbage")
    check(log)
    assert log.spent == Spent(4, 27, 0.1 + 0.2 + 0.5) and len(log) == 3
    log.close()
    again = ResponseLog(tmp_path / "deep" / "log.jsonl")
    check(again)
    assert again.spent == log.spent and len(again) == 3 and again.get("d" * 32) is None
    header = (tmp_path / "deep" / "log.jsonl").read_text().splitlines()[0]
    assert (
        json.loads(header).items()
        >= {
            "format": "irdistill-responses",
            "version": 1,
            "checksums": "xxh3-64",
        }.items()
    )


@pytest.mark.parametrize("cut", [1, 2, 30, 100])
def test_a_last_line_cut_short_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    path = tmp_path / "log.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    log = ResponseLog(path)
    if cut == 1:  # only the line's end is gone, the answer is there
        check(log)
        assert path.read_bytes() == whole and not caplog.text
    else:
        check(log, "ab")
        assert log.get("c" * 32) is None and "cut short" in caplog.text
        log.add("c" * 32, ANSWERS["c" * 32], Spent(1), {"model": "m"})
        check(log)
    log.close()
    caplog.clear()
    check(ResponseLog(path))
    assert not caplog.text


@pytest.mark.parametrize("kept", [0, 5])
def test_a_truncated_header_is_rewritten(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log.jsonl"
    filled(path).close()
    path.write_bytes(path.read_bytes()[:kept])
    log = ResponseLog(path)
    log.add("a" * 32, ANSWERS["a" * 32], Spent(1))
    log.close()
    check(ResponseLog(path), "a")


def test_a_damaged_line_in_the_middle_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    filled(path).close()
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([rows[0], rows[1], rows[2][:20] + b"\xff" + rows[2][21:], rows[3]]))
    log = ResponseLog(path)
    check(log, "ac")
    assert log.get("b" * 32) is None and f"line 3 of {path} is damaged" in caplog.text


def test_joined_logs_are_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path / "one.jsonl").close()
    other = ResponseLog(tmp_path / "two.jsonl")
    other.add("d" * 32, Answer("more"), Spent(1, 1))
    other.close()
    (tmp_path / "both.jsonl").write_bytes(
        (tmp_path / "one.jsonl").read_bytes() + (tmp_path / "two.jsonl").read_bytes()
    )
    log = ResponseLog(tmp_path / "both.jsonl")
    check(log)
    assert log.get("d" * 32) == Answer("more") and log.spent.requests == 4 and not caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query_id\tdoc\n", "is not a response log"),
        ('{"a": 1}\n', "is not a response log"),
        ('{"format": "irdistill-responses", "version": 9}\n', "version 9"),
    ],
)
def test_another_file_is_not_touched(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "scores.tsv"
    path.write_text(content)
    with pytest.raises(IrdistillError, match=message):
        ResponseLog(path)
    assert path.read_text() == content


def test_the_log_is_locked_against_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys; from irdistill.teachers.llm.response_log import ResponseLog\n"
        f"log = ResponseLog({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(IrdistillError, match="in use by another process"):
            open_log(path)
        other.kill()
    assert len(open_log(path)) == 0


def test_a_file_has_one_log_per_process(tmp_path: Path) -> None:
    first, second = open_log(tmp_path / "log.jsonl"), open_log(tmp_path / "x" / ".." / "log.jsonl")
    assert first is second and open_log(tmp_path / "other.jsonl") is not first


def test_threads_append_whole_lines(tmp_path: Path) -> None:
    log = ResponseLog(tmp_path / "log.jsonl")

    def write(number: int) -> None:
        for place in range(40):
            log.add(f"{number:016d}{place:016d}", Answer("x" * (37 * place)), Spent(1, 2, 0.25))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    again = ResponseLog(tmp_path / "log.jsonl")
    assert len(again) == 240 and again.spent == Spent(240, 480, 60.0)
    assert again.get(f"{3:016d}{17:016d}") == Answer("x" * 37 * 17)


def test_replay_does_not_change_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "log.jsonl"
    filled(path).close()
    path.write_bytes(path.read_bytes()[:-4])
    before = path.read_bytes()
    writing = ResponseLog(tmp_path / "log2.jsonl")
    replay = ResponseLog(path, replay=True)
    check(replay, "ab")
    assert path.read_bytes() == before and len(writing) == 0
    with pytest.raises(IrdistillError, match="there is no response log"):
        ResponseLog(tmp_path / "absent.jsonl", replay=True)


def test_every_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    lost = 0
    for number in range(300):
        place, bit = divmod(number * 7919 % (8 * len(whole)), 8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        log = ResponseLog(path, replay=number % 2 == 0)
        answers = {key: log.get(key) for key in ANSWERS}
        lost += sum(answer is None for answer in answers.values())
        check(log, "".join(key[0] for key, answer in answers.items() if answer is not None))
        assert len(log) + 1 >= len(ANSWERS) - 1 and log.spent.requests <= len(ANSWERS)
        log.close()
    assert lost > 200


def test_a_line_that_is_damaged_after_opening_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    filled(path).close()
    log = ResponseLog(path, replay=True)
    path.write_bytes(path.read_bytes().replace(b"-0.1", b"-0.3"))
    check(log, "ac")
    assert (
        log.get("b" * 32) is None
        and log.damaged == 1
        and "damaged since the log was opened" in caplog.text
    )


def test_old_logs_without_checksums_open_and_new_lines_have_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    filled(path).close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    old = [
        json.dumps({key: value for key, value in row.items() if key not in ("check", "checksums")})
        for row in rows
    ]
    path.write_text("\n".join(old) + "\n")
    log = ResponseLog(path)
    check(log)
    log.add("d" * 32, Answer("new", cut=True), Spent(1))
    log.close()
    path.write_bytes(path.read_bytes().replace(b'"new"', b'"now"'))
    again = ResponseLog(path)
    check(again)
    assert again.get("d" * 32) is None and again.damaged == 1 and "line 6" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        (
            '{"key": "k", "text": 1, "error": null, "input_tokens": 1, "output_tokens": 1,'
            ' "cached_tokens": 0, "cost": 0, "spent": {}}'
        ),
        (
            '{"key": "k", "text": "", "error": null, "input_tokens": 1e999, "output_tokens": 1,'
            ' "cached_tokens": 0, "cost": 0}'
        ),
        '{"spent": {"requests": "1"}}',
        '{"spent": {"cost": NaN}}',
        '{"spent": [1]}',
        '{"spent": {"tokens": 1' + "0" * 400 + "}}",
        "[" * 100_000,
        "[1]",
        "null",
    ],
)
def test_lines_of_another_kind_are_damaged(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"format": "irdistill-responses", "version": 1}\n' + line + "\n")
    log = ResponseLog(path)
    assert log.damaged == 1 and log.get("k") is None and log.spent == Spent()
