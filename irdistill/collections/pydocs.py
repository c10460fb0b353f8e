"""The embedded collection: the documentation of Python and of installed packages.

A document is a qualified name (``shutil.rmtree``) and the body of its docstring. The summary of the
docstring is removed from the body and is the query. The collection is built on the user's machine
in seconds, without a network.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import xxhash

from irdistill.card_files import card_folder
from irdistill.collections.collection import Collection, Query
from irdistill.collections.compiling import compile_corpus
from irdistill.collections.corpus import FORMAT, Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.load_report import LoadReport
from irdistill.collections.pydocs_build import DISTRIBUTIONS, number_of_steps, text_key
from irdistill.collections.pydocs_text import normalize_summary, shorten, split_docstring
from irdistill.collections.qrels import Qrels
from irdistill.console.progress_bars import progress, with_progress
from irdistill.errors import InputError, IrdistillError, NotFoundError
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import open_files, read_sealed, write_sealed
from irdistill.storage.files import digest, fsync_folder, read_json, write_json

BUILDER_VERSION = 4
"""Increased when the same packages give another collection."""

SPLITS = ("train", "dev", "test")
PACKAGE_DOCUMENTS = 600
"""Documents of each package other than Python, chosen by a hash of their names."""

MAX_RELEVANT = 8
"""A summary of more documents than this is generic and not used as a query."""

_POLL_SECONDS = 0.5
MAX_SECONDS = 600
HOWTO_FILE = "pydocs-howto.jsonl"


@dataclass(frozen=True)
class Pydocs:
    """The built collection before it is split.

    Attributes:
        queries: query id -> text.
        relevant: query id -> ids of relevant documents.
        aliases: other qualified names -> document ids.
        notes: package versions and counts.
    """

    corpus: Corpus
    queries: dict[str, str]
    relevant: dict[str, list[str]]
    aliases: dict[str, str]
    notes: dict[str, Any]

    def resolve(self, name: str) -> str | None:
        """The document id of a qualified name or alias; None if there is none."""
        return name if self.corpus.has(name) else self.aliases.get(name)


def load_pydocs(id: str, cache: Path) -> Collection:
    """Load ``pydocs/train``, ``pydocs/dev``, ``pydocs/test`` or ``pydocs/howto``."""
    split = id.removeprefix("pydocs").removeprefix("/")
    if split not in (*SPLITS, "howto"):
        raise NotFoundError(
            f"there is no collection {id!r}; the embedded ones are pydocs/train, pydocs/dev,"
            " pydocs/test and pydocs/howto."
        )
    built = open_pydocs(cache)
    report = LoadReport(documents=len(built.corpus), notes=built.notes)
    report.add_stored(built.corpus.problems)
    for package, reason in built.notes["missing packages"].items():
        report.add("missing packages", f"{package}: {reason}")
    if split == "howto":
        queries, judgments = read_howto(card_folder("data") / HOWTO_FILE, built, report)
    else:
        queries = {
            key: Query(key, text) for key, text in built.queries.items() if split_of(key) == split
        }
        judgments = {key: dict.fromkeys(built.relevant[key], 1) for key in queries}
    qrels = Qrels(judgments)
    report.queries, report.judgments = len(queries), qrels.judgments
    return Collection(id, built.corpus, queries, qrels, report)


def split_of(query_id: str) -> str:
    """The split of a query by a hash of its id: 35% train, 10% dev, 55% test on every machine.

    Test is the largest split because about 2000 queries are needed to detect a difference of 0.01
    in nDCG@10 (the standard deviation of the differences per query is about 0.13).
    """
    place = xxhash.xxh64_intdigest(query_id.encode()) % 100
    return "train" if place < 35 else "dev" if place < 45 else "test"


def open_pydocs(cache: Path) -> Pydocs:
    """Open the collection of the installed packages; it is built on first use."""
    versions = installed_versions()
    key = digest([BUILDER_VERSION, FORMAT, PACKAGE_DOCUMENTS, versions, sys.platform])
    return open_or_build(cache / "pydocs" / key, lambda folder: _build(folder, versions), _open)


def installed_versions() -> dict[str, str | None]:
    """The versions of Python and of the documented packages; None if a package is missing."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for distribution in DISTRIBUTIONS.values():
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            versions[distribution] = None
    return versions


