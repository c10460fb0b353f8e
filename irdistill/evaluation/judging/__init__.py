"""Judging by people: the pairs to look at, and how far two judges agree."""

from __future__ import annotations

from irdistill.evaluation.judging.judge_agreement import (
    JudgeAgreement,
    JudgeComparison,
    compare_judges,
)
from irdistill.evaluation.judging.judging_queue import JudgingQueue, QueuedPair, QueueOptions

__all__ = [
    "JudgeAgreement",
    "JudgeComparison",
    "JudgingQueue",
    "QueueOptions",
    "QueuedPair",
    "compare_judges",
]
