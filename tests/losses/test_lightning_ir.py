"""Losses against Lightning IR's own code, where that is installed: ``pip install lightning-ir``
beside this package.

It is no part of the development extra, as it brings a trainer and its dependencies, of which
nothing else is used.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from irdistill.losses import ADRMSE, KL, ApproxNDCG, InfoNCE, Loss, MarginMSE, RankNet, ScoreBatch

peers = pytest.importorskip("lightning_ir.loss")


def both(
    ours: Loss, theirs: Any, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The values of both, and their gradients, on the same whole lists."""
    scores = torch.randn(targets.shape, generator=torch.Generator().manual_seed(5))
    one, two = (scores.clone().requires_grad_() for _ in range(2))
    result = ours(ScoreBatch(student=one, teacher=targets, labels=targets.clamp_min(0)))
    expected = theirs.compute_loss(
        SimpleNamespace(scores=two, representations=None), SimpleNamespace(targets=targets)
    )
    result.backward()
    expected.backward()
    assert one.grad is not None and two.grad is not None
    return result.detach(), expected.detach(), one.grad, two.grad


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (KL(), ("KLDivergence", {})),
        (RankNet(), ("RankNet", {})),
        (MarginMSE(pairs="all"), ("SupervisedMarginMSE", {})),
        (ADRMSE(), ("ApproxRankMSE", {"discount": "log2"})),
        (ADRMSE(discount="none"), ("ApproxRankMSE", {})),
        (ADRMSE(tau=0.5), ("ApproxRankMSE", {"temperature": 0.5, "discount": "log2"})),
    ],
    ids=str,
)
def test_a_teachers_scores(ours: Loss, theirs: tuple[str, dict[str, Any]]) -> None:
    targets = torch.randn(4, 6, generator=torch.Generator().manual_seed(6))
    result, expected, student_vectors, other = both(
        ours, getattr(peers, theirs[0])(**theirs[1]), targets
    )
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(student_vectors, other)


def test_info_nce_of_the_teachers_first() -> None:
    targets = torch.randn(4, 6, generator=torch.Generator().manual_seed(6))
    ours = InfoNCE(tau=1, negatives="list", positive_by="teacher")
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(5))
    expected = peers.InfoNCE().compute_loss(
        SimpleNamespace(scores=scores, representations=None), SimpleNamespace(targets=targets)
    )
    torch.testing.assert_close(ours(ScoreBatch(student=scores, teacher=targets)), expected)


def test_approximate_ndcg_of_grades() -> None:
    targets = torch.stack(
        [
            torch.randperm(6, generator=torch.Generator().manual_seed(seed)).float()
            for seed in range(4)
        ]
    )
    result, expected, student_vectors, other = both(
        ApproxNDCG(tau=1, by="label"), peers.ApproxNDCG(temperature=1), targets
    )
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(student_vectors, other)
