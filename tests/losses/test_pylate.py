"""MaxSim and KL against PyLate's own distillation loss, from token vectors on, where that is
installed.

PyLate asks for sentence-transformers 5, so it stands in no environment of this package by itself:
``pip install --no-deps pylate``.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from sentence_transformers.util.similarity import maxsim
from torch import Tensor, nn

from irdistill.losses import KL, ScoreBatch

peers = pytest.importorskip("pylate.losses")

LENGTHS = (5, 3, 7, 4, 6, 2)


class Given(nn.Module):
    """Stands in for a model: the token vectors are given with the features."""

    skiplist: ClassVar[list[int]] = []
    do_query_expansion = False

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"token_embeddings": features["vectors"]}


def test_kl_of_maxsim_is_pylates_distillation() -> None:
    draw = torch.Generator().manual_seed(8)
    # positive, as theirs lets padding score 0: where a query token is unlike all of a document's,
    # the padding would be its best
    queries, documents = torch.rand(2, 4, 8, generator=draw), torch.rand(6, 7, 8, generator=draw)
    teacher = torch.randn(2, 3, generator=draw)
    mask = (torch.arange(7)[None] < torch.tensor(LENGTHS)[:, None]).long()
    result = []
    for peer in (False, True):
        query_vectors, stored = queries.clone().requires_grad_(), documents.clone().requires_grad_()
        if peer:
            sides = [
                {
                    "input_ids": torch.ones(2, 4).long(),
                    "attention_mask": torch.ones(2, 4).long(),
                    "vectors": query_vectors,
                },
                {"input_ids": torch.ones(6, 7).long(), "attention_mask": mask, "vectors": stored},
            ]
            loss = peers.Distillation(Given(), normalize_scores=False)(sides, teacher)
        else:
            unit = [nn.functional.normalize(vectors, dim=-1) for vectors in (query_vectors, stored)]
            every = maxsim(
                list(unit[0]),
                [vectors[:length] for vectors, length in zip(unit[1], LENGTHS, strict=True)],
            )
            loss = KL()(
                ScoreBatch(student=every.gather(1, torch.arange(6).reshape(2, 3)), teacher=teacher)
            )
        loss.backward()
        result.append((loss.detach(), query_vectors.grad, stored.grad))
    for ours, theirs in zip(*result, strict=True):
        torch.testing.assert_close(ours, theirs)
