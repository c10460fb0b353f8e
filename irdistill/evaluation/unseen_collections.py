"""How much of the teacher's quality a student keeps on collections that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.evaluation.reporting.findings import Finding, Table, cell
from irdistill.runs import Run
from irdistill.storage.files import read_json_object

if TYPE_CHECKING:
    from irdistill.evaluation.figures import Row

TEACHER = "teacher"
"""The system that others are compared with if it is among them, instead of their baselines."""
NOTE = (
    "The share of the teacher's or baseline's figure that a system has, on the corpus that it was"
    " trained on and on those that it was not (means over datasets)."
)


def trained_on(run: Run, corpus: str | None) -> bool | None:
    """Whether the model of a run was trained on a corpus; None if its trainings are not known.

    The trainings are those whose ``training.json`` is next to the model, and next to the models
    that it started from.

    Args:
        corpus: fingerprint; by default of the run's own corpus.
    """
    corpus = corpus or run.identity.collection.get("corpus")
    trained = [
        record["collection"].get("corpus")
        for record in _trainings(run.identity.producer.get("model"))
        if isinstance(record.get("collection"), Mapping)
    ]
    return corpus in trained if corpus and trained else None


def _trainings(model: Any) -> Iterator[Mapping[str, Any]]:
    """The identities of the trainings of a model, and of the models that it was made from."""
    waiting, visited = [model], set()
    while waiting:
        name = waiting.pop()
        path = Path(name).parent / "training.json" if isinstance(name, str) else None
        if path is None or path in visited or not path.is_file():
            continue
        visited.add(path)
        record = read_json_object(path).get("identity", {})
        yield record
        waiting.append(record.get("backbone"))
        merged = record.get("models", ())  # with their weights, if `merge` made the model
        for student in (record.get("student"), *merged):
            waiting.append(student.get("model") if isinstance(student, dict) else None)


def retention_finding(rows: Sequence[Row]) -> list[Finding]:
    """A table of the systems that were measured on a collection they were not trained on."""
    lines = []
    for system in dict.fromkeys(row.system for row in rows if row.trained is False):
        for measure in dict.fromkeys(row.measure for row in rows):
            shares = list(_shares(rows, system, measure))
            unseen = {dataset: share for dataset, share, trained, _ in shares if not trained}
            if not unseen:
                continue
            lowest = min(unseen, key=unseen.__getitem__)
            lines.append(
                [
                    system,
                    shares[0][3],
                    measure,
                    _mean(share for _, share, trained, _ in shares if trained),
                    _mean(unseen.values()),
                    f"{unseen[lowest]:.1%} ({lowest})",
                ]
            )
    header = ["system", "of", "measure", "trained on", "unseen", "lowest unseen"]
    table = Table(header, lines, f"Retention. {NOTE}", words=(1, 2, 5))
    return [Finding("retention", "Retention", [NOTE], [table])] if lines else []


def _shares(
    rows: Sequence[Row], system: str, measure: str
) -> Iterator[tuple[str, float, bool, str]]:
    """For each dataset: its name, the share, whether it was trained on, the teacher or baseline."""
    teacher = {
        row.dataset: row.value for row in rows if (row.system, row.measure) == (TEACHER, measure)
    }
    known = set()
    for row in rows:
        if (row.system, row.measure) != (system, measure) or row.trained is None:
            continue
        whole, name = teacher.get(row.dataset), TEACHER
        if whole is None and row.difference is not None and row.against is not None:
            whole, name = row.value - row.difference, row.against
        if whole and system != TEACHER and row.dataset not in known:
            known.add(row.dataset)
            yield row.dataset, row.value / whole, row.trained, name


def _mean(shares: Iterable[float]) -> str:
    values = list(shares)
    return cell(float(np.mean(values)) if values else None, ".1%")
