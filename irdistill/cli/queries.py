"""``irdistill rewrite``."""

from __future__ import annotations

from pathlib import Path

import click

from irdistill.cli.options import json_option, out_option, show
from irdistill.errors import IrdistillError

EXAMPLES = (
    'Example, what a student reads: irdistill rewrite SET --history "newest questions tokens=128" --out out/history\n\n'
    "What a teacher reads: irdistill rewrite SET --human --out out/human\n\n"
    "The same by a language model: irdistill rewrite SET --llm smollm2-pointwise --out out/llm"
)


@click.command(epilog=EXAMPLES)
@click.argument("collection")
@click.option("--human", is_flag=True, help="The rewrites that come with the collection.")
@click.option("--last-turn", is_flag=True, help="The question alone, as it was asked.")
@click.option("--history", help='The question with the turns before it: "newest questions tokens=128 turns=6", "oldest all".')
@click.option("--tokenizer", help="Counts tokens= of --history: a model's folder, hub id or package: path. Words if not given.")
@click.option("--llm", help="The card of a language model, which writes each question so that it stands alone.")
@click.option("--prompt", default="prompts/rewrite", show_default=True, help="Of --llm: a card of data/ or a YAML file.")
@click.option("--max-tokens", default=64, show_default=True, help="Of a written question.")
@out_option("The new collection's folder; the corpus stays where it is.")
@json_option()
def rewrite(collection: str, human: bool, last_turn: bool, history: str | None, tokenizer: str | None, llm: str | None, prompt: str,
            max_tokens: int, out: Path, json_file: Path | None) -> None:
    """Make the questions of conversations stand alone: by a person, a language model, or with the turns before them."""
    from irdistill.collections import load_collection
    from irdistill.queries import HistoryTemplate, rewrite_with
    from irdistill.queries import rewrite as rewrite_collection
    from irdistill.queries.history import token_count, words

    if sum([human, last_turn, bool(history) and not llm, bool(llm)]) != 1:
        raise IrdistillError("give one of --human, --last-turn, --history TEMPLATE and --llm CARD.")
    template = HistoryTemplate.parse(history) if history else None
    loaded = load_collection(collection)
    if llm:
        from irdistill.teachers.llm.loading import load_language_model
        from irdistill.teachers.loading import card_of

        found = rewrite_with(load_language_model(card_of(llm), {}), loaded, out, prompt, template, max_tokens)
    elif template is not None:
        found = rewrite_collection(loaded, out, template, token_count(tokenizer) if tokenizer else words, tokenizer or "words")
    else:
        found = rewrite_collection(loaded, out, "human" if human else "last-turn")
    show({"collection": str(out), "queries": len(found.queries), "judgments": found.qrels.judgments,
          "fingerprint": found.fingerprint}, json_file)
