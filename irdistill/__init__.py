"""irdistill: distill a strong, slow reranker into a small, fast retriever, and measure the result.

The names below are the Python surface: verbs, collections, runs, losses, students and exceptions.
They are imported when they are first used. ``__init__.pyi`` lists them for type checkers.

>>> import irdistill as ird
>>> print(ird.KL(tau=0.05) + 0.1 * ird.InfoNCE())
KL(tau=0.05) + 0.1*InfoNCE
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

<<<<<<< HEAD
from irdistill.errors import IrdistillError

__version__ = "0.1.0"

_SURFACE = {
    "irdistill.errors": """
        BudgetError DamagedError InputError LockedError MissingExtraError ModelError
        NotFoundError OptionError OutputExistsError ServerError SettingsDifferError
        WrongCollectionError
    """,
    "irdistill.collections": "Collection Qrels load_collection",
    "irdistill.runs": "Run as_run open_run",
    "irdistill.losses": """
        ADRMSE ApproxNDCG BCE CPRD DACKL EmbeddingMSE Hinge InfoNCE KL LELP LambdaLoss ListMLE
        ListNet Loss MIAlpha MSE MarginMSE Preference RankNet ScoreBatch TRG parse_loss register
    """,
    "irdistill.students": """
        CrossEncoderStudent DenseStudent KernelStudent LateInteractionStudent SparseStudent
        SplitCrossEncoderStudent load_student
    """,
    "irdistill.students.student_options": "StudentOptions",
    "irdistill.training.options": "PretrainOptions TrainOptions",
    "irdistill.verbs.search_verbs": "retrieve search_text",
    "irdistill.verbs.scoring_verbs": "estimate score",
    "irdistill.verbs.run_verbs": """
        diff_runs export_run fuse import_run mask merge_runs run_stats verify_runs
    """,
    "irdistill.verbs.training_verbs": "export fit_terms pretrain train",
    "irdistill.verbs.evaluation_verbs": """
        audit benchmark choose compare evaluate measure report
    """,
    "irdistill.verbs.query_verbs": "critic_curve filter generate rewrite split",
    "irdistill.recipes.recipe_verbs": "run_recipe specialise",
    "irdistill.teachers.function_teacher": "teacher",
=======
from irdistill.errors import (
    BudgetError,
    DamagedError,
    InputError,
    IrdistillError,
    LockedError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    OptionError,
    OutputExistsError,
    ServerError,
    SettingsDifferError,
    WrongCollectionError,
)

if TYPE_CHECKING:
    from irdistill.collections import (
        Collection,
        Qrels,
        load_collection,
    )
    from irdistill.losses import (
        ADRMSE,
        BCE,
        CPRD,
        DACKL,
        KL,
        LELP,
        MSE,
        TRG,
        ApproxNDCG,
        EmbeddingMSE,
        Hinge,
        InfoNCE,
        LambdaLoss,
        ListMLE,
        ListNet,
        Loss,
        MarginMSE,
        MIAlpha,
        Preference,
        RankNet,
        ScoreBatch,
        parse_loss,
    )
    from irdistill.recipes.recipe_verbs import (
        run_recipe,
        specialise,
    )
    from irdistill.runs import (
        Run,
        as_run,
        open_run,
    )
    from irdistill.students import (
        CrossEncoderStudent,
        DenseStudent,
        KernelStudent,
        LateInteractionStudent,
        SparseStudent,
        SplitCrossEncoderStudent,
        load_student,
    )
    from irdistill.students.student_options import (
        StudentOptions,
    )
    from irdistill.training.options import (
        TrainOptions,
    )
    from irdistill.training.pretraining_options import (
        PretrainOptions,
    )
    from irdistill.verbs.evaluation_verbs import (
        audit,
        benchmark,
        choose,
        compare,
        evaluate,
        measure,
        report,
    )
    from irdistill.verbs.query_verbs import (
        critic_curve,
        filter,
        generate,
        rewrite,
        split,
    )
    from irdistill.verbs.run_verbs import (
        diff_runs,
        export_run,
        fuse,
        import_run,
        mask,
        merge_runs,
        run_stats,
        verify_runs,
    )
    from irdistill.verbs.scoring_verbs import (
        estimate,
        score,
    )
    from irdistill.verbs.search_verbs import (
        retrieve,
        search_text,
    )
    from irdistill.verbs.training_verbs import (
        export,
        fit_terms,
        pretrain,
        train,
    )

__version__ = "0.1.0"

#: The modules of the names that are imported when they are used.
_MODULES = {
    **dict.fromkeys(
        (
            "Collection",
            "Qrels",
            "load_collection",
        ),
        "irdistill.collections",
    ),
    **dict.fromkeys(
        (
            "Run",
            "as_run",
            "open_run",
        ),
        "irdistill.runs",
    ),
    **dict.fromkeys(
        (
            "ADRMSE",
            "BCE",
            "CPRD",
            "DACKL",
            "KL",
            "LELP",
            "MSE",
            "TRG",
            "ApproxNDCG",
            "EmbeddingMSE",
            "Hinge",
            "InfoNCE",
            "LambdaLoss",
            "ListMLE",
            "ListNet",
            "Loss",
            "MIAlpha",
            "MarginMSE",
            "Preference",
            "RankNet",
            "ScoreBatch",
            "parse_loss",
        ),
        "irdistill.losses",
    ),
    **dict.fromkeys(
        (
            "CrossEncoderStudent",
            "DenseStudent",
            "KernelStudent",
            "LateInteractionStudent",
            "SparseStudent",
            "SplitCrossEncoderStudent",
            "load_student",
        ),
        "irdistill.students",
    ),
    **dict.fromkeys(("StudentOptions",), "irdistill.students.student_options"),
    **dict.fromkeys(("TrainOptions",), "irdistill.training.options"),
    **dict.fromkeys(("PretrainOptions",), "irdistill.training.pretraining_options"),
    **dict.fromkeys(
        (
            "retrieve",
            "search_text",
        ),
        "irdistill.verbs.search_verbs",
    ),
    **dict.fromkeys(
        (
            "estimate",
            "score",
        ),
        "irdistill.verbs.scoring_verbs",
    ),
    **dict.fromkeys(
        (
            "diff_runs",
            "export_run",
            "fuse",
            "import_run",
            "mask",
            "merge_runs",
            "run_stats",
            "verify_runs",
        ),
        "irdistill.verbs.run_verbs",
    ),
    **dict.fromkeys(
        (
            "export",
            "fit_terms",
            "pretrain",
            "train",
        ),
        "irdistill.verbs.training_verbs",
    ),
    **dict.fromkeys(
        (
            "audit",
            "benchmark",
            "choose",
            "compare",
            "evaluate",
            "measure",
            "report",
        ),
        "irdistill.verbs.evaluation_verbs",
    ),
    **dict.fromkeys(
        (
            "critic_curve",
            "filter",
            "generate",
            "rewrite",
            "split",
        ),
        "irdistill.verbs.query_verbs",
    ),
    **dict.fromkeys(
        (
            "run_recipe",
            "specialise",
        ),
        "irdistill.recipes.recipe_verbs",
    ),
>>>>>>> main
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
