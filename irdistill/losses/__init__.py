"""Losses: pure functions of scores, and the language they are written in."""

from __future__ import annotations

from irdistill.losses.base import NEEDS, REGISTRY, Cut, Loss, Sum, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.contrastive import InfoNCE
from irdistill.losses.cprd import CPRD
from irdistill.losses.expression import parse_loss, signature
from irdistill.losses.listwise import KL, ListMLE, ListNet
from irdistill.losses.metric import ADRMSE, ApproxNDCG, LambdaLoss
from irdistill.losses.pairwise import Hinge, MarginMSE, Preference, RankNet
from irdistill.losses.pointwise import BCE, MSE

__all__ = [
    "ADRMSE", "BCE", "CPRD", "KL", "MSE", "NEEDS", "REGISTRY", "ApproxNDCG", "Cut", "Hinge", "InfoNCE", "LambdaLoss", "ListMLE",
    "ListNet", "Loss", "MarginMSE", "Preference", "RankNet", "ScoreBatch", "Sum", "parse_loss", "register", "signature",
]
