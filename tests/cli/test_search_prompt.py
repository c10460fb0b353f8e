"""`irdistill search` without a question: a prompt, a pipe with a question per line, and bundles."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from irdistill.cli.entry_point import main
from tests.bundles.small_packages import package, small_collection, tiny_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRDISTILL_CACHE", str(folder / "cache"))
        return str(package(tiny_model("dense", folder), folder / "out", onnx=False).path)


@pytest.fixture()
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    lines = [
        json.dumps({"_id": one.id, "title": one.title, "text": one.text})
        for one in small_collection().corpus.documents()
    ]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "docs")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_with_a_question_per_line(
    docs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "heat shock wave\n\n  protein gene \n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert run("search", docs, "--k", "1", "--json", str(tmp_path / "hits.jsonl")) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("heat shock wave\n  1. é🙂漢  (")
    written = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert [line["query"] for line in written] == ["heat shock wave", "protein gene"]
    assert written[0]["hits"][0]["title"] == "ünïcode 🙂"
    assert written[1]["hits"][0]["doc_id"] == "'; DROP TABLE documents; --"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert run("search", docs, "--k", "1", "--json", "-") == 0
    output = capsys.readouterr().out
    assert [json.loads(line) for line in output.splitlines()] == written


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_a_prompt_until_the_end_of_input(
    end: type[BaseException],
    bundle: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-D and Ctrl-C end it with exit code 0; the bundle is opened once."""
    typed: list[Any] = ["the cat", "", "big dog", end]
    opened: list[str] = []

    def answer(prompt: str) -> str:
        text = typed.pop(0)
        if text is end:
            raise end
        return str(text)

    from irdistill.bundles.bundle_searcher import Searcher

    original = Searcher.__init__

    def count(self: Any, folder: str) -> None:
        opened.append(folder)
        original(self, folder)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(Searcher, "__init__", count)
    assert run("search", bundle, "--k", "2") == 0
    assert opened == [bundle] and typed == []
    assert [line[:4] for line in capsys.readouterr().out.splitlines() if line[3:4] == "."] == [
        "  1.",
        "  2.",
        "  1.",
        "  2.",
    ]


@pytest.fixture()
def converse() -> Iterator[Callable[[list[str], list[bytes]], list[bytes]]]:
    """A function of the words of a command and of what is typed at a terminal after each prompt: it
    returns what the command prints up to each prompt, and checks that Ctrl-C ends it.
    """
    pty = pytest.importorskip("pty", reason="needs a terminal of Unix")
    processes: list[subprocess.Popen[bytes]] = []
    ours, terminal = pty.openpty()
    # a new session gets the first terminal that it opens, whose Ctrl-C interrupts it
    code = """
import os
os.open(os.ttyname(0), os.O_RDWR)
from irdistill.cli import main
main()
"""

    def run_typed(words: list[str], typed: list[bytes]) -> list[bytes]:
        ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], start_new_session=True, **ends
        )
        processes.append(process)
        printed = [read_until(b"Question: ")]
        for keys in typed:
            os.write(ours, keys)
            printed.append(read_until(b"Question: "))
        os.write(ours, b"half")
        read_until(b"half")
        for _ in range(3):  # Python misses one that comes just before it waits for keys
            os.write(ours, b"\x03")
            with suppress(subprocess.TimeoutExpired):
                assert process.wait(20) == 0
                return printed
        raise AssertionError("Ctrl-C did not end the command")

    def read_until(end: bytes) -> bytes:
        output = b""
        while not output.endswith(end):
            assert select.select([ours], [], [], 60)[0], output
            output += os.read(ours, 65536)
        return output

    yield run_typed
    for process in processes:
        process.kill()
    os.close(terminal)
    os.close(ours)


def test_a_real_terminal(
    converse: Callable[[list[str], list[bytes]], list[bytes]], docs: str, tmp_path: Path
) -> None:
    """Line editing, earlier questions, escapes in documents, bytes that are no text, and Ctrl-C."""
    with open(tmp_path / "docs" / "corpus.jsonl", "a") as stream:
        stream.write(json.dumps({"_id": "red", "text": "umbrella \x1b[31m \x9b2J"}) + "\n")
    pytest.importorskip("readline", reason="needs line editing")
    up, back = b"\x1b[A", b"\x7f"
    typed = [b"umbrelx" + back + b"la\n", b"\n", up + b"\n", b"umbrella \xff\n"]
    printed = converse(["search", docs, "--k", "1"], typed)
    answer = b"  1. red  ("
    assert answer in printed[1] and b"umbrella \\x1b[31m \\x9b2J" in printed[1]
    assert answer not in printed[2] and answer in printed[3]
    assert b"\x1b[31m" not in b"".join(printed) and b"\x9b" not in b"".join(printed)
    assert answer not in printed[4] and b"not UTF-8" in printed[4]


def test_the_prompt_is_not_in_a_file(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The standard output is no terminal here."""
    terminal = Terminal("the cat\n")
    monkeypatch.setattr("sys.stdin", terminal)
    assert run("search", bundle, "--k", "1") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("  1. ") and "Question" not in captured.out
    assert captured.err.count("Question: ") == 2


def test_a_question_that_is_no_text_is_refused_alone(
    docs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = io.TextIOWrapper(io.BytesIO(b"heat\n\xff\nprotein\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", lines)
    assert run("search", docs, "--k", "1") == 1
    captured = capsys.readouterr()
    assert captured.out.count("  1. ") == 2 and "not UTF-8" in captured.err


def test_a_bundle_and_one_question(
    bundle: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("search", bundle, "the cat", "--json", str(tmp_path / "hits.json")) == 0
    hits = json.loads((tmp_path / "hits.json").read_text())["hits"]
    assert (
        len(hits) == 5
        and hits[0]["rank"] == 1
        and f"{hits[0]['score']:.4f}" in capsys.readouterr().out
    )
    for words, message in (
        (["search", bundle, "the cat", "--model", "x"], "leave out the model"),
        (["search", bundle, "the cat", "--index", "hnsw"], "leave out the model"),
        (["search", bundle, " "], "the query is empty"),
    ):
        assert run(*words) == 1
        assert message in capsys.readouterr().err.replace("\n", " ")
