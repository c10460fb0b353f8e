"""Lists that do not depend on what the loss needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.runs import RankedList, RunIdentity, write_run
from irdistill.training import TrainOptions, trainer
from tests.training.tiny import make_student


class Drawn(Exception):
    """The lists of the first steps, instead of a training."""


def test_only_scored_gives_every_loss_the_same_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InfoNCE takes a relevant document that no run holds, and one without a score; KL takes
    neither.
    """
    collection = Collection.from_dicts(
        "c",
        {f"d{n}": f"w{n}" for n in range(6)},
        {"a": "w1", "b": "w2"},
        {"a": {"d5": 1}, "b": {"d2": 1}},
    )
    scores = np.array([2.0, 1.0, 0.5, np.nan], np.float32)
    lists = [RankedList(query, ["d0", "d1", "d2", "d3"], scores) for query in ("a", "b")]
    write_run(
        tmp_path / "run",
        RunIdentity("teacher", {"model": "m"}, collection.describe(), None, {}),
        lists,
    )

    def show(collection: Any, sampler: Any, *rest: Any) -> None:
        raise Drawn([sampler(step).rows.tolist() for step in range(3)])

    monkeypatch.setattr(trainer, "make_collator", show)
    seen = {}
    for only in (False, True):
        for loss in ('InfoNCE(negatives="list")', "KL", "MarginMSE"):
            options = TrainOptions(steps=3, batch_size=2, list_size=8, only_scored=only)
            with pytest.raises(Drawn) as drawn:
                trainer.train(
                    collection,
                    tmp_path / "run",
                    make_student(tmp_path / "backbone"),
                    loss,
                    tmp_path / f"{only}{loss[:2]}",
                    options,
                )
            seen[only, loss[:2]] = drawn.value.args[0]
    assert seen[True, "In"] == seen[True, "KL"] == seen[True, "Ma"]
    assert {row for batch in seen[True, "In"] for rows in batch for row in rows} - {-1} == {0, 1, 2}
    assert {row for batch in seen[False, "In"] for rows in batch for row in rows} - {-1} == {
        0,
        1,
        2,
        3,
        5,
    }
    assert seen[False, "KL"] == seen[True, "KL"]
