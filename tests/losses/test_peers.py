"""The listwise losses against sentence-transformers' own code, run as installed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sentence_transformers
import torch
from packaging.version import Version
from sentence_transformers.cross_encoder import losses as peers

from irdistill.losses import ADRMSE, BCE, LambdaLoss, ListMLE, ListNet, Loss, RankNet, ScoreBatch

LENGTHS = (5, 3, 1, 4)


class Given:
    """Stands in for a cross-encoder: a "document" is its score."""

    num_labels = 1
    device = torch.device("cpu")

    def preprocess(self, pairs: list[tuple[str, float]], **_: Any) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([score for _, score in pairs])}

    def __call__(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": features["x"]}


def lists(ties: bool, grades: bool = False) -> tuple[ScoreBatch, list[Any], list[torch.Tensor]]:
    """The same lists for us, padded, and for a peer."""
    draw = torch.Generator().manual_seed(3)
    width = max(LENGTHS)
    student, target = (
        torch.randn(len(LENGTHS), width, generator=draw),
        torch.randn(len(LENGTHS), width, generator=draw),
    )
    if ties or grades:
        target = (target * (1.5 if grades else 1.0)).round()
    if grades:
        target = target.clamp(0, 3)
        target[:, 0] = 2.0
    mask = torch.arange(width)[None] < torch.tensor(LENGTHS)[:, None]
    batch = ScoreBatch(student=student, teacher=target, labels=target, mask=mask)
    queries = [f"q{number}" for number in range(len(LENGTHS))]
    docs = [student[row, :size].tolist() for row, size in enumerate(LENGTHS)]
    return batch, [queries, docs], [target[row, :size] for row, size in enumerate(LENGTHS)]


@pytest.mark.parametrize(
    ("ours", "theirs", "ties"),
    [
        (ADRMSE(), peers.ADRMSELoss, False),
        (ADRMSE(), peers.ADRMSELoss, True),
        (RankNet(), lambda model: peers.RankNetLoss(model, reduction_log="natural"), True),
        (
            RankNet(tau=0.5),
            lambda model: peers.RankNetLoss(model, sigma=2.0, reduction_log="natural"),
            False,
        ),
        (ListNet(), peers.ListNetLoss, True),
    ],
    ids=[
        "ADRMSE",
        "ADRMSE with ties",
        "RankNet with ties",
        "RankNet(tau=0.5)",
        "ListNet with ties",
    ],
)
def test_a_teachers_order(ours: Loss, theirs: Any, ties: bool) -> None:
    batch, inputs, labels = lists(ties)
    whole = theirs(Given())(inputs, labels).item()
    result = ours(batch).item()
    if isinstance(
        ours, ADRMSE
    ):  # a list of one is never wrong: theirs counts its item, ours does not
        whole *= sum(LENGTHS) / (sum(LENGTHS) - 1)
    if isinstance(ours, ListNet):  # likewise its entropy of 0
        whole *= len(LENGTHS) / (len(LENGTHS) - 1)
    assert result == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize(
    ("scheme", "theirs"),
    [
        ("ndcg1", peers.NDCGLoss1Scheme()),
        ("ndcg2", peers.NDCGLoss2Scheme()),
        ("lambdarank", peers.LambdaRankScheme()),
        ("ndcg2++", peers.NDCGLoss2PPScheme()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lambda_loss(scheme: str, theirs: Any, k: int | None) -> None:
    if k is not None and Version(sentence_transformers.__version__) < Version("6.2"):
        pytest.skip("sentence-transformers before 6.2 keeps only pairs of two top documents")
    batch, inputs, labels = lists(ties=True, grades=True)
    # the list of one is left out on both sides: under ndcg1 theirs pairs its item with itself
    keep = [row for row, size in enumerate(LENGTHS) if size > 1]
    inputs, labels = [[part[row] for row in keep] for part in inputs], [labels[row] for row in keep]
    assert batch.mask is not None and batch.labels is not None
    kept = ScoreBatch(student=batch.student[keep], labels=batch.labels[keep], mask=batch.mask[keep])
    value = peers.LambdaLoss(Given(), weighting_scheme=theirs, k=k)(inputs, labels).item()
    assert LambdaLoss(scheme=scheme, k=k, by="label")(kept).item() == pytest.approx(value, rel=1e-5)


def test_list_mle_is_theirs_divided_by_the_positions() -> None:
    batch, inputs, labels = lists(ties=False)
    sizes = [size for size in LENGTHS if size > 1]
    apart = []
    for row, size in enumerate(LENGTHS):
        if size > 1:
            one = [[part[row]] for part in inputs]
            apart.append(
                peers.ListMLELoss(Given(), respect_input_order=False)(one, [labels[row]]).item()
                / (size - 1)
            )
    assert len(apart) == len(sizes)
    assert ListMLE()(batch).item() == pytest.approx(sum(apart) / len(apart), rel=1e-5)


def test_bce() -> None:
    batch, _, labels = lists(ties=True, grades=True)
    values = torch.cat([batch.student[row, :size] for row, size in enumerate(LENGTHS)])
    target = (torch.cat(labels) > 0).float()
    expected = -(target * values.sigmoid().log() + (1 - target) * (-values).sigmoid().log()).mean()
    assert BCE()(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    soft = torch.cat(labels).sigmoid()
    expected = -(soft * values.sigmoid().log() + (1 - soft) * (-values).sigmoid().log()).mean()
    assert BCE(by="teacher")(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert math.isclose(
        BCE(tau=2)(batch).item(),
        BCE()(ScoreBatch(student=batch.student / 2, labels=batch.labels, mask=batch.mask)).item(),
        rel_tol=1e-6,
    )
