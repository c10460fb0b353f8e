"""The command line on a small collection: what it writes, what it prints, how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.card_files import find_card
from irdistill.cli.entry_point import main
from irdistill.runs import open_run


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
        (["fuse", "a", "b", "--weights", "1,x", "--out", "y"], "--weights is 'x'"),
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
