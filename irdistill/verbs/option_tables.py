"""The options of all verbs as Markdown: ``python -m irdistill.verbs.option_tables``."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args, get_origin

from irdistill.verbs import CATALOG, load_verb
from irdistill.verbs.declaration import Option

_HEAD = """# Options of all verbs

This page is made from the declarations of the verbs. An option has the same name in Python
(`steps=100`), in recipes (`steps: 100`) and on the command line (`--steps 100`; dashes replace
underscores). Bold options are required. Recipes set `out` and `overwrite` themselves.

Update it with `python -m irdistill.verbs.option_tables > docs/options.md`.
"""


def options_page() -> str:
    """The page: one section and table per verb."""
    sections = [_HEAD]
    for name, entry in CATALOG.items():
        verb = load_verb(name)
        python = f"`irdistill.{entry.function}`, " if entry.module[:13] != "irdistill.cli" else ""
        recipe = f", recipes: `verb: {name}`" if entry.in_recipes else ""
        rows = [_row(option) for option in verb.options.values()]
        sections.append(
            f"\n## {name}\n\n{entry.summary}\n\nPython and command line: {python}"
            f"`irdistill {name}`{recipe}.\n\n"
            "| option | type | default | meaning |\n| --- | --- | --- | --- |\n" + "".join(rows)
        )
    return "".join(sections)


def _row(option: Option) -> str:
    name = f"**`{option.name}`**" if option.required else f"`{option.name}`"
    default = "" if option.required or option.default in (None, "", ()) else f"`{option.default}`"
    text = option.description.replace("|", "\\|")
    return f"| {name} | {_type_text(option)} | {default} | {text} |\n"


def _type_text(option: Option) -> str:
    if option.source and not any(get_origin(kind) is list for kind in option.types):
        return option.source
    return " or ".join(dict.fromkeys(_name(kind) for kind in option.types))


def _name(kind: Any) -> str:
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not ...]
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is dict:
        return "mapping"
    if origin is not None and parts:
        inner = Option("", parts[0])
        return f"list of {inner.source or _type_text(inner)}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        getattr(kind, "__name__", ""), getattr(kind, "__name__", str(kind)).lower()
    )


if __name__ == "__main__":
    sys.stdout.write(options_page())
