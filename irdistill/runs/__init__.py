"""Runs: each query's ranked list of (document, score), and the store that keeps them."""

from __future__ import annotations

from irdistill.runs.compiled_run import CompiledRun, compile_run
from irdistill.runs.formats import FORMATS, export_run, import_run
from irdistill.runs.fusion import fuse
from irdistill.runs.gate import Gate
from irdistill.runs.interchange import as_run
from irdistill.runs.manifest import KINDS, Manifest, PartEntry, RunIdentity
from irdistill.runs.masking import mask
from irdistill.runs.memory_run import MemoryRun
from irdistill.runs.mixing import METHODS, Mixing
from irdistill.runs.opening import open_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_ownership import check_out
from irdistill.runs.sharding import merge
from irdistill.runs.statistics import diff, stats
from irdistill.runs.store import StoredRun
from irdistill.runs.verification import verify
from irdistill.runs.writer import RunWriter, write_run

__all__ = [
    "FORMATS",
    "KINDS",
    "METHODS",
    "CompiledRun",
    "Gate",
    "Manifest",
    "MemoryRun",
    "Mixing",
    "PartEntry",
    "RankedList",
    "Run",
    "RunIdentity",
    "RunWriter",
    "StoredRun",
    "as_run",
    "check_out",
    "compile_run",
    "diff",
    "export_run",
    "fuse",
    "import_run",
    "mask",
    "merge",
    "open_run",
    "stats",
    "verify",
    "write_run",
]
