"""The options of ``irdistill train`` that say how is trained: see docs/training.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--epochs",
        type=float,
        help="In place of --steps: how often each query is seen; may be a fraction.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["linear", "cosine", "constant"]),
        help="How the rate falls (linear).",
    ),
    click.option(
        "--floor", type=float, help="The share of the learning rate at which it ends (0)."
    ),
    click.option(
        "--warmup",
        type=float,
        help="Share of the steps (below 1) or steps over which the rate rises (0.1).",
    ),
    click.option(
        "--early-stop",
        type=int,
        metavar="N",
        help=(
            "Hold lists out; stop after N evaluations in a row without a lower loss on them, and"
            " keep the best weights."
        ),
    ),
    click.option(
        "--held-out", type=float, help="The share of the queries held out for --early-stop (0.1)."
    ),
    click.option(
        "--evaluate-every", type=int, help="Steps between evaluations for --early-stop (100)."
    ),
    click.option(
        "--grad-cache",
        is_flag=True,
        default=None,
        help=(
            "Bound memory by the token budget, not by the batch: texts are encoded twice. The"
            " gradients are the same."
        ),
    ),
    click.option(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help="Steps between checkpoints (500); 0 writes none.",
    ),
    click.option(
        "--checkpoint-seconds",
        type=float,
        help="Seconds of training between checkpoints (60); 0 for none by time.",
    ),
    click.option("--token-budget", type=int, help="Padded tokens in one forward pass."),
    click.option(
        "--curriculum",
        type=click.Choice(["none", "gap", "entropy"]),
        help=(
            "Begin with lists that are easy by the teacher: a large gap between its first two, or a"
            " low entropy."
        ),
    ),
    click.option(
        "--pacing",
        type=click.Choice(["linear", "root"]),
        help="How the share of lists drawn from grows (linear).",
    ),
    click.option("--pacing-start", type=float, help="That share at the start (0.2)."),
    click.option(
        "--pacing-end",
        type=float,
        help="Share of the steps, or steps, after which all are drawn from (0.5).",
    ),
    click.option(
        "--clusters", type=int, help="Make each step of queries of one of so many clusters."
    ),
    click.option(
        "--cluster-model",
        help="The dense model whose vectors of queries are clustered; else the student's own.",
    ),
    click.option(
        "--margin-bins",
        type=int,
        help="Draw documents evenly from so many ranges of the teacher's margin.",
    ),
    click.option(
        "--mine-every",
        type=int,
        help="Steps between searches of the corpus with the student, for new negatives.",
    ),
    click.option("--mine-depth", type=int, help="Documents kept a query (100)."),
    click.option("--mine-take", type=int, help="Documents of a list drawn from these (half)."),
    click.option(
        "--mine-teacher",
        help="Scores those that the run does not hold; without, they have no teacher score.",
    ),
    click.option(
        "--query-l1", type=float, help="Of a sparse student: weight of the L1 penalty on queries."
    ),
    click.option(
        "--document-l1",
        type=float,
        help="Of a sparse student: weight of the L1 penalty on documents.",
    ),
    click.option(
        "--query-flops",
        type=float,
        help="Of a sparse student: weight of the FLOPS penalty on queries.",
    ),
    click.option(
        "--document-flops",
        type=float,
        help="Of a sparse student: weight of the FLOPS penalty on documents.",
    ),
    click.option(
        "--ramp",
        type=float,
        help="Share of the steps (below 1) or steps over which these weights rise (0.33).",
    ),
    click.option(
        "--anti-zero",
        type=float,
        help="Of a sparse student: weight of the term against vectors that are all zero.",
    ),
    click.option(
        "--query-active",
        type=int,
        help="Of a sparse student: active dimensions of a query to aim at.",
    ),
    click.option(
        "--document-active",
        type=int,
        help="Of a sparse student: active dimensions of a document to aim at.",
    ),
)


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
