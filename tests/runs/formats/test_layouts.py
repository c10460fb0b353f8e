"""Each format on a file written by hand as it is published."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irdistill.errors import IrdistillError
from irdistill.runs import FORMATS, Run, import_run
from tests.runs.formats.samples import BY_HAND, TWO
from tests.runs.formats.small import plain, small


@pytest.mark.parametrize(("form", "name", "content", "expected"), BY_HAND)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_text_layouts(
    tmp_path: Path, form: str, name: str, content: bytes, expected: dict, packed: str
) -> None:
    data = {
        "": content,
        ".gz": gzip.compress(content),
        ".zst": pa.compress(content, "zstd", asbytes=True),
    }[packed]
    (tmp_path / (name + packed)).write_bytes(data)
    run = import_run(tmp_path / (name + packed), small(), tmp_path / "run", form)
    assert plain(run) == expected
    assert run.query_ids == ["7", "8"]
    assert run.identity.producer["format"] == form and run.identity.producer["bytes"] == len(data)


@pytest.mark.parametrize(
    ("form", "name", "content", "expected"), [row for row in BY_HAND if row[0] != "rank-distillm"]
)
def test_a_plain_layout_is_told_from_the_file(
    tmp_path: Path, form: str, name: str, content: bytes, expected: dict
) -> None:
    (tmp_path / name).write_bytes(content)
    run = import_run(tmp_path / name, small(), tmp_path / "run")
    assert (run.identity.producer["format"], plain(run)) == (form, expected)


def test_unknown_layouts_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one two\n")
    with pytest.raises(IrdistillError, match="give --format, one of trec, tsv"):
        import_run(tmp_path / "a", small(), tmp_path / "run")
    with pytest.raises(IrdistillError, match="there is no format 'xml'; one of trec"):
        import_run(tmp_path / "a", small(), tmp_path / "run", "xml")


def test_all_formats_are_tested_here() -> None:
    assert {row[0] for row in BY_HAND} | {"st-jsonl", "st-pickle"} == set(FORMATS)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_scores_with_numbers_as_ids(tmp_path: Path, protocol: int) -> None:
    scores = {7: {10: 9.5, 20: -1.25}, 8: {20: 3.0}}
    (tmp_path / "s.pkl.gz").write_bytes(gzip.compress(pickle.dumps(scores, protocol)))
    run = import_run(
        tmp_path / "s.pkl.gz", small(), tmp_path / "run", None if protocol else "st-pickle"
    )
    assert plain(run) == TWO and run.identity.producer["format"] == "st-pickle"


HARD = (
    b'{"qid": 7, "pos": [10], "neg": {"bm25": [20, 30], "tas-b": [30, 10, 40]}}\n{"qid": 8, "pos":'
    b' [20], "neg": {}}\n'
)


def hard(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).write_bytes(
        pickle.dumps(
            {8: {20: 3.0, 99: 1.0}, 7: {40: 2.0, 10: 9.5, 20: -1.25, 50: 8.0}, 9: {1: 1.0}}
        )
    )
    (tmp_path / "msmarco-hard-negatives.jsonl").write_bytes(HARD)
    return tmp_path / "msmarco-hard-negatives.jsonl"


@pytest.mark.parametrize("memory", [1 << 29, 1])
def test_hard_negatives_with_their_scores(tmp_path: Path, memory: int) -> None:
    file = hard(tmp_path, "ce.pkl")
    run = import_run(file, small(), tmp_path / "run", scores=tmp_path / "ce.pkl", memory=memory)
    assert plain(run) == {"7": {"10": 9.5, "40": 2.0, "20": -1.25, "30": None}, "8": {"20": 3.0}}
    assert (
        run.identity.producer["repeated"] == 2
        and run.identity.producer["scores"]["file"] == "ce.pkl"
    )
    assert run.identity.producer["unknown"] == {"queries": 0, "documents": 0}


def test_hard_negatives_find_the_scores_beside_them(tmp_path: Path) -> None:
    file = hard(tmp_path, "msmarco-hard-negatives-scores.pkl.gz")
    assert plain(import_run(file, small(), tmp_path / "run"))["8"] == {"20": 3.0}
    file.rename(tmp_path / "alone.jsonl")
    assert plain(import_run(tmp_path / "alone.jsonl", small(), tmp_path / "bare"))["8"] == {
        "20": None
    }


def test_hard_negatives_of_the_older_kind_carry_their_scores(tmp_path: Path) -> None:
    line = {
        "qid": "7",
        "pos": [{"pid": "10", "ce-score": 9.5}],
        "neg": {"bm25": [{"pid": "20", "ce-score": -1.25}]},
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    assert plain(import_run(tmp_path / "a.jsonl", small(), tmp_path / "run", "st-jsonl")) == {
        "7": TWO["7"]
    }


def ranked(tmp_path: Path) -> Path:
    pq.write_table(
        pa.table(
            {
                "query_id": ["8", "7", "7", "8", "7"],
                "q0": ["0"] * 5,
                "doc_id": ["20", "30", "10", "40", "20"],
                "rank": [2, 3, 1, 1, 2],
                "score": pa.array([None, None, None, 4.0, None], pa.float32()),
            }
        ),
        tmp_path / "rankzephyr.parquet",
    )
    return tmp_path / "rankzephyr.parquet"


def lists(run: Run) -> dict[str, list]:
    return {
        ranked.query_id: list(
            zip(
                ranked.doc_ids, [None if s != s else s for s in ranked.scores.tolist()], strict=True
            )
        )
        for ranked in run
    }


@pytest.mark.parametrize("memory", [1 << 29, 1])
def test_ranks_stand_for_the_order_where_there_is_no_score(tmp_path: Path, memory: int) -> None:
    run = import_run(ranked(tmp_path), small(), tmp_path / "run", memory=memory)
    assert lists(run) == {
        "7": [("10", None), ("20", None), ("30", None)],
        "8": [("40", 4.0), ("20", None)],
    }
    run = import_run(ranked(tmp_path), small(), tmp_path / "scored", ranks=True, memory=memory)
    assert lists(run) == {
        "7": [("10", 3.0), ("20", 2.0), ("30", 1.0)],
        "8": [("40", 2.0), ("20", 1.0)],
    }
    with pytest.raises(IrdistillError, match="format disco have none"):
        import_run(tmp_path / "x", small(), tmp_path / "run", "disco", ranks=True)


def test_parquet_names_of_older_files(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"qid": [7, 7], "docno": [10, 20], "score": [9.5, -1.25]}), tmp_path / "c.parquet"
    )
    assert plain(import_run(tmp_path / "c.parquet", small(), tmp_path / "run")) == {"7": TWO["7"]}


def test_pylate_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "query_id": ["7", "8"],
            "document_ids": [["10", "20"], ["20"]],
            "scores": pa.array([[9.5, -1.25], [3.0]], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "dataset.parquet")
    assert plain(import_run(tmp_path / "dataset.parquet", small(), tmp_path / "run")) == TWO


def test_tevatron_with_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"query_id": 7, "query_text": "x", "positive_document_ids": ["10"],'
        ' "negative_document_ids": ["20"]}\n'
    )
    assert plain(import_run(tmp_path / "a.jsonl", small(), tmp_path / "run")) == {
        "7": {"10": None, "20": None}
    }


def test_scores_are_exact_to_the_bit(tmp_path: Path) -> None:
    values = np.array([0.1, 1e-38, 3.4e38, 1 / 3, 16777217.0], np.float32)
    (tmp_path / "a.json").write_text(
        json.dumps({"7": dict(zip(["10", "20", "30", "40", "50"], values.tolist(), strict=True))})
    )
    ranked = import_run(tmp_path / "a.json", small(), tmp_path / "run")["7"]
    assert {
        doc: score.tobytes() for doc, score in zip(ranked.doc_ids, ranked.scores, strict=True)
    } == dict(
        zip(["10", "20", "30", "40", "50"], [value.tobytes() for value in values], strict=True)
    )
