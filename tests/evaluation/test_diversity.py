"""Diversity: hand-computed figures, and a model with a hub is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import skew

import irdistill as ird
from irdistill.collections import Collection
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.diversity import measure_diversity
from irdistill.runs import Mixing, RankedList, RunIdentity, write_run

DOCUMENTS = {f"d{number}": f"word{number} other{number}" for number in range(200)}
QUERIES = {f"q{number}": "x" for number in range(60)}


def collection() -> Collection:
    return Collection.from_dicts("demo", DOCUMENTS, QUERIES, {})


def random_run(seed: int = 0, hub: str | None = None) -> dict[str, dict[str, float]]:
    generator = np.random.default_rng(seed)
    run = {}
    for query in QUERIES:
        docs = [f"d{number}" for number in generator.choice(200, 10, replace=False)]
        if hub is not None and hub not in docs:
            docs[4] = hub
        run[query] = {doc: 10.0 - place for place, doc in enumerate(docs)}
    return run


def gini(counts: np.ndarray) -> float:
    """Half the relative mean absolute difference."""
    return float(np.abs(counts[:, None] - counts).mean() / (2 * counts.mean()))


def test_figures_equal_their_definitions() -> None:
    run = random_run()
    [system] = measure_diversity(collection(), {"system": run}).systems
    counts = np.zeros(200)
    for docs in run.values():
        for doc in docs:
            counts[int(doc[1:])] += 1
    assert system.coverage.value == (counts > 0).mean()
    assert system.gini.value == pytest.approx(gini(counts), abs=1e-12)
    assert system.hubness.value == pytest.approx(skew(counts), abs=1e-12)
    assert system.distance.value == pytest.approx(1.0)  # no two documents share a word
    assert system.near_duplicates.value == 0
    assert system.hubs[0][1] == counts.max()
    for name in ("distance", "coverage", "gini", "hubness"):
        estimate = getattr(system, name)
        assert estimate.low <= estimate.value + 1e-12 and estimate.value <= estimate.high + 1e-12


def test_near_duplicates_and_distance() -> None:
    docs = {"a": "red cat sleeps", "b": "red cat sleeps", "c": "red dog", "d": "green bird"}
    demo = Collection.from_dicts("demo", docs, {"q": "x"}, {})
    run = {"q": {"a": 3.0, "b": 2.0, "d": 1.0}}
    [system] = measure_diversity(demo, {"system": run}).systems
    assert system.near_duplicates.value == pytest.approx(1 / 3)
    assert system.distance.value == pytest.approx(2 / 3)
    assert system.coverage.value == 0.75


def test_an_injected_hub_is_found() -> None:
    runs = {"teacher": random_run(0), "other": random_run(1), "hub": random_run(0, hub="d7")}
    result = measure_diversity(collection(), runs, baseline="teacher")
    hub, other = result.differences["hub"]["hubness"], result.differences["other"]["hubness"]
    assert hub.low > 1
    assert other.low < 0 < other.high
    assert {s.system: s.hubs[0][0] for s in result.systems}["hub"] == "d7"
    assert "hub: most frequent d7 (in 60 lists)" in result.to_markdown()


def test_only_queries_that_all_systems_have() -> None:
    short = dict(list(random_run(1).items())[:7])
    result = ird.measure_diversity(collection(), {"a": random_run(), "b": short}, baseline="a", k=5)
    assert result.queries == 7 and result.to_json()["systems"][1]["system"] == "b"
    with pytest.raises(InputError, match="no query"):
        measure_diversity(collection(), {"a": {"q1": {"d1": 1.0}}, "b": {"q2": {"d1": 1.0}}})
    with pytest.raises(OptionError, match="none of the systems"):
        measure_diversity(collection(), {"a": short}, baseline="b")


def test_an_audit_shows_it() -> None:
    demo = Collection.from_dicts("demo", DOCUMENTS, QUERIES, {q: {"d1": 1} for q in QUERIES})
    result = ird.audit(demo, {"hub": random_run(0, hub="d7")}, first_stage=random_run(0))
    assert result.diversity is not None
    assert result.diversity.differences["hub"]["hubness"].low > 1
    assert "## Diversity" in result.to_markdown()


def test_a_report_shows_it(tmp_path: Path) -> None:
    demo = Collection.from_dicts("demo", DOCUMENTS, QUERIES, {q: {"d1": 1} for q in QUERIES})
    runs = {"teacher": random_run(0), "hub": random_run(0, hub="d7")}
    text = str(ird.report(runs, collection=demo, baseline="teacher"))
    measured = measure_diversity(demo, runs, baseline="teacher")
    assert measured.differences["hub"]["hubness"].low > 1
    assert measured.to_markdown().replace("## Div", "### Div").strip() in text
    assert "hub: most frequent d7 (in 60 lists)" in text
    ird.report(runs, collection=demo, baseline="teacher", out=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<a href="#diversity">' in page and "d7 (in 60 lists)" in page
    apart = {"one": {"q1": {"d1": 1.0}}, "two": {"q2": {"d1": 1.0}}}
    assert "### Diversity" not in str(ird.report(apart, collection=demo))


def test_the_head_of_one_list_then_the_other() -> None:
    mixing = Mixing("head", head=2).for_teachers(2)
    first = np.array([3, 1, 0]), np.array([9.0, 8.0, 7.0], np.float32)
    second = np.array([1, 2]), np.array([0.5, np.nan], np.float32)
    mixed = mixing.mix([first, second], 4)
    assert np.allclose(mixed.scores, [1 / 3, 1 / 2, np.nan, 1.0], equal_nan=True)
    assert mixed.reasons.tolist() == [0, 0, 1, 0]
    with pytest.raises(OptionError, match="joins two runs"):
        Mixing("head").for_teachers(3)
    with pytest.raises(OptionError, match="mixes no scores"):
        Mixing("head", weights=(1, 2)).for_teachers(2)


def test_words_of_the_command_line(tmp_path: Path) -> None:
    """The baseline is a name or a path, as for evaluate; a head of lists has no weights."""
    paths = []
    for name, seed in (("one", 0), ("two", 1)):
        lists = [
            RankedList(query, list(docs), np.array(list(docs.values()), np.float32))
            for query, docs in random_run(seed).items()
        ]
        identity = RunIdentity("imported", {"model": name}, collection().describe())
        paths.append(str(write_run(tmp_path / name, identity, lists).path))
    results = [
        ird.measure_diversity(collection(), runs, baseline=baseline).to_json()
        for runs, baseline in ((paths, "one"), (paths, paths[0]), (paths[1:], paths[0]))
    ]
    assert [result["baseline"] for result in results] == ["one"] * 3
    assert results[0] == results[1] and results[2]["differences"] == results[0]["differences"]
    with pytest.raises(OptionError, match="mixes no scores"):
        ird.fuse(paths, method="head", weights="agreement", out=tmp_path / "fused")
