"""The embedded collection: the documentation of Python and of the packages installed beside us.

A document is a qualified name (``shutil.rmtree``) and the body of its docstring; the docstring's
summary, taken out of the body, is the query. It is built on the user's machine in seconds and needs
no network.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
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
from irdistill.console.progress import progress, with_progress
from irdistill.errors import IrdistillError
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import open_files, read_sealed, write_sealed
from irdistill.storage.files import digest, fsync_folder, read_json, write_json

BUILDER_VERSION = 4
"""Raised whenever another collection comes out of the same packages."""

SPLITS = ("train", "dev", "test")
PACKAGE_DOCUMENTS = 600
"""How many documents of each package other than Python are taken, chosen by hash of their names."""

MAX_RELEVANT = 8
"""A summary shared by more documents than this is generic and asks nothing."""

_POLL_SECONDS = 0.5
MAX_SECONDS = 600
HOWTO_FILE = "pydocs-howto.jsonl"


@dataclass(frozen=True)
class Pydocs:
    """The built collection before it is cut into splits; ``aliases`` maps further names to document
    ids.
    """

    corpus: Corpus
    queries: dict[str, str]
    relevant: dict[str, list[str]]
    aliases: dict[str, str]
    notes: dict[str, Any]

    def resolve(self, name: str) -> str | None:
        """The document id that a qualified name or one of its aliases means, None if there is
        none.
        """
        return name if self.corpus.has(name) else self.aliases.get(name)


def load_pydocs(id: str, cache: Path) -> Collection:
    """Load ``pydocs/train``, ``pydocs/dev``, ``pydocs/test`` or ``pydocs/howto``.

    Raises:
        IrdistillError: there is no such split, or the packages' documentation could not be
            gathered.
    """
    split = id.removeprefix("pydocs").removeprefix("/")
    if split not in (*SPLITS, "howto"):
        raise IrdistillError(
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
    """The split of a query by hash of its id: 35% train, 10% dev, 55% test, the same on every
    machine.

    Test is the largest because a difference of 0.01 in nDCG@10 between two students needs about
    2000 queries to be seen (the differences by query spread by about 0.13).
    """
    place = xxhash.xxh64_intdigest(query_id.encode()) % 100
    return "train" if place < 35 else "dev" if place < 45 else "test"


def open_pydocs(cache: Path) -> Pydocs:
    """Open the collection for the packages installed now, building it on first use."""
    versions = installed_versions()
    key = digest([BUILDER_VERSION, FORMAT, PACKAGE_DOCUMENTS, versions, sys.platform])
    result: Pydocs = open_or_build(
        cache / "pydocs" / key, lambda folder: _build(folder, versions), _open
    )
    return result


def installed_versions() -> dict[str, str | None]:
    """The versions of Python and of the packages documented here, None for those that are
    missing.
    """
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
    """The hand-written questions: ``{"id", "question", "answers": [names]}``, one in a line.

    An answer that this Python does not have is reported, and so is a question left without any,
    which is dropped.

    Raises:
        IrdistillError: the file is missing or a line is broken.
    """
    queries: dict[str, Query] = {}
    judgments: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise IrdistillError(
            f"{path} is missing, and pydocs/howto with it; install irdistill again."
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            query = Query(str(entry["id"]), str(entry["question"]).strip())
            answers = [str(answer) for answer in entry["answers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise IrdistillError(
                f"line {number} of {path} is broken ({type(error).__name__}: {error}); expected an"
                ' object with "id", "question" and "answers".'
            ) from error
        if not query.text or query.id in queries:
            raise IrdistillError(
                f"line {number} of {path} has an empty question or the id {query.id!r} a "
                "second time."
            )
        found = [built.resolve(answer) for answer in answers]
        for answer, doc_id in zip(answers, found, strict=True):
            if doc_id is None:
                report.add(
                    "answers without document", f"{path.name} line {number} ({query.id}: {answer})"
                )
        known = {doc_id: 1 for doc_id in found if doc_id is not None}
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
    gathered = folder / "gathered"
    gathered.mkdir()
    _gather(gathered)
    entries = _sampled(_json_lines(gathered / "entries.jsonl"))
    names, aliases = _merged(entries)
    by_text = {text_key(docstring): name for name, (_, docstring) in names.items()}
    for name, key in _json_lines(gathered / "inherited.jsonl"):
        if key in by_text and name not in names:
            aliases.setdefault(name, by_text[key])
    documents: list[Document] = []
    asked: dict[str, list[str]] = defaultdict(list)
    texts: dict[str, str] = {}
    for name, (_, docstring) in with_progress(
        list(names.items()), "documents", "split documentation"
    ):
        parts = split_docstring(docstring, name)
        documents.append(Document(name, name, parts.text))
        if parts.summary is not None:
            asked[normalize_summary(parts.summary)].append(name)
            texts.setdefault(normalize_summary(parts.summary), parts.summary)
    queries = sorted(
        (f"q:{min(relevant, key=_preference)}", texts[key], relevant)
        for key, relevant in asked.items()
        if len(relevant) <= MAX_RELEVANT
    )
    (folder / "corpus").mkdir()
    compile_corpus(documents, folder / "corpus", "pydocs")
    fsync_folder(folder / "corpus")
    counts: dict[str, int] = defaultdict(int)
    for package, _ in names.values():
        counts[package] += 1
    skipped = read_json(gathered / "skipped.json")
    write_json(folder / "queries.json", queries)
    write_json(folder / "aliases.json", dict(sorted(aliases.items())))
    write_json(
        folder / "notes.json",
        {
            "versions": versions,
            "documents": dict(counts),
            "missing packages": {name: skipped[name] for name in DISTRIBUTIONS if name in skipped},
            "skipped modules": skipped,
        },
    )
    write_sealed(
        folder / "manifest.json",
        {"versions": versions},
        ("queries.json", "aliases.json", "notes.json"),
    )
    for path in gathered.iterdir():
        path.unlink()
    gathered.rmdir()


def _gather(folder: Path) -> None:
    """Import and read the packages in a process of its own, so that none of it stays in this
    one.
    """
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
        tempfile.TemporaryDirectory() as elsewhere,
        subprocess.Popen(
            command,
            env=environment,
            cwd=elsewhere,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            errors = _watched(process, folder / "steps")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = errors.decode("utf-8", "replace").strip().split("\n")[-1]
        raise IrdistillError(
            "reading the documentation of the installed packages failed (exit"
            f" {process.returncode}: {said}). Run it by hand to see more: {sys.executable} -m"
            " irdistill.collections.pydocs_build FOLDER"
        )


def _watched(process: subprocess.Popen[bytes], steps: Path) -> bytes:
    """Wait for the process with a progress bar; gives what it wrote to standard error.

    Raises:
        IrdistillError: it takes more than MAX_SECONDS.
    """
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


def _sampled(lines: Iterator[Any]) -> dict[str, tuple[str, str]]:
    """Name -> (package, docstring): all of Python's, and of every package those whose names hash
    lowest.

    The unit of sampling is a docstring, under its preferred name, so that further names of it cost
    nothing.
    """
    held: dict[str, tuple[str, str]] = {
        entry["name"]: (entry["package"], entry["doc"]) for entry in lines
    }
    preferred: dict[str, str] = {}
    for name in sorted(held, key=_preference):
        preferred.setdefault(held[name][1], name)
    chosen: set[str] = set()
    for package in ("python", *DISTRIBUTIONS):
        names = [name for name in preferred.values() if held[name][0] == package]
        names.sort(key=lambda name: xxhash.xxh64_intdigest(name.encode()))
        chosen.update(
            held[name][1] for name in (names if package == "python" else names[:PACKAGE_DOCUMENTS])
        )
    return {name: value for name, value in held.items() if value[1] in chosen}


def _merged(
    entries: dict[str, tuple[str, str]],
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """One name for every text, the preferred one, in sorted order; the others become aliases of
    it.
    """
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
    """Python's own names first, then shorter ones, then by alphabet."""
    return name.split(".")[0] in DISTRIBUTIONS, len(name), name


def _json_lines(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
