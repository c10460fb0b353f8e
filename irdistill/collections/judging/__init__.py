"""Judgments by people: a file for each judge, and the qrels that several judges make together."""

from __future__ import annotations

from irdistill.collections.judging.judge_files import JudgeRecords, read_judges
from irdistill.collections.judging.judge_log import Judgment, JudgmentLog
from irdistill.collections.judging.judge_policies import (
    POLICIES,
    CombinedJudgments,
    combine_judges,
)
from irdistill.collections.judging.judged_qrels import export_qrels

__all__ = [
    "POLICIES",
    "CombinedJudgments",
    "JudgeRecords",
    "Judgment",
    "JudgmentLog",
    "combine_judges",
    "export_qrels",
    "read_judges",
]
