"""The recipes of papers, whole, on real text and a tiny model: the losses and settings that the
paper names, and their figures.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from irdistill.card_files import card_folder
from irdistill.errors import IrdistillError
from irdistill.losses import parse_loss
from irdistill.recipes import read_recipe, run_recipe
from irdistill.recipes.recipe import Recipe
from irdistill.runs import RankedList, open_run, write_run
from irdistill.storage.files import read_json
from irdistill.verbs import load_verb
from tests.recipes.tiny import pydocs_folder
from tests.students.tiny import tiny_backbone, tiny_decoder

STUDENTS = ("dense", "late-interaction", "split-cross-encoder", "kernel")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Nothing here gains from more, and a busy machine loses much."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a collection of sixty documents and a model."""
    folder = tmp_path_factory.mktemp("papers")
    pydocs_folder(folder / "data")
    tiny_backbone(folder / "model", layers=2)
    return folder


def tiny(name: str, place: Path, *changes: str) -> Recipe:
    """The published recipe with a tiny collection and model."""
    return read_recipe(
        card_folder("recipes") / f"{name}.yaml",
        [f"train={place}/data#train", f"test={place}/data#test", f"second={place}/model", *changes],
    )


def ran(recipe: Recipe, place: Path) -> Path:
    """The folder of a run, made once."""
    return run_recipe(recipe, place / recipe.name)


@pytest.fixture(scope="module")
def margin_mse(place: Path) -> tuple[Recipe, Path]:
    recipe = tiny(
        "margin-mse",
        place,
        f"encoder={place}/model",
        "steps=2",
        "teacher-steps=2",
        "batch_size=4",
        "query_length=16",
        "max_length=40",
    )
    return recipe, ran(recipe, place)


@pytest.fixture(scope="module")
def rank_distillm(place: Path) -> tuple[Recipe, Path]:
    recipe = tiny(
        "rank-distillm",
        place,
        f"backbone={place}/model",
        f"train-model={place}/model",
        "contrastive-steps=2",
        "listwise-steps=2",
        "train-k=12",
        "listwise-list=12",
    )
    return recipe, ran(recipe, place)


@pytest.fixture(scope="module")
def cprd(place: Path) -> tuple[Recipe, Path]:
    recipe = tiny(
        "cprd",
        place,
        f"encoder={place}/model",
        "query_layers=1",
        "steps=3",
        "batch_size=4",
        "list_size=6",
        "k=12",
    )
    return recipe, ran(recipe, place)


def trained(folder: Path, stage: str) -> dict[str, Any]:
    """What decided the weights of a stage's student, with its losses step by step and the lists
    that it drew from.
    """
    record: dict[str, Any] = read_json(folder / stage / "training.json")
    log = [
        json.loads(line) for line in (folder / stage / "train_log.jsonl").read_text().splitlines()
    ]
    return record["identity"] | {
        "log": [line["loss"] for line in log if "loss" in line],
        "lists": record["lists"],
    }


