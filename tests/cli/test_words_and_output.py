"""How the command line reads words, what goes to standard output, and what an interruption says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import irdistill
from irdistill.cli.commands import MultiValueCommand, read_words
from irdistill.cli.entry_point import main
from irdistill.errors import IrdistillError
from irdistill.runs import RunWriter
from irdistill.search import retrieval
from irdistill.verbs import load_verb


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["cards", "list", "recipes"],
        ["retrieve", "set", "--out", "a"],
        ["search", "set", "bark", "--model", "bm25"],
        ["evaluate", "set", "bm25"],
        ["runs", "stats", "bm25"],
        ["runs", "diff", "bm25", "bm25"],
        ["runs", "verify", "bm25"],
        ["fuse", "bm25", "scores", "--out", "f"],
        ["runs", "export", "bm25", "--out", "x.trec"],
        ["audit", "set", "bm25"],
        ["runs", "import", "b", "--format", "trec", "--collection", "set", "--out", "i"],
        ["measure", "set", "bm25"],
        ["mask", "set", "bm25", "--rules", "above-positive", "--out", "m"],
        ["score", "set", "--candidates", "bm25", "--teacher", "bm25", "--out", "s"],
        ["doctor"],
        ["estimate", "set", "--candidates", "bm25", "--teacher", "bm25"],
        ["split", "set", "--folds", "2", "--out", "p"],
    ],
)
def test_json_to_standard_output_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run("retrieve", "set", "--out", "bm25") == 0
    (folder / "b").write_text("q1 Q0 dogs 1 3 b\nq2 Q0 fish 1 4 b\n")
    assert run("score", "set", "--candidates", "bm25", "--teacher", "bm25", "--out", "scores") == 0
    capsys.readouterr()
    codes = (0, 1) if arguments == ["doctor"] else (0,)  # 1 where the machine lacks something
    assert run(*arguments, "--json", "-") in codes
    captured = capsys.readouterr()
    assert isinstance(json.loads(captured.out), dict) and not (folder / "-").exists()
    assert run(*arguments, "--json", "deep/er/file.json") in codes
    assert isinstance(json.loads((folder / "deep" / "er" / "file.json").read_text()), dict)


def test_options_of_several_values() -> None:
    @click.command(cls=MultiValueCommand)
    @click.argument("one")
    @click.option("--scores", multiple=True)
    @click.option("--mix")
    def command(one: str, scores: tuple[str, ...], mix: str) -> None:
        click.echo(f"{one} {'+'.join(scores)} {mix}")

    for words in (
        ["x", "--scores", "a", "b", "c", "--mix", "m"],
        ["x", "--mix", "m", "--scores", "a", "--scores", "b", "c"],
        ["x", "--scores=a", "--scores", "b", "c", "--mix", "m"],
    ):
        assert CliRunner().invoke(command, words).output == "x a+b+c m\n"
    assert CliRunner().invoke(command, ["--mix", "m", "x"]).output == "x  m\n"


def test_help_and_a_small_evaluation_load_nothing_heavy(folder: Path) -> None:
    import subprocess
    import sys

    (folder / "a.txt").write_text("q1 Q0 cats 1 9 a\nq2 Q0 fish 1 4 a\n")
    (folder / "b.txt").write_text("q1 Q0 dogs 1 9 a\nq2 Q0 fish 1 4 a\n")
    for arguments, absent in (
        (["--help"], ["numpy", "pyarrow", "torch"]),
        (
            ["evaluate", "set", "a.txt", "b.txt", "--baseline", "a.txt"],
            ["torch", "transformers", "jinja2", "faiss", "ranx"],
        ),
    ):
        code = (
            "import sys\nfrom irdistill.cli import main\ntry:\n    main(sys.argv[1:])\nexcept"
            f" SystemExit:\n    pass\nprint('loaded:', *(set(sys.modules) & set({absent!r})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder
        )
        assert done.stdout.splitlines()[-1].strip() == "loaded:", done.stdout + done.stderr


def test_torchrun_starts_the_command_line_as_a_module() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "irdistill", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0 and irdistill.__version__ in done.stdout


def test_an_interruption_is_one_line_that_says_what_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("retrieve", "set", "--out", "bm25") == 0
    write, written = RunWriter.write_part, []

    def stop_in_the_second_part(self: RunWriter, *arguments: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(write(self, *arguments))

    monkeypatch.setattr(RunWriter, "write_part", stop_in_the_second_part)
    command = [
        "score",
        "set",
        "--candidates",
        "bm25",
        "--teacher",
        "bm25",
        "--part-queries",
        "1",
        "--out",
        "scores",
    ]
    capsys.readouterr()
    assert run(*command) == 130
    captured = capsys.readouterr()
    assert (
        captured.err
        == "irdistill: interrupted. Kept: 1 of 2 parts of scores. Run the same command again to"
        " resume.\n"
    )
    assert captured.out == ""
    monkeypatch.setattr(RunWriter, "write_part", write)
    assert run(*command) == 0 and "scores: resumed after 1 of 2 parts" in capsys.readouterr().err
    monkeypatch.setattr(
        "irdistill.verbs.opening_inputs.short_names",
        lambda paths: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    assert run("evaluate", "set", "bm25") == 130
    assert (
        capsys.readouterr().err
        == "irdistill: interrupted before anything new was finished; what was finished earlier is "
        "kept. Run the same command again.\n"
    )


def test_an_interrupted_recipe_names_its_finished_stages(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "two.yaml").write_text(
        "stages:\n- {name: first, verb: retrieve, collection: set}\n"
        "- {name: second, verb: retrieve, collection: set, model: bm25}\n"
    )

    stopped = [False, True]
    retrieve = retrieval.retrieve

    def stop_the_second(*arguments: Any, **named: Any) -> Any:
        if stopped.pop(0):
            raise KeyboardInterrupt
        return retrieve(*arguments, **named)

    monkeypatch.setattr(retrieval, "retrieve", stop_the_second)
    assert run("run", "two.yaml", "--out", "two") == 130
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "irdistill: interrupted. Kept: 1 of 2 stages of two. Run the same command again to"
        " resume."
    )
    stopped = [True]
    assert run("run", "two.yaml", "--out", "none") == 130
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("irdistill: interrupted before anything new was finished")
    )


def test_key_value_words_are_read_as_in_recipes() -> None:
    option = load_verb("pretrain").options["config"]
    words = (
        "pooling=cls",
        "query_prompt=query: ",
        "document_prompt=passage:",
        "lora_rank=16",
        "lora_targets=[query, value]",
        "lora_merge=false",
        "instruction=a=b",
    )
    assert read_words(option, words) == {
        "pooling": "cls",
        "query_prompt": "query: ",
        "document_prompt": "passage:",
        "lora_rank": 16,
        "lora_targets": ["query", "value"],
        "lora_merge": False,
        "instruction": "a=b",
    }
    for wrong in (("pooling",), ("=cls",), ("a=1", "a=2"), ("a=[",)):
        with pytest.raises(IrdistillError, match="--config"):
            read_words(option, wrong)


@pytest.mark.parametrize(
    ("verb", "name", "words", "value"),
    [
        ("fuse", "weights", ("2,1",), [2.0, 1.0]),
        ("fuse", "weights", ("2", "1"), [2.0, 1.0]),
        ("fuse", "weights", ("similarity",), "similarity"),
        ("fuse", "tau", ("0.5",), 0.5),
        ("train", "layers", ("2",), 2),
        ("train", "layers", ("0", "3"), [0, 3]),
        ("train", "scores", ("a",), "a"),
        ("train", "scores", ("a", "b"), ["a", "b"]),
        ("train", "teacher_weights", ("2,1",), (2.0, 1.0)),
        ("evaluate", "baseline", "a", "a"),
        ("evaluate", "baseline", "{a: b}", {"a": "b"}),
        ("evaluate", "datasets", ("set={BM25: out/a}",), {"set": {"BM25": "out/a"}}),
        ("compare", "runs", ("{loss}/run",), ["{loss}/run"]),
        ("generate", "kinds", ("title", "sentence"), ("title", "sentence")),
    ],
)
def test_words_become_values(verb: str, name: str, words: Any, value: Any) -> None:
    option = load_verb(verb).options[name]
    assert option.check(read_words(option, words), name) == value
