"""A run as memory-mapped arrays, so that any list is fetched by offset."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np

from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.files import cache_folder, explain_os_errors, fsync_folder, make_folder
from irdistill.progress import progress
from irdistill.runs.flags import column_codes
from irdistill.runs.lists import boundaries, column_scores
from irdistill.runs.store import Run

LAYOUT = 2
"""Raised when the arrays change; those of an earlier layout are not read, and made anew beside them."""
_ARRAYS = ("offsets", "rows", "scores", "codes")


class CompiledRun:
    """Lists by number, documents as row numbers of the corpus.

    Attributes:
        query_ids: (Q,) in order.
        offsets: (Q + 1,) int64; list i is rows ``offsets[i]`` to ``offsets[i + 1]``.
        rows: (R,) int32 rows of the corpus, best first.
        scores: (R,) float32, NaN where not scored.
        codes: (R,) uint8, what the flag of a scored document says (see `irdistill.runs.flags`).
    """

    def __init__(self, query_ids: list[str], offsets: np.ndarray, rows: np.ndarray, scores: np.ndarray,
                 codes: np.ndarray) -> None:
        self.query_ids, self.offsets, self.rows, self.scores, self.codes = query_ids, offsets, rows, scores, codes

    @cached_property
    def index(self) -> dict[str, int]:
        """query id -> number of its list."""
        return {query_id: place for place, query_id in enumerate(self.query_ids)}

    def list(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32 and scores float32 of one list, both (n,)."""
        start, end = self.offsets[place], self.offsets[place + 1]
        return self.rows[start:end], self.scores[start:end]

    def flags(self, place: int) -> np.ndarray:
        """Codes uint8 of one list's flags, (n,)."""
        return self.codes[self.offsets[place] : self.offsets[place + 1]]

    def __len__(self) -> int:
        return len(self.query_ids)


def compile_run(run: Run, corpus: Corpus) -> CompiledRun:
    """Compile a run on first use, into ``compiled/`` in its folder; afterwards only map it.

    Where the folder cannot be written the compiled arrays go to the cache folder.

    Raises:
        IrdistillError: the run names a document that the corpus lacks, or a part is damaged.
    """
    if run.path is None:
        with tempfile.TemporaryDirectory() as scratch:
            _write(run, corpus, Path(scratch))
            return CompiledRun(run.query_ids, *(np.load(Path(scratch) / f"{name}.npy") for name in _ARRAYS))
    base = run.path / "compiled" if os.access(run.path, os.W_OK) else cache_folder() / "compiled"
    folder = base / f"{run.fingerprint}-{corpus.fingerprint}-{LAYOUT}"
    if not folder.is_dir():
        make_folder(base)
        scratch_folder = base / f".{folder.name}.tmp-{os.getpid()}"
        make_folder(scratch_folder)
        try:
            with explain_os_errors(folder):
                _write(run, corpus, scratch_folder)
                fsync_folder(scratch_folder)
                try:
                    scratch_folder.rename(folder)
                except OSError:  # another process was quicker
                    if not folder.is_dir():
                        raise
            fsync_folder(base)
        finally:
            shutil.rmtree(scratch_folder, ignore_errors=True)
    return CompiledRun(run.query_ids, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))


def _write(run: Run, corpus: Corpus, folder: Path) -> None:
    if len(corpus) >= 2**31:
        raise IrdistillError(f"the corpus has {len(corpus)} documents; compiled runs address at most {2**31 - 1}.")
    total = run.num_rows
    # An empty file cannot be mapped, so a run without a single row is saved as it is.
    create = np.lib.format.open_memmap if total else None
    rows = create(folder / "rows.npy", "w+", np.int32, (total,)) if create else np.empty(0, np.int32)
    scores = create(folder / "scores.npy", "w+", np.float32, (total,)) if create else np.empty(0, np.float32)
    codes = create(folder / "codes.npy", "w+", np.uint8, (total,)) if create else np.empty(0, np.uint8)
    sizes = np.zeros(len(run), np.int64)
    at = first = 0
    with progress(total, "rows", "compiling") as bar:
        for ids, table in run.parts():
            end = at + table.num_rows
            rows[at:end] = corpus.rows(table.column("doc_id").to_pylist())
            scores[at:end] = column_scores(table)
            codes[at:end] = column_codes(table)
            edges = boundaries(table)
            present = table.column("query_id").take(edges[:-1]).to_pylist()
            places = {query_id: first + i for i, query_id in enumerate(ids)}
            for query_id, size in zip(present, np.diff(edges).tolist(), strict=True):
                sizes[places[query_id]] = size
            at, first = end, first + len(ids)
            bar.update(table.num_rows)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    for name, values in (("rows", rows), ("scores", scores), ("codes", codes)):
        if isinstance(values, np.memmap):
            values.flush()
        else:
            np.save(folder / f"{name}.npy", values)
