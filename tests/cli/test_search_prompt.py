"""`irdistill search` without a question: a prompt, a pipe with a question per line, and bundles."""

from __future__ import annotations

import io
import json
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
