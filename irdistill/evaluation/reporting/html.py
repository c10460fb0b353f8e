"""What the HTML pages have in common: one file each, no network, every text escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from irdistill.storage.ownership import write_file

_HERE = "irdistill.evaluation.reporting"
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(template: str, package: str = _HERE, **values: Any) -> str:
    """A page out of a template of a package; all templates may include those beside this module."""
    loaders = [PackageLoader(package, "templates"), PackageLoader(_HERE, "templates")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def script_json(value: Any) -> Markup:
    """JSON for a ``script`` element, which no text in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup("".join(_UNSAFE.get(letter, letter) for letter in text))


def write_page(path: str | Path, page: str) -> None:
    """Write a page, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, page)
