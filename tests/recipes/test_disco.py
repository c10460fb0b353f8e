"""The recipes of DiSCo on a few conversations: whole runs, no conversation on both sides, no
rewrite before the student.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from irdistill.collections import load_collection
from irdistill.recipes import read_recipe, run_recipe
from tests.training.tiny import make_backbone

TINY = ("k=5", "list_size=6", "batch_size=2", "steps=2")


def conversations(folder: Path, shift: int) -> Path:
    """Ten conversations of two questions; only the rewrites contain the words zz."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"d{i}", "title": "", "text": f"w{i} w{(i + shift) % 20} w{i + 2} zz"}
        for i in range(20)
    ]
    queries: list[dict[str, Any]] = []
    for i in range(10):
        first = f"w{i} w{i + 2}"
        queries += [
            {"_id": f"c{i}<::>1", "text": first, "history": [], "rewrite": f"{first} zz"},
            {
                "_id": f"c{i}<::>2",
                "text": f"and w{i + 1}",
                "rewrite": f"w{i} w{i + 1} zz",
                "history": [{"role": "user", "text": first}, {"role": "assistant", "text": "w39"}],
            },
        ]
    for name, lines in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = "".join(f"c{i}<::>{turn}\td{i}\t1\n" for i in range(10) for turn in (1, 2))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    make_backbone(tmp_path / "model")
    return conversations(tmp_path / "one", 1), conversations(tmp_path / "other", 3)


def check_texts(folder: Path) -> None:
    """The student reads the questions, newest first, and no rewrite or answer."""
    texts = {query.id: query.text for query in load_collection(folder).queries.values()}
    assert texts and not any("zz" in text or "w39" in text for text in texts.values())
    assert all(" [SEP] " in text for query_id, text in texts.items() if query_id.endswith("2"))


def test_disco_within_a_domain(sets: tuple[Path, Path], tmp_path: Path) -> None:
    changes = (f"collection={sets[0]}", f"encoder={tmp_path / 'model'}", *TINY)
    recipe = read_recipe("recipes/disco.yaml", changes)
    loss = {stage.arguments["loss"] for stage in recipe.stages if stage.verb == "train"}
    assert loss == {"0.99*KL(tau=0.05, teacher_tau=0.3) + 0.01*InfoNCE(tau=0.05)"}
    folder = run_recipe(recipe, tmp_path / "out", 1, False)
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert [row["system"] for row in rows[::2]] == [
        "last turn",
        "history",
        "student",
        "student (against history)",
        "rewrite",
        "teacher",
    ]
    assert all(row["n"] == 20 and math.isfinite(row["value"]) for row in rows)
    for fold in range(5):
        parts = [
            {
                key.partition("<::>")[0]
                for key in load_collection(f"{folder}/history-{fold}-{part}#{fold}-{part}").queries
            }
            for part in ("train", "test")
        ]
        assert parts[0] | parts[1] == {f"c{i}" for i in range(10)} and not parts[0] & parts[1]
        check_texts(folder / f"history-{fold}-test")
    report = (folder / "report.md").read_text()
    assert (
        f'irdistill search "{folder}/history-4-test#4-test" "a question of your own" --model {folder}/student-4/model'
        in report
    )
    before = {
        path: path.read_bytes() for path in folder.glob("student-*/model/**/*") if path.is_file()
    }
    run_recipe(recipe, folder, 1, False)
    assert before and all(path.read_bytes() == content for path, content in before.items())


def test_disco_in_another_domain(sets: tuple[Path, Path], tmp_path: Path) -> None:
    changes = (f"train={sets[0]}", f"test={sets[1]}", f"encoder={tmp_path / 'model'}", *TINY)
    folder = run_recipe(
        read_recipe("recipes/disco-transfer.yaml", changes),
        tmp_path / "out",
        1,
        False,
    )
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert [row["system"] for row in rows[::2]] == [
        "last turn",
        "history",
        "student",
        "student (against history)",
        "rewrite",
    ]
    assert all(row["n"] == 20 and math.isfinite(row["value"]) for row in rows)
    check_texts(folder / "history")


def test_both_recipes_have_the_same_settings() -> None:
    one, other = (
        yaml.safe_load(Path(f"recipes/{name}.yaml").read_text())["settings"]
        for name in ("disco", "disco-transfer")
    )
    assert {key: value for key, value in one.items() if key != "collection"} == {
        key: value for key, value in other.items() if key not in ("train", "test")
    }


def test_a_stage_with_the_name_of_a_setting_is_refused(tmp_path: Path) -> None:
    from irdistill.errors import IrdistillError

    path = tmp_path / "recipe.yaml"
    path.write_text(
        "settings: {bm25: x}\nstages: [{name: bm25, verb: retrieve, collection: set}]\n"
    )
    with pytest.raises(
        IrdistillError, match=r"the stage .bm25. of recipe\.yaml has the name of a setting"
    ):
        read_recipe(path)