def figures(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of nDCG@10 by system, all finite."""
    rows = {
        row["system"]: row
        for row in read_json(folder / "results.json")["rows"]
        if row["measure"] == "nDCG@10"
    }
    assert rows and all(
        math.isfinite(row["value"]) and row["low"] <= row["value"] <= row["high"]
        for row in rows.values()
    )
    return rows


def holds_after_losing(recipe: Recipe, place: Path, stage: str) -> None:
    """What stood from a stage on is lost; the same call makes it again with the same bytes, and
    nothing before it.
    """
    out = place / recipe.name

    def files() -> dict[str, bytes]:
        timed = {"journal.jsonl", "results.json", "report.md", ".lock"}
        return {
            str(path.relative_to(out)): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file() and path.name not in timed
        }

    before = files()
    names = [one.name for one in recipe.stages]
    kept = out / names[names.index(stage) - 1]
    times = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    for name in names[names.index(stage) :]:
        shutil.rmtree(out / name)
        (out / "stages" / f"{name}.json").unlink()
    ran(recipe, place)
    assert files() == before
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == times


@pytest.mark.slow
def test_margin_mse_teaches_four_architectures_on_triples(margin_mse: tuple[Recipe, Path]) -> None:
    recipe, out = margin_mse
    teacher = trained(out, "teacher")
    assert (
        teacher["loss"] == 'RankNet(by="label")' and teacher["student"]["kind"] == "cross-encoder"
    )
    for student in STUDENTS:
        record = {
            signal: trained(out, f"{student}-{signal}")
            for signal in ("labels", "single", "ensemble")
        }
        for signal, one in record.items():
            assert (
                one["student"].get("kind", "dense") == student
                and len(one["log"]) == 2
                and all(map(math.isfinite, one["log"]))
            )
            assert (
                one["options"]["list_size"] == 2
                and one["options"]["positives"]
                and one["options"]["only_scored"]
            )
            [loss] = parse_loss(one["loss"]).basic_losses
            assert type(loss).__name__ == ("RankNet" if signal == "labels" else "MarginMSE")
            assert one["scores"] == [
                open_run(
                    out / ("single-scores" if signal == "single" else "ensemble-scores")
                ).fingerprint
            ]
        assert record["labels"]["lists"] == record["single"]["lists"] == record["ensemble"]["lists"]
        assert record["single"]["log"] != record["ensemble"]["log"]
    rows = figures(out)
    assert len(rows) == 1 + 3 * 4 + 2 and rows["kernel, ensemble"]["against"] == "kernel, labels"
    assert recipe.settings["teachers"] == ["first", "second", "third"]


def test_margin_mse_mixes_three_teachers_equally(margin_mse: tuple[Recipe, Path]) -> None:
    _, out = margin_mse
    runs = [
        open_run(out / f"{name}-scores")
        for name in ("first", "second", "third", "ensemble", "single")
    ]
    query = runs[0].query_ids[0]
    lists = [ranked for run in runs if (ranked := run.get(query)) is not None]
    scores = [dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)) for ranked in lists]
    standard = []
    for scored in scores[:3]:
        values = torch.tensor([scored[doc] for doc in scores[3]], dtype=torch.float64)
        standard.append((values - values.mean()) / values.std(correction=0))
    assert torch.tensor(list(scores[3].values())).double() == pytest.approx(
        torch.stack(standard).mean(0), abs=1e-5
    )
    alone = torch.tensor([scores[4][doc] for doc in scores[3]], dtype=torch.float64)
    assert alone == pytest.approx(standard[1], abs=1e-5)


def test_margin_mse_goes_on_with_the_same_bytes(
    margin_mse: tuple[Recipe, Path], place: Path
) -> None:
    holds_after_losing(margin_mse[0], place, "kernel-single")


@pytest.mark.slow
def test_rank_distillm_has_two_stages(rank_distillm: tuple[Recipe, Path]) -> None:
    _, out = rank_distillm
    contrastive = trained(out, "contrastive")
    assert (
        contrastive["loss"] == 'InfoNCE(tau=1, negatives="list")'
        and contrastive["options"]["list_size"] == 8
    )
    assert (
        contrastive["scores"] == [open_run(out / "found-train").fingerprint]
        and contrastive["options"]["positives"]
    )
    first = trained(out, "contrastive-ranknet")["student"]["weights"]
    assert (
        trained(out, "contrastive-adrmse")["student"]["weights"]
        == first
        != trained(out, "ranknet")["student"]["weights"]
    )
    for stage, loss in (
        ("contrastive-ranknet", "RankNet"),
        ("ranknet", "RankNet"),
        ("contrastive-adrmse", "ADRMSE"),
    ):
        record = trained(out, stage)
        [term] = parse_loss(record["loss"]).basic_losses
        assert (
            type(term).__name__ == loss
            and term.needs == {"order"}
            and getattr(term, "discount", "log2") == "log2"
        )
        assert not record["options"]["positives"] and record["options"]["list_size"] == 12
        assert record["student"]["kind"] == "cross-encoder" and record["scores"] == [
            open_run(out / "order").fingerprint
        ]
    rows = figures(out)
    students = {"InfoNCE alone", "RankNet alone", "InfoNCE, then RankNet", "InfoNCE, then ADR-MSE"}
    assert set(rows) == {"candidates", "teacher", *students}
    assert rows["InfoNCE, then RankNet"]["against"] == "InfoNCE alone"


@pytest.mark.slow
def test_rank_distillm_goes_on_with_the_same_bytes(
    rank_distillm: tuple[Recipe, Path], place: Path
) -> None:
    holds_after_losing(rank_distillm[0], place, "contrastive-adrmse")


def test_orders_that_others_made_take_the_place_of_the_teachers(
    rank_distillm: tuple[Recipe, Path], place: Path
) -> None:
    """As with the published ones: order alone, no teacher stage; and a run with other contents is
    noticed.
    """
    _, made = rank_distillm
    order = open_run(made / "order")
    for reverse in (False, True):
        lists = []
        for query in order.query_ids:
            ranked = order.get(query)
            assert ranked is not None
            docs = [*ranked.doc_ids][:: -1 if reverse else 1]
            lists.append(
                RankedList(query, docs, torch.arange(len(docs), 0, -1).float().numpy(), None)
            )
        write_run(place / "orders", order.identity, lists, overwrite=reverse)
        recipe = tiny(
            "rank-distillm",
            place,
            f"backbone={place}/model",
            f"train-model={place}/model",
            "contrastive-steps=2",
            "listwise-steps=2",
            "train-k=12",
            "listwise-list=12",
            "teachers=[]",
            "mixtures=[]",
            f"orders={place}/orders",
        )
        if reverse:
            with pytest.raises(
                IrdistillError,
                match=r"'contrastive-ranknet'.*run with other settings.*orders: other contents",
            ):
                run_recipe(recipe, place / "others")
        else:
            out = run_recipe(recipe, place / "others")
            assert not any(
                stage.verb == "fuse" for stage in recipe.stages
            ) and "teacher" not in figures(out)
            assert (
                trained(out, "contrastive-ranknet")["log"]
                == trained(made, "contrastive-ranknet")["log"]
            )


def test_cprd_has_its_controls_on_the_same_lists(cprd: tuple[Recipe, Path]) -> None:
    _, out = cprd
    expected = {
        "infonce": ["InfoNCE"],
        "kl": ["KL", "InfoNCE"],
        "whole": ["CPRD", "InfoNCE"],
        "cprd": ["CPRD", "InfoNCE"],
    }
    record = {stage: trained(out, stage) for stage in expected}
    for stage, names in expected.items():
        terms = parse_loss(record[stage]["loss"]).basic_losses
        assert [type(term).__name__ for term in terms] == names
        assert getattr(terms[0], "valid", None) == {"whole": "all", "cprd": "score>0"}.get(stage)
        assert record[stage]["scores"] == [open_run(out / "fused").fingerprint]
        assert (
            record[stage]["lists"] == record["infonce"]["lists"]
            and record[stage]["options"] == record["infonce"]["options"]
        )
    assert len({tuple(one["log"]) for one in record.values()}) == 4
    candidates = open_run(out / "found-train").identity.producer
    assert candidates["model"].endswith("model")  # the student's own search mines the negatives
    rows = figures(out)
    assert (
        rows["CPRD + InfoNCE"]["against"] == "InfoNCE"
        and rows["CPRD (against KL)"]["against"] == "KL + InfoNCE"
    )
    assert rows["CPRD + InfoNCE"]["value"] == rows["CPRD (against KL)"]["value"]


def test_cprd_goes_on_with_the_same_bytes(cprd: tuple[Recipe, Path], place: Path) -> None:
    holds_after_losing(cprd[0], place, "cprd")


@pytest.mark.parametrize(
    ("name", "verbs", "loss"),
    [
        ("margin-mse", {"retrieve", "train", "score", "evaluate"}, "MarginMSE"),
        ("rank-distillm", {"retrieve", "train", "score", "evaluate"}, "ADRMSE"),
        (
            "cprd",
            {"retrieve", "score", "train", "evaluate"},
            'CPRD(tau=0.05, valid="score>0") + InfoNCE(tau=0.05)',
        ),
    ],
)
def test_the_settings_of_the_original_fit_the_recipe(name: str, verbs: set[str], loss: str) -> None:
    """The command that the paper's page gives for it, read and checked as far as no model is
    opened: nothing is mixed.
    """
    page = (
        (Path(__file__).parents[2] / "docs" / "papers" / f"{name}.md")
        .read_text(encoding="utf-8")
        .replace("\\\n", " ")
    )
    [command] = [
        line
        for line in page.splitlines()
        if line.startswith("irdistill run ") and "msmarco-passage" in line
    ]
    words = shlex.split(command)
    recipe = read_recipe(
        card_folder("recipes") / f"{name}.yaml",
        [value for word, value in pairwise(words) if word == "--set"],
    )
    assert {stage.verb for stage in recipe.stages} == verbs
    for stage in recipe.stages:
        load_verb(stage.verb).check(stage.arguments, strict=True)
        if stage.verb == "train":
            parse_loss(stage.arguments["loss"])
            assert "msmarco-passage/train" in stage.arguments["collection"]
    assert loss in {stage.arguments["loss"] for stage in recipe.stages if stage.verb == "train"}


@pytest.mark.slow
def test_a_decoder_teaches_encoders_without_labels(place: Path) -> None:
    tiny_decoder(place / "decoder")
    changes = [
        f"train={place}/data#train",
        f"test={place}/data#test",
        f"language-model={place}/decoder",
        f"encoder={place}/model",
        "decoder-layers=[0, 1]",
        *(f"{name}-steps=2" for name in ("decoder", "pairs", "vectors")),
        "list_size=4",
        "batch_size=2",
        "k=6",
        "timed=[1]",
    ]
    recipe = read_recipe(card_folder("recipes") / "decoder-to-encoder.yaml", changes)
    out = ran(recipe, place)
    scores = open_run(out / "decoder-train")
    for student in ("pairs", "vectors"):
        written = (out / f"{student}-decoder" / "training.json").read_text()
        assert scores.fingerprint in written and '"positives": false' in written
    systems = {row["system"] for row in read_json(out / "figures-test" / "result.json")["rows"]}
    assert len(systems) == 7
    costs = read_json(out / "costs-1" / "result.json")["systems"]
    assert [cost["reranks"] for cost in costs] == [1, 1, 0]
