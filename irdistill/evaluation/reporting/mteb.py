"""Figures in the layout of MTEB's results (Muennighoff et al. 2022, arXiv:2210.07316)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ir_measures

from irdistill.collections.slices import split_id
from irdistill.errors import InputError
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.storage.files import make_folder
from irdistill.storage.ownership import write_json_file

MAIN = "nDCG@10"
_NAMES = {
    "nDCG": "ndcg",
    "RR": "mrr",
    "R": "recall",
    "P": "precision",
    "AP": "map",
    "Success": "hit_rate",
    "Judged": "judged",
}

#: Last part of an ir_datasets id or of a folder -> MTEB's name of the BEIR set.
TASKS = {
    "arguana": "ArguAna",
    "climate-fever": "ClimateFEVER",
    "dbpedia-entity": "DBPedia",
    "fever": "FEVER",
    "fiqa": "FiQA2018",
    "hotpotqa": "HotpotQA",
    "msmarco": "MSMARCO",
    "nfcorpus": "NFCorpus",
    "nq": "NQ",
    "quora": "QuoraRetrieval",
    "scidocs": "SCIDOCS",
    "scifact": "SciFact",
    "trec-covid": "TRECCOVID",
    "webis-touche2020": "Touche2020",
}
_SPLITS = ("train", "dev", "test", "validation")


def metric_name(measure: str) -> str | None:
    """``ndcg_at_10`` for ``nDCG@10``; None if MTEB has no name for the measure."""
    parsed = ir_measures.parse_measure(measure)
    parameters = dict(parsed.params)
    cutoff = parameters.pop("cutoff", None)
    known = _NAMES.get(parsed.NAME)
    return None if known is None or parameters or cutoff is None else f"{known}_at_{cutoff}"


def task_of(dataset: str) -> tuple[str, str]:
    """Task and split of a dataset id: ``beir/scifact/test`` and ``sets/scifact#test`` are SciFact,
    test.
    """
    path, split = split_id(dataset)
    parts = [part for part in path.split("/") if part]
    if not split and len(parts) > 1 and parts[-1] in _SPLITS:
        split = parts.pop()
    name = parts[-1] if parts else dataset
    return TASKS.get(name.lower(), re.sub(r"[^\w.-]+", "-", name)), split or "test"


def task_result(rows: Sequence[Row], languages: Sequence[str] = ("eng-Latn",)) -> dict[str, Any]:
    """The content of one task's file: figures of one system on one dataset.

    The data revision is ``irdistill`` and the main score nDCG@10. MTEB itself has not run, so its
    version is null.
    """
    task, split = task_of(rows[0].dataset)
    scores = {name: row.value for row in rows if (name := metric_name(row.measure)) is not None}
    main = next((row.value for row in rows if row.measure == MAIN), None)
    if main is None:
        raise InputError(
            f"MTEB's main score of {task} is {MAIN}, and it is not among "
            f"{', '.join(row.measure for row in rows)}; evaluate with it."
        )
    return {
        "dataset_revision": "irdistill",
        "task_name": task,
        "mteb_version": None,
        "scores": {
            split: [
                {**scores, "main_score": main, "hf_subset": "default", "languages": list(languages)}
            ]
        },
        "evaluation_time": None,
        "kg_co2_emissions": None,
    }


def write_results(evaluation: Evaluation, system: str, folder: str | Path) -> list[Path]:
    """Write ``FOLDER/results/SYSTEM/RUN/TASK.json`` for each dataset, as in MTEB's cache."""
    written: list[Path] = []
    for dataset in evaluation.datasets:
        rows = [row for row in evaluation.rows if (row.system, row.dataset) == (system, dataset)]
        if not rows:
            continue
        content = task_result(rows)
        name = system if "/" in system else f"irdistill/{system}"
        place = make_folder(Path(folder) / "results" / name.replace("/", "__") / "irdistill")
        path = place / f"{content['task_name']}.json"
        if path in written:
            raise InputError(
                f"two datasets are the task {content['task_name']}; give the figures of only one of"
                " them."
            )
        write_json_file(path, content)
        write_json_file(place / "model_meta.json", {"name": name, "revision": "irdistill"})
        written.append(path)
    return written
