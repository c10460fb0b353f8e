"""Kill each verb at random moments, run it again, and compare its files with an undisturbed run,
byte for byte.

    python -m tests.campaigns.kills --minutes 10                 (all verbs, round after round)
    python -m tests.campaigns.kills --rounds 1 --verbs fuse train

In a round of a verb, the command is started and killed (SIGKILL, the whole process group) after a
random share of the time of an undisturbed run, up to three times, and then run to its end. It must
exit with 0, print no traceback, and leave the same files with the same bytes as the undisturbed run;
times and logs are ignored. The attempts of a round share the caches, which are new for each round,
so kills affect them too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

TIMED = {"journal.jsonl", ".lock", "report.md", "results.json"}
#: Each verb's command; IN is the folder of what it needs, OUT what it writes.
VERBS: Mapping[str, str] = {
    "retrieve": "retrieve IN/data#train --model bm25 --out OUT",
    "dense retrieve": "retrieve IN/data#train --model IN/model --out OUT",
    "collect": "collect IN/data --passage-tokens 16 --passage-encoder IN/model --out OUT",
    "retrieve test": "retrieve IN/data#test --model IN/model --index hnsw --k 10 --out OUT",
    "score": (
        "score IN/data#train --candidates IN/bm25 --teacher IN/model --kind retriever"
        " --part-queries 2 --out OUT"
    ),
    "fuse": "fuse IN/bm25 IN/dense --method rrf --out OUT",
    "mask": "mask IN/data#train IN/dense --rules margin=0.1 --out OUT",
    "runs merge": "runs merge IN/shard-1 IN/shard-2 --out OUT",
    "merge": "merge IN/model IN/other/model --weights 0.4 0.6 --out OUT",
    "import": "runs import IN/bm25.trec --collection IN/data#train --format trec --out OUT",
    "export": "runs export IN/bm25 --format trec --out OUT/run.trec",
    "train": (
        "train IN/data#train --scores IN/scores --loss KL() --backbone IN/model --steps 8"
        " --batch-size 4 --list-size 4 --out OUT"
    ),
    "pretrain": (
        "pretrain IN/data#train --backbone IN/model --steps 6 --batch-size 4 --max-length 32"
        " --out OUT"
    ),
    "align": (
        "align IN/data#train --teacher IN/model --query-layers 1 --steps 6 --batch-size 4 --out OUT"
    ),
    "terms": "terms IN/data#train --model IN/model --out OUT",
    "static": "static IN/data#train --teacher IN/model --out OUT",
    "compress": "compress IN/data#train --model IN/model --dimensions 16 --out OUT",
    "filter": "filter IN/data#train --scores IN/scores --rules percentile=50 --out OUT",
    "generate": "generate IN/data#train --kinds sentence --out OUT",
    "split": "split IN/data#train --folds 2 --out OUT",
    "package": "package IN/model IN/data#train --no-onnx --out OUT",
    "package for an engine": (
        "package IN/model IN/data#train --format qdrant --part-documents 2 --out OUT"
    ),
    "recipe": "run IN/small.yaml --out OUT",
}


def execute(
    command: str, inputs: Path, out: Path, cache: Path, kill_after: float | None = None
) -> tuple[int, str, float]:
    """Run a command of irdistill; return its exit status, its output and its seconds."""
    words = [word.replace("IN/", f"{inputs}/").replace("OUT", str(out)) for word in command.split()]
    environment = os.environ | {
        "IRDISTILL_CACHE": str(cache),
        "PYTHONPATH": os.getcwd(),
        "HF_HUB_OFFLINE": "1",
    }
    if "OUT/" in command:
        out.mkdir(exist_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "from irdistill.cli import main; main()", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return process.returncode, output, time.monotonic() - began


def tree(folder: Path) -> dict[str, bytes]:
    """All files that must not depend on interruptions."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in TIMED
        and not path.name.endswith(".lock")
        and "costs" not in path.parts
    }


