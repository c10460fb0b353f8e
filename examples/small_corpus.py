"""A small collection for the examples: documentation of Python's standard library, in BEIR layout.

The first sentence of a docstring is the query, the rest is the document that answers it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import tempfile
from pathlib import Path

MODULES = (
    "argparse",
    "asyncio",
    "base64",
    "calendar",
    "collections",
    "configparser",
    "contextlib",
    "copy",
    "csv",
    "datetime",
    "decimal",
    "difflib",
    "email",
    "fractions",
    "functools",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "inspect",
    "ipaddress",
    "itertools",
    "json",
    "logging",
    "math",
    "mimetypes",
    "os",
    "os.path",
    "pathlib",
    "pickle",
    "platform",
    "random",
    "re",
    "sched",
    "shlex",
    "shutil",
    "socket",
    "sqlite3",
    "statistics",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "traceback",
    "urllib.parse",
    "uuid",
    "weakref",
    "zipfile",
)


def documented() -> dict[str, tuple[str, str]]:
    """Queries and documents by the qualified name of a function or class."""
    entries: dict[str, tuple[str, str]] = {}
    texts = set()
    for name in MODULES:
        module = importlib.import_module(name)
        for member in sorted(vars(module)):
            text = inspect.getdoc(getattr(module, member)) or ""
            summary, _, rest = text.partition("\n\n")
            if member.startswith("_") or len(rest.split()) < 12 or rest in texts:
                continue
            texts.add(rest)
            entries[f"{name}.{member}"] = (" ".join(summary.split()), " ".join(rest.split()))
    return entries


def write_collection(folder: Path, documents: int = 120) -> Path:
    """Write the collection; every fourth query is in the split `test`, the others in `train`."""
    entries = dict(list(documented().items())[:documents])
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for name, (_, text) in entries.items():
            corpus.write(json.dumps({"_id": name, "title": name, "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as queries:
        for name, (summary, _) in entries.items():
            queries.write(json.dumps({"_id": f"q-{name}", "text": summary}) + "\n")
    for split in ("train", "test"):
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as qrels:
            qrels.write("query-id\tcorpus-id\tscore\n")
            for position, name in enumerate(entries):
                if (position % 4 == 3) == (split == "test"):
                    qrels.write(f"q-{name}\t{name}\t1\n")
    return folder


def temporary_collection() -> str:
    """Write the collection to a new temporary folder."""
    return str(write_collection(Path(tempfile.mkdtemp(prefix="irdistill-example-"))))


if __name__ == "__main__":
    print(temporary_collection())
