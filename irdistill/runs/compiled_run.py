"""A run as arrays on disk, so that any list is fetched by offset."""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np

from irdistill.collections import Corpus
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs.flags import column_codes
from irdistill.runs.manifest import MANIFEST
from irdistill.runs.ondisk import OnDisk, array_stream
from irdistill.runs.ranked_lists import boundaries, column_scores
from irdistill.runs.run import Run
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import npy_array, open_files, read_sealed, write_sealed
from irdistill.storage.files import cache_folder

LAYOUT = 3
"""Raised when the arrays change; those of an earlier layout are not read, and made anew beside
them.
"""
COMPILED = "compiled"
ARRAYS = ("offsets", "rows", "scores", "codes")


class CompiledRun:
    """Lists by number, documents as row numbers of the corpus.

    Attributes:
        query_ids: (Q,) in order.
        offsets: (Q + 1,) int64; list i is rows ``offsets[i]`` to ``offsets[i + 1]``.
        rows: (R,) int32 rows of the corpus, best first.
        scores: (R,) float32, NaN where not scored.
        codes: (R,) uint8, what the flag of a scored document says (see `irdistill.runs.flags`).

    Of what is on disk only the offsets are mapped; of the others a list at a time is read.
    """

    def __init__(
        self,
        query_ids: list[str],
        offsets: np.ndarray,
        rows: np.ndarray | OnDisk,
        scores: np.ndarray | OnDisk,
        codes: np.ndarray | OnDisk,
    ) -> None:
        self.query_ids, self.offsets, self.rows, self.scores, self.codes = (
            query_ids,
            offsets,
            rows,
            scores,
            codes,
        )

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
    """Compile a run on first use, into ``compiled/`` in its folder; afterwards only open it.

    Where the folder cannot be written the compiled arrays go to the cache folder.

    Raises:
        IrdistillError: the run names a document that the corpus lacks, or a part is damaged.
    """
    run = getattr(run, "whole", run)  # a share of a run is read from the arrays of the whole one
    if run.path is None:
        with tempfile.TemporaryDirectory() as scratch:
            _write(run, corpus, Path(scratch))
            return CompiledRun(
                run.query_ids, *(np.load(Path(scratch) / f"{name}.npy") for name in ARRAYS)
            )
    base = run.path / COMPILED if os.access(run.path, os.W_OK) else cache_folder() / COMPILED
    identity = {"run": run.fingerprint, "corpus": corpus.fingerprint, "layout": LAYOUT}

    def build(folder: Path) -> None:
        _write(run, corpus, folder)
        write_sealed(folder / MANIFEST, identity, [f"{name}.npy" for name in ARRAYS])

    def opens(folder: Path) -> CompiledRun:
        files = open_files(folder, read_sealed(folder / MANIFEST)["files"])
        offsets, *others = (files[f"{name}.npy"] for name in ARRAYS)
        return CompiledRun(
            run.query_ids,
            np.asarray(npy_array(offsets)),
            *(OnDisk(file.path, file) for file in others),
        )

    compiled: CompiledRun = open_or_build(
        base / f"{run.fingerprint}-{corpus.fingerprint}-{LAYOUT}", build, opens
    )
    return compiled


def _write(run: Run, corpus: Corpus, folder: Path) -> None:
    if len(corpus) >= 2**31:
        raise IrdistillError(
            f"the corpus has {len(corpus)} documents; compiled runs address at most {2**31 - 1}."
        )
    sizes = np.zeros(len(run), np.int64)
    first = 0
    # Written as a stream and not through a map: a part at a time is in memory, however long the
    # run.
    with (
        array_stream(folder / "rows.npy", np.int32, run.num_rows) as rows,
        array_stream(folder / "scores.npy", np.float32, run.num_rows) as scores,
        array_stream(folder / "codes.npy", np.uint8, run.num_rows) as codes,
        progress(run.num_rows, "rows", "compiling") as bar,
    ):
        for ids, table in run.parts():
            corpus.rows(table.column("doc_id").to_pylist()).astype(np.int32).tofile(rows)
            column_scores(table).astype(np.float32, copy=False).tofile(scores)
            column_codes(table).astype(np.uint8, copy=False).tofile(codes)
            edges = boundaries(table)
            present = table.column("query_id").take(edges[:-1]).to_pylist()
            places = {query_id: first + i for i, query_id in enumerate(ids)}
            sizes[[places[query_id] for query_id in present]] = np.diff(edges)
            first += len(ids)
            bar.update(table.num_rows)
    with array_stream(folder / "offsets.npy", np.int64, len(sizes) + 1) as offsets:
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64).tofile(offsets)
