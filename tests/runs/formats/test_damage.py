"""What must not pass: pickles with code in them, cut files, unknown ids, scores that are none, two
scores for a pair.
"""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irdistill.errors import IrdistillError
from irdistill.runs import FORMATS, Run, import_run
from irdistill.runs.formats.pickles import read_items
from irdistill.verbs.run_verbs import Format
from tests.runs.formats.samples import BY_HAND, TWO
from tests.runs.formats.small import plain, small


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> Any:
        return self.what


def touch(path: Path) -> Call:
    return Call(os.system, f"touch {path}")


class Build:
    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return dict, (), self.state


def persistent(value: Any) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return "id" if value == "here" else None

    buffer = io.BytesIO()
    Pickler(buffer, 4).dump(value)
    return buffer.getvalue()


def by_name(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def refused(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "bad.pkl").write_bytes(data)
    with pytest.raises(IrdistillError) as raised:
        import_run(tmp_path / "bad.pkl", small(), tmp_path / "run", "st-pickle")
    assert not (tmp_path / "run").exists()
    return str(raised.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["whole", "query", "document", "score", "last"])
def test_a_pickle_with_code_in_it_is_refused_and_nothing_runs(
    tmp_path: Path, protocol: int, place: str
) -> None:
    trap = tmp_path / "trap"
    bad = touch(trap)
    value = {
        "whole": bad,
        "query": {bad: {"10": 1.0}},
        "document": {"7": {bad: 1.0}},
        "score": {"7": {"10": bad}},
        "last": {str(i): {"10": 1.0} for i in range(3000)} | {"z": bad},
    }[place]
    data = pickle.dumps(value, protocol)
    message = refused(tmp_path, data)
    assert "is refused" in message and "it names" in message and "Nothing of it was run" in message
    assert not trap.exists()
    if place != "query":  # the same bytes are dangerous indeed
        pickle.loads(data)
        assert trap.exists()


def test_more_that_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    inner = pickle.dumps(touch(trap), 0)[:-1]
    shared: dict[str, float] = {"10": 1.0}
    memo_then_call = (
        b"\x80\x04cposix\nsystem\nq\x00}q\x01h\x00(Vtouch " + str(trap).encode() + b"\ntR."
    )
    for data, words in [
        (by_name("builtins", "eval", f"open({str(trap)!r}, 'w')"), "it names builtins.eval"),
        (by_name("os", "system", f"touch {trap}"), "it names os.system"),
        (by_name("numpy", "load", str(trap)), "it names numpy.load"),
        (
            by_name("numpy.core.multiarray", "_reconstruct", "x"),
            "it names numpy.core.multiarray._reconstruct",
        ),
        (b"(i__main__\nX\n.", "0x69 makes something else"),  # INST
        (b"(" + inner + b"o.", "it names"),  # OBJ
        (b"}V7\n" + inner + b"0s.", "it names"),  # a call whose result is dropped
        (memo_then_call, "it names posix.system"),
        (b"\x80\x02\x82\x01.", "0x82 makes something else"),  # EXT1
        (b"Pid\n.", "0x50 makes something else"),
        (persistent({"7": "here"}), "0x51 makes something else"),
        (pickle.dumps({"7": Build({"a": 1})}, 4), "it names builtins.dict"),
        (
            pickle.dumps({"7": collections.OrderedDict(a=1.0)}, 4),
            "it names collections.OrderedDict",
        ),
        (
            pickle.dumps({"7": collections.defaultdict(float, a=1.0)}, 4),
            "it names collections.defaultdict",
        ),
        (pickle.dumps({"7": np.zeros(3)}, 4), "it names numpy"),
        (pickle.dumps({"7": {"10": np.float64}}, 4), "it names numpy.float64"),
        (pickle.dumps({"7": [1.0]}, 4), "makes something else"),
        (pickle.dumps({"7": {"10": {1}}}, 4), "makes something else"),
        (pickle.dumps({"7": {"10": b"1"}}, 4), "a value is a bytes"),
        (pickle.dumps({("7",): {}}, 4), "a key is a tuple"),
        (pickle.dumps({"7": bytearray(9)}, 5), "0x96 makes something else"),
        (
            pickle.dumps({"7": pickle.PickleBuffer(b"x")}, 5, buffer_callback=lambda _: False),
            "0x97 makes something else",
        ),
        (pickle.dumps({"7": shared, "8": shared}, 4), "one dictionary stands in two places"),
        (pickle.dumps({"7": 1.0}, 4), "query '7' has a float"),
    ]:
        assert words in refused(tmp_path, data), data[:60]
        assert not trap.exists()


@pytest.mark.slow
def test_lengths_and_places_that_are_lies_cost_nothing(tmp_path: Path) -> None:
    for data, words in [
        (b"\x80\x04}\x8d" + struct.pack("<Q", 1 << 60), "a text has 1152921504606846976 bytes"),
        (b"\x80\x05}\x96" + struct.pack("<Q", 1 << 60), "0x96"),
        (b"\x80\x05}\x8e" + struct.pack("<Q", 1 << 40), "a text has"),
        (b"\x80\x04}r\xff\xff\xff\xffj\xfe\xff\xff\xff.", "do not fit together"),
        (b"}V" + b"x" * (1 << 17), "a line is too long"),
        (b"\x80\x04}" + b"K\x01" * (3 << 20), "piles up"),
        (b"\x80\x04}" + b"(" * (3 << 20), "piles up"),
        (b"I" + b"9" * 5000 + b"\n.", "damaged"),
        (b"}}}u.", "do not fit together"),
        (b"s.", "do not fit together"),
        (b".", "not one dictionary"),
        (b"K\x01.", "not one dictionary"),
        (b"", "ends too early"),
        (b"}\x95", "ends too early"),
        (b"\x80\x04}q\x00h\x00h\x00s.", "one dictionary stands in two places"),
    ]:
        assert words in refused(tmp_path, data), data[:20]


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x04}K\x01" + b"\x94" * (1 << 18),
        b"\x80\x04})" + b"\x85" * (1 << 18),
        b"\x80\x04}" + b"N\x94" * (1 << 18),
        b"\x80\x04}K\x07}"
        + b"".join(
            b"("
            + b"".join(b"J" + struct.pack("<I", i * 1000 + j) + b"K\x01" for j in range(1000))
            + b"u"
            for i in range(40)
        ),
    ],
    ids=["memo", "tuples", "numbers", "one query"],
)
def test_a_pickle_that_grows_without_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr("irdistill.runs.formats.pickles.MEMORY", 1 << 21)
    path = tmp_path / "bad.pkl"
    path.write_bytes(gzip.compress(body))
    with pytest.raises(IrdistillError, match="of memory, far more than its size explains"):
        import_run(path, small(), tmp_path / "run", "st-pickle")


