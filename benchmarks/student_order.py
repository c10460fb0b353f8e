"""Does the order of untrained students predict the order of the trained ones?

Reads the folders of `irdistill run recipes/rank-students.yaml`, one for each seed, and prints
Kendall's tau-b with the mean nDCG@10 of the trained students: of the two orders that
`rank-students` gives, and of more layers and more parameters. Run with

    python benchmarks/student_order.py out/rank-students out/rank-students-1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from irdistill.collections import load_collection
from irdistill.evaluation.measures import per_query
from irdistill.runs import open_run

MEASURE = "nDCG@10"
PREDICTORS = {
    "gram distance": lambda student: -student["distance"],
    "correlation": lambda student: student["correlation"],
    "more layers": lambda student: student["query_layers"],
    "more parameters": lambda student: student["query_parameters"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of one collection, with its seeds")
    folders: list[Path] = parser.parse_args().folders
    ranking = json.loads((folders[0] / "ranking" / "result.json").read_text())["students"]
    values = np.array([[_values(folder, student) for student in ranking] for folder in folders])
    trained = values.mean(axis=2).mean(axis=0)
    for student, value, seeds in zip(ranking, trained, values.mean(axis=2).T, strict=True):
        cost = f"{student['query_layers']} | {student['query_parameters'] / 1e6:.1f}"
        near = f"{student['distance']:.3f} | {student['correlation']:.3f}"
        spread = f" | {seeds.std(ddof=1):.4f}" if len(folders) > 1 else ""
        print(f"| {student['candidate']} | {cost} | {near} | {value:.4f}{spread} |")
    wide = np.array([not student["candidate"].startswith("n") for student in ranking])
    groups = {"all": wide | True, "layers of the encoder alone": wide}
    for label, chosen in groups.items():
        print(f"{label}: {int(chosen.sum())} students")
        for name, predictor in PREDICTORS.items():
            predicted = np.array([predictor(student) for student in ranking], float)
            result = _taus(predicted[chosen], values[:, chosen])
            print(f"  {name:16} {result}")


def _taus(predicted: np.ndarray, values: np.ndarray) -> str:
    """Tau with the mean of the seeds, its interval over samples of queries, and each seed's."""
    seeds, _, queries = values.shape
    tau = kendalltau(predicted, values.mean(axis=(0, 2))).statistic
    draw = np.random.default_rng(42)
    samples = [draw.integers(queries, size=queries) for _ in range(1000)]
    taus = [
        kendalltau(predicted, values[:, :, sample].mean(axis=(0, 2))).statistic
        for sample in samples
    ]
    low, high = np.quantile(taus, [0.025, 0.975])
    each = [
        float(kendalltau(predicted, values[seed].mean(axis=1)).statistic) for seed in range(seeds)
    ]
    return f"tau {tau:.3f} [{low:.3f}, {high:.3f}], each seed {[round(one, 3) for one in each]}"


def _values(folder: Path, student: dict[str, Any]) -> np.ndarray:
    """(Q,) the measure of a trained student."""
    run = open_run(folder / f"{student['candidate']}-test")
    collection = load_collection(str(run.identity.collection["id"]))
    return per_query(collection.qrels, run, MEASURE).values[MEASURE]


if __name__ == "__main__":
    main()
