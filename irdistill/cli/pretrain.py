"""``irdistill pretrain``."""

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
from irdistill.console.terminal import echo

EXAMPLES = examples(
    f"irdistill pretrain pydocs/train --backbone {MINILM} --layers 2 --out out/backbone",
    "# A smaller model with random weights:",
    f"irdistill pretrain pydocs/train --backbone {MINILM} --config hidden_size=128"
    " num_attention_heads=2 --out out/small",
)


@click.command(cls=MultiValueCommand, epilog=EXAMPLES)
@click.argument("collection")
@click.option(
    "--backbone", required=True, help="A masked language model: folder, hub id or package: path."
)
@click.option("--layers", type=int, help="Keep this many layers of the backbone.")
@click.option("--random-init", is_flag=True, help="Begin with random weights.")
@click.option(
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the backbone's config; its weights are random then.",
)
@out_option("The folder; the model goes to OUT/model, and any student takes it as its backbone.")
@click.option(
    "--steps",
    type=int,
    help="1000 unless given; with 0 the backbone is only shortened, or made at random.",
)
@click.option("--batch-size", type=int, help="Documents a step; 32 unless given.")
@click.option("--learning-rate", type=float, help="1e-4 unless given.")
@click.option(
    "--masked", type=float, help="Share of the tokens that are to be guessed; 0.15 unless given."
)
@click.option(
    "--max-length", type=int, help="Tokens to which documents are truncated; 128 unless given."
)
@click.option(
    "--checkpoint-every",
    type=int,
    metavar="STEPS",
    help="Steps between checkpoints; 500 unless given.",
)
@click.option(
    "--checkpoint-seconds",
    type=float,
    help="Seconds between checkpoints; 60 unless given, 0 for none by time.",
)
@seed_option()
def pretrain(
    collection: str,
    backbone: str,
    layers: int | None,
    random_init: bool,
    config: tuple[str, ...],
    out: Path,
    seed: int,
    **given: Any,
) -> None:
    """Train a backbone to guess masked words of a collection's documents; stopped at any moment,
    the same command goes on.
    """
    from irdistill.collections import load_collection
    from irdistill.training.options import PretrainOptions
    from irdistill.training.pretraining import pretrain as pretrain_backbone

    changes = settings(config, "--config")
    options = PretrainOptions(
        seed=seed, **{key: value for key, value in given.items() if value is not None}
    )
    model = pretrain_backbone(
        load_collection(collection, queries=False),
        backbone,
        out,
        options,
        layers=layers,
        random_init=random_init,
        config=changes,
    )
    echo(f"the backbone is in {model}")
