"""Losses between vectors of texts: hand values, identities, bounds, and peers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given as draws
from hypothesis import settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import MSELoss
from torch import nn
from torch.nn import functional as F

from irdistill.errors import IrdistillError
from irdistill.losses import (
    BatchRepresentations,
    EmbeddingCosine,
    EmbeddingMSE,
    Loss,
    MIAlpha,
    Relational,
    ScoreBatch,
    SpreadOut,
    make_loss_parameters,
)
from tests.losses.representation_batches import NAN, batch, normal, sides


def test_embedding_mse_by_hand_and_beside_sentence_transformers() -> None:
    student_vectors, theirs = (
        torch.tensor([[3.0, 4.0], [1.0, 0.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 2.0]]),
    )
    loss = EmbeddingMSE(side="document")
    assert loss(sides(student_vectors, theirs)).item() == pytest.approx(
        ((2 - 2 * 0.6) + 2) / 2
    )  # |x - y|^2 = 2 - 2 cos
    raw = EmbeddingMSE(side="document", normalize=False)
    assert raw(sides(student_vectors, theirs)).item() == pytest.approx(((4 + 16) + (1 + 4)) / 2)
    peer = MSELoss.__new__(MSELoss)
    nn.Module.__init__(peer)
    peer.loss_fct = nn.MSELoss()
    expected = peer.loss_fct(student_vectors, theirs).item() * student_vectors.shape[1]
    assert raw(sides(student_vectors, theirs)).item() == pytest.approx(expected)
    assert EmbeddingMSE(side="document")(sides(theirs * 7, theirs)).item() == pytest.approx(
        0.0, abs=1e-12
    )


def test_embedding_cosine_is_half_of_embedding_mse() -> None:
    sample_batch = sides(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0, 0], [0, 2]]))
    value = EmbeddingCosine(side="document")(sample_batch).item()
    assert value == pytest.approx((0.4 + 1.0) / 2)
    assert 2 * value == pytest.approx(EmbeddingMSE(side="document")(sample_batch).item())


def test_spread_out_by_hand() -> None:
    """Cosines of the three pairs: 0.6, 0 and 0.8; of vectors of the student alone."""
    vectors = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]]).double().requires_grad_()
    sample_batch = ScoreBatch(
        torch.zeros(3, 2), student_representations=BatchRepresentations(queries=vectors)
    )
    loss = SpreadOut()
    assert loss.needs == frozenset() and loss.representations == {"queries"}
    assert loss(sample_batch).item() == pytest.approx((0.36 + 0.64) / 3)
    loss(sample_batch).backward()
    # d/dx of (0.36 + 0.64) / 3 at (1, 0): 2 * 0.6 * 0.8 / 3 across it, none along it
    assert vectors.grad is not None
    assert vectors.grad[0].tolist() == pytest.approx([0.0, 2 * 0.6 * 0.8 / 3])
    one = ScoreBatch(
        torch.zeros(1, 2), student_representations=BatchRepresentations(queries=normal(1, 3))
    )
    assert loss(one).item() == 0.0
    with pytest.raises(ValueError, match="needs the documents"):
        SpreadOut(side="document")(sample_batch)


def test_embedding_mse_of_other_dimensions_learns_a_projection() -> None:
    student_vectors = normal(9, 3)
    theirs = student_vectors @ normal(3, 5, seed=2)
    loss, sample_batch = (
        EmbeddingMSE(side="document", normalize=False),
        sides(student_vectors, theirs),
    )
    parameters = make_loss_parameters(loss, sample_batch)
    assert parameters[str(loss)].weight.shape == (5, 3)  # type: ignore[union-attr]
    assert make_loss_parameters(loss, sides(student_vectors, student_vectors)) == {}
    optimiser = torch.optim.Adam(parameters[str(loss)].parameters(), lr=0.05)
    for _ in range(400):
        value = loss(sides(student_vectors, theirs, parameters=parameters))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert value.item() < 1e-4


@pytest.mark.parametrize(
    "loss",
    [
        EmbeddingMSE(side="document"),
        MIAlpha(dimension=None),
        MIAlpha(dimension=3, baseline="learned"),
        Relational(side="document", tau=0.5),
    ],
)
def test_texts_without_a_vector_are_left_out(loss: Loss) -> None:
    student_vectors, theirs = normal(5, 4), normal(5, 4, seed=1)
    theirs[2] = NAN
    sample_batch = sides(student_vectors, theirs)
    parameters = make_loss_parameters(loss, sample_batch)
    rest = [0, 1, 3, 4]
    expected = loss(sides(student_vectors[rest], theirs[rest], parameters=parameters)).item()
    assert loss(sides(student_vectors, theirs, parameters=parameters)).item() == pytest.approx(
        expected
    )
    nothing = sides(
        student_vectors.requires_grad_(), torch.full((5, 4), NAN).double(), parameters=parameters
    )
    assert loss(nothing).item() == 0.0


def test_pairs_leave_out_padding_and_queries_have_their_own_side() -> None:
    student_vectors, theirs = normal(2, 3, 4), normal(2, 3, 4, seed=1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    theirs[0, 1] = NAN
    sample_batch = batch(
        BatchRepresentations(pairs=student_vectors),
        BatchRepresentations(pairs=theirs),
        2,
        3,
        mask=mask,
    )
    chosen = [(0, 0), (0, 2), (1, 0)]
    expected = (
        sum(
            (F.normalize(student_vectors[i, j], dim=0) - F.normalize(theirs[i, j], dim=0))
            .square()
            .sum()
            for i, j in chosen
        )
        / 3
    )
    assert EmbeddingMSE(side="pair")(sample_batch).item() == pytest.approx(float(expected))
    one = batch(
        BatchRepresentations(queries=student_vectors[0]),
        BatchRepresentations(queries=student_vectors[0]),
    )
    assert EmbeddingMSE()(one).item() == 0.0
    with pytest.raises(ValueError, match="needs the documents"):
        EmbeddingMSE(side="document")(one)
    # a cut list takes its states along: the second list's pairs of the teacher's first two scores
    teacher = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]]).double()
    cut = batch(
        BatchRepresentations(pairs=student_vectors),
        BatchRepresentations(pairs=normal(2, 3, 4, seed=1)),
        2,
        3,
        teacher=teacher,
    ).top(1)
    assert cut.student_representations is not None and cut.student_representations.pairs is not None
    assert torch.equal(
        cut.student_representations.pairs[:, 0],
        torch.stack([student_vectors[0, 1], student_vectors[1, 2]]),
    )


def test_relational_by_hand() -> None:
    student_vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]).double()
    theirs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 4.0]]).double()
    # the teacher's texts are orthogonal: every row is (1/2, 1/2); the student's cosines are 0 and
    # 1/sqrt(2), so its first two rows are (1 - p, p), and its third is (1/2, 1/2)
    p = 1 / (1 + math.exp(-math.sqrt(0.5) / 0.5))
    row = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    loss = Relational(side="document", tau=0.5)
    assert loss(sides(student_vectors, theirs)).item() == pytest.approx(2 * row / 3)
    turned = student_vectors @ torch.linalg.qr(normal(2, 2)).Q * 5
    assert loss(sides(turned, student_vectors)).item() == pytest.approx(0.0, abs=1e-12)
    assert loss(sides(student_vectors[:2], theirs[:2])).item() == 0.0


def test_relational_does_not_depend_on_the_order_of_texts() -> None:
    student_vectors, theirs, order = normal(7, 4), normal(7, 6, seed=1), [3, 1, 6, 0, 2, 5, 4]
    loss = Relational(side="document")
    value = loss(sides(student_vectors, theirs)).item()
    assert value > 0
    assert loss(sides(student_vectors[order], theirs[order])).item() == pytest.approx(value)


@settings(max_examples=40, deadline=None)
@draws(st.integers(0, 10**6), st.integers(2, 9), st.floats(0.05, 1.0), st.floats(0.02, 2.0))
def test_mi_alpha_stays_below_its_bound(seed: int, count: int, alpha: float, tau: float) -> None:
    loss = MIAlpha(alpha=alpha, tau=tau, dimension=None)
    student_vectors = normal(count, 4, seed=seed)
    for theirs in (student_vectors, normal(count, 4, seed=seed + 1)):
        assert -loss(sides(student_vectors, theirs)).item() <= math.log(count / alpha) + 1e-9


def test_mi_alpha_is_info_nce_at_one_and_by_hand_below() -> None:
    student_vectors, theirs = normal(6, 5), normal(6, 5, seed=4)
    critic = F.normalize(student_vectors, dim=1) @ F.normalize(theirs, dim=1).T / 0.2
    expected = F.cross_entropy(critic.T, torch.arange(6)).item() - math.log(6)  # each y among all x
    assert MIAlpha(alpha=1, tau=0.2, dimension=None)(
        sides(student_vectors, theirs)
    ).item() == pytest.approx(expected, abs=1e-12)
    value, m = 0.0, critic.exp().mean(dim=0)
    z = 0.3 * m + 0.7
    value = 1 + sum(float(critic[j, j] - z[j].log()) for j in range(6)) / 6
    value -= sum(float(critic[i, j].exp() / z[j]) for i in range(6) for j in range(6)) / 36
    assert MIAlpha(alpha=0.3, tau=0.2, dimension=None)(
        sides(student_vectors, theirs)
    ).item() == pytest.approx(-value, abs=1e-12)
    parameters = nn.ModuleDict({"baseline": nn.Linear(5, 1)}).double()
    loss = MIAlpha(alpha=0.3, tau=0.2, dimension=None, baseline="learned")
    z = 0.3 * m + 0.7 * parameters["baseline"](theirs)[:, 0].exp()
    value = 1 + float(((critic.diagonal() - z.log()).mean() - (critic.exp() / z).mean()).detach())
    assert loss(
        sides(student_vectors, theirs, parameters={str(loss): parameters})
    ).item() == pytest.approx(-value, abs=1e-9)


def test_mi_alpha_with_heads_compares_vectors_of_other_dimensions() -> None:
    student_vectors = normal(16, 3)
    theirs = torch.cat([student_vectors @ normal(3, 3, seed=5), normal(16, 4, seed=6)], dim=1)
    loss = MIAlpha(dimension=8)
    parameters = make_loss_parameters(loss, sides(student_vectors, theirs))
    optimiser = torch.optim.Adam(parameters[str(loss)].parameters(), lr=0.02)
    seen = []
    for _ in range(120):
        value = loss(sides(student_vectors, theirs, parameters=parameters))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        seen.append(value.item())
    assert seen[-1] < seen[0] - 1 and -seen[-1] <= math.log(16 / 0.9)
    with pytest.raises(IrdistillError, match="3 dimensions and the teacher's 7; set dimension=128"):
        make_loss_parameters(MIAlpha(dimension=None), sides(student_vectors, theirs))
    assert loss(sides(student_vectors[:1], theirs[:1], parameters=parameters)).item() == 0.0
