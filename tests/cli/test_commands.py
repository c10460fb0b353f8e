"""The command line on a small collection: what it writes, what it prints, how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from irdistill.card_files import find_card
from irdistill.cli.commands import MultiValueCommand, read_words
from irdistill.cli.entry_point import main
from irdistill.errors import IrdistillError
from irdistill.runs import RunWriter, open_run
from irdistill.search import retrieval
from irdistill.verbs import load_verb


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_candidates_fuse_export_import_verify(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("retrieve", "set", "--out", "bm25", "--json", "bm25.json") == 0
    assert open_run(folder / "bm25")["q1"].doc_ids == ["dogs"]
    assert (
        json.loads((folder / "bm25.json").read_text())["fingerprint"]
        == open_run(folder / "bm25").fingerprint
    )
    assert run("runs", "export", "bm25", "--out", "bm25.txt") == 0
    assert run("runs", "import", "bm25.txt", "--collection", "set", "--out", "again") == 0
    assert open_run(folder / "again").to_dict() == open_run(folder / "bm25").to_dict()
    assert run("fuse", "bm25", "again", "--method", "rrf", "--out", "fused") == 0
    assert run("runs", "verify", "bm25", "again", "fused") == 0
    assert run("runs", "diff", "bm25", "again", "--json", "diff.json") == 0
    assert json.loads((folder / "diff.json").read_text())["scores_equal"] == 2
    part = folder / "fused" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    capsys.readouterr()
    assert run("runs", "verify", "fused") == 1
    assert "part-00000.parquet: is truncated" in capsys.readouterr().out


def test_estimate_says_what_it_takes_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("retrieve", "set", "--out", "bm25") == 0
    before = sorted(folder.glob("*"))
    options = ["set", "--candidates", "bm25", "--teacher", "bm25"]
    assert run("estimate", *options, "--hourly-price", "2") == 0
    assert sorted(folder.glob("*")) == before
    out = capsys.readouterr().out
    assert (
        "sample        2 of 2 queries" in out and "pairs         2" in out and "machine cost" in out
    )
    assert run("estimate", *options, "--json", "estimate.json") == 0
    estimated = json.loads((folder / "estimate.json").read_text())
    assert estimated["pairs"] == 2 and estimated["hours"]["value"] > 0
    assert run("score", *options, "--out", "scores", "--part-queries", "1") == 0
    assert len(list((folder / "scores").glob("part-*.parquet"))) == 2
    assert (
        abs(
            estimated["bytes"]["value"]
            - sum(path.stat().st_size for path in (folder / "scores").iterdir())
        )
        < 3000
    )


def test_one_query_prints_hits_with_their_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("search", "set", "who swims", "--model", "bm25") == 0
    out = capsys.readouterr().out
    assert "1. fish" in out and "fish swim" in out and "dogs" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrieve", "no/such/set", "--out", "x"], "no/such/set"),
        (["search", "set", "  ", "--model", "bm25"], "the query is empty"),
        (["retrieve", "set", "--model", "./nothing", "--out", "x"], "there is no model folder"),
        (["retrieve", "set", "--k", "five", "--out", "x"], "--k is 'five'"),
        (["fuse", "set/a", "set/b", "--out", "x"], "'set/a' does not exist"),
        (["runs", "stats", "set"], "is not a run"),
        (
            [
                "train",
                "set",
                "--scores",
                "x",
                "--backbone",
                "y",
                "--loss",
                "Nonsense",
                "--out",
                "z",
            ],
            "Nonsense",
        ),
        (["retrieve", "set", "--out", "set"], "which irdistill did not write there"),
        (["fuse", "a", "b", "--weights", "1,x", "--out", "y"], "--weights[1] is 'x'"),
        (
            [
                "score",
                "set",
                "--candidates",
                "x",
                "--teacher",
                "bm25",
                "--out",
                "y",
                "--workers",
                "2",
            ],
            "engine ray",
        ),
    ],
)
def test_faults_are_one_paragraph_and_exit_1(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 1
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.startswith("irdistill: ")


def test_cards_are_listed_shown_and_copied(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cards", "list") == 0
    out = capsys.readouterr().out
    assert (
        "teachers:\n" in out
        and "\n  minilm" in out
        and "\n  prompts/rewrite" in out
        and "\n  quickstart" in out
    )
    assert run("cards", "show", "minilm") == 0
    assert "kind: retriever" in capsys.readouterr().out
    assert run("cards", "copy", "recipes/quickstart", "mine.yaml") == 0
    assert (folder / "mine.yaml").read_text() == find_card("recipes", "quickstart").read_text()
    assert "irdistill run mine.yaml" in capsys.readouterr().out
    assert (
        run("cards", "copy", "minilm", "mine.yaml") == 1
        and "mine.yaml exists" in capsys.readouterr().err
    )
    assert (
        run("cards", "copy", "minilm", "cards") == 0
        and (folder / "cards" / "minilm.yaml").is_file()
    )
    assert (
        run("cards", "show", "nothing-like-it") == 1
        and "there is no card" in capsys.readouterr().err
    )


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


def test_mask_and_fuse_by_what_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.txt").write_text(
        "q1 Q0 cats 1 9 a\nq1 Q0 dogs 2 5 a\nq1 Q0 fish 3 1 a\nq2 Q0 fish 1 4 a\nq2 Q0 cats 2 1 a\n"
    )
    (folder / "b.txt").write_text(
        "q1 Q0 fish 1 3 b\nq1 Q0 dogs 2 2 b\nq1 Q0 cats 3 1 b\nq2 Q0 fish 1 4 b\nq2 Q0 cats 2 1 b\n"
    )
    for name in ("a", "b"):
        assert run("runs", "import", f"{name}.txt", "--collection", "set", "--out", name) == 0
    assert (
        run(
            "mask",
            "set",
            "a",
            "--rules",
            "above-positive",
            "--out",
            "m",
            "--json",
            "m.json",
        )
        == 0
    )
    assert json.loads((folder / "m.json").read_text())["flagged_above-positive"] == 1
    assert open_run(folder / "m")["q1"].flags == ["false negative: above-positive", None, None]
    assert (
        run(
            "fuse",
            "a",
            "b",
            "--abstain",
            "tau<0",
            "--weights",
            "agreement",
            "--power",
            "0",
            "--out",
            "f",
            "--json",
            "f.json",
        )
        == 0
    )
    printed = json.loads((folder / "f.json").read_text())
    assert (printed["abstained_queries"], printed["unscored"], printed["weights"]) == (
        1,
        3,
        [0.5, 0.5],
    )
    capsys.readouterr()
    assert (
        run(
            "fuse",
            "a",
            "b",
            "--weights",
            "similarity",
            "--dev",
            "set",
            "--dev-runs",
            "a",
            "b",
            "--out",
            "g",
        )
        == 1
    )
    assert "held out" in capsys.readouterr().err
    assert (
        run(
            "train",
            "set",
            "--scores",
            "a",
            "b",
            "--abstain",
            "sd>1",
            "--backbone",
            "x",
            "--loss",
            "KL",
            "--out",
            "z",
        )
        == 1
    )
    assert "without a mix" in capsys.readouterr().err


def test_evaluate_report_and_measure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.txt").write_text("q1 Q0 cats 1 9 a\nq1 Q0 dogs 2 5 a\nq2 Q0 fish 1 4 a\n")
    assert run("retrieve", "set", "--out", "bm25") == 0
    assert (
        run(
            "evaluate",
            "set/qrels/test.tsv",
            "a.txt",
            "bm25",
            "--measures",
            "RR@10 nDCG@10",
            "--baseline",
            "a.txt",
            "--json",
            "figures.json",
        )
        == 0
    )
    rows = json.loads((folder / "figures.json").read_text())["rows"]
    assert [(row["system"], row["value"]) for row in rows if row["measure"] == "RR@10"] == [
        ("a.txt", 0.75),
        ("bm25", 1.0),
    ]
    capsys.readouterr()
    assert run("report", "bm25") == 0
    assert "### set (2 queries)" in capsys.readouterr().out
    assert (
        run(
            "report",
            "a.txt",
            "bm25",
            "--collection",
            "set",
            "--baseline",
            "bm25",
            "--out",
            "pages/report.html",
        )
        == 0
    )
    assert "dogs bark at cats" in (folder / "pages" / "report.html").read_text()
    assert run("report", "figures.json", "--out", "tables.tex") == 0
    assert "\\toprule" in (folder / "tables.tex").read_text()
    assert (
        run("report", "figures.json", "--format", "mteb", "--model", "bm25", "--out", "mteb") == 0
    )
    assert len(list(folder.glob("mteb/results/irdistill__bm25/irdistill/*.json"))) == 2
    (folder / "self.txt").write_text(
        "q1 Q0 q1 1 9 a\nq1 Q0 dogs 2 5 a\nq2 Q0 q2 1 4 a\nq2 Q0 fish 2 3 a\n"
    )
    assert run("evaluate", "set/qrels/test.tsv", "self.txt", "--measures", "RR@10") == 0
    printed = capsys.readouterr()
    assert (
        "0.5000 [" in printed.out and "own id" in printed.err and "--self-match drop" in printed.err
    )
    assert (
        run(
            "evaluate",
            "set/qrels/test.tsv",
            "self.txt",
            "--measures",
            "RR@10",
            "--self-match",
            "drop",
        )
        == 0
    )
    printed = capsys.readouterr()
    assert "1.0000 [" in printed.out and "counts as any other" not in printed.err
    assert run("report", "figures.json", "--self-match", "drop") == 1
    assert "measured already" in capsys.readouterr().err
    assert run("measure", "set", "bm25", "--json", "costs.json") == 0
    assert json.loads((folder / "costs.json").read_text())["efficiency"][0]["flops_per_query"] == 0
    capsys.readouterr()
    assert run("report", "a.txt") == 1
    assert "with --collection" in capsys.readouterr().err


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


def test_documents_alone_are_enough_where_no_query_is_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "set" / "queries.jsonl").unlink()
    (folder / "set" / "qrels" / "test.tsv").unlink()
    docs = {"dogs": "Why dogs bark at every cat", "fish": "How fish swim under water"}
    (folder / "set" / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": key, "title": title, "text": f"{title}, and the dogs bark. " * 3})
            + "\n"
            for key, title in docs.items()
        )
    )
    assert run("generate", "set", "--kinds", "title", "--held-out", "0", "--out", "made") == 0
    assert (
        run("search", "set", "bark", "--model", "bm25") == 0
        and "dogs bark" in capsys.readouterr().out
    )
    assert run("retrieve", "made#train", "--out", "bm25") == 0
    (folder / "recipe.yaml").write_text(
        "stages:\n- {name: made, verb: generate, collection: set, kinds: [title], held_out: 0}\n"
    )
    assert run("run", "recipe.yaml", "--out", "recipe") == 0
    for command in (
        ["retrieve", "set", "--out", "a"],
        ["retrieve", "set", "--model", "bm25", "--out", "b"],
        ["measure", "set", "bm25"],
        ["evaluate", "set", "bm25"],
        ["audit", "set", "bm25"],
        ["split", "set", "--out", "d"],
        ["score", "set", "--candidates", "bm25", "--teacher", "bm25", "--out", "c"],
    ):
        capsys.readouterr()
        assert run(*command) == 1 and "set has no queries.jsonl" in capsys.readouterr().err


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