def test_memory_for_a_pickle_grows_with_the_file() -> None:
    value = {i: {j: j / 7 for j in range(2000)} for i in range(40)}
    data = pickle.dumps(value, 4)
    assert dict(read_items(io.BytesIO(data), memory=1 << 25)) == value
    with pytest.raises(ValueError, match="far more"):
        list(read_items(io.BytesIO(data), memory=1 << 20))


def test_every_truncation_of_a_good_pickle_is_an_error(tmp_path: Path) -> None:
    data = pickle.dumps({"7": {"10": 9.5, "20": -1.25}, 8: {20: 3}}, 4)
    for end in range(len(data)):
        assert "bad.pkl" in refused(tmp_path, data[:end])


@pytest.mark.parametrize(
    "kind", [np.float32, np.float64, np.float16, np.int64, np.dtype(">f4").type]
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_scalars_are_read(tmp_path: Path, kind: Any, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(
        pickle.dumps({7: {10: kind(9), 20: kind(-1)}, 8: {20: kind(3)}}, protocol)
    )
    assert plain(import_run(tmp_path / "a.pkl", small(), tmp_path / "run")) == {
        "7": {"10": 9.0, "20": -1.0},
        "8": {"20": 3.0},
    }


def test_numpy_scalars_of_the_other_byte_order_and_of_older_numpy() -> None:
    values = np.array([9.5, -1.25], ">f4")
    data = pickle.dumps({"7": {"a": values[0]}}, 2)
    assert dict(read_items(io.BytesIO(data))) == {"7": {"a": 9.5}}
    big = b"\x80\x02}q\x00U\x017}(U\x01acnumpy.core.multiarray\nscalar\nq\x01cnumpy\ndtype\nq\x02U\x02f4K\x00K\x01\x87Rq\x03(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    big += (
        b"C\x04"
        + values[:1].tobytes()
        + b"\x86RU\x01bh\x01h\x03C\x04"
        + values[1:].tobytes()
        + b"\x86Rus."
    )
    assert dict(read_items(io.BytesIO(big))) == {"7": {"a": 9.5, "b": -1.25}}


def test_a_large_pickle_is_given_out_query_by_query() -> None:
    value = {i: {j * 70_000: j / 7 for j in range(1200)} for i in range(1100)}
    stream = io.BytesIO(pickle.dumps(value, 4))
    items = read_items(stream)
    assert next(items) == (0, value[0])
    assert stream.tell() < len(stream.getvalue())
    assert {0: value[0], **dict(items)} == value


@pytest.mark.parametrize(
    ("form", "name", "content", "expected"),
    [*BY_HAND, ("st-pickle", "a.pkl", pickle.dumps(TWO), TWO)],
)
@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_cut_files_are_an_error_and_leave_nothing(
    tmp_path: Path, form: str, name: str, content: bytes, expected: dict, packed: str
) -> None:
    data = gzip.compress(content) if packed == "gz" else pa.compress(content, "zstd", asbytes=True)
    (tmp_path / name).write_bytes(data[:-5])
    with pytest.raises(IrdistillError, match="truncated or damaged"):
        import_run(tmp_path / name, small(), tmp_path / "run", form)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_cut_and_bad_parquet_and_json(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"query_id": ["7"], "doc_id": ["10"], "score": [1.0]}), tmp_path / "a.parquet"
    )
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(IrdistillError, match="truncated or damaged"):
        import_run(tmp_path / "a.parquet", small(), tmp_path / "run", "rank-distillm")
    whole = json.dumps(TWO)
    for end in range(1, len(whole)):
        (tmp_path / "a.json").write_text(whole[:end])
        with pytest.raises(IrdistillError, match=r"a\.json, query"):
            import_run(tmp_path / "a.json", small(), tmp_path / "run", "disco")
    for bad in (
        "[]",
        '{"7": 3}',
        '{"7": {"10": 1}} x',
        '{"7": {"10": 1} "8": {}}',
        "{7: {}}",
        '{"7": {"10": "a"}}',
        '{"7": {"10": true}}',
    ):
        (tmp_path / "a.json").write_text(bad)
        with pytest.raises(IrdistillError, match=r"a\.json, query 1"):
            import_run(tmp_path / "a.json", small(), tmp_path / "run", "disco")
    assert not (tmp_path / "run").exists()


