"""Mixing when lists are drawn gives what fusing first gives; flags keep documents from being
negatives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.losses import parse_loss
from irdistill.runs import (
    METHODS,
    Gate,
    Mixing,
    RankedList,
    Run,
    RunIdentity,
    compile_run,
    fuse,
    mask,
    open_run,
    write_run,
)
from irdistill.training.checks import check_scales
from irdistill.training.data.collate import CachedTokenizer, Collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.data.mixed_run import MixedRun
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.tiny import make_backbone, make_collection, make_student

OPTIONS = TrainOptions(
    steps=6,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    checkpoint_every=0,
)


@pytest.fixture(scope="module")
def collection() -> Collection:
    return make_collection()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    make_backbone(folder / "backbone")
    return folder


@pytest.fixture(scope="module")
def teachers(place: Path, collection: Collection) -> list[Run]:
    """Three runs with documents of their own, nulls, ties and doubts; the second lacks a query, the
    third has it first.
    """
    runs = []
    for number in range(3):
        random = np.random.default_rng(number)
        ids = [query_id for query_id in collection.queries if (number, query_id) != (1, "q2")]
        lists = []
        for query_id in ids if number < 2 else ids[::-1]:
            docs = [f"d{i}" for i in random.choice(40, 20, replace=False)]
            scores = random.integers(-4, 5, 20).astype(np.float32)
            scores[::6] = np.nan
            flags: list[str | None] = ["empty text" if s != s else None for s in scores.tolist()]
            flags[1] = "false negative: margin" if number == 0 else "truncated"
            lists.append(RankedList(query_id, docs, scores, flags))
        identity = RunIdentity("teacher", {"model": f"t{number}"}, collection.describe())
        runs.append(write_run(place / f"t{number}", identity, lists, part_queries=3))
    return runs


RULES: list[dict[str, Any]] = [
    *(
        {"method": method, "missing": "skip", "weights": (2.0, 1.0, 0.5), "tau": (1.0, 2.0, 3.0)}
        for method in METHODS
    ),
    {"method": "minmax", "missing": "null"},
    {"method": "zscore", "missing": "min"},
    {"method": "zscore", "missing": "skip", "abstain": "tau<0,sd>0.7"},
    {"method": "mean", "missing": "skip", "weights": (1, 0, 0)},
    {"method": "zscore", "missing": "skip", "gate": Gate.by_hand(3, gap=1, agreement=1)},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values()))[:40])
def test_mixing_at_read_time_is_fusing_first(
    tmp_path: Path, collection: Collection, teachers: list[Run], rule: dict[str, Any]
) -> None:
    fused = compile_run(fuse(teachers, tmp_path / "fused", **rule), collection.corpus)
    mixed = MixedRun(
        [compile_run(run, collection.corpus) for run in teachers], Mixing(**rule), collection.corpus
    )
    assert mixed.query_ids == fused.query_ids
    for number in range(len(fused)):
        for one, other in zip(mixed.list(number), fused.list(number), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(mixed.flags(number), fused.flags(number))
    settings: Mapping[str, Any] = {"batch_size": 3, "list_size": 6, "seed": 3, "flagged": "drop"}
    drawn = [
        ListSampler([run], {"q1": {4: 1}}, SamplerOptions(**settings))(step)
        for step in (0, 5)
        for run in (mixed, fused)
    ]
    for one, other in ((drawn[0], drawn[1]), (drawn[2], drawn[3])):
        for left, right in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(left, right)


def weights(model: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(model / "model.safetensors")


def test_training_on_a_mix_is_training_on_the_fused_run(
    place: Path, collection: Collection, teachers: list[Run]
) -> None:
    fused = fuse(teachers, place / "fused", "minmax", [2, 1, 1], "skip")
    loss = "KL(tau=0.2, teacher_tau=0.5) + 0.1*InfoNCE(tau=0.2)"
    first = train(
        collection, fused, make_student(place / "backbone"), loss, place / "on-fused", OPTIONS
    )
    options = replace(OPTIONS, mix="minmax", teacher_weights=(2, 1, 1), missing="skip")
    second = train(
        collection, teachers, make_student(place / "backbone"), loss, place / "on-mix", options
    )
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())
    record = json.loads((place / "on-mix" / "training.json").read_text())
    assert (
        record["identity"]["options"]["mix"] == "minmax" and len(record["identity"]["scores"]) == 3
    )
    assert (
        record["lists"] == json.loads((place / "on-fused" / "training.json").read_text())["lists"]
    )
    assert record["lists"]["flagged"] > 0


def test_a_teacher_of_weight_one_among_zeros_trains_as_alone(
    place: Path, collection: Collection, teachers: list[Run]
) -> None:
    """The first run gives the candidates; the losses of the others are multiplied by 0."""
    loss = "KL(tau=0.2, teacher_tau=2)"
    alone = train(
        collection, teachers[0], make_student(place / "backbone"), loss, place / "alone", OPTIONS
    )
    among = train(
        collection,
        [teachers[0], teachers[0], teachers[2]],
        make_student(place / "backbone"),
        loss,
        place / "among",
        replace(OPTIONS, teacher_weights=(0.5, 0.5, 0.0)),
    )
    sampler = ListSampler(
        [compile_run(teachers[0], collection.corpus)],
        {},
        SamplerOptions(batch_size=2, list_size=5, seed=1),
    )
    assert len(sampler.query_ids) == 8  # no query is usable by the third teacher alone
    for name, value in weights(alone).items():
        assert torch.allclose(value, weights(among)[name], atol=1e-5), name


def test_a_gate_weighs_the_losses_query_by_query(
    place: Path, collection: Collection, teachers: list[Run]
) -> None:
    gate = Gate.by_hand(3, gap=1.0, agreement=2.0)
    compiled = [compile_run(run, collection.corpus) for run in teachers]
    sampler = ListSampler(
        compiled,
        {},
        SamplerOptions(batch_size=8, list_size=40, seed=1, gate=gate, teacher_weights=(1, 2, 1)),
    )
    batch = sampler(0)
    assert batch.weights is not None and batch.weights.shape == (3, 8)
    for i, query in enumerate(batch.queries.tolist()):
        query_id = sampler.query_ids[query]
        lists = [run.get(query_id) for run in teachers]
        from irdistill.runs.fusion import aligned

        doc_ids, parts = aligned(lists)
        expected = gate.weights(parts, len(doc_ids)) * [1, 2, 1]
        counted = (~np.isnan(batch.teacher[:, i])).sum(axis=1) > 1
        np.testing.assert_allclose(batch.weights[:, i], expected * counted, rtol=1e-6)
        assert (lists[1] is None) == (query_id == "q2") and counted[1] == (lists[1] is not None)
    options = replace(OPTIONS, gate=gate, steps=2)
    model = train(
        collection,
        teachers,
        make_student(place / "backbone"),
        "KL(tau=0.2) + 0.1*InfoNCE",
        place / "gated",
        options,
    )
    assert (model / "modules.json").exists()
    identity = json.loads((place / "gated" / "training.json").read_text())["identity"]
    assert identity["options"]["gate"]["coefficients"] == [[0.0, 1.0, 2.0]] * 3


def scores_of(folder: Path, collection: Collection) -> Run:
    """q0's positive d0 has 5; d1 and d2 lie above it, d3 and d4 below. q1's positive is d1."""
    lists = [
        RankedList("q0", ["d1", "d2", "d0", "d3", "d4"], np.array([9, 8, 5, 4, 3], np.float32)),
        RankedList("q1", ["d1", "d2", "d3"], np.array([7, 6, 5], np.float32)),
    ]
    return write_run(folder, RunIdentity("teacher", {"model": "m"}, collection.describe()), lists)


def test_suspected_false_negatives_are_masked_dropped_or_kept(
    tmp_path: Path, collection: Collection
) -> None:
    run = mask(scores_of(tmp_path / "r", collection), collection, tmp_path / "m", "above-positive")
    compiled = [compile_run(run, collection.corpus)]
    relevant = {"q0": {0: 1}, "q1": {1: 1}}
    settings: Mapping[str, Any] = {"batch_size": 2, "list_size": 5, "seed": 1}
    rows = {}
    for flagged, count in (("mask", 2), ("drop", 2), ("keep", 0)):
        sampler = ListSampler(compiled, relevant, SamplerOptions(flagged=flagged, **settings))
        batch = sampler(0)
        rows[flagged] = sorted(batch.rows[batch.queries.tolist().index(0)].tolist())
        assert (sampler.documents, sampler.flagged_documents) == (8, count)
        assert sampler.suspected(0).tolist() == ([1, 2] if flagged == "mask" else [])
    assert rows == {"mask": [0, 1, 2, 3, 4], "drop": [0, 3, 4], "keep": [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("negatives", ["list", "batch", "all"])
def test_masked_documents_stand_in_no_denominator_but_in_the_teachers_list(
    tmp_path: Path, place: Path, collection: Collection, negatives: str
) -> None:
    run = mask(scores_of(tmp_path / "r", collection), collection, tmp_path / "m", "above-positive")
    student = make_student(place / "backbone")
    student.model.eval()
    loss = parse_loss(f'InfoNCE(tau=0.5, negatives="{negatives}")')
    sampler = ListSampler(
        [compile_run(open_run(run), collection.corpus)],
        {"q0": {0: 1}, "q1": {1: 1}},
        SamplerOptions(batch_size=2, list_size=5, seed=1, flagged="mask"),
    )
    queries = CachedTokenizer(
        student,
        "query",
        lambda numbers: [collection.queries[sampler.query_ids[n]].text for n in numbers],
    )
    documents = CachedTokenizer(
        student, "document", lambda rows: collection.corpus.texts(np.asarray(rows))
    )
    batch = Collator(sampler, queries, documents)(0)
    scores = score_batch(Encoder(student, torch.float32), batch, loss.uses_in_batch)
    assert scores.teacher is not None and int((~scores.teacher.isnan()).sum()) == 8
    lists = sampler(0)
    expected = []
    for i, query in enumerate(lists.queries.tolist()):
        score_of = dict(zip(lists.rows[i].tolist(), scores.student[i].tolist(), strict=True))
        positive = score_of[query]
        # q0: d1 and d2 are suspected, d3 and d4 are negatives; q1: d2 and d3 are; of the other list
        # only d0 and d4 are left
        listed = [3, 4] if query == 0 else [2, 3]
        other = [] if query == 0 else [0, 4]
        chosen = {"list": listed, "batch": other, "all": listed + other}[negatives]
        if scores.in_batch is not None:
            unique = sorted({row for row in lists.rows.ravel().tolist() if row >= 0})
            score_of |= {
                row: float(scores.in_batch[i, unique.index(row)].detach()) for row in other
            }
        if chosen:
            logits = torch.tensor([positive, *(score_of[row] for row in chosen)]) / 0.5
            expected.append(float(logits.logsumexp(0) - logits[0]))
    assert float(loss(scores).detach()) == pytest.approx(np.mean(expected), rel=1e-5)


def test_raw_scores_of_unlike_scales_are_noticed(
    tmp_path: Path, collection: Collection, teachers: list[Run]
) -> None:
    compiled = compile_run(teachers[0], collection.corpus)
    assert check_scales([compiled, compiled]) == []
    lists = [
        RankedList(ranked.query_id, ranked.doc_ids, ranked.scores * 10) for ranked in teachers[0]
    ]
    wide = write_run(tmp_path / "wide", RunIdentity("teacher", {}, collection.describe()), lists)
    (warning,) = check_scales([compiled, compile_run(wide, collection.corpus)])
    assert "the widest decides" in warning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": "median"}, "mix is 'median'"),
        ({"abstain": "tau<0.2"}, "without a mix"),
        ({"missing": "skip"}, "without a mix"),
        ({"flagged": "maybe"}, "flagged is 'maybe'"),
        ({"mix": "zscore", "abstain": "tau>3"}, "cannot be read"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(IrdistillError, match=message):
        TrainOptions(**options)


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ({"mix": "zscore"}, 1, "one run was given"),
        ({"teacher_weights": (1, 2)}, 1, "one run was given"),
        ({"teacher_weights": (1, 2, 3)}, 2, "weights"),
        ({"mix": "zscore", "teacher_weights": (1,)}, 2, "weights"),
        ({"gate": Gate.by_hand(3)}, 2, "for 3 teachers"),
    ],
)
def test_weights_for_another_number_of_runs(
    tmp_path: Path,
    place: Path,
    collection: Collection,
    teachers: list[Run],
    options: dict[str, Any],
    count: int,
    message: str,
) -> None:
    with pytest.raises(IrdistillError, match=message):
        train(
            collection,
            teachers[:count],
            make_student(place / "backbone"),
            "KL",
            tmp_path / "x",
            TrainOptions(**options),
        )
    assert not (tmp_path / "x").exists()
