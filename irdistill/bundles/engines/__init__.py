"""Files that search engines load: vectors with ids, titles and texts."""

from __future__ import annotations

from importlib import import_module

from irdistill.bundles.engines.engine_files import EngineFormat

_FORMATS = {
    "opensearch": "lucene_servers:OpenSearch",
    "elasticsearch": "lucene_servers:Elasticsearch",
    "qdrant": "qdrant_points:Qdrant",
    "pgvector": "pgvector_tables:PgVector",
    "anserini": "anserini_files:Anserini",
}


def engine_format(name: str) -> EngineFormat:
    """The format of an engine by its name."""
    module, _, kind = _FORMATS[name].partition(":")
    made: EngineFormat = getattr(import_module(f"irdistill.bundles.engines.{module}"), kind)()
    return made