def test_a_large_object_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irdistill.runs.formats.objects.PIECE", 7)
    (tmp_path / "a.json").write_text(
        json.dumps({**TWO, "q x": {"d/ü": -0.5}}, indent=2, ensure_ascii=False)
    )
    assert plain(import_run(tmp_path / "a.json", small(), tmp_path / "run", "disco")) == {
        **TWO,
        "q x": {"d/ü": -0.5},
    }


def write(tmp_path: Path, text: str, form: str = "trec", **options: Any) -> Run:
    (tmp_path / "file").write_text(text)
    return import_run(tmp_path / "file", small(), tmp_path / "run", form, **options)


@pytest.mark.parametrize(
    ("form", "text", "words"),
    [
        (
            "trec",
            "7 Q0 10 1 9 t\n\n7 Q0 20 1 nan t\n",
            "line 3: the score 'nan' is not a finite number that float32",
        ),
        (
            "trec",
            "7 Q0 10 1 9 t\n7 Q0 20 1 1e39 t\n",
            "line 2: the score '1e39' is not a finite number that float32",
        ),
        ("trec", "7 Q0 10 1 9 t\n7 Q0 20 1 x t\n", "line 2: the score 'x' is not a finite number"),
        ("trec", "7 Q0 10 1 9 t\n7 Q0 20 1 9\n", "line 2: 5 columns, and six were expected"),
        (
            "tsv",
            "7\t10\t9\n7\t20\n8\t20\t1\t5\n",
            "line 2 of .*has 2 fields, separated by tabs, and 3",
        ),
        ("tsv", "7\t10\tabc\n", "line 1: the score 'abc' is not a number"),
        ("tsv", "qid\tpid\tscore\n7\t10\t1_000\n", "line 2: the score '1_000' is not a number"),
        ("trec", "7 Q0 10 1 1_000 t\n", "line 1: the score '1_000' is not a finite number"),
        (
            "tsv",
            "qid,pid,score\n7,1\r0,1\n",
            r"the line '7,1\\r0,1' cannot be read as CSV",
        ),
        pytest.param(
            "tsv",
            'qid,pid,score\n7,"' + "x" * 200_000 + '",1\n',
            "1 an unknown document .document 'xxx",
            id="long cell",
        ),
        ("triples", "1\t2\t7\t10\n", "line 1: 4 fields between tabs"),
        ("colbert", "[7, [10, 1]]\n[7, 10, 20]\n", "line 2: a document stands without a score"),
        ("colbert", "[7, [10, NaN]]\n", "line 1: the score of query '7' and document '10' is nan"),
        ("colbert", '[7, [10, "1"]]\n', "line 1: the score '1' is not a number"),
        ("colbert", "[7.5, [10, 1]]\n", "line 1: 7.5 is no id"),
        ("colbert", "[7, [10, 1]", "line 1: Expecting"),
        ("st-jsonl", '{"qid": 7, "pos": [10]}\n', "line 1: it lacks 'neg'"),
        (
            "flagembedding",
            '{"query": "what purrs", "pos": ["cats purr"], "neg": [], "pos_scores": [1, 2]}\n',
            "1 texts in pos and 2 scores",
        ),
        (
            "tevatron",
            '{"query_id": 7, "positive_passages": 3}\n',
            "line 1: 'int' object is not iterable",
        ),
        (
            "pylate",
            '{"query_id": 7, "document_ids": ["10"], "scores": [1, 2]}\n',
            "line 1: 1 documents and 2 scores",
        ),
        ("trec", "", "gives no run"),
    ],
)
def test_faults_are_named_by_line(tmp_path: Path, form: str, text: str, words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        write(tmp_path, text, form)
    assert not (tmp_path / "run").exists()


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"7 Q0 10 1 9 t\n7 Q0 \xff 1 9 t\n")
    with pytest.raises(IrdistillError, match=r"line 2: the bytes .* are not UTF-8"):
        import_run(tmp_path / "file", small(), tmp_path / "run", "trec")


