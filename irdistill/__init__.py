"""irdistill: distill a strong, slow reranker into a small, fast retriever, and measure the result.

The names below are the Python surface: verbs, collections, runs, losses, students and exceptions.
They are imported when they are first used. ``__init__.pyi`` lists them for type checkers.

Examples:
    >>> import irdistill as ird
    >>> print(ird.KL(tau=0.05) + 0.1 * ird.InfoNCE())
    KL(tau=0.05) + 0.1*InfoNCE
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.errors import IrdistillError

__version__ = "0.1.0"

_SURFACE = {
    "irdistill.errors": """
        BudgetError DamagedError InputError LabelLeakError LockedError MissingExtraError ModelError
        NotFoundError NothingScoredError OptionError OutputExistsError ServerError
        SettingsDifferError WrongCollectionError
    """,
    "irdistill.collections": "Collection Qrels Query Turn as_qrels load_collection",
    "irdistill.collections.collecting.collect_options": "CollectOptions",
    "irdistill.collections.judging": """
        CombinedJudgments Judgment JudgmentLog combine_judges read_judges
    """,
    "irdistill.collections.document_splitting": "PassageOptions split_into_passages",
    "irdistill.runs": "Run as_run open_run",
    "irdistill.losses": """
        ADRMSE ApproxNDCG BCE CPRD DACKL EmbeddingCosine EmbeddingMSE Hinge InfoNCE KL LELP
        LambdaLoss ListMLE ListNet Loss MIAlpha MSE MarginMSE Preference RankNet Relational
        ScoreBatch SpanCosine SpanRelation SpreadOut TRG parse_loss register
    """,
    "irdistill.students": """
        CrossEncoderStudent DenseStudent KernelStudent LateInteractionStudent SparseStudent
        SplitCrossEncoderStudent load_student
    """,
    "irdistill.students.keep_report": "KeepReport",
    "irdistill.students.student_options": "StudentOptions",
    "irdistill.teachers.score_options": "ScoreOptions",
    "irdistill.training.options": "TrainOptions",
    "irdistill.training.pretraining_options": "PretrainOptions",
    "irdistill.verbs.collection_verbs": "collect",
    "irdistill.verbs.search_verbs": "explain retrieve search_text",
    "irdistill.verbs.package_verbs": "package",
    "irdistill.bundles.bundle_manifest": "Bundle",
    "irdistill.bundles.bundle_searcher": "SearchHit Searcher",
    "irdistill.evaluation.explaining": "DocumentExplainer Explanation",
    "irdistill.bundles.package_options": "PackageOptions",
    "irdistill.verbs.scoring_verbs": "estimate score",
    "irdistill.verbs.run_verbs": """
        diff_runs export_run fuse import_run mask merge_runs run_stats verify_runs
    """,
    "irdistill.training.align_options": "AlignOptions",
    "irdistill.training.compress_options": "CompressOptions",
    "irdistill.verbs.alignment_verbs": "align",
    "irdistill.verbs.training_verbs": "compress export fit_static fit_terms pretrain train",
    "irdistill.verbs.merge_verbs": "merge",
    "irdistill.verbs.tokenizer_verbs": "retokenize",
    "irdistill.verbs.evaluation_verbs": "audit benchmark evaluate measure report",
    "irdistill.verbs.comparison_verbs": "choose compare measure_diversity rank_students",
    "irdistill.verbs.query_verbs": "critic_curve filter generate rewrite split",
    "irdistill.recipes.recipe_verbs": "run_recipe specialise",
    "irdistill.verbs.judgment_verbs": "export_judgments judgment_agreement",
    "irdistill.view.view_verbs": "view_results",
    "irdistill.view.view_options": "ViewOptions",
    "irdistill.evaluation.auditing.audit_results": "Audit",
    "irdistill.evaluation.judging": "JudgeComparison JudgingQueue QueueOptions QueuedPair",
    "irdistill.evaluation.figures": "Evaluation",
    "irdistill.teachers.function_teacher": "teacher",
}
_MODULES = {name: module for module, names in _SURFACE.items() for name in names.split()}

__all__ = ["IrdistillError", "__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'irdistill' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
