"""``irdistill train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irdistill.cli.options import (
    MINILM,
    MultiValueCommand,
    examples,
    out_option,
    seed_option,
    settings,
)
from irdistill.cli.policies import policy_options
from irdistill.cli.runs import METHODS, numbers
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError
from irdistill.students import KINDS

_ON_MINILM = f"irdistill train pydocs/train --backbone {MINILM}"
EXAMPLES = examples(
    f'{_ON_MINILM} --scores out/fused --query-layers 2 --freeze-documents --loss "KL(tau=0.05)"'
    " --out out/student",
    "# MultiValueCommand teachers, mixed as lists are drawn:",
    f'{_ON_MINILM} --scores out/a out/b --mix zscore --teacher-weights 2,1 --loss "KL(tau=0.05)"'
    " --out out/mixed",
    "# Easy lists first, all of them after half of the steps:",
    f'{_ON_MINILM} --scores out/fused --curriculum gap --pacing-end 0.5 --loss "KL(tau=0.05)" --out'
    " out/curriculum",
    "# On vectors that score --representations kept:",
    f'{_ON_MINILM} --scores out/vectors --layers 2 --loss "KL(tau=0.05) + EmbeddingMSE" --out'
    " out/embedding",
)


@click.command(cls=MultiValueCommand, epilog=EXAMPLES)
@click.argument("collection")
@click.option(
    "--scores",
    multiple=True,
    required=True,
    help="Runs with teacher scores, one or several: --scores A B C.",
)
@click.option(
    "--student",
    "--kind",
    "student",
    type=click.Choice(KINDS),
    default="dense",
    show_default=True,
    help="The kind of the student; its backbone is read as one.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the backbone.")
@click.option(
    "--backbone", required=True, help="The student's model: folder, hub id or package: path."
)
@click.option("--layers", type=int, help="Keep this many layers of the backbone.")
@click.option("--query-layers", type=int, help="A query tower of its own with this many layers.")
@click.option(
    "--freeze-documents",
    is_flag=True,
    help="Train only the query tower; documents are encoded once and stored.",
)
@click.option(
    "--query-backbone",
    help="Another model as the query tower, a smaller one; documents are frozen.",
)
@click.option(
    "--dimension",
    type=int,
    help=(
        "The length of a token's vector: of a late-interaction student (128 if not given), of "
        "a kernel one with new embeddings, or as a split-cross-encoder one stores it."
    ),
)
@click.option(
    "--token-pooling",
    type=float,
    help="Of a late-interaction student: keep about one in so many document tokens.",
)
@click.option(
    "--student-option",
    "student_options",
    multiple=True,
    metavar="KEY=VALUE",
    help=(
        'Other settings, as in a recipe: --student-option pooling=cls query_prompt="query: "'
        " lora_rank=16."
    ),
)
@click.option(
    "--inference-free",
    is_flag=True,
    help="Of a sparse student: learnt word weights in place of a query tower.",
)
@click.option(
    "--split-layer",
    type=int,
    help="Of a split-cross-encoder student: layers in which query and document are apart.",
)
@click.option(
    "--max-length",
    type=int,
    help="Tokens to which a text, or a document where queries have a length, is cut.",
)
@click.option("--max-query-length", type=int, help="Tokens to which a query is cut.")
@click.option(
    "--loss", required=True, help='As "MarginMSE" or "KL(tau=0.05) + 0.1*InfoNCE(tau=0.05)".'
)
@out_option("The folder; the model goes to OUT/model.")
@click.option(
    "--representations",
    help="The run that keeps the teacher's vectors, for losses between them; else one of --scores.",
)
@click.option("--steps", type=int)
@click.option("--batch-size", type=int, help="Lists a step.")
@click.option("--list-size", type=int, help="Documents a list.")
@click.option("--learning-rate", type=float)
@click.option(
    "--head-learning-rate",
    type=float,
    help="Of the new layers of a split-cross-encoder or kernel student.",
)
@click.option(
    "--sources", help="Where a list's documents come from: all, top or ranks, as 1-10:4,11-100:12."
)
@click.option(
    "--mix",
    type=click.Choice(["none", *METHODS]),
    default="none",
    show_default=True,
    help=(
        "Make one score of several runs as fuse does, when a list is drawn; none takes the loss"
        " against each."
    ),
)
@click.option(
    "--teacher-weights",
    help="One number a run, joined by commas: of the mix, or with none of the losses.",
)
@click.option(
    "--missing",
    type=click.Choice(["null", "skip", "min"]),
    help="Of the mix: for what a run did not score.",
)
@click.option("--mix-tau", help="Of a softmax mix: divides the scores; one number, or one a run.")
@click.option("--abstain", help='Of the mix: no score where runs disagree, as "tau<0.2,sd>1".')
@click.option(
    "--flagged",
    type=click.Choice(["mask", "drop", "keep"]),
    help=(
        "Documents flagged by runs mask: no negatives (mask, the default), not drawn (drop), or as"
        " any other (keep)."
    ),
)
@click.option(
    "--matryoshka-dims",
    help="Of a dense student: dimensions at which the loss is taken, as 384,128,64.",
)
@click.option("--matryoshka-weights", help="One number a dimension, joined by commas.")
@policy_options
@click.option(
    "--dropout/--no-dropout",
    default=True,
    show_default=True,
    help="As the backbone has it, or none.",
)
@seed_option()
def train(
    collection: str,
    scores: tuple[str, ...],
    student: str,
    backbone: str,
    layers: int | None,
    query_layers: int | None,
    freeze_documents: bool,
    query_backbone: str | None,
    dimension: int | None,
    token_pooling: float | None,
    inference_free: bool,
    split_layer: int | None,
    trust_remote_code: bool,
    max_length: int | None,
    max_query_length: int | None,
    student_options: tuple[str, ...],
    loss: str,
    out: Path,
    representations: str | None,
    seed: int,
    **given: Any,
) -> None:
    """Train a student from teachers' scores; stopped at any moment, the same command goes on."""
    from irdistill.collections import load_collection
    from irdistill.losses import parse_loss
    from irdistill.runs import open_run
    from irdistill.students import build_student
    from irdistill.students.student_options import student_options as check_student_options
    from irdistill.training import TrainOptions
    from irdistill.training import train as train_student
    from irdistill.training.processes import Processes

    parse_loss(loss)
    own = {
        "inference_free": inference_free,
        "query_backbone": query_backbone,
        "dimension": dimension,
        "token_pooling": token_pooling,
        "split_layer": split_layer,
        "max_length": max_length,
        "max_query_length": max_query_length,
        "trust_remote_code": trust_remote_code,
    }
    more = settings(
        student_options, "--student-option", ("layers", "query_layers", "freeze_documents", *own)
    )
    check_student_options(student, dict(more))
    if given["steps"] is not None and given["epochs"] is not None:
        raise IrdistillError(
            "--steps and --epochs were both given; each says how long is trained. Give one."
        )
    for name in ("teacher_weights", "mix_tau", "matryoshka_dims", "matryoshka_weights"):
        found = (
            numbers(given[name], name.replace("_", " ")) if isinstance(given[name], str) else None
        )
        given[name] = (
            None
            if found is None
            else found[0]
            if name == "mix_tau" and len(found) == 1
            else tuple(found)
        )
    processes = Processes.join()
    with processes.in_turn():
        loaded = load_collection(collection)
        runs = [open_run(run, loaded) for run in scores]
    options = TrainOptions(
        seed=seed, **{key: value for key, value in given.items() if value is not None}
    )
    if layers is not None and query_layers is not None:
        raise IrdistillError(
            "--layers and --query-layers were both given; a student with a query tower keeps its"
            " whole backbone."
        )
    built = build_student(
        student,
        backbone,
        layers=layers,
        query_layers=query_layers,
        freeze_documents=freeze_documents,
        **own,
        **more,
    )
    model = train_student(
        loaded, runs, built, loss, out, options, "stored", representations=representations
    )
    if processes.first:
        echo(f"the model is in {model}")
