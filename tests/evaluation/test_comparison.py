"""Losses compared over students and seeds, against values by hand and by scipy."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import rankdata, ttest_rel

from irdistill import IrdistillError
from irdistill.cli.entry_point import cli
from irdistill.collections import Collection
from irdistill.evaluation import Entry, compare_losses, friedman, holm, per_query
from irdistill.evaluation.rank_diagram import write_diagram
from irdistill.runs import RankedList, RunIdentity, write_run
from tests.recipes.tiny import beir_folder

LOSSES, STUDENTS, SEEDS = ("kl", "mse", "ranknet"), ("dense", "cross-encoder"), ("1", "2")
QUERIES = 40


def small_collection() -> Collection:
    docs = {f"d{number}": f"text {number}" for number in range(12)}
    queries = {f"q{number}": f"query {number}" for number in range(QUERIES)}
    return Collection.from_dicts(
        "made", docs, queries, {f"q{n}": {f"d{n % 12}": 1} for n in range(QUERIES)}
    )


def run_of(folder: Path, collection: Collection, seed: int, lift: float) -> Path:
    """Random scores with a higher one for the relevant document."""
    draw = np.random.default_rng(seed)
    lists = []
    for number, query in enumerate(collection.queries):
        scores = draw.normal(size=12).astype(np.float32)
        scores[number % 12] += np.float32(lift)
        lists.append(RankedList(query, [f"d{place}" for place in range(12)], scores, None))
    identity = RunIdentity("student", {"model": folder.name}, collection.describe(), None, {})
    write_run(folder, identity, lists)
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, list[Entry]]:
    """kl is best; mse and ranknet are equally good."""
    folder, collection = tmp_path_factory.mktemp("cells"), small_collection()
    entries = []
    for number, (loss, student, seed) in enumerate(
        (a, b, c) for a in LOSSES for b in STUDENTS for c in SEEDS
    ):
        run = run_of(
            folder / f"{loss}.{student}.s{seed}", collection, number, 3.0 if loss == "kl" else 0.6
        )
        entries.append(Entry(loss, student, "made", seed, run))
    return collection, entries


def values(collection: Collection, entries: list[Entry]) -> dict[tuple[str, str, str], np.ndarray]:
    return {
        (entry.loss, entry.student, entry.seed): (
            per_query(collection.qrels, _run(entry), "nDCG@10").values["nDCG@10"]
        )
        for entry in entries
    }


def _run(entry: Entry) -> dict[str, dict[str, float]]:
    from irdistill.runs import open_run

    return open_run(entry.run).to_dict()


def test_means_deviations_and_ranks(compared: tuple[Collection, list[Entry]]) -> None:
    collection, entries = compared
    outcome = compare_losses(entries, {"made": collection})
    known = values(collection, entries)
    for loss in LOSSES:
        for student in STUDENTS:
            part = [known[loss, student, seed].mean() for seed in SEEDS]
            figure = outcome.figure(loss, student, "made")
            assert figure.mean == pytest.approx(
                np.mean(part)
            ) and figure.deviation == pytest.approx(np.std(part, ddof=1))
            assert figure.seeds == pytest.approx(dict(zip(SEEDS, part, strict=True)))
            assert figure.best == (loss == "kl") and figure.worse == (loss != "kl")
    table = np.array(
        [
            [known[loss, student, seed].mean() for loss in LOSSES]
            for student in STUDENTS
            for seed in SEEDS
        ]
    )
    ranks = dict(zip(LOSSES, rankdata(-table, axis=1).mean(axis=0), strict=True))
    assert outcome.over_blocks is not None and outcome.over_blocks.ranks == pytest.approx(ranks)
    assert outcome.over_blocks == friedman(dict(zip(LOSSES, table.T, strict=True)))
    assert outcome.losses[0] == "kl" and outcome.over_blocks.blocks == 4
    assert outcome.over_settings is not None and outcome.over_settings.blocks == 2
    per_setting = np.mean(
        [outcome.figure(loss, student, "made").rank for loss in LOSSES for student in STUDENTS]
    )
    assert per_setting == pytest.approx(2.0)


def test_pairs_are_tested_on_seed_means_with_holm(compared: tuple[Collection, list[Entry]]) -> None:
    collection, entries = compared
    outcome = compare_losses(entries, {"made": collection})
    known = values(collection, entries)
    expected = []
    for student in STUDENTS:
        means = {
            loss: np.mean([known[loss, student, seed] for seed in SEEDS], axis=0) for loss in LOSSES
        }
        expected += [
            (
                loss,
                other,
                student,
                ttest_rel(means[loss], means[other]).pvalue,
                (means[loss] > means[other]).sum(),
            )
            for loss, other in combinations(LOSSES, 2)
        ]
    assert [(pair.loss, pair.against, pair.student) for pair in outcome.pairs] == [
        row[:3] for row in expected
    ]
    assert [pair.p for pair in outcome.pairs] == pytest.approx([row[3] for row in expected])
    assert [pair.p_holm for pair in outcome.pairs] == pytest.approx(
        holm([row[3] for row in expected])
    )
    assert all(pair.wins + pair.ties + pair.losses == QUERIES for pair in outcome.pairs)


def test_markdown_and_diagram(compared: tuple[Collection, list[Entry]], tmp_path: Path) -> None:
    collection, entries = compared
    outcome = compare_losses(entries, {"made": collection})
    text = outcome.to_markdown()
    assert repr(outcome) == text.rstrip() and len(outcome.to_rows()) == len(outcome.figures)
    best = outcome.figure("kl", "dense", "made")
    assert (
        f"**{best.mean:.4f}** ± {best.deviation:.4f}" in text and text.count("▼") == 5
    )  # four figures, and what it means
    assert (
        "Over 4 cells of student × collection × seed" in text
        and "kl over mse" in text
        and "Not significantly different: " in text
    )
    for name in ("one.svg", "two.svg", "plot.png"):
        write_diagram(outcome, tmp_path / name)
    one = (tmp_path / "one.svg").read_bytes()
    assert one == (tmp_path / "two.svg").read_bytes()
    drawn = one.decode()
    assert outcome.over_blocks is not None
    for loss, rank in outcome.over_blocks.ranks.items():
        assert loss in drawn and f"{rank:.2f}" in drawn
    assert f"critical difference {outcome.over_blocks.critical_difference:.2f}" in drawn
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(IrdistillError, match=r"'.gif'"):
        write_diagram(outcome, tmp_path / "plot.gif")


def test_one_cell_has_no_ranks_and_no_diagram(
    compared: tuple[Collection, list[Entry]], tmp_path: Path
) -> None:
    collection, entries = compared
    one = [entry for entry in entries if entry.student == "dense" and entry.seed == "1"]
    outcome = compare_losses(one, {"made": collection})
    assert (
        outcome.over_blocks is None and outcome.over_settings is None and outcome.losses[0] == "kl"
    )
    assert outcome.figure(
        "kl", "dense", "made"
    ).deviation is None and "| -" in outcome.to_markdown().replace("         ", " ")
    with pytest.raises(IrdistillError, match="at least two cells"):
        write_diagram(outcome, tmp_path / "plot.svg")


def test_missing_and_duplicate_runs_are_errors(compared: tuple[Collection, list[Entry]]) -> None:
    collection, entries = compared
    with pytest.raises(
        IrdistillError, match="the loss kl has no run of the student dense with seed 1 on made"
    ):
        compare_losses(entries[1:], {"made": collection})
    with pytest.raises(IrdistillError, match="more than one run"):
        compare_losses([*entries, entries[0]], {"made": collection})
    with pytest.raises(IrdistillError, match="at least two losses"):
        compare_losses(entries[:4], {"made": collection})
    with pytest.raises(IrdistillError, match="one measure"):
        compare_losses(entries, {"made": collection}, "nDCG@10 RR@10")


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of a collection that the command can load, and some that no pattern should match."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    beir_folder(tmp_path / "data")
    from irdistill.collections import load_collection

    collection = load_collection("data")
    draw = np.random.default_rng(0)
    for loss in ("kl", "list.mle"):
        for seed in (1, 2, 3):
            lists = [
                RankedList(
                    query,
                    ["d000", "d001", *judged],
                    np.array([0.5, 0.4, draw.random() + (loss == "kl")], np.float32),
                    None,
                )
                for query, judged in collection.qrels.items()
                if not {"d000", "d001"} & set(judged)
            ]
            identity = RunIdentity(
                "student", {"model": loss}, collection.describe(), None, {"seed": seed}
            )
            write_run(tmp_path / "out" / f"{loss}+dense+s{seed}", identity, lists)
    (tmp_path / "out" / "kl+dense+s9").mkdir()
    return tmp_path


def test_compare_command(folder: Path) -> None:
    texts = [
        "compare",
        "out/{loss}+{student}+s{seed}",
        "--plot",
        "plots/cd.svg",
        "--json",
        "out.json",
        "--markdown",
        "out.md",
    ]
    done = CliRunner().invoke(cli, texts, catch_exceptions=False)
    assert done.exit_code == 0 and "| kl " in done.output and "dense, data" in done.output
    result = json.loads((folder / "out.json").read_text())
    assert result["over_blocks"]["ranks"] == {"kl": 1.0, "list.mle": 2.0}
    assert {figure["student"] for figure in result["figures"]} == {"dense"}
    assert (folder / "plots" / "cd.svg").read_text().startswith("<?xml")
    assert (folder / "out.md").read_text() in done.output
    one = CliRunner().invoke(cli, ["compare", "out/{loss}+*+s1"], catch_exceptions=False)
    assert one.exit_code == 0 and "| list.mle " in one.output


@pytest.mark.parametrize("level", ["2", "1", "0", "-0.1", "nan"])
def test_wrong_level_is_an_error(folder: Path, level: str) -> None:
    with pytest.raises(IrdistillError, match="--level is"):
        CliRunner().invoke(
            cli, ["compare", "out/{loss}+*+s1", "--level", level], catch_exceptions=False
        )


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("out/{student}+*", r"expected {loss} once"),
        ("out/{loss}+{loss}", "expected {loss} once"),
        ("out/{loss}+{dose}", "dose"),
        ("nowhere/{loss}", "no run folder matches"),
        ("out/{loss}+dense+s{seed}x", "no run folder matches"),
    ],
)
def test_wrong_pattern_is_an_error(folder: Path, pattern: str, fault: str) -> None:
    with pytest.raises(IrdistillError, match=fault):
        CliRunner().invoke(cli, ["compare", pattern], catch_exceptions=False)
