"""Policies in whole trainings: what each does, and that a training which is stopped ends with the
same bytes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.errors import IrdistillError
from irdistill.losses import parse_loss
from irdistill.runs import compile_run, open_run
from irdistill.search import retrieve
from irdistill.students import KINDS, DenseStudent, build_student
from irdistill.training import checkpoints
from irdistill.training.data import mining
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import NAN, ListsInMemory, digests, log, stopped_before
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

LOSS = 'KL(tau=0.2, teacher_tau=2) + InfoNCE(tau=0.2, weights="teacher")'
OPTIONS = TrainOptions(
    steps=8,
    batch_size=3,
    list_size=6,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    checkpoint_every=3,
    log_every=2,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


def learn(
    place: Path, out: Path, options: TrainOptions, loss: str = LOSS, validate: float | None = None
) -> DenseStudent:
    student = make_student(place / "backbone")
    train(make_collection(), place / "scores", student, loss, out, options, validate=validate)
    return student


@pytest.mark.parametrize(
    "options",
    [
        replace(OPTIONS, curriculum="gap", pacing_start=0.4, pacing_end=6),
        replace(OPTIONS, clusters=2),
        replace(OPTIONS, margin_bins=3, schedule="cosine", floor=0.1, epochs=3, steps=1000),
    ],
    ids=["curriculum", "clusters", "bins"],
)
def test_stopped_it_ends_with_the_same_bytes(
    options: TrainOptions, place: Path, tmp_path: Path
) -> None:
    learn(place, tmp_path / "whole", options)
    with stopped_before(5):
        learn(place, tmp_path / "stopped", options)
    learn(place, tmp_path / "stopped", options)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    assert [row["step"] for row in log(tmp_path / "whole")] == list(
        range(1, 9)
    )  # three epochs of 8 queries in threes are 8 steps
    others = digests(tmp_path / "whole")["model/model.safetensors"]
    learn(place, tmp_path / "plain", OPTIONS)
    assert digests(tmp_path / "plain")["model/model.safetensors"] != others


def test_checkpoints_by_time_with_mining_and_an_early_stop(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irdistill.training.checkpoints._SHARE", 0)
    options = replace(
        OPTIONS,
        steps=9,
        mine_every=4,
        mine_depth=6,
        early_stop=9,
        validate_every=2,
        checkpoint_every=500,
    )
    learn(place, tmp_path / "whole", options, validate=0.2)
    timed = replace(options, checkpoint_seconds=1e-9)
    with stopped_before(6):
        learn(place, tmp_path / "stopped", timed, validate=0.2)
    assert (tmp_path / "stopped" / "checkpoints" / "checkpoint-6").is_dir()
    learn(place, tmp_path / "stopped", timed, validate=0.2)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


def test_clusters_are_kept_and_are_those_of_the_vectors(place: Path, tmp_path: Path) -> None:
    """Each query is in the cluster whose mean direction is nearest to its vector."""
    student = make_student(place / "backbone")
    vectors = student.encode(
        [query.text for query in make_collection().queries.values()],
        "query",
        "float32",
        normalize=True,
    )
    learn(place, tmp_path / "out", replace(OPTIONS, steps=2, clusters=3))
    kept = json.loads((tmp_path / "out" / "clusters.json").read_text())
    clusters = np.array(kept["clusters"])
    assert (
        set(clusters.tolist()) == {0, 1, 2}
        and kept["identity"]["encoder"]["weights"] == student.weights_digest()
    )
    means = np.stack([vectors[clusters == number].mean(axis=0) for number in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert (vectors @ means.T).argmax(axis=1).tolist() == clusters.tolist()
    with pytest.raises(IrdistillError, match="clusters is 9, and there are 8 queries"):
        learn(place, tmp_path / "many", replace(OPTIONS, clusters=9))


# -- GradCache
# ----------------------------------------------------------------------------------------------


def test_a_cached_training_is_the_same_training(place: Path, tmp_path: Path) -> None:
    """Dropout and all; in chunks of few tokens."""
    options = replace(OPTIONS, token_budget=40, dropout=True)
    learn(place, tmp_path / "direct", options)
    learn(place, tmp_path / "cached", replace(options, grad_cache=True))
    assert digests(tmp_path / "direct") == digests(tmp_path / "cached")


@pytest.mark.parametrize("kind", KINDS)
def test_cached_gradients_are_the_direct_ones(kind: str, place: Path) -> None:
    """Of every student, in training mode with the same dropout, over many chunks; the generator
    ends where it would have.
    """
    collection = make_collection()
    compiled = compile_run(open_run(place / "scores", collection), collection.corpus)
    sampler = ListSampler(
        [compiled],
        {f"q{i}": {i: 1} for i in range(8)},
        SamplerOptions(batch_size=8, list_size=6, seed=1),
    )
    loss = parse_loss('KL(tau=0.5, teacher_tau=2) + InfoNCE(tau=0.5, negatives="list")')
    results = []
    for cached in (False, True):
        student = build_student(kind, str(place / "backbone"), device="cpu")
        student.model.train()
        torch.manual_seed(3)
        batch = make_collator(collection, sampler, student, None)(0)
        value = loss(score_batch(Encoder(student, torch.float32, 60, cached), batch, False))
        value.backward()
        gradients = {
            name: p.grad for name, p in student.model.named_parameters() if p.grad is not None
        }
        results.append((float(value.detach()), gradients, torch.rand(1)))
    direct, other = results
    assert direct[0] == pytest.approx(other[0], abs=1e-6) and torch.equal(direct[2], other[2])
    assert (
        direct[1].keys() == other[1].keys()
        and max(float(g.abs().max()) for g in direct[1].values()) > 1e-3
    )
    for name, gradient in direct[1].items():
        assert torch.allclose(gradient, other[1][name], atol=1e-6, rtol=0), name


def test_no_more_than_a_chunk_of_activations_is_held(place: Path) -> None:
    """Bytes that autograd keeps after the forward pass: the activations of all chunks, or little
    more than the vectors.
    """
    student = make_student(place / "backbone")
    collection = make_collection()
    sampler = ListSampler(
        [compile_run(open_run(place / "scores", collection), collection.corpus)],
        {},
        SamplerOptions(batch_size=8, list_size=8, seed=1),
    )
    batch = make_collator(collection, sampler, student, None)(0)
    kept = {}
    for cached in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor, lambda t: t
        ):
            score_batch(Encoder(student, torch.float32, 60, cached), batch, True)
        kept[cached] = sum(sizes)
    assert kept[True] < kept[False] / 20


# -- negatives that the student finds
# ------------------------------------------------------------------------


def test_mined_documents_join_the_lists_and_keep_their_scores() -> None:
    run = ListsInMemory({"a": [(1, 5.0), (2, 4.0), (3, 3.0), (4, NAN)], "b": [(7, 1.0), (8, 0.0)]})
    sampler = ListSampler(
        [run],
        {"a": {1: 1, 12: 1}},
        SamplerOptions(batch_size=1, list_size=6, seed=0),
        query_ids=["a"],
    )
    before = sampler.draw_list(0, 0)
    sampler.mined = ListsInMemory({"a": [(12, 9.0), (3, 8.0), (10, 7.0), (11, 6.0), (4, 5.0)]})
    sampler.mined_scores = ListsInMemory({"a": [(11, -2.5)]})
    sampler.mined_take = 4
    rows, scores, labels = sampler.draw_list(0, 0)
    score_of = dict(zip(rows.tolist(), scores[0].tolist(), strict=True))
    assert rows[0] == 1 and labels.tolist() == [1, 0, 0, 0, 0, 0]
    assert score_of.keys() == {1, 2, 3, 10, 11, 4}  # 12 is relevant, so no negative
    assert (
        score_of[3] == 3.0
        and score_of[11] == -2.5
        and np.isnan(score_of[10])
        and np.isnan(score_of[4])
    )
    sampler.mined_take = 1
    assert len(set(sampler.draw_list(0, 0)[0].tolist()) & {3, 10, 11, 4}) >= 1
    sampler.mined = ListsInMemory({"b": [(1, 1.0)]})
    assert all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(before, sampler.draw_list(0, 0), strict=True)
    )


def test_the_student_of_the_step_is_searched_with_and_stopped_it_ends_with_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, mine_every=3, mine_depth=5)
    searched: list[int] = []

    def counted(*arguments: Any, **more: Any) -> Any:
        searched.append(int(Path(arguments[2]).name))
        return retrieve(*arguments, **more)

    monkeypatch.setattr(mining, "retrieve", counted)
    learn(place, tmp_path / "whole", options)
    assert searched == [3, 6]
    mined = open_run(tmp_path / "whole" / "mined" / "6", make_collection())
    assert len(mined) == 8 and len(mined["q0"].doc_ids) == 5
    level = replace(options, warmup=0, schedule="constant")
    six = learn(place, tmp_path / "six", replace(level, steps=6)).weights_digest()
    learn(place, tmp_path / "eight", level)
    assert open_run(tmp_path / "eight" / "mined" / "6").identity.producer["weights"] == six

    for moment in (
        3,
        4,
        7,
    ):  # before the first step on mined lists, after it, and after the second search
        searched.clear()
        out = tmp_path / f"stopped-{moment}"
        with stopped_before(moment):
            learn(place, out, options)
        learn(place, out, options)
        assert digests(out) == digests(tmp_path / "whole")
        assert searched == [3, 6]  # a search that is there is not made again


def test_a_search_that_is_gone_is_missed_and_one_by_other_weights_replaced(
    place: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, mine_every=3, mine_depth=5)
    learn(place, tmp_path / "whole", options)
    with stopped_before(7):
        learn(place, tmp_path / "out", replace(options, checkpoint_every=1))
    gone = tmp_path / "out" / "mined" / "6"
    gone.rename(tmp_path / "aside")
    with pytest.raises(IrdistillError, match="6 is missing, and the training cannot resume"):
        learn(place, tmp_path / "out", replace(options, checkpoint_every=1))
    shutil.copytree(tmp_path / "whole" / "mined" / "3", gone)  # searched with other weights
    for checkpoint in checkpoints.find_checkpoints(tmp_path / "out" / "checkpoints"):
        if checkpoints.step_of(checkpoint) > 6:
            shutil.rmtree(checkpoint)
    learn(place, tmp_path / "out", options)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_named_teacher_scores_what_the_run_lacks(place: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=4, mine_every=3, mine_depth=6, mine_teacher="bm25")
    learn(place, tmp_path / "out", options)
    collection = make_collection()
    known = compile_run(open_run(place / "scores"), collection.corpus)
    scored, mined = (
        open_run(tmp_path / "out" / "mined" / "3-scores", collection),
        open_run(tmp_path / "out" / "mined" / "3"),
    )
    assert scored.identity.producer["model"] == "bm25"
    for query_id in collection.queries:
        rows, scores = known.list(known.index[query_id])
        scored_ids = {collection.corpus.id(int(row)) for row in np.asarray(rows)[~np.isnan(scores)]}
        assert set(scored[query_id].doc_ids) == set(mined[query_id].doc_ids) - scored_ids
    with pytest.raises(IrdistillError, match="2 runs were given; fuse them first"):
        train(
            collection,
            [place / "scores", place / "scores"],
            make_student(place / "backbone"),
            LOSS,
            tmp_path / "two",
            options,
        )


@pytest.mark.parametrize("kind", ["sparse", "late-interaction"])
def test_students_of_other_kinds_are_searched_with_too(
    kind: str, place: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, steps=3, mine_every=2, mine_depth=4, checkpoint_every=0)
    collection, student = (
        make_collection(),
        build_student(kind, str(place / "backbone"), device="cpu"),
    )
    train(collection, place / "scores", student, "KL(teacher_tau=2)", tmp_path / "out", options)
    mined = open_run(tmp_path / "out" / "mined" / "2", collection)
    assert {len(ranked.doc_ids) for ranked in mined} == {4} and mined.identity.producer[
        "kind"
    ] == kind
    reader = build_student("cross-encoder", str(place / "backbone"), device="cpu")
    with pytest.raises(IrdistillError, match="a cross-encoder student cannot search"):
        train(collection, place / "scores", reader, "KL", tmp_path / "no", options)
