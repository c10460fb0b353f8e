"""``irdistill search`` without a question: one question after the other, with the model loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from irdistill.cli.printing import hits_json, hits_text, json_lines
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError

_PROMPT = "Question: "


def search_many(values: Mapping[str, Any], json_file: Path | None) -> bool:
    """Answer questions until the input ends.

    At a terminal they are read with line editing; earlier questions are in memory only. From a
    pipe, each line is a question; empty lines are skipped.

    Args:
        values: the checked options of the verb, without a query.
        json_file: of ``--json``: a line of JSON for each question; ``-`` prints only these.

    Returns:
        Whether the command exits with 0: whether every question was answered.
    """
    from irdistill.verbs.search_verbs import open_search

    interactive = sys.stdin.isatty()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # so that such a question is refused alone
    with json_lines(json_file) as write_json:
        search = open_search(values["collection"], values.get("model", "bm25"), values["options"])
        answered = True
        for question in _typed() if interactive else _piped():
            try:
                hits = search.search(question, values.get("k", 5))
            except IrdistillError as error:
                echo(f"irdistill: {error}", err=True)
                answered = False
                continue
            write_json(json.dumps(hits_json(question, hits), ensure_ascii=False))
            echo(hits_text(hits) if interactive else f"{question}\n{hits_text(hits)}\n")
    return answered or interactive


def _typed() -> Iterator[str]:
    """Questions at a terminal, until Ctrl-D or Ctrl-C."""
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 - line editing and, in memory, earlier questions
    screen = sys.stdout if sys.stdout.isatty() else sys.stderr
    while True:
        try:
            with redirect_stdout(screen):  # `input` prints the prompt there
                question = input(_PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            echo(file=screen)
            return
        if question:
            yield question


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
