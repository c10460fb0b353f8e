"""Draw quality and speed of the systems of the quickstart, from its results.

python benchmarks/quickstart_picture.py out/quickstart/results.json docs/images/quickstart.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

LABELS = {
    "BM25": "BM25",
    "MiniLM": "MiniLM, zero-shot",
    "teacher": "teacher: both, fused",
    "student": "student",
    "small": "small student",
}
DATASETS = ("pydocs/test", "pydocs/howto")


def draw(results: Path, picture: Path) -> None:
    """One panel per dataset: nDCG@10 by queries a second."""
    loaded = json.loads(results.read_text(encoding="utf-8"))
    speed = {cost["system"]: cost["queries_per_second"] for cost in loaded["efficiency"]}
    matplotlib.rcParams.update({"svg.hashsalt": "quickstart", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, len(DATASETS), figsize=(9, 3.6), layout="constrained")
    for panel, dataset in zip(panels, DATASETS, strict=True):
        rows = {row["system"]: row for row in loaded["rows"] if row["dataset"] == dataset}
        for system, row in rows.items():
            ours = system in ("student", "small")
            color = "#b5301a" if ours else "#4a4a4a"
            spread = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            panel.errorbar(speed[system], row["value"], yerr=spread, fmt="o", color=color)
            panel.annotate(
                LABELS[system],
                (speed[system], row["value"]),
                xytext=(6, 5),
                textcoords="offset points",
                color=color,
            )
        panel.set(title=dataset, xlabel="queries a second", xscale="log", xlim=(300, 6000))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("nDCG@10, 95% interval")
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
