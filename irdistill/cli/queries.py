"""``irdistill rewrite``, ``irdistill split``, ``irdistill generate`` and ``irdistill filter``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irdistill.cli.options import (
    MultiValueCommand,
    examples,
    json_option,
    out_option,
    seed_option,
    show,
    write_result,
)
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json

REWRITE = examples(
    'irdistill rewrite talks --history "newest questions tokens=128" --out out/history',
    "irdistill rewrite talks --human --out out/human",
    "irdistill rewrite talks --llm smollm2-pointwise --out out/llm",
)


@click.command(epilog=REWRITE)
@click.argument("collection")
@click.option("--human", is_flag=True, help="The rewrites that come with the collection.")
@click.option("--last-turn", is_flag=True, help="The question alone, as it was asked.")
@click.option(
    "--history",
    help=(
        'The question with the turns before it: "newest questions tokens=128 turns=6", "oldest'
        ' all".'
    ),
)
@click.option(
    "--tokenizer",
    help=(
        "Counts tokens= of --history: a model's folder, hub id or package: path. Words if not"
        " given."
    ),
)
@click.option(
    "--llm",
    help="The card of a language model, which writes each question so that it stands alone.",
)
@click.option(
    "--prompt",
    default="prompts/rewrite",
    show_default=True,
    help="Of --llm: a card of data/ or a YAML file.",
)
@click.option("--max-tokens", default=64, show_default=True, help="Of a written question.")
@click.option(
    "--retry-tokens",
    type=int,
    help="Ask once more, with this limit, for what --max-tokens cut (thinking models).",
)
@out_option("The new collection's folder; the corpus stays where it is.")
@json_option()
def rewrite(
    collection: str,
    human: bool,
    last_turn: bool,
    history: str | None,
    tokenizer: str | None,
    llm: str | None,
    prompt: str,
    max_tokens: int,
    retry_tokens: int | None,
    out: Path,
    json_file: Path | None,
) -> None:
    """Make the questions of conversations stand alone: by a person, a language model, or with the
    turns before them.
    """
    from irdistill.collections import load_collection
    from irdistill.queries import RewriteOptions
    from irdistill.queries import rewrite as rewrite_collection

    if human and last_turn:
        raise IrdistillError("give one of --human, --last-turn, --history TEMPLATE and --llm CARD.")
    result = rewrite_collection(
        load_collection(collection),
        out,
        "human" if human else "last-turn" if last_turn else None,
        history=history,
        tokenizer=tokenizer,
        llm=llm,
        options=RewriteOptions(prompt=prompt, max_tokens=max_tokens, retry_tokens=retry_tokens),
    )
    show(
        {
            "collection": str(out),
            "queries": len(result.queries),
            "judgments": result.qrels.judgments,
            "fingerprint": result.fingerprint,
        },
        json_file,
    )


@click.command(
    epilog=examples(
        "irdistill split mydocs --folds 5 --out out/folds",
        "# Then train on out/folds#0-train and search out/folds#0-test:",
        "irdistill search out/folds#0-test --model bm25 --out out/fold0",
    )
)
@click.argument("collection")
@click.option("--folds", default=5, show_default=True)
@seed_option()
@out_option("The new collection's folder; the corpus stays where it is.")
@json_option()
def split(collection: str, folds: int, seed: int, out: Path, json_file: Path | None) -> None:
    """Split queries into folds for cross-validation; a conversation is never cut in two."""
    from irdistill.collections import load_collection
    from irdistill.queries import split as split_collection

    split_collection(load_collection(collection), out, folds, seed)
    made_by = read_json(out / "derived.json")["made_by"]
    told = {key: made_by[key] for key in ("conversations", "sizes")}
    show({"splits": f"{out}#0-train, {out}#0-test …", **told}, json_file)


GENERATE = examples(
    "irdistill generate mydocs --kinds title,sentence --out out/queries",
    "# Written by a language model:",
    "irdistill generate mydocs --kinds questions --llm smollm2-pointwise --passages 500 --out"
    " out/asked",
)
FILTER = examples(
    "irdistill filter out/queries#train --scores out/teacher --rule first=1 --out out/good",
    "# Size and quality at thresholds of a critic:",
    "irdistill filter out/queries#train --scores out/teacher --curve",
)


@click.command(epilog=GENERATE)
@click.argument("collection")
@click.option(
    "--kinds",
    default="title,sentence",
    show_default=True,
    help=(
        "Joined by commas: title, sentence (taken); questions, claims, titles, keywords, web,"
        " few-shot (written)."
    ),
)
@click.option("--llm", help="The card of the language model that writes.")
@click.option("--passages", type=int, help="At most so many source passages, drawn at random.")
@click.option(
    "--sentences", default=2, show_default=True, help="Queries of the kind sentence a passage."
)
@click.option(
    "--avoid",
    type=click.Choice(["always", "where-possible", "never"]),
    default="always",
    show_default=True,
    help=(
        "Whether passages that are judged relevant to the collection's queries are kept from being"
        " sources."
    ),
)
@click.option(
    "--held-out",
    default=0.1,
    show_default=True,
    help="The share of the passages whose queries are the split dev.",
)
@click.option("--examples", help="A collection whose queries and relevant passages few-shot shows.")
@click.option("--max-tokens", default=50, show_default=True, help="Of a written query.")
@click.option(
    "--retry-tokens",
    type=int,
    help="Ask once more, with this limit, for what --max-tokens cut (thinking models).",
)
@seed_option()
@out_option("The new collection's folder; the corpus stays where it is.")
@json_option()
def generate(
    collection: str,
    kinds: str,
    llm: str | None,
    examples: str | None,
    out: Path,
    json_file: Path | None,
    **settings: Any,
) -> None:
    """Make synthetic queries out of a corpus, with or without a language model; labels are not
    used.
    """
    from irdistill.collections import load_collection
    from irdistill.queries import Generation
    from irdistill.queries import generate as generate_queries

    options = Generation(tuple(kind.strip() for kind in kinds.split(",")), **settings)
    result = generate_queries(
        load_collection(collection, queries=False), out, options, llm, examples or ()
    )
    dev = f"{out}#dev" if options.held_out else "none"
    show(
        {
            "collection": f"{out}#train",
            "held out": dev,
            "queries": len(result.queries),
            "fingerprint": result.fingerprint,
        },
        json_file,
    )


@click.command(name="filter", cls=MultiValueCommand, epilog=FILTER)
@click.argument("collection")
@click.option(
    "--rule", multiple=True, help="consistency=K, first=K, percentile=P, critic=T; one or several."
)
@click.option("--scores", help="The teacher's run of these queries.")
@click.option("--retrieved", help="The retriever's run of these queries, for consistency.")
@click.option(
    "--curve", is_flag=True, help="Print size and quality at thresholds of the critic, and stop."
)
@click.option("--out", type=click.Path(path_type=Path), help="The new collection's folder.")
@json_option()
def filter_(
    collection: str,
    rule: tuple[str, ...],
    scores: str | None,
    retrieved: str | None,
    curve: bool,
    out: Path | None,
    json_file: Path | None,
) -> None:
    """Keep the synthetic queries that a retriever and a teacher find their source passages for."""
    from irdistill.collections import load_collection
    from irdistill.queries import critic_curve, filter_queries

    loaded = load_collection(collection)
    if curve:
        if scores is None:
            raise IrdistillError("--curve needs --scores, the teacher's run.")
        rows = critic_curve(loaded, scores)
        write_result(json_file, {"rows": rows})
        echo(
            "threshold  kept    first   mrr\n"
            + "\n".join(
                f"{row['threshold']:>9.3f}  {row['kept']:.3f}  {row['first']:.3f}  {row['mrr']:.3f}"
                for row in rows
            )
        )
        return
    if out is None:
        raise IrdistillError(
            "--out is missing: the folder that the filtered collection goes to. (--curve alone"
            " needs none.)"
        )
    found = filter_queries(loaded, out, rule, scores, retrieved)
    made_by = read_json(out / "derived.json")["made_by"]
    show(
        {
            "collection": found.id,
            "queries": len(found.queries),
            **made_by["counts"],
            **{name: round(value, 4) for name, value in made_by["diversity"].items()},
        },
        json_file,
    )
