"""Files that are collected, and what is read of a collection."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import irdistill as ird
from irdistill.collections.collecting.collected_folder import MANIFEST


def write(folder: str | Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Path(folder)


def documents(collection: ird.Collection) -> dict[str, tuple[str, str]]:
    return {row.id: (row.title, row.text) for row in collection.corpus.documents()}


def manifest(folder: str | Path) -> dict[str, Any]:
    return dict(json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8")))


FILES: dict[str, str | bytes] = {
    "b.md": "# Cats\n\nThey purr.",
    "a/b.txt": "Dogs bark.",
    "a/c.html": "<title>Fish</title><p>Fish swim.</p>",
    "z.rst": "Birds\n=====\n\nBirds sing.\n",
    "a/d.txt.gz": gzip.compress(b"Packed."),
}
EXPECTED = {
    "a/b.txt": ("b", "Dogs bark."),
    "a/c.html": ("Fish", "Fish swim."),
    "a/d.txt.gz": ("d", "Packed."),
    "b.md": ("Cats", "They purr."),
    "z.rst": ("Birds", "Birds sing."),
}
