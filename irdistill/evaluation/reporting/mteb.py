"""Figures in the layout of MTEB's results (Muennighoff et al. 2022, arXiv:2210.07316), which
``mteb`` loads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ir_measures

from irdistill.collections.slices import split_id
from irdistill.errors import IrdistillError
from irdistill.evaluation.evaluator import Evaluation, Row
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

#: MTEB's names of BEIR's sets, under the last part of their ids in ir_datasets or of a folder.
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
    """``ndcg_at_10`` for ``nDCG@10``; None of a measure that MTEB has no name for."""
    parsed = ir_measures.parse_measure(measure)
    given = dict(parsed.params)
    cut = given.pop("cutoff", None)
    known = _NAMES.get(parsed.NAME)
    return None if known is None or given or cut is None else f"{known}_at_{cut}"


def task_of(dataset: str) -> tuple[str, str]:
    """The task and the split of a dataset's id: ``beir/scifact/test`` and ``sets/scifact#test`` are
    SciFact, test.
    """
    path, split = split_id(dataset)
    parts = [part for part in path.split("/") if part]
    if not split and len(parts) > 1 and parts[-1] in _SPLITS:
        split = parts.pop()
    name = parts[-1] if parts else dataset
    return TASKS.get(name.lower(), re.sub(r"[^\w.-]+", "-", name)), split or "test"


def task_result(rows: Sequence[Row], languages: Sequence[str] = ("eng-Latn",)) -> dict[str, Any]:
    """The content of one task's file: figures of one system on one dataset.

    The revision of the data is ``irdistill`` and the task's main score nDCG@10; MTEB itself has not
    run, so its version is null.

    Raises:
        IrdistillError: nDCG@10 is not among the figures.
    """
    task, split = task_of(rows[0].dataset)
    scores = {name: row.value for row in rows if (name := metric_name(row.measure)) is not None}
    main = next((row.value for row in rows if row.measure == MAIN), None)
    if main is None:
        raise IrdistillError(
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


def write_results(found: Evaluation, system: str, folder: str | Path) -> list[Path]:
    """Write ``FOLDER/results/SYSTEM/RUN/TASK.json`` for each dataset, as MTEB's cache lays them
    out.

    Raises:
        IrdistillError: nDCG@10 is not among the figures, or two datasets are of one task.
    """
    written: list[Path] = []
    for dataset in found.datasets:
        rows = [row for row in found.rows if (row.system, row.dataset) == (system, dataset)]
        if not rows:
            continue
        content = task_result(rows)
        name = system if "/" in system else f"irdistill/{system}"
        place = make_folder(Path(folder) / "results" / name.replace("/", "__") / "irdistill")
        path = place / f"{content['task_name']}.json"
        if path in written:
            raise IrdistillError(
                f"two datasets are the task {content['task_name']}; give the figures of one of"
                " them."
            )
        write_json_file(path, content)
        write_json_file(place / "model_meta.json", {"name": name, "revision": "irdistill"})
        written.append(path)
    return written
