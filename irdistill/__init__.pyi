"""The Python surface of irdistill, for type checkers."""

from irdistill.bundles.bundle_manifest import (
    Bundle as Bundle,
)
from irdistill.bundles.bundle_searcher import (
    Searcher as Searcher,
)
from irdistill.bundles.bundle_searcher import (
    SearchHit as SearchHit,
)
from irdistill.bundles.package_options import (
    PackageOptions as PackageOptions,
)
from irdistill.collections import (
    Collection as Collection,
)
from irdistill.collections import (
    Qrels as Qrels,
)
from irdistill.collections import (
    Query as Query,
)
from irdistill.collections import (
    Turn as Turn,
)
from irdistill.collections import (
    as_qrels as as_qrels,
)
from irdistill.collections import (
    load_collection as load_collection,
)
from irdistill.collections.collecting.collect_options import (
    CollectOptions as CollectOptions,
)
from irdistill.collections.document_splitting import (
    PassageOptions as PassageOptions,
)
from irdistill.collections.document_splitting import (
    split_into_passages as split_into_passages,
)
from irdistill.collections.judging import (
    CombinedJudgments as CombinedJudgments,
)
from irdistill.collections.judging import (
    Judgment as Judgment,
)
from irdistill.collections.judging import (
    JudgmentLog as JudgmentLog,
)
from irdistill.collections.judging import (
    combine_judges as combine_judges,
)
from irdistill.collections.judging import (
    read_judges as read_judges,
)
from irdistill.errors import (
    BudgetError as BudgetError,
)
from irdistill.errors import (
    DamagedError as DamagedError,
)
from irdistill.errors import (
    InputError as InputError,
)
from irdistill.errors import (
    IrdistillError as IrdistillError,
)
from irdistill.errors import (
    LabelLeakError as LabelLeakError,
)
from irdistill.errors import (
    LockedError as LockedError,
)
from irdistill.errors import (
    MissingExtraError as MissingExtraError,
)
from irdistill.errors import (
    ModelError as ModelError,
)
from irdistill.errors import (
    NotFoundError as NotFoundError,
)
from irdistill.errors import (
    NothingScoredError as NothingScoredError,
)
from irdistill.errors import (
    OptionError as OptionError,
)
from irdistill.errors import (
    OutputExistsError as OutputExistsError,
)
from irdistill.errors import (
    ServerError as ServerError,
)
from irdistill.errors import (
    SettingsDifferError as SettingsDifferError,
)
from irdistill.errors import (
    WrongCollectionError as WrongCollectionError,
)
from irdistill.evaluation.auditing.audit_results import (
    Audit as Audit,
)
from irdistill.evaluation.explaining import (
    DocumentExplainer as DocumentExplainer,
)
from irdistill.evaluation.explaining import (
    Explanation as Explanation,
)
from irdistill.evaluation.figures import (
    Evaluation as Evaluation,
)
from irdistill.evaluation.judging import (
    JudgeComparison as JudgeComparison,
)
from irdistill.evaluation.judging import (
    JudgingQueue as JudgingQueue,
)
from irdistill.evaluation.judging import (
    QueuedPair as QueuedPair,
)
from irdistill.evaluation.judging import (
    QueueOptions as QueueOptions,
)
from irdistill.losses import (
    ADRMSE as ADRMSE,
)
from irdistill.losses import (
    BCE as BCE,
)
from irdistill.losses import (
    CPRD as CPRD,
)
from irdistill.losses import (
    DACKL as DACKL,
)
from irdistill.losses import (
    KL as KL,
)
from irdistill.losses import (
    LELP as LELP,
)
from irdistill.losses import (
    MSE as MSE,
)
from irdistill.losses import (
    TRG as TRG,
)
from irdistill.losses import (
    ApproxNDCG as ApproxNDCG,
)
from irdistill.losses import (
    EmbeddingCosine as EmbeddingCosine,
)
from irdistill.losses import (
    EmbeddingMSE as EmbeddingMSE,
)
from irdistill.losses import (
    Hinge as Hinge,
)
from irdistill.losses import (
    InfoNCE as InfoNCE,
)
from irdistill.losses import (
    LambdaLoss as LambdaLoss,
)
from irdistill.losses import (
    ListMLE as ListMLE,
)
from irdistill.losses import (
    ListNet as ListNet,
)
from irdistill.losses import (
    Loss as Loss,
)
from irdistill.losses import (
    MarginMSE as MarginMSE,
)
from irdistill.losses import (
    MIAlpha as MIAlpha,
)
from irdistill.losses import (
    Preference as Preference,
)
from irdistill.losses import (
    RankNet as RankNet,
)
from irdistill.losses import (
    Relational as Relational,
)
from irdistill.losses import (
    ScoreBatch as ScoreBatch,
)
from irdistill.losses import (
    SpanCosine as SpanCosine,
)
from irdistill.losses import (
    SpanRelation as SpanRelation,
)
from irdistill.losses import (
    SpreadOut as SpreadOut,
)
from irdistill.losses import (
    parse_loss as parse_loss,
)
from irdistill.losses import (
    register as register,
)
from irdistill.recipes.recipe_verbs import (
    run_recipe as run_recipe,
)
from irdistill.recipes.recipe_verbs import (
    specialise as specialise,
)
from irdistill.runs import (
    Run as Run,
)
from irdistill.runs import (
    as_run as as_run,
)
from irdistill.runs import (
    open_run as open_run,
)
from irdistill.students import (
    CrossEncoderStudent as CrossEncoderStudent,
)
from irdistill.students import (
    DenseStudent as DenseStudent,
)
from irdistill.students import (
    KernelStudent as KernelStudent,
)
from irdistill.students import (
    LateInteractionStudent as LateInteractionStudent,
)
from irdistill.students import (
    SparseStudent as SparseStudent,
)
from irdistill.students import (
    SplitCrossEncoderStudent as SplitCrossEncoderStudent,
)
from irdistill.students import (
    load_student as load_student,
)
from irdistill.students.keep_report import (
    KeepReport as KeepReport,
)
from irdistill.students.student_options import (
    StudentOptions as StudentOptions,
)
from irdistill.teachers.function_teacher import (
    teacher as teacher,
)
from irdistill.teachers.score_options import (
    ScoreOptions as ScoreOptions,
)
from irdistill.training.align_options import AlignOptions as AlignOptions
from irdistill.training.compress_options import CompressOptions as CompressOptions
from irdistill.training.options import (
    TrainOptions as TrainOptions,
)
from irdistill.training.pretraining_options import PretrainOptions as PretrainOptions
from irdistill.verbs.alignment_verbs import (
    align as align,
)
from irdistill.verbs.collection_verbs import (
    collect as collect,
)
from irdistill.verbs.comparison_verbs import (
    choose as choose,
)
from irdistill.verbs.comparison_verbs import (
    compare as compare,
)
from irdistill.verbs.comparison_verbs import (
    measure_diversity as measure_diversity,
)
from irdistill.verbs.comparison_verbs import (
    rank_students as rank_students,
)
from irdistill.verbs.evaluation_verbs import (
    audit as audit,
)
from irdistill.verbs.evaluation_verbs import (
    benchmark as benchmark,
)
from irdistill.verbs.evaluation_verbs import (
    evaluate as evaluate,
)
from irdistill.verbs.evaluation_verbs import (
    measure as measure,
)
from irdistill.verbs.evaluation_verbs import (
    report as report,
)
from irdistill.verbs.judgment_verbs import (
    export_judgments as export_judgments,
)
from irdistill.verbs.judgment_verbs import (
    judgment_agreement as judgment_agreement,
)
from irdistill.verbs.merge_verbs import (
    merge as merge,
)
from irdistill.verbs.package_verbs import (
    package as package,
)
from irdistill.verbs.query_verbs import (
    critic_curve as critic_curve,
)
from irdistill.verbs.query_verbs import (
    filter as filter,
)
from irdistill.verbs.query_verbs import (
    generate as generate,
)
from irdistill.verbs.query_verbs import (
    rewrite as rewrite,
)
from irdistill.verbs.query_verbs import (
    split as split,
)
from irdistill.verbs.run_verbs import (
    diff_runs as diff_runs,
)
from irdistill.verbs.run_verbs import (
    export_run as export_run,
)
from irdistill.verbs.run_verbs import (
    fuse as fuse,
)
from irdistill.verbs.run_verbs import (
    import_run as import_run,
)
from irdistill.verbs.run_verbs import (
    mask as mask,
)
from irdistill.verbs.run_verbs import (
    merge_runs as merge_runs,
)
from irdistill.verbs.run_verbs import (
    run_stats as run_stats,
)
from irdistill.verbs.run_verbs import (
    verify_runs as verify_runs,
)
from irdistill.verbs.scoring_verbs import (
    estimate as estimate,
)
from irdistill.verbs.scoring_verbs import (
    score as score,
)
from irdistill.verbs.search_verbs import (
    explain as explain,
)
from irdistill.verbs.search_verbs import (
    retrieve as retrieve,
)
from irdistill.verbs.search_verbs import (
    search_text as search_text,
)
from irdistill.verbs.tokenizer_verbs import (
    retokenize as retokenize,
)
from irdistill.verbs.training_verbs import (
    compress as compress,
)
from irdistill.verbs.training_verbs import (
    export as export,
)
from irdistill.verbs.training_verbs import (
    fit_static as fit_static,
)
from irdistill.verbs.training_verbs import (
    fit_terms as fit_terms,
)
from irdistill.verbs.training_verbs import (
    pretrain as pretrain,
)
from irdistill.verbs.training_verbs import (
    train as train,
)
from irdistill.view.view_options import (
    ViewOptions as ViewOptions,
)
from irdistill.view.view_verbs import (
    view_results as view_results,
)

__version__: str
__all__: list[str]
