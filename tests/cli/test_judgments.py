"""What people judged, on the command line, in Python and in recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import irdistill as ird
from irdistill.cli.entry_point import cli
from irdistill.errors import OptionError, SettingsDifferError
from irdistill.recipes import read_recipe, run_recipe

RECIPE = """
name: judged
description: Flags what people judged.
settings: {}
stages:
  - {name: bm25, verb: retrieve, collection: set, k: 3}
  - {name: marked, verb: mask, collection: set, run: "${bm25}", judgments: judged, policy: any}
"""


def add(judge: str, query: str, doc: str, grade: int | None) -> None:
    collection = ird.load_collection("set").describe()
    with ird.JudgmentLog("judged", judge, collection) as log:
        log.add(query, doc, grade)


def command(*words: str) -> str:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.exception or done.output
    return done.stdout


def flags_of(run: ird.Run) -> dict[str, str | None]:
    row = run["q1"]
    return dict(zip(row.doc_ids, row.flags or [None] * len(row.doc_ids), strict=True))


def test_export_and_agreement(folder: Path) -> None:
    for judge, grade in (("anna", 1), ("ben", 0)):
        add(judge, "q1", "cats", grade)
        add(judge, "q2", "cats", 0)
    add("anna", "q2", "dogs", None)
    printed = command("judgments", "export", "judged", "--policy", "any", "--out", "a.qrels")
    assert (folder / "a.qrels").read_text() == "q1 0 cats 1\nq2 0 cats 0\n"
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert {"policy any", "judges anna; ben", "differing 1", "judgments 2"} <= set(lines)
    command("judgments", "export", "judged", "--policy", "ben", "--collection", "set", "--out", "b")
    assert (folder / "b").read_text() == "q1 0 dogs 1\nq1 0 cats 0\nq2 0 fish 1\nq2 0 cats 0\n"
    printed = command("judgments", "agreement", "judged", "--json", "-")
    [pair] = json.loads(printed)["agreements"]
    assert (pair["common"], pair["share"], pair["kappa"]) == (2, 0.5, 0.0)
    measured = ird.evaluate("a.qrels", {"bm25": ird.retrieve("set", "bm25", k=3)}, measures="RR@10")
    assert measured.to_rows()[0]["value"] >= 0


def test_a_policy_is_asked_for(folder: Path) -> None:
    add("anna", "q1", "cats", 1)
    add("ben", "q1", "cats", 1)
    for words in (["judgments", "export", "judged", "--out", "x"], ["judgments", "export"]):
        assert CliRunner().invoke(cli, words).exit_code != 0
    with pytest.raises(OptionError, match="mask needs --rules, or --judgments"):
        ird.mask("set", {"q1": {"cats": 1.0}})


def test_a_cached_mask_follows_the_judgments(folder: Path) -> None:
    run = ird.as_run({"q1": {"cats": 2.0, "dogs": 1.0}})
    add("anna", "q1", "cats", 1)
    flagged = {"cats": "false negative: judged", "dogs": None}
    assert flags_of(ird.mask("set", run, judgments="judged")) == flagged
    add("anna", "q1", "cats", 0)
    assert flags_of(ird.mask("set", run, judgments="judged")) == {"cats": None, "dogs": None}


def test_a_recipe_follows_the_judgments(folder: Path) -> None:
    (folder / "judged.yaml").write_text(RECIPE)
    (folder / "set" / "queries.jsonl").write_text('{"_id": "q1", "text": "bark at cats"}\n')
    (folder / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tdogs\t1\n")
    add("anna", "q1", "cats", 1)
    out = run_recipe(read_recipe("judged.yaml"), "out")
    assert flags_of(ird.open_run(out / "marked"))["cats"] == "false negative: judged"
    run_recipe(read_recipe("judged.yaml"), "out")
    add("anna", "q1", "cats", 0)
    with pytest.raises(SettingsDifferError, match="files"):
        run_recipe(read_recipe("judged.yaml"), "out")
    run_recipe(read_recipe("judged.yaml"), "out", overwrite=True)
    assert flags_of(ird.open_run(out / "marked"))["cats"] is None
