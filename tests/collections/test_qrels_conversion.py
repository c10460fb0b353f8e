"""Judgments of other libraries become Qrels, and Qrels become theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ranx

from irdistill.collections import Qrels, as_qrels
from irdistill.errors import InputError, MissingExtraError, NotFoundError, OutputExistsError

JUDGMENTS = {"q2": {"d1": 2, "d10": -1}, "q1": {"d3": 0, "d é": 3}}
QRELS = Qrels(JUDGMENTS)


def test_dicts_and_qrels_are_accepted() -> None:
    assert as_qrels(JUDGMENTS).to_dict() == JUDGMENTS
    assert as_qrels(QRELS) is QRELS
    assert as_qrels({}).to_dict() == as_qrels([]).to_dict() == {}


def test_pyterrier_data_frame_round_trip() -> None:
    frame = QRELS.to_pandas()
    assert list(frame.columns) == ["qid", "docno", "label"]
    assert frame["label"].dtype == np.int64
    assert as_qrels(frame).to_dict() == JUDGMENTS
    # PyTerrier reads qrels with the iteration, and a filtered frame has another index.
    wider = frame.assign(iteration="0")[frame["qid"] == "q1"]
    assert as_qrels(wider).to_dict() == {"q1": JUDGMENTS["q1"]}


def test_columns_of_a_data_frame_can_be_named() -> None:
    frame = pd.DataFrame({"a": [1, 1], "b": ["x", "y"], "c": [1.0, 0.0]})
    expected = {"1": {"x": 1, "y": 0}}
    assert as_qrels(frame, "query=a,document=b,grade=c").to_dict() == expected
    assert as_qrels(frame, "query,document,grade").to_dict() == expected
    with pytest.raises(InputError, match="the table of judgments has the columns 'a', 'b', 'c'"):
        as_qrels(frame)


@pytest.mark.slow  # ranx compiles on first use
def test_ranx_round_trip() -> None:
    converted = QRELS.to_ranx()
    assert isinstance(converted, ranx.Qrels)
    assert as_qrels(converted).to_dict() == JUDGMENTS
    assert as_qrels(Qrels({}).to_ranx()).to_dict() == {}


def test_ir_measures_and_ir_datasets_judgments_are_accepted() -> None:
    entries = [ir_measures.Qrel(*row) for row in QRELS.rows()]
    assert as_qrels(entries).to_dict() == JUDGMENTS
    assert as_qrels(iter(entries)).to_dict() == JUDGMENTS
    assert as_qrels(QRELS.rows()).to_dict() == JUDGMENTS
    run = [ir_measures.ScoredDoc("q2", "d1", 1.0)]
    assert ir_measures.calc_aggregate([ir_measures.P @ 1], QRELS.to_dict(), run)


def test_hugging_face_dataset_round_trip() -> None:
    dataset = QRELS.to_dataset()
    assert dataset.column_names == ["query-id", "corpus-id", "score"]
    assert as_qrels(dataset).to_dict() == JUDGMENTS
    assert as_qrels(datasets.DatasetDict({"test": dataset})).to_dict() == JUDGMENTS
    with pytest.raises(InputError, match=r"the splits dev, test\. Pass one of them"):
        as_qrels(datasets.DatasetDict({"dev": dataset, "test": dataset}))
    with pytest.raises(InputError, match="streamed"):
        as_qrels(dataset.to_iterable_dataset())
    assert Qrels({}).to_dataset().column_names == dataset.column_names


def test_whole_numbers_become_ids_in_tables() -> None:
    """BEIR's judgments on the hub have integers as ids."""
    columns = {"query-id": [1, 1], "corpus-id": [31715818, 4], "score": [1, 0]}
    expected = {"1": {"31715818": 1, "4": 0}}
    assert as_qrels(datasets.Dataset.from_dict(columns)).to_dict() == expected
    assert as_qrels(pd.DataFrame(columns)).to_dict() == expected
    assert as_qrels(pa.table(columns)).to_dict() == expected


def test_trec_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    qrels = Qrels({"q2": {"d1": 2, "d10": -1}})
    assert qrels.to_trec(path) == path
    assert path.read_text() == "q2 0 d1 2\nq2 0 d10 -1\n"
    assert as_qrels(path).to_dict() == as_qrels(str(path)).to_dict() == qrels.to_dict()
    with pytest.raises(InputError, match="'d é' is empty or contains white space"):
        QRELS.to_trec(tmp_path / "other.txt")
    path.write_text("changed by a user")
    with pytest.raises(OutputExistsError):
        qrels.to_trec(path)
    with pytest.raises(NotFoundError):
        as_qrels(tmp_path / "absent")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([("q", "d", 0.5)], "query q, document d: the grade is 0.5"),
        ([("q", "d", 1), ("q", "d", 2)], "judged twice for query 'q', with the grades 1 and 2"),
        ([("q", "", 1)], "document id '' is str; a non-empty string or a whole number"),
        ([(None, "d", 1)], "query id None is NoneType"),
        ([(1.0, "d", 1)], "query id 1.0 is float"),
        ([("q", "d")], "is not a judgment"),
        (["abc"], "is not a judgment"),
        (7, "7 is int, and judgments were expected"),
        (pd.DataFrame({"qid": ["q"], "docno": ["d"], "label": [float("nan")]}), "grade is nan"),
        (pd.DataFrame({"qid": [None], "docno": ["d"], "label": [1]}), "query id"),
    ],
)
def test_bad_judgments_are_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_qrels(value)


def test_repeated_judgments_with_one_grade_count_once() -> None:
    assert as_qrels([("q", "d", 1), ("q", "d", 1)]).to_dict() == {"q": {"d": 1}}


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ranx", None)
    with pytest.raises(
        MissingExtraError, match=r"needs the library 'ranx'.*irdistill\[interchange"
    ):
        QRELS.to_ranx()


def test_conversion_imports_no_library_that_is_not_used() -> None:
    code = (
        "import sys; from irdistill.collections import as_qrels; "
        "as_qrels([('q', 'd', 1)]); as_qrels({'q': {'d': 1}}); "
        "print([name for name in ('torch', 'pandas', 'datasets', 'ranx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_qrels_show_themselves() -> None:
    assert repr(QRELS) == "Qrels(2 queries, 4 judgments, 2 relevant)"
    assert QRELS.to_json() == {
        "queries": 2,
        "judgments": 4,
        "relevant": 2,
        "grades": {"-1": 1, "0": 1, "2": 1, "3": 1},
        "fingerprint": QRELS.fingerprint,
    }
    assert "<td style='text-align:left'>-1: 1, 0: 1, 2: 1, 3: 1</td>" in QRELS._repr_html_()


def test_unrelated_objects_with_a_query_id_need_all_three_fields() -> None:
    with pytest.raises(InputError, match="is not a judgment"):
        as_qrels([SimpleNamespace(query_id="q", doc_id="d")])
