"""PostgreSQL with the extension pgvector: files for COPY, and the SQL that loads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irdistill.bundles.engines.engine_files import EngineFormat, EngineIndex, numbers
from irdistill.bundles.indexed_rows import IndexedText
from irdistill.bundles.package_scripts import fill_template, query_script
from irdistill.errors import InputError

_MOST_INDEXED = 2_000
"""Dimensions of a vector with an HNSW index (documentation of pgvector 0.8)."""
_MOST_NONZERO = 16_000
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\ufffd"})


class PgVector(EngineFormat):
    """A table with a column ``vector`` or ``sparsevec``."""

    title, kinds, most_dimensions = "pgvector", ("dense", "sparse"), 16_000
    part_documents, part_name = 50_000, "documents-{:05d}.tsv"

    def id_fault(self, doc_id: str) -> str:
        """As `EngineFormat.id_fault`."""
        return "holds the character NUL, which PostgreSQL cannot store" if "\0" in doc_id else ""

    def entry(self, index: EngineIndex, text: IndexedText, vector: Any) -> str:
        """A line of COPY's text format."""
        fields = [copy_text(text.id)]
        if index.passages:
            fields.append(str(text.passage))
        if index.texts:
            fields += [copy_text(text.title), copy_text(text.text)]
        return "\t".join([*fields, _vector(index, vector)]) + "\n"

    def other_files(self, index: EngineIndex, parts: Sequence[str]) -> Mapping[str, str]:
        """``load.sql`` for psql, and the query script."""
        dense = index.kind == "dense"
        words = {
            "name": index.name,
            "passages": index.passages,
            "texts": index.texts,
            "column": "vector" if dense else "sparsevec",
            "dimension": index.dimension,
            "graph": dense and index.dimension <= _MOST_INDEXED,
        }
        return {
            "load.sql": fill_template("load.sql", parts=parts, **words),
            "query.py": _query(index),
            "README.md": fill_template("pgvector.md", kind=index.kind),
        }


def copy_text(text: str) -> str:
    r"""Text for COPY's text format; NUL, which PostgreSQL cannot store, becomes U+FFFD.

    Examples:
        >>> print(copy_text("a\tb\\c"))
        a\tb\\c
    """
    return text.translate(_ESCAPES)


def _vector(index: EngineIndex, vector: Any) -> str:
    if index.kind == "dense":
        return f"[{numbers(vector)}]"
    terms, weights = vector
    if len(terms) > _MOST_NONZERO:
        raise InputError(
            f"a document has {len(terms)} terms; pgvector holds at most {_MOST_NONZERO}."
        )
    pairs = zip(terms.tolist(), weights.tolist(), strict=True)
    return f"{{{','.join(f'{term + 1}:{weight:.9g}' for term, weight in pairs)}}}/{index.dimension}"


def _query(index: EngineIndex) -> str:
    literal = "str(vector)"
    if index.kind == "sparse":
        literal = (
            '"{" + ",".join(f"{term + 1}:{weight}" for term, weight in terms.items()) +'
            f' "}}/{index.dimension}"'
        )
    shown = "title" if index.texts else "id"
    passage = ", passage" if index.passages else ""
    sql = (
        f"SELECT id{passage}, -(vector <#> $q${{literal}}$q$) AS score, left({shown}, 80) AS text"
        f' FROM "{index.name}" ORDER BY vector <#> $q${{literal}}$q$ LIMIT 10;'
    )
    usage = 'python query.py "your question" | psql DATABASE'
    return query_script(index.facts, usage, f"f'''{sql}'''", prepare=f"literal = {literal}\n")
