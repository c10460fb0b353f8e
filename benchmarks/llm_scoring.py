"""Pointwise scoring by a language model: shared prefixes against one prompt at a time and against
batches of whole prompts.

    python benchmarks/llm_scoring.py --data FOLDER --json llm_scoring.json

The model is the packaged one with its card's prompt, on real candidates of about 60 words. ``one``
is transformers with one forward pass per prompt, the reference for the other sides' scores.
``batched`` is irdistill without sharing: sorted by length, logits of the last position only.
``shared`` computes the common beginning of a query's prompts once. All sides run in one process, in
turn. CPU seconds are less sensitive to other work on the machine than wall seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.teachers.llm.local import TransformersModel
from irdistill.teachers.llm.pointwise_teacher import PointwiseTeacher
from irdistill.teachers.protocol import TextPair

WORDS = 60


def pairs_of(data: Path, queries: int, candidates: int) -> list[TextPair]:
    """The first queries, each with those of its candidates whose length is nearest to 60 words."""
    from irdistill import load_collection
    from irdistill.runs import open_run

    collection = load_collection(data)
    run = open_run(data / "run.bm25-top100.trec", collection)
    pairs = []
    for query in list(collection.queries.values())[:queries]:
        rows = collection.corpus.rows(run[query.id].doc_ids).tolist()
        texts = dict(zip(rows, collection.corpus.texts(rows), strict=True))
        near = sorted(rows, key=lambda row: abs(len(texts[row].split()) - WORDS))[:candidates]
        pairs += [TextPair(query, row, texts[row]) for row in near]
    return pairs


def one_by_one(
    model: TransformersModel, teacher: PointwiseTeacher, pairs: list[TextPair]
) -> Callable[[], np.ndarray]:
    """Log-odds by plain transformers, with a separate network."""
    import torch
    from transformers import AutoModelForCausalLM

    from irdistill.modeling.model_files import resolve_model, split_gguf
    from irdistill.teachers.llm import Request

    place, file = split_gguf(resolve_model(model.model_name))
    network = (
        AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=model.dtype)
        .to(model.device)
        .eval()
    )

    def run() -> np.ndarray:
        requests = [
            Request(
                teacher.template.messages(query=pair.query.text, passage=pair.text), teacher.labels
            )
            for pair in pairs
        ]
        score_list = []
        with torch.inference_mode():
            for prompt in model.chat.prompts(requests):
                ids = torch.tensor([prompt.ids], device=model.device)
                logits = (
                    network(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
                )
                score_list.append(float(logits[prompt.labels[0]] - logits[prompt.labels[1]]))
        return np.array(score_list, np.float32)

    return run


def main() -> None:
    """Run the sides in turn and print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder in BEIR layout with the run run.bm25-top100.trec",
    )
    parser.add_argument("--card", default="smollm2-pointwise", help="of a local language model")
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from irdistill.teachers import load_teacher

    pairs = pairs_of(arguments.data, arguments.queries, arguments.candidates)
    settings = {
        "precision": arguments.precision,
        "device": arguments.device,
        "batch_tokens": arguments.batch_tokens,
        "passage_words": 1000,
    }
    teacher: Any = load_teacher(arguments.card, None, **settings)  # type: ignore[arg-type]  # it keeps no index of a corpus
    model = teacher.model
    usage: dict[str, dict[str, float]] = {}

    def scored(side: str) -> np.ndarray:
        model.share_prefixes = side == "shared"
        score_list = teacher.score(pairs)
        usage[side] = dict(score_list.usage)
        return score_list.values

    sides: dict[str, Callable[[], np.ndarray]] = {
        "shared": lambda: scored("shared"),
        "batched": lambda: scored("batched"),
        "one": one_by_one(model, teacher, pairs),
    }
    teacher.score(pairs[:2])
    values: dict[str, np.ndarray] = {}
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side, run in sides.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            values[side] = run()
            wall[side].append(time.perf_counter() - began)
            cpu[side].append(time.process_time() - began_cpu)
            print(
                f"round {number + 1} {side}: {wall[side][-1]:.1f} s, of CPU {cpu[side][-1]:.1f} s",
                file=sys.stderr,
            )
    result: dict[str, Any] = {
        "pairs": len(pairs),
        "words_per_passage": statistics.mean(len(pair.text.split()) for pair in pairs),
        "tokens_per_prompt": usage["shared"]["tokens"] / len(pairs),
        "cached_share": usage["shared"]["cached_tokens"] / usage["shared"]["tokens"],
        "identity": dict(teacher.identity),
    }
    for side in sides:
        seconds = statistics.median(wall[side])
        result[side] = {
            "seconds": wall[side],
            "cpu_seconds": cpu[side],
            "pairs_per_second": len(pairs) / seconds,
            "largest_difference": float(np.abs(values[side] - values["one"]).max()),
        }
    for other in ("one", "batched"):
        result[f"shared_over_{other}_ratio"] = statistics.median(wall[other]) / statistics.median(
            wall["shared"]
        )
        result[f"shared_over_{other}_cpu_ratio"] = statistics.median(
            cpu[other]
        ) / statistics.median(cpu["shared"])
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
