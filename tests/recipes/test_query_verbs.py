"""Recipes whose collections are made on the way: rewritten, generated and filtered queries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from irdistill.collections import load_collection
from irdistill.recipes import read_recipe, run_recipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "source"
    (made / "qrels").mkdir(parents=True)
    words = [
        "apple",
        "bridge",
        "candle",
        "desert",
        "engine",
        "forest",
        "garden",
        "hammer",
        "island",
        "jungle",
    ]
    (made / "corpus.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "_id": f"d{i}",
                    "title": f"The {word} title",
                    "text": f"One {word} is described in this sentence.",
                }
            )
            + "\n"
            for i, word in enumerate(words)
        )
    )
    history = [{"role": "user", "text": "an apple"}]
    query = {"_id": "q", "text": "and what is it?", "history": history, "rewrite": "apple"}
    (made / "queries.jsonl").write_text(json.dumps(query) + "\n")
    (made / "qrels" / "test.tsv").write_text("q\td\tscore\nq\td0\t1\n")
    return made


def test_a_recipe_may_search_with_queries_it_has_made(folder: Path, tmp_path: Path) -> None:
    recipe = {
        "name": "made",
        "settings": {"source": str(folder)},
        "stages": [
            {"name": "queries", "verb": "generate", "collection": "${source}", "held_out": 0.3},
            {
                "name": "bm25",
                "verb": "retrieve",
                "collection": "${queries}#train",
                "model": "bm25",
                "k": 5,
            },
            {
                "name": "good",
                "verb": "filter",
                "collection": "${queries}#train",
                "rules": ["first=1"],
                "scores": "${bm25}",
            },
            {"name": "human", "verb": "rewrite", "collection": "${source}", "by": "human"},
            {
                "name": "laid-out",
                "verb": "rewrite",
                "collection": "${source}",
                "history": "newest questions",
            },
            {
                "name": "found-human",
                "verb": "retrieve",
                "collection": "${human}",
                "model": "bm25",
                "k": 5,
            },
            {
                "name": "found-history",
                "verb": "retrieve",
                "collection": "${laid-out}",
                "model": "bm25",
                "k": 5,
            },
            {
                "name": "figures",
                "verb": "evaluate",
                "measures": "RR@10",
                "datasets": {
                    "${source}": {"human": "${found-human}", "history": "${found-history}"},
                    "${queries}#train": {"bm25": "${bm25}"},
                },
            },
        ],
    }
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    out = run_recipe(read_recipe(path), tmp_path / "out")
    rows = {
        (row["system"], row["dataset"]): row["value"]
        for row in json.loads((out / "results.json").read_text())["rows"]
    }
    assert rows[("human", str(folder))] == rows[("history", str(folder))] == 1
    assert (
        len(load_collection(f"{out / 'good'}#train").queries)
        == len(load_collection(f"{out / 'queries'}#train").queries)
        > 8
    )
    before = {
        path: path.stat().st_mtime_ns for path in (out / "queries").rglob("*") if path.is_file()
    }
    run_recipe(read_recipe(path), tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in before} == before