UNKNOWN = "7 Q0 10 1 9 t\n6 Q0 10 1 9 t\n7 Q0 99 1 9 t\n6 Q0 99 1 8 t\n8 Q0 20 1 1 t\n"


def test_unknown_ids_are_counted_named_and_an_error(tmp_path: Path) -> None:
    words = (
        "2 have an unknown query and 1 an unknown document \\(query '6', line 2; document '99',"
        " line 3\\)"
    )
    with pytest.raises(IrdistillError, match=words):
        write(tmp_path, UNKNOWN)
    run = write(tmp_path, UNKNOWN, unknown="skip")
    assert plain(run) == {"7": {"10": 9.0}, "8": {"20": 1.0}}
    assert run.identity.producer["unknown"] == {"queries": 2, "documents": 1}
    with pytest.raises(IrdistillError, match=r"gives no run; .*1 have an unknown query"):
        write(tmp_path, "6 Q0 10 1 9 t\n", unknown="skip", overwrite=True)


def test_unknown_and_ambiguous_texts_are_reported_and_never_empty(tmp_path: Path) -> None:
    collection = small()
    twins = type(collection).from_dicts(
        "twins", {"a": "same", "b": "same", "c": "other"}, {"1": "q", "2": "q", "3": "p"}
    )
    (tmp_path / "f").write_text(
        '{"query": "p", "pos": ["same"], "neg": ["", "other"], "pos_scores": [1], "neg_scores": [0,'
        ' 2]}\n{"query": "q", "pos": ["other"], "neg": [], "pos_scores": [1], "neg_scores": []}\n'
    )
    run = import_run(tmp_path / "f", twins, tmp_path / "run", "flagembedding", unknown="skip")
    assert plain(run) == {"3": {"c": 2.0}}
    assert run.identity.producer["unknown"] == {"queries": 1, "documents": 2}
    with pytest.raises(
        IrdistillError,
        match=(
            "the text 'q' of several queries, line 2; the text 'same' of several documents, line 1;"
            " the document with the text '', line 1"
        ),
    ):
        import_run(tmp_path / "f", twins, tmp_path / "run2", "flagembedding")


