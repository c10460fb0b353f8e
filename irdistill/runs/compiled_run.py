"""A run as arrays on disk, so that any list can be read by its position."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError
from irdistill.runs.disk_array import DiskArray, array_stream
from irdistill.runs.flags import column_codes
from irdistill.runs.manifest import MANIFEST
from irdistill.runs.ranked_lists import boundaries, column_scores
from irdistill.runs.run import Run
from irdistill.runs.subsets import RunSubset
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import (
    CheckedArray,
    CheckedFile,
    npy_array,
    open_files,
    read_sealed,
    write_sealed,
)
from irdistill.storage.files import cache_folder, digest

LAYOUT = 3
"""Raised when the arrays change. Arrays of an earlier layout are not read."""
COMPILED = "compiled"
ARRAYS = ("offsets", "rows", "scores", "codes")


class CompiledRun:
    """Lists by number, documents as row numbers of the corpus.

    Of the arrays on disk only the offsets are mapped; the others are read one list at a time.

    Attributes:
        query_ids: (Q,) in order.
        offsets: (Q + 1,) int64; list i is rows ``offsets[i]`` to ``offsets[i + 1]``.
        rows: (R,) int32 rows of the corpus, best first.
        scores: (R,) float32, NaN where not scored.
        codes: (R,) uint8, the flag of a scored document (see `irdistill.runs.flags`).
        folder: where the arrays are in the cache; None for a run in memory.
    """

    def __init__(
        self,
        query_ids: list[str],
        offsets: np.ndarray,
        rows: np.ndarray | DiskArray,
        scores: np.ndarray | DiskArray,
        codes: np.ndarray | DiskArray,
        folder: Path | None = None,
    ) -> None:
        self.query_ids, self.offsets = query_ids, offsets
        self.rows, self.scores, self.codes = rows, scores, codes
        self.folder = folder

    @cached_property
    def index(self) -> dict[str, int]:
        """Query id -> number of its list."""
        return {query_id: number for number, query_id in enumerate(self.query_ids)}

    def list(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32 and scores float32 of one list, both (n,)."""
        start, end = self.offsets[number], self.offsets[number + 1]
        return self.rows[start:end], self.scores[start:end]

    def flags(self, number: int) -> np.ndarray:
        """Codes uint8 of one list's flags, (n,)."""
        return self.codes[self.offsets[number] : self.offsets[number + 1]]

    def __len__(self) -> int:
        return len(self.query_ids)

    def derived_arrays(
        self, name: str, key: Mapping[str, Any], build: Callable[[Path], None]
    ) -> dict[str, np.ndarray | CheckedArray]:
        """Arrays computed from this run: built once, kept beside it in the cache.

        They are in ``folder/NAME-DIGEST``, with checksums, and are built again when they are
        damaged. A second process that needs the same arrays waits for the first. For a run in
        memory they are built on each call and not stored.

        Args:
            name: what the arrays are, such as ``candidates``.
            key: everything else that decides the arrays, as JSON values: settings, a version of the
                code, fingerprints of other runs and of judgments.
            build: writes the arrays into an empty folder, as ``.npy`` files.

        Returns:
            File name without ``.npy`` -> array. Arrays on disk are mapped read-only and checked as
            they are read.
        """
        if self.folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                build(Path(scratch))
                return {path.stem: np.load(path) for path in sorted(Path(scratch).glob("*.npy"))}

        def write(folder: Path) -> None:
            build(folder)
            names = sorted(path.name for path in folder.glob("*.npy"))
            write_sealed(folder / MANIFEST, {"name": name, "key": dict(key)}, names)

        def read(folder: Path) -> dict[str, np.ndarray | CheckedArray]:
            files = open_files(folder, read_sealed(folder / MANIFEST)["files"])
            return {Path(name).stem: npy_array(file) for name, file in files.items()}

        arrays: dict[str, np.ndarray | CheckedArray] = open_or_build(
            self.folder / f"{name}-{digest(dict(key))}", write, read
        )
        return arrays


def compile_run(run: Run, corpus: Corpus) -> CompiledRun:
    """Compile a run into the cache on first use; afterwards only open it.

    The cached arrays belong to the run's fingerprint and the corpus. They carry checksums and are
    built again when they are damaged. Nothing is written into the run's folder.
    """
    run = run.whole if isinstance(run, RunSubset) else run
    if run.path is None:
        with tempfile.TemporaryDirectory() as scratch:
            _write(run, corpus, Path(scratch))
            return CompiledRun(
                run.query_ids, *(np.load(Path(scratch) / f"{name}.npy") for name in ARRAYS)
            )
    folder = compiled_folder(f"{run.fingerprint}-{corpus.fingerprint}-{LAYOUT}")
    identity = {"run": run.fingerprint, "corpus": corpus.fingerprint, "layout": LAYOUT}

    def build(folder: Path) -> None:
        _write(run, corpus, folder)
        write_sealed(folder / MANIFEST, identity, [f"{name}.npy" for name in ARRAYS])

    def read(folder: Path) -> dict[str, CheckedFile]:
        files = open_files(folder, read_sealed(folder / MANIFEST)["files"])
        return {name: files[f"{name}.npy"] for name in ARRAYS}

    files: dict[str, CheckedFile] = open_or_build(folder, build, read)
    offsets = np.asarray(npy_array(files.pop("offsets")))
    rows, scores, codes = (DiskArray(file.path, file) for file in files.values())
    return CompiledRun(run.query_ids, offsets, rows, scores, codes, folder)


def compiled_folder(name: str = "") -> Path:
    """The folder of compiled runs in the cache, or the one of a name in it."""
    return cache_folder() / COMPILED / name


def _write(run: Run, corpus: Corpus, folder: Path) -> None:
    if len(corpus) >= 2**31:
        raise InputError(
            f"the corpus has {len(corpus)} documents; compiled runs address at most {2**31 - 1}."
        )
    sizes = np.zeros(len(run), np.int64)
    first, rows_of_run = 0, run.num_rows
    # Streams instead of memory maps: one part is in memory at a time, however long the run.
    with (
        array_stream(folder / "rows.npy", np.int32, rows_of_run) as rows,
        array_stream(folder / "scores.npy", np.float32, rows_of_run) as scores,
        array_stream(folder / "codes.npy", np.uint8, rows_of_run) as codes,
        progress(rows_of_run, "rows", "compiling") as bar,
    ):
        for ids, table in run.parts():
            corpus.rows(table.column("doc_id").to_pylist()).astype(np.int32).tofile(rows)
            column_scores(table).astype(np.float32, copy=False).tofile(scores)
            column_codes(table).astype(np.uint8, copy=False).tofile(codes)
            edges = boundaries(table)
            present = table.column("query_id").take(edges[:-1]).to_pylist()
            numbers = {query_id: first + number for number, query_id in enumerate(ids)}
            sizes[[numbers[query_id] for query_id in present]] = np.diff(edges)
            first += len(ids)
            bar.update(table.num_rows)
    with array_stream(folder / "offsets.npy", np.int64, len(sizes) + 1) as offsets:
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64).tofile(offsets)
