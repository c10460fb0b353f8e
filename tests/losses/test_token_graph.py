"""The token relation graph: hand values, and identities under rotation and padding."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from irdistill.errors import IrdistillError
from irdistill.losses import (
    TRG,
    TokenVectors,
)
from tests.losses.representation_batches import NAN, graph, normal, tokens


def test_trg_by_hand() -> None:
    """Two texts of two and three tokens; every row is worked out with plain loops."""
    student_vectors, theirs = normal(2, 3, 4), normal(2, 3, 6, seed=1)
    lengths = (2, 3)
    places = [(text, place) for text in range(2) for place in range(lengths[text])]

    def row(x: torch.Tensor, i: tuple[int, int], others: list[tuple[int, int]]) -> torch.Tensor:
        unit = F.normalize(x, dim=-1)
        return torch.stack([unit[i] @ unit[j] / 0.1 for j in others]).softmax(0)

    def divergence(i: tuple[int, int], others: list[tuple[int, int]]) -> float:
        t, s = row(theirs, i, others), row(student_vectors, i, others)
        return float((t * (t / s).log()).sum())

    across = [divergence(i, [j for j in places if j[0] != i[0]]) for i in places]
    inside = [
        divergence(i, [j for j in places if j[0] == i[0] and j != i])
        for i in places
        if lengths[i[0]] > 2
    ]
    sample_batch = graph(tokens(student_vectors, *lengths), tokens(theirs, *lengths))
    assert TRG(within=0)(sample_batch).item() == pytest.approx(sum(across) / 5, abs=1e-9)
    assert TRG(cross=0)(sample_batch).item() == pytest.approx(sum(inside) / 3, abs=1e-9)
    assert TRG(cross=0.5, within=2)(sample_batch).item() == pytest.approx(
        0.5 * sum(across) / 5 + 2 * sum(inside) / 3, abs=1e-9
    )
    unit = F.normalize(theirs, dim=-1)
    near = []
    for i in places:
        others = sorted(
            (j for j in places if j[0] != i[0]), key=lambda j: -float(unit[i] @ unit[j])
        )[:2]
        near.append(divergence(i, others))
    assert TRG(within=0, neighbors=2)(sample_batch).item() == pytest.approx(sum(near) / 5, abs=1e-9)


def test_trg_of_equal_graphs_is_nothing_whatever_the_padding() -> None:
    theirs = normal(3, 5, 4)
    turned = (
        theirs @ torch.linalg.qr(normal(4, 4, seed=3)).Q * 3.0
    )  # rotated and longer: the same similarities
    wide = torch.cat([turned, turned.new_full((3, 2, 4), NAN)], dim=1)
    student_vectors = TokenVectors(
        wide, torch.cat([tokens(turned, 5, 2, 1).mask, torch.zeros(3, 2).bool()], dim=1)
    )
    assert TRG()(graph(student_vectors, tokens(theirs, 5, 2, 1))).item() == pytest.approx(
        0.0, abs=1e-12
    )
    assert TRG()(graph(student_vectors, tokens(theirs, 5, 2, 0))).item() == pytest.approx(
        0.0, abs=1e-12
    )  # a text without teacher vectors
    with pytest.raises(IrdistillError, match="2 token vectors of the student and 4 of the teacher"):
        TRG()(graph(student_vectors, tokens(theirs, 5, 4, 1)))
    assert TRG()(graph(tokens(theirs, 1, 0, 0), tokens(theirs, 1, 0, 0))).item() == 0.0


def test_trg_takes_no_more_tokens_than_asked() -> None:
    student_vectors, theirs = normal(4, 9, 3), normal(4, 9, 3, seed=1)
    sample_batch = graph(tokens(student_vectors, 9, 9, 9, 9), tokens(theirs, 9, 9, 9, 9))
    chosen = [round(i * 35 / 5) for i in range(6)]
    few = [vectors.reshape(36, 1, 3)[chosen] for vectors in (student_vectors, theirs)]
    # one token a text would forbid nothing more than the diagonal, so give each its own text again
    texts = [place // 9 for place in chosen]
    assert len(set(texts)) == 4
    similarities = [
        (F.normalize(v[:, 0], dim=1) @ F.normalize(v[:, 0], dim=1).T / 0.1) for v in few
    ]
    total = 0.0
    for i in range(6):
        others = [j for j in range(6) if texts[j] != texts[i]]
        s, t = (x[i, others].softmax(0) for x in similarities)
        total += float((t * (t / s).log()).sum()) / 6
    assert TRG(within=0, tokens=6)(sample_batch).item() == pytest.approx(total, abs=1e-9)
