"""Damage each kind of artifact at random, use it, and report the outcome.

    python -m tests.campaigns.flips --trials 500                 (all kinds, some minutes)
    python -m tests.campaigns.flips --trials 20 --kinds bm25 hnsw

A trial damages one file of an artifact: it flips a bit (two of three trials), truncates, empties or
removes the file, appends to it, or swaps it with another file. Then the artifact is used as a
command would use it. The outcome is one of

    rebuilt      the right result, and the file was written again or removed
    refused      one sentence, an error of the package
    harmless     the right result with the damaged file: the damage does not affect results
    silent       a wrong result
    traceback    any other error
    crash        the process ended

Each kind runs in a separate process. Half of the trials check each block on its first use, as for
large artifacts.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.storage import checksums
from tests.campaigns.artifacts import KINDS, Use

OUTCOMES = ("rebuilt", "refused", "harmless", "silent", "traceback", "crash")


def damage(folder: Path, draw: random.Random, only: Callable[[Path], bool]) -> tuple[Path, str]:
    """Damage one file of an artifact; return the file and the kind of damage."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size and only(path)
    ]
    path = draw.choice(files)
    how = draw.choice(["flip"] * 10 + ["truncate", "empty", "remove", "append", "swap"])
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif how == "truncate":
        data = data[: draw.randrange(len(data))]
    elif how == "empty":
        data = bytearray()
    elif how == "append":
        data += draw.randbytes(draw.randint(1, 64))
    elif how == "swap":
        data = bytearray(draw.choice(files).read_bytes())
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(data)
    return path, how


def is_data(path: Path) -> bool:
    """Whether a file is part of an artifact; locks, logs and temporary files are not."""
    return not path.name.startswith(".") and path.name != "journal.jsonl"


def trial(
    artifact: Path,
    use: Use,
    right: Any,
    draw: random.Random,
    scratch: Path,
    only: Callable[[Path], bool] = is_data,
) -> tuple[str, str]:
    """Damage a copy and use it; return the outcome and the damage."""
    from irdistill.errors import IrdistillError

    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(artifact, scratch)
    path, how = damage(scratch, draw, only)
    name = path.relative_to(scratch)
    about = f"{how} {name}"
    damaged = path.read_bytes() if path.is_file() else None
    if damaged == (artifact / name).read_bytes():
        return "harmless", about
    try:
        result = use(scratch)
    except IrdistillError as error:
        return (
            "refused" if len(str(error)) < 1000 and "\n\n" not in str(error) else "traceback"
        ), f"{about}: {error}"
    except BaseException as error:
        return "traceback", f"{about}: {error!r}"
    if not np.array_equal(json.dumps(result), json.dumps(right)):
        return "silent", about
    return (
        "harmless" if (path.read_bytes() if path.is_file() else None) == damaged else "rebuilt"
    ), about


def run_kind(kind: str, trials: int, seed: int, folder: Path) -> dict[str, Any]:
    """Make an artifact and damage it repeatedly; return counts and faults."""
    (folder / "right").mkdir(parents=True)
    use = KINDS[kind](folder / "right")
    shutil.copytree(folder / "right", folder / "first")
    right = use(folder / "first")
    draw, counts, notes = random.Random(f"{seed} {kind}"), Counter[str](), []
    for number in range(trials):
        checksums.WHOLE_BYTES = (64 << 20) if number % 2 else 0
        outcome, about = trial(folder / "right", use, right, draw, folder / "scratch")
        print(json.dumps([outcome, about]), flush=True)
        counts[outcome] += 1
        if outcome in ("silent", "traceback"):
            notes.append(f"{outcome}: {about}")
    return {"counts": dict(counts), "notes": notes}


def campaign(kinds: Iterable[str], trials: int, seed: int) -> dict[str, Counter[str]]:
    """Run each kind in a separate process; print a line for each, and each fault."""
    table: dict[str, Counter[str]] = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as place:
            command = [
                sys.executable,
                "-m",
                "tests.campaigns.flips",
                "--kind",
                kind,
                "--trials",
                str(trials),
                "--seed",
                str(seed),
                "--folder",
                place,
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        table[kind] = Counter(outcome for outcome, _ in lines)
        if done.returncode or len(lines) < trials:
            table[kind]["crash"] += trials - len(lines)
            print(
                f"{kind}: the process ended with {done.returncode}: {done.stderr[-2000:]}",
                file=sys.stderr,
            )
        for outcome, about in lines:
            if outcome in ("silent", "traceback"):
                print(f"{kind}: {outcome}: {about}", file=sys.stderr)
        print(
            f"{kind:<16}" + "".join(f"{outcome} {table[kind][outcome]:<5}" for outcome in OUTCOMES),
            flush=True,
        )
    return table


def main() -> None:
    """Print how many trials of each kind ended how; exits with 1 where any was silent, a traceback
    or a crash.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500, help="of all kinds together")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        run_kind(options.kind, options.trials, options.seed, options.folder)
        return
    table = campaign(options.kinds, -(-options.trials // len(options.kinds)), options.seed)
    total = sum(table.values(), Counter[str]())
    print(f"{'all':<16}" + "".join(f"{outcome} {total[outcome]:<5}" for outcome in OUTCOMES))
    sys.exit(1 if any(total[outcome] for outcome in ("silent", "traceback", "crash")) else 0)


if __name__ == "__main__":
    main()
