"""Losses: pure functions of scores, and the language they are written in."""

from __future__ import annotations

from irdistill.losses.base import NEEDS, REGISTRY, Cut, Loss, Sum, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.contrastive import InfoNCE
from irdistill.losses.expression import parse_loss, signature
from irdistill.losses.listwise import KL
from irdistill.losses.pairwise import MarginMSE
from irdistill.losses.pointwise import MSE

__all__ = [
    "KL", "MSE", "NEEDS", "REGISTRY", "Cut", "InfoNCE", "Loss", "MarginMSE", "ScoreBatch", "Sum",
    "parse_loss", "register", "signature",
]