def prepare(inputs: Path, verbs: Iterable[str]) -> None:
    """Make the input of the verbs."""
    from tests.recipes.tiny import small_recipe

    inputs.mkdir()
    small_recipe(inputs)
    data, model = "IN/data#train", "IN/model"
    shard = f"score {data} --candidates IN/bm25 --teacher {model} --kind retriever --part-queries 2"
    needs = {
        "bm25": f"retrieve {data} --model bm25 --out IN/bm25",
        "dense": f"retrieve {data} --model {model} --out IN/dense",
        "scores": (
            f"score {data} --candidates IN/bm25 --teacher {model} --kind retriever --out IN/scores"
        ),
        "shard-1": f"{shard} --shard 1/2 --out IN/shard-1",
        "shard-2": f"{shard} --shard 2/2 --out IN/shard-2",
        "other": (
            f"pretrain {data} --backbone {model} --steps 1 --batch-size 2 --max-length 32"
            " --out IN/other"
        ),
        "bm25.trec": "runs export IN/bm25 --format trec --out IN/bm25.trec",
    }
    commands = " ".join(VERBS[verb] for verb in verbs)
    for name, command in needs.items():
        if name == "bm25" or f"IN/{name}" in commands:
            status, output, _ = execute(command, inputs, inputs, inputs / "cache")
            assert status == 0, f"{command}: {output}"


def attempt(
    verb: str,
    inputs: Path,
    right: dict[str, bytes],
    seconds: float,
    draw: random.Random,
    place: Path,
) -> tuple[int, str]:
    """Kill a verb up to three times, then let it end; return the kills and the faults."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    kills = 0
    for _ in range(draw.randint(1, 3)):
        status, output, _ = execute(
            VERBS[verb], inputs, place / "out", place / "cache", draw.uniform(0.2, 1.05) * seconds
        )
        kills += status == -signal.SIGKILL
        if status not in (0, -signal.SIGKILL):
            return kills, f"exit status {status} before the end: {output[-1500:]}"
    status, output, _ = execute(VERBS[verb], inputs, place / "out", place / "cache")
    if status or "Traceback" in output:
        return kills, f"exit status {status}: {output[-1500:]}"
    left = tree(place / "out")
    different = sorted(name for name in {*left, *right} if left.get(name) != right.get(name))
    return kills, f"these files differ: {', '.join(different[:5])}" if different else ""


def campaign(
    verbs: Iterable[str], rounds: int, minutes: float, seed: int
) -> tuple[Counter[str], list[str]]:
    """Rounds over all verbs; return the kills of each verb, and the faults."""
    kills, faults, draw = Counter[str](), [], random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        inputs, place = Path(folder) / "in", Path(folder)
        prepare(inputs, verbs)
        began = time.monotonic()
        whole: dict[str, tuple[dict[str, bytes], float]] = {}
        for _ in range(rounds):
            for verb in verbs:
                if time.monotonic() - began > 60 * minutes:
                    return kills, faults
                if verb not in whole:
                    (place / "whole").mkdir(exist_ok=True)
                    status, output, seconds = execute(
                        VERBS[verb], inputs, place / "out", place / "whole" / verb.replace(" ", "-")
                    )
                    assert status == 0, f"{verb}: {output}"
                    whole[verb] = tree(place / "out"), seconds
                    shutil.rmtree(place / "out")
                number, fault = attempt(verb, inputs, *whole[verb], draw, place / "attempt")
                kills[verb] += number
                if fault:
                    faults.append(f"{verb}: {fault}")
                    print(faults[-1], file=sys.stderr, flush=True)
                print(f"{verb}: {number} kills, {'a fault' if fault else 'well'}", flush=True)
    return kills, faults


def main() -> None:
    """Print the kills of each verb; exit with 1 if any round left other files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--verbs", nargs="+", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kills, faults = campaign(options.verbs, options.rounds, options.minutes, options.seed)
    print("; ".join(f"{verb} {count}" for verb, count in kills.items()))
    print(f"{sum(kills.values())} kills, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