def read_howto(
    path: Path, built: Pydocs, report: LoadReport
) -> tuple[dict[str, Query], dict[str, dict[str, int]]]:
    """Read the hand-written questions: lines with ``{"id", "question", "answers": [names]}``.

    Answers that this Python does not have are reported. Questions without any answer are reported
    and omitted.
    """
    queries: dict[str, Query] = {}
    judgments: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} is missing, and pydocs/howto with it. Reinstall irdistill."
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            query = Query(str(entry["id"]), str(entry["question"]).strip())
            answers = [str(answer) for answer in entry["answers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"line {number} of {path} is broken ({type(error).__name__}: {error}); expected an"
                ' object with "id", "question" and "answers".'
            ) from error
        if not query.text or query.id in queries:
            raise InputError(
                f"line {number} of {path} has an empty question, or repeats the id {query.id!r}."
            )
        doc_ids = {answer: built.resolve(answer) for answer in answers}
        for answer, doc_id in doc_ids.items():
            if doc_id is None:
                place = f"{path.name} line {number} ({query.id}: {answer})"
                report.add("answers without document", place)
        known = {doc_id: 1 for doc_id in doc_ids.values() if doc_id is not None}
        if not known:
            report.add("questions without answers", f"{path.name} line {number} ({query.id})")
            continue
        queries[query.id], judgments[query.id] = query, known
    return queries, judgments


def _open(folder: Path) -> Pydocs:
    open_files(folder, read_sealed(folder / "manifest.json")["files"])
    queries = read_json(folder / "queries.json")
    return Pydocs(
        Corpus.open(folder / "corpus"),
        {key: text for key, text, _ in queries},
        {key: relevant for key, _, relevant in queries},
        read_json(folder / "aliases.json"),
        read_json(folder / "notes.json"),
    )


def _build(folder: Path, versions: dict[str, str | None]) -> None:
    collected = folder / "gathered"
    collected.mkdir()
    _run_builder(collected)
    names, aliases = _merge_names(_sample(_json_lines(collected / "entries.jsonl")))
    by_text = {text_key(docstring): name for name, (_, docstring) in names.items()}
    for name, key in _json_lines(collected / "inherited.jsonl"):
        if key in by_text and name not in names:
            aliases.setdefault(name, by_text[key])
    documents: list[Document] = []
    relevant: dict[str, list[str]] = defaultdict(list)
    texts: dict[str, str] = {}
    items = list(names.items())
    for name, (_, docstring) in with_progress(items, "documents", "split documentation"):
        parts = split_docstring(docstring, name)
        documents.append(Document(name, name, parts.text))
        if parts.summary is not None:
            key = normalize_summary(parts.summary)
            relevant[key].append(name)
            texts.setdefault(key, parts.summary)
    queries = sorted(
        (f"q:{min(doc_ids, key=_preference)}", texts[key], doc_ids)
        for key, doc_ids in relevant.items()
        if len(doc_ids) <= MAX_RELEVANT
    )
    (folder / "corpus").mkdir()
    compile_corpus(documents, folder / "corpus", "pydocs")
    fsync_folder(folder / "corpus")
    skipped = read_json(collected / "skipped.json")
    contents = {
        "queries.json": queries,
        "aliases.json": dict(sorted(aliases.items())),
        "notes.json": {
            "versions": versions,
            "documents": dict(Counter(package for package, _ in names.values())),
            "missing packages": {name: skipped[name] for name in DISTRIBUTIONS if name in skipped},
            "skipped modules": skipped,
        },
    }
    for file_name, content in contents.items():
        write_json(folder / file_name, content)
    write_sealed(folder / "manifest.json", {"versions": versions}, contents)
    shutil.rmtree(collected)


def _run_builder(folder: Path) -> None:
    """Import and read the packages in another process, so that nothing stays in this one."""
    package_parent = str(Path(__file__).resolve().parents[2])
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | {
        "PYTHONPATH": os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "irdistill.collections.pydocs_build", str(folder.resolve())]
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(
            command,
            env=environment,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            errors = _wait(process, folder / "steps")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        last_line = errors.decode("utf-8", "replace").strip().split("\n")[-1]
        raise IrdistillError(
            "reading the documentation of the installed packages failed (exit"
            f" {process.returncode}: {last_line}). Run it by hand to see more: {sys.executable} -m"
            " irdistill.collections.pydocs_build FOLDER"
        )


def _wait(process: subprocess.Popen[bytes], steps: Path) -> bytes:
    """Wait for the process with a progress bar, and return its standard error."""
    began = time.monotonic()
    with progress(number_of_steps(), "modules", "read documentation") as bar:
        while True:
            try:
                return process.communicate(timeout=_POLL_SECONDS)[1]
            except subprocess.TimeoutExpired as error:
                if time.monotonic() - began > MAX_SECONDS:
                    raise IrdistillError(
                        "reading the documentation of the installed packages took more than"
                        f" {MAX_SECONDS} s; one of them may hang on import. Try `python -X"
                        " importtime -c 'import numpy, pandas, torch, sklearn, scipy'`."
                    ) from error
            bar.update((steps.stat().st_size if steps.is_file() else 0) - bar.n)


def _sample(lines: Iterator[Any]) -> dict[str, tuple[str, str]]:
    """Name -> (package, docstring): all of Python, and of each package the names with the lowest
    hashes.

    The unit of sampling is a docstring under its preferred name, so other names of it are free.
    """
    entries: dict[str, tuple[str, str]] = {
        entry["name"]: (entry["package"], entry["doc"]) for entry in lines
    }
    preferred: dict[str, str] = {}
    for name in sorted(entries, key=_preference):
        preferred.setdefault(entries[name][1], name)
    chosen: set[str] = set()
    for package in ("python", *DISTRIBUTIONS):
        names = [name for name in preferred.values() if entries[name][0] == package]
        names.sort(key=lambda name: xxhash.xxh64_intdigest(name.encode()))
        chosen.update(
            entries[name][1]
            for name in (names if package == "python" else names[:PACKAGE_DOCUMENTS])
        )
    return {name: value for name, value in entries.items() if value[1] in chosen}


def _merge_names(
    entries: dict[str, tuple[str, str]],
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """The preferred name of each text, sorted; the other names become aliases."""
    canonical: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for name in sorted(entries, key=_preference):
        docstring = entries[name][1]
        if len(shorten(docstring).split()) < 3:
            continue
        first = canonical.setdefault(text_key(docstring), name)
        if first != name:
            aliases[name] = first
    return {name: entries[name] for name in sorted(canonical.values())}, aliases


def _preference(name: str) -> tuple[bool, int, str]:
    """The sort key of names: those of Python first, then by length and alphabet."""
    return name.split(".")[0] in DISTRIBUTIONS, len(name), name


def _json_lines(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
