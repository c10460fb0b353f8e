"""Losses: functions of scores, as Python objects and as expressions.

Examples:
    >>> from irdistill.losses import KL, InfoNCE, parse_loss
    >>> parse_loss("KL(tau=0.05) + 0.1*InfoNCE") == KL(tau=0.05) + 0.1 * InfoNCE()
    True
"""

from __future__ import annotations

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.contrastive import InfoNCE
from irdistill.losses.cprd import CPRD
from irdistill.losses.dackl import DACKL
from irdistill.losses.embedding import EmbeddingCosine, EmbeddingMSE, MIAlpha
from irdistill.losses.expression import parse_loss
from irdistill.losses.listwise import KL, ListMLE, ListNet
from irdistill.losses.loss_base import (
    NEEDS,
    REGISTRY,
    TEACHER_NEEDS,
    Cut,
    ListDocuments,
    Loss,
    Sum,
    make_loss_parameters,
    register,
    signature,
)
from irdistill.losses.metric import ADRMSE, ApproxNDCG, LambdaLoss
from irdistill.losses.pairwise import Hinge, MarginMSE, Preference, RankNet
from irdistill.losses.parameter_checks import AtLeast, NonNegative, Positive
from irdistill.losses.pointwise import BCE, MSE
from irdistill.losses.pseudo_classes import LELP
from irdistill.losses.relational import Relational, SpreadOut
from irdistill.losses.representations import (
    BatchRepresentations,
    FittingSample,
    SpanVectors,
    TokenVectors,
)
from irdistill.losses.spans import SpanCosine, SpanRelation
from irdistill.losses.token_graph import TRG

__all__ = [
    "ADRMSE",
    "BCE",
    "CPRD",
    "DACKL",
    "KL",
    "LELP",
    "MSE",
    "NEEDS",
    "REGISTRY",
    "TEACHER_NEEDS",
    "TRG",
    "ApproxNDCG",
    "AtLeast",
    "BatchRepresentations",
    "Cut",
    "EmbeddingCosine",
    "EmbeddingMSE",
    "FittingSample",
    "Hinge",
    "InfoNCE",
    "LambdaLoss",
    "ListDocuments",
    "ListMLE",
    "ListNet",
    "Loss",
    "MIAlpha",
    "MarginMSE",
    "NonNegative",
    "Positive",
    "Preference",
    "RankNet",
    "Relational",
    "ScoreBatch",
    "SpanCosine",
    "SpanRelation",
    "SpanVectors",
    "SpreadOut",
    "Sum",
    "TokenVectors",
    "make_loss_parameters",
    "parse_loss",
    "register",
    "signature",
]
