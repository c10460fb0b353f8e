"""What each loss costs: forward, and forward with backward, for lists of growing length, on one
core.

The cost grows with a power of the list's length; the power found between the two longest is printed
beside the one that the loss states. A loss of one list at a time is to take less than 5 ms for 64
lists of 200. The process keeps the memory that it frees: glibc hands tensors above 32 MiB back at
once, and new pages then cost more than the arithmetic (RankNet at 400 documents 257 ms for 103).
Run with

    python benchmarks/losses.py --json out/losses.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

LISTS = 64
SIZES = (50, 100, 200, 400)
#: Variants that do other work than the loss as it stands.
VARIANTS = (
    'MarginMSE(pairs="all")',
    'BCE(by="teacher")',
    'Hinge(by="teacher")',
    'InfoNCE(negatives="list")',
    'CPRD(negatives="list")',
    'CPRD(valid="top<=20")',
    "KL(top=20)",
    'RankNet(by="label")',
)
LIMIT_MS = 5.0
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}


def make_batch(lists: int, size: int, dtype: Any) -> Any:
    """Cosines, and lists with one relevant document each; the documents of the batch are all
    different.
    """
    import torch

    from irdistill.losses import ScoreBatch

    generator = torch.Generator().manual_seed(size)
    student = 2 * torch.rand(lists, size, generator=generator, dtype=dtype) - 1
    teacher = 4 * torch.randn(lists, size, generator=generator)
    labels = torch.zeros(lists, size)
    labels[:, 0] = 1.0
    documents = lists * size
    positives = torch.zeros(lists, documents, dtype=torch.bool)
    columns = torch.arange(documents).reshape(lists, size)
    in_batch = (2 * torch.rand(lists, documents, generator=generator, dtype=dtype) - 1).scatter(
        1, columns, student
    )
    return ScoreBatch(
        student=student,
        teacher=teacher,
        labels=labels,
        in_batch=in_batch,
        columns=columns,
        positives=positives,
    )


def measure(loss: Any, batch: Any, seconds: float) -> dict[str, float]:
    """CPU time in ms of the fastest of the calls that fit into some seconds."""
    student, in_batch = (
        value.detach().requires_grad_() for value in (batch.student, batch.in_batch)
    )
    timed = replace(batch, student=student, in_batch=in_batch if loss.uses_in_batch else None)

    def both() -> None:
        student.grad = in_batch.grad = None
        loss(timed).backward()

    return {
        "forward_ms": _quickest(lambda: loss(timed), seconds),
        "both_ms": _quickest(both, seconds),
    }


def _quickest(call: Callable[[], Any], seconds: float) -> float:
    call()
    best, end = math.inf, time.process_time() + seconds
    for turn in range(1000):
        began = time.process_time()
        call()
        now = time.process_time()
        best = min(best, now - began)
        if now > end and turn >= 2:
            break
    return 1000 * best


def stated(loss: Any) -> str:
    """The documented cost of a loss: O(N log N), O(N^2), or O(N) if it is not stated."""
    text = (type(loss).__doc__ or "") + (loss.compute.__doc__ or "")
    return next((cost for cost in ("O(N^2)", "O(N log N)") if cost in text), "O(N)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--losses", nargs="*", help="as in --loss; all that are known where left out"
    )
    parser.add_argument("--lists", type=int, default=LISTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="for each loss, size and direction"
    )
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    if any(os.environ.get(key) != value for key, value in KEPT_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEPT_MEMORY)
    import torch

    from irdistill.losses import REGISTRY, make_loss_parameters, parse_loss

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    sizes = " ".join(f"{f'N={size}':>15}" for size in settings.sizes)
    print(f"{'loss':32} {'stated':10} {'power':>6} {sizes}   ms forward / both")
    for text in settings.losses or [*REGISTRY, *VARIANTS]:
        loss = parse_loss(text)
        if "representation" in loss.needs:
            continue
        timings = {}
        for size in settings.sizes:
            batch = make_batch(settings.lists, size, torch.float32)
            timings[size] = measure(
                loss, replace(batch, parameters=make_loss_parameters(loss, batch)), settings.seconds
            )
        last = settings.sizes[-2:]
        power = (
            math.log(timings[last[-1]]["both_ms"] / timings[last[0]]["both_ms"], last[-1] / last[0])
            if len(last) == 2
            else math.nan
        )
        cost = stated(loss)
        rows.append(
            {
                "loss": str(loss),
                "stated": cost,
                "power": power,
                "sizes": {str(size): timing for size, timing in timings.items()},
            }
        )
        print(
            f"{loss!s:32} {cost:10} {power:6.2f} "
            + " ".join(
                f"{timing['forward_ms']:6.2f} / {timing['both_ms']:6.2f}"
                for timing in timings.values()
            ),
            flush=True,
        )
    slow = [
        row["loss"]
        for row in rows
        if row["stated"] != "O(N^2)"
        and "200" in row["sizes"]
        and row["sizes"]["200"]["both_ms"] > LIMIT_MS
    ]
    print(
        f"above {LIMIT_MS:g} ms with 200 documents a list, among those not O(N^2):"
        f" {', '.join(slow) or 'none'}"
    )
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(
            json.dumps(
                {"lists": settings.lists, "threads": 1, "losses": rows, "slow": slow}, indent=1
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
