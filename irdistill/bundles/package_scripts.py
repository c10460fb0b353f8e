"""The scripts and notes in a package, filled in from templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LIBRARIES = {
    "dense": "SentenceTransformer",
    "sparse": "SparseEncoder",
    "late-interaction": "MultiVectorEncoder",
}


def search_script(facts: Mapping[str, Any]) -> str:
    """``search.py`` of a bundle, which needs no irdistill.

    Args:
        facts: the contents of the manifest.
    """
    faiss = " and faiss-cpu" if facts["kind"] == "dense" else ""
    fetched = 100 if facts["passages"] else 10
    needs = f"sentence-transformers{faiss}"
    return fill_template("search.py", **_model_words(facts), needs=needs, fetched=fetched)


def query_script(
    facts: Mapping[str, Any], usage: str, query: str, *, named: bool = False, prepare: str = ""
) -> str:
    """``query.py``, whose last line prints ``query``, a Python expression.

    Args:
        usage: what to do with the output.
        query: reads ``question``, and ``vector`` of a dense model, or ``terms`` (number -> weight)
            of a sparse one.
        named: read ``terms.json``, and make ``named`` (name -> weight) of ``terms``.
        prepare: a line before it.
    """
    words = {"usage": usage, "query": query, "named": named, "prepare": prepare}
    return fill_template("query.py", **_model_words(facts), **words)


def _model_words(facts: Mapping[str, Any]) -> dict[str, Any]:
    arguments = f", truncate_dim={facts['dimension']}" if facts["truncated"] else ""
    arguments += ", trust_remote_code=True" if facts["needs_code"] else ""
    kept = {key: facts[key] for key in ("kind", "similarity", "passages")}
    return kept | {"library": _LIBRARIES[facts["kind"]], "arguments": arguments}


def fill_template(template: str, /, **values: Any) -> str:
    """The text of a template with its values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("irdistill.bundles", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.j2").render(**values)