def test_pairs_that_come_again(tmp_path: Path) -> None:
    text = "7 Q0 10 1 9 t\n7 Q0 20 1 1 t\n7 Q0 10 2 9 t\n"
    run = write(tmp_path, text)
    assert plain(run) == {"7": {"10": 9.0, "20": 1.0}} and run.identity.producer["repeated"] == 1
    with pytest.raises(
        IrdistillError,
        match=r"query '7' and document '10' has two scores: 9.0 \(line 1\) and 6.0 \(line 4\)",
    ):
        write(tmp_path, text + "7 Q0 10 2 6 t\n", overwrite=True)
    assert (
        plain(write(tmp_path, text + "7 Q0 10 2 6 t\n", overwrite=True, duplicates="first"))["7"][
            "10"
        ]
        == 9.0
    )
    assert (
        plain(write(tmp_path, text + "7 Q0 10 2 6 t\n", overwrite=True, duplicates="mean"))["7"][
            "10"
        ]
        == 8.0
    )


def test_the_identity_says_where_a_run_is_from_and_an_import_is_continued(tmp_path: Path) -> None:
    run = write(tmp_path, "7 Q0 10 1 9 mytag\n")
    producer = run.identity.producer
    assert producer == {
        "format": "trec",
        "file": "file",
        "bytes": 18,
        "sha256": producer["sha256"],
        "tag": "mytag",
        "unknown": {"queries": 0, "documents": 0},
        "repeated": 0,
    }
    assert run.identity.kind == "imported" and run.identity.settings == {
        "unknown": "error",
        "duplicates": "error",
        "ranks": False,
    }
    (tmp_path / "run" / "part-00000.parquet").unlink()
    assert write(tmp_path, "7 Q0 10 1 9 mytag\n").fingerprint == run.fingerprint
    with pytest.raises(IrdistillError, match="holds another run"):
        write(tmp_path, "7 Q0 10 1 8 mytag\n")


def test_formats_of_the_command_line_are_those_of_the_package() -> None:
    assert tuple(FORMATS) == get_args(Format)


@pytest.mark.parametrize(
    "body",
    [b'{"' + b"x" * (1 << 20), b'{"1": {"' + b"x" * (1 << 20), b'{"1": {' + b" " * (1 << 20)],
)
def test_one_value_without_end_in_a_json_object_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr("irdistill.runs.formats.objects.LARGEST", 1 << 19)
    (tmp_path / "bad.json.gz").write_bytes(gzip.compress(body))
    with pytest.raises(IrdistillError, match=r"bad.json.gz, query 1: a value has more than"):
        import_run(tmp_path / "bad.json.gz", small(), tmp_path / "run", "disco")
