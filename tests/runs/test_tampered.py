"""Manifests that somebody or something changed: refused with one sentence, whatever was changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import RunWriter, merge, open_run, write_run
from irdistill.runs.journal import Journal
from irdistill.runs.part_files import (
    encode_table,
    read_query_fingerprints,
    read_query_ids,
    write_encoded,
)
from tests.runs.stored import files, identity, lists


def change(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(values)


def change_part(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["parts"][1].update(values)


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (change(parts=[]), "complete, and has 0 parts"),
        (lambda data: data["parts"].pop(), "has 2 parts for 10 queries"),
        (lambda data: data["parts"].reverse(), "complete"),
        (lambda data: data["parts"].append(data["parts"][0]), "complete"),
        (change(parts=None), "parts is None"),
        (change(parts=[1, 2, 3]), "a part is 1"),
        (change(queries=10**18), "complete"),
        (change(queries=-1), "queries is -1"),
        (change(queries="10"), "queries is '10'"),
        (change(queries=True), "queries is True"),
        (change(part_queries=0), "part_queries 0"),
        (change(complete="yes"), "complete is 'yes'"),
        (change(shard=[1]), "shard is [1]"),
        (change(shard=[2, 1]), "shard is [2, 1]"),
        (change(shard=["a", "b"]), "shard"),
        (change(usage={"cost": "much"}), "usage.cost"),
        (change(usage={"cost": float("inf")}), "usage.cost"),
        (change(kind="other"), "kind"),
        (change(producer=[]), "producer is []"),
        (change(settings=None), "settings is None"),
        (lambda data: data.pop("software"), "lacks 'software'"),
        (change(version=2), "version 2"),
        (change(format="x"), "format"),
        (change_part(name="../../x.parquet"), "'../../x.parquet'"),
        (change_part(name="/etc/passwd"), "passwd"),
        (change_part(first=0), "from 0"),
        (change_part(queries=400), "with 400 queries"),
        (change_part(bytes=-1), "counts"),
        (change_part(nulls=10**9), "counts"),
        (change_part(sha256="x"), "checksum"),
        (change_part(number=1.0), "number is 1.0"),
        (change_part(surprise=1), "surprise"),
    ],
)
def test_a_changed_manifest_is_refused(
    tmp_path: Path, collection: Collection, tamper: Callable[[dict[str, Any]], None], words: str
) -> None:
    folder = tmp_path / "run"
    write_run(folder, identity(collection), lists().values(), part_queries=4)
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    tamper(data)
    path.write_text(json.dumps(data))
    for use in (
        lambda: open_run(folder),
        lambda: write_run(folder, identity(collection), lists().values(), part_queries=4),
        lambda: merge([folder], tmp_path / "merged"),
    ):
        with pytest.raises(IrdistillError) as raised:
            use()
        assert words in str(raised.value) or "damaged" in str(raised.value)
    with pytest.raises(IrdistillError) as raised:
        open_run(folder)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "null",
        "{",
        "[" * 100_000,
        "9" * 5000,
        '{"format": "irdistill-run", "version": 1}',
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(
    tmp_path: Path, collection: Collection, text: str
) -> None:
    folder = tmp_path / "run"
    write_run(folder, identity(collection), lists().values(), part_queries=4)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(IrdistillError, match=r"manifest\.json"):
        open_run(folder)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "null",
        '{"part": {}}',
        '{"part": null, "usage": {}}',
        "[" * 100_000,
        "\ufffd",
        json.dumps(
            {
                "part": {
                    "number": 0,
                    "name": "../x",
                    "first": 0,
                    "queries": 4,
                    "rows": 1,
                    "nulls": 0,
                    "bytes": 1,
                    "sha256": "0" * 64,
                },
                "usage": None,
            }
        ),
    ],
)
def test_a_damaged_line_of_the_journal_is_a_part_that_is_made_again(
    tmp_path: Path, collection: Collection, line: str
) -> None:
    whole = write_run(tmp_path / "whole", identity(collection), lists().values(), part_queries=4)
    rows = lists()
    with RunWriter(tmp_path / "run", identity(collection), list(rows), 4) as writer:
        number, ids = writer.pending()[0]
        writer.write_part(number, [rows[query_id] for query_id in ids])
    journal = Journal(tmp_path / "run")
    journal.path.write_text(line + "\n", encoding="utf-8")
    assert Journal(tmp_path / "run").read() == {}
    again = write_run(tmp_path / "run", identity(collection), rows.values(), part_queries=4)
    assert again.fingerprint == whole.fingerprint
    assert files(tmp_path / "run") == files(tmp_path / "whole")


@pytest.mark.parametrize("columns", [{"fingerprint": ["a"]}, {"id": ["q0"]}])
def test_a_list_of_queries_without_its_column_is_refused(
    tmp_path: Path, columns: dict[str, list[str]]
) -> None:
    write_encoded(tmp_path / "queries.parquet", encode_table(pa.table(columns)))
    for read in (read_query_ids, read_query_fingerprints):
        with pytest.raises(IrdistillError, match=r"queries\.parquet is missing or damaged"):
            read(tmp_path / "queries.parquet")
