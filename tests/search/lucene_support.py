"""The mark of tests that need Lucene."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from irdistill.search.lucene.java_runtime import MINIMUM_VERSION, find_java, install_command

_JAVA = find_java()
needs_lucene = pytest.mark.skipif(
    _JAVA is None or find_spec("pyserini") is None,
    reason=(
        f"Lucene needs Java {MINIMUM_VERSION} or newer ({install_command()}) and pip install"
        " 'irdistill[lucene]'"
    ),
)
