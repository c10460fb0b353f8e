"""Verbs on judgments of people: ``irdistill judgments ...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from irdistill.verbs.argument_types import CollectionLike, FilesLike, PolicyOption
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_collection

if TYPE_CHECKING:
    from irdistill.collections.judging.judged_qrels import ExportedQrels
    from irdistill.evaluation.judging import JudgeComparison

JudgmentsArgument = Annotated[
    FilesLike, Field(description="Folder of irdistill view --judgments, or files of judges in it.")
]
RelevantFromOption = Annotated[
    int, Field(ge=1, description="Lowest grade of a relevant document, where judges are compared.")
]


@verb(
    "judgments export",
    positional=("judgments",),
    examples=(
        "irdistill judgments export judgments --out judged.qrels",
        "# Two judges, with the judgments of the collection, as a table:",
        "irdistill judgments export judgments --policy majority --collection pydocs/train --out"
        " judged.tsv",
    ),
)
def export_judgments(
    judgments: JudgmentsArgument,
    out: Annotated[
        Path, Field(description="The new file. OUT.judges beside it holds who judged, and when.")
    ],
    *,
    policy: PolicyOption = None,
    format: Annotated[
        Literal["trec", "beir"] | None,
        Field(description="Layout (default: beir for a name that ends in .tsv, else trec)."),
    ] = None,
    collection: Annotated[
        CollectionLike | None,
        Field(
            description="Write the judgments of this collection too; what people judged replaces"
            " them."
        ),
    ] = None,
    relevant_from: RelevantFromOption = 1,
) -> ExportedQrels:
    """Write what people judged as a new file of qrels.

    An existing file is never replaced. Skipped pairs are left out.
    """
    from irdistill.collections.judging import combine_judges, export_qrels, read_judges

    combined = combine_judges(read_judges(judgments), policy, relevant_from)
    known = open_collection(collection) if collection is not None else None
    return export_qrels(combined, out, format, known)


@verb(
    "judgments agreement",
    positional=("judgments",),
    examples=("irdistill judgments agreement judgments",),
)
def judgment_agreement(
    judgments: JudgmentsArgument,
    *,
    relevant_from: RelevantFromOption = 1,
) -> JudgeComparison:
    """How far people agree who judged the same pairs, with Cohen's kappa."""
    from irdistill.collections.judging import read_judges
    from irdistill.evaluation.judging import compare_judges

    return compare_judges(read_judges(judgments), relevant_from)
