"""What `irdistill collect` prints, and `collect` as a stage of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.cli.entry_point import main
from irdistill.collections import load_collection
from irdistill.recipes.recipe import Stage
from irdistill.recipes.stages import RecipeContext, check_stage, run_stage


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def write_files(folder: Path) -> None:
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("# Cats\n\nThey purr.")
    (folder / "docs" / "b.txt").write_bytes("Größe und Straße in München".encode("cp1252"))
    (folder / "docs" / "c.txt").write_text("They purr.")
    (folder / "docs" / "d.png").write_bytes(b"\x89PNG")


def test_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(folder)
    assert run("collect", "docs", "--out", "out", "--json", "out.json") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.pop("fingerprint") == load_collection("out", queries=False).fingerprint
    assert lines.pop("unknown") == "kinds  .png 1"
    assert lines == {
        "collection": "out",
        "documents": "2",
        "read": "Markdown 1, text 2",
        "skipped": "unknown kind 1",
        "duplicates": "1 document left out: the same text as another document",
        "encodings": "utf-8 2, cp1252 1",
        "manifest": str(Path("out") / "collection.json"),
    }
    assert json.loads((folder / "out.json").read_text())["duplicates"]["kept"] == {"c.txt": "a.md"}
    assert run("collect", "set", "--out", "copy") == 0
    printed = capsys.readouterr().out
    assert "judgments    2 test" in printed and "queries      2" in printed
    assert run("collect", "docs", "--out", "copy") == 1
    assert "irdistill: copy holds a collection of other sources" in capsys.readouterr().err


def test_the_columns_of_tables_are_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        (folder / f"t{number}.csv").write_text(
            "key,Head line,Abs-tract,body part\n1,Cats,Purr.,Long"
        )
    assert run("collect", "t0.csv", "--out", "out") == 0
    said = "title 'Head line', text 'Abs-tract', not read 'key', 'body part'"
    assert f"\ncolumns      t0.csv: {said}\n" in capsys.readouterr().out
    roles = {
        "id": [],
        "title": ["Head line"],
        "text": ["Abs-tract"],
        "not read": ["key", "body part"],
    }
    assert json.loads((folder / "out" / "collection.json").read_text())["columns"] == {
        "t0.csv": roles
    }
    sources = [f"t{number}.csv" for number in range(5)]
    assert run("collect", *sources, "--keep-duplicates", "--out", "all") == 0
    assert f"; t2.csv: {said}; 2 more tables\n" in capsys.readouterr().out


def test_a_stage_of_a_recipe(folder: Path) -> None:
    write_files(folder)
    arguments = {"sources": ["docs"], "exclude": ["*.txt"]}
    stage = Stage("mine", "collect", arguments)
    check_stage(stage)
    first = run_stage(stage, arguments, folder / "stage", RecipeContext())
    assert run_stage(stage, arguments, folder / "stage", RecipeContext()) == first
    assert load_collection(folder / "stage", queries=False).fingerprint == first
