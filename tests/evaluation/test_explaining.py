"""Why a document is in a ranking: the parts add up to the score that search gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.bundles.bundle_corpus import bundle_collection
from irdistill.bundles.bundle_searcher import Searcher
from irdistill.bundles.collection_search import CollectionSearch
from irdistill.collections import Collection
from irdistill.errors import NotFoundError, OptionError
from irdistill.evaluation.explaining import DocumentExplainer
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from irdistill.search.retrieve_options import RetrieveOptions
from tests.bundles.small_packages import package
from tests.evaluation.explained_models import KINDS, explained_model
from tests.search.passage_collection import passage_collection
from tests.students.tiny import tiny_backbone

PRECISE = RetrieveOptions(precision="float32")
QUERY = "how does the dog dog sat in snow"


@pytest.fixture(scope="module")
def collection() -> Collection:
    docs = {
        "d1": ("wings", "The dog sat; dogs sit in the snow. A fish and a cat"),
        "d2": ("", "a big red bird in the rain and the snow"),
        "d3": ("", "gene of a protein"),
        "d4": ("", "slow dog"),
    }
    return Collection.from_dicts(
        "pets", docs, {"q1": QUERY, "q2": "gene"}, {"q1": {"d1": 2, "d2": 0}}
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))


def total(explained: Any) -> float:
    """The sum of the parts of a model's score."""
    if explained.tokens is not None:
        values = explained.tokens.largest
        return float(np.mean(values) if explained.tokens.mean else np.sum(values))
    return sum(part.score for part in explained.parts)


def test_the_terms_of_bm25_add_up(collection: Collection) -> None:
    hits = CollectionSearch(collection, "bm25", RetrieveOptions()).search(QUERY)
    explainer = DocumentExplainer(collection)
    for hit in hits:
        words = explainer.explain(QUERY, hit.doc_id).words
        assert words is not None and words.score == pytest.approx(hit.score, abs=1e-5)
        assert sum(word.score for word in words.words) == pytest.approx(hit.score, abs=1e-5)
    words = explainer.explain(QUERY, "d1").words
    assert words is not None
    dog, how = words.words[2], words.words[0]
    assert (dog.stem, dog.words, dog.count, dog.documents) == ("dog", ("dog", "dogs"), 2, 2)
    assert (how.stem, how.words, how.documents, how.score) == ("how", (), 0, 0.0)
    none = explainer.explain(QUERY, "d3").words
    assert none is not None and none.score == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_model_add_up(collection: Collection, tmp_path: Path, kind: str) -> None:
    model = explained_model(kind, tmp_path)
    explainer = DocumentExplainer(collection, model, options=PRECISE)
    before = explainer.explain(QUERY, "d1").model  # encodes the document
    hits = CollectionSearch(collection, model, PRECISE).search(QUERY)
    explainer = DocumentExplainer(collection, model, options=PRECISE)
    for hit in hits:
        score = explainer.explain(QUERY, hit.doc_id).model  # uses the vectors of the search
        assert score is not None and score.score == pytest.approx(hit.score, abs=1e-5)
        if hit.doc_id == "d1":
            assert before is not None and before.score == pytest.approx(hit.score, abs=1e-5)
        if kind == "dense":
            assert score.parts is None and "no parts" in score.note
        else:
            assert total(score) == pytest.approx(hit.score, abs=1e-5)
    score = explainer.explain(QUERY, "d1").model
    assert score is not None
    names = [part.name for part in score.parts or ()]
    if kind == "terms":
        assert names == ["tower", "dog", "sat", "in"]
        assert next(part for part in score.parts or () if part.name == "dog").count == 2
    if kind == "static":
        assert "tower" not in names and "dog" in names
    if kind == "beside terms, prompted":
        assert names == ["tower", "dog", "sat", "in", "how", "does", "the", "snow"]
    if kind == "beside":
        assert names[0] == "tower" and "[CLS]" not in names and "snow" in names
    if kind == "inference-free":
        part = next(part for part in score.parts or () if part.name == "dog")
        assert part.query is not None and part.document is not None
        assert part.score == pytest.approx(part.query * part.document)
    if kind == "late-interaction":
        assert score.tokens is not None and len(score.tokens.query) == 12
        assert score.tokens.query[-1] == "[MASK]"
        assert list(score.tokens.query[:2]) == ["[CLS]", "how"]
        assert "dog" in score.tokens.document and ";" not in score.tokens.document
        assert score.tokens.similarities[1][score.tokens.best[1]] == score.tokens.largest[1]


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction", "terms"])
@pytest.mark.parametrize("aggregate", ["maxp", "logsumexp"])
def test_the_best_passage_is_explained(tmp_path: Path, kind: str, aggregate: Any) -> None:
    split = passage_collection(tmp_path)
    options = RetrieveOptions(precision="float32", aggregate=aggregate)
    model = explained_model(kind, tmp_path / kind)
    explainer = DocumentExplainer(split, model, options=options)
    for hit in CollectionSearch(split, model, options).search("red dog snow", k=4):
        why = explainer.explain("red dog snow", hit.doc_id)
        assert why.model is not None and why.words is not None
        assert why.model.score == pytest.approx(hit.score, abs=2e-5)
        assert (why.passage, why.text) == (hit.passage, hit.text)
        if kind != "dense" and aggregate == "maxp":
            assert total(why.model) == pytest.approx(hit.score, abs=2e-5)
    bm25 = CollectionSearch(split, "bm25", options).search("red dog snow", k=5)
    for hit in bm25:
        words = explainer.explain("red dog snow", hit.doc_id, use_model=False).words
        assert words is not None and words.passage == hit.passage
        assert words.score == pytest.approx(hit.score, abs=1e-5)


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction", "terms"])
def test_a_bundle_is_explained_from_its_index(
    collection: Collection, tmp_path: Path, kind: str
) -> None:
    searcher = Searcher(
        package(explained_model(kind, tmp_path), tmp_path / "bundle", collection, onnx=False)
    )
    documents = bundle_collection(searcher)
    assert documents.corpus.fingerprint == collection.corpus.fingerprint
    explainer = DocumentExplainer(documents, searcher)
    for hit in searcher.search(QUERY, k=3):
        score = explainer.explain(QUERY, hit.doc_id).model
        assert score is not None and score.score == pytest.approx(hit.score, abs=1e-5)
        if kind != "dense":
            assert total(score) == pytest.approx(hit.score, abs=1e-5)
    assert searcher.rows_of("d") == [] and searcher.rows_of("d3") == [2]


def test_a_bundle_of_passages(tmp_path: Path) -> None:
    split = passage_collection(tmp_path)
    searcher = Searcher(
        package(explained_model("dense", tmp_path / "m"), tmp_path / "b", split, onnx=False)
    )
    documents = bundle_collection(searcher)
    hit = searcher.search("red dog", k=1)[0]
    why = DocumentExplainer(documents, searcher).explain("red dog", hit.doc_id)
    assert why.model is not None and why.model.score == pytest.approx(hit.score, abs=1e-5)
    assert (why.passage, why.text) == (hit.passage, hit.text)
    ours, theirs = (
        [(one.doc_id, one.score) for one in CollectionSearch(docs, "bm25", PRECISE).search("dog")]
        for docs in (documents, split)
    )
    assert ours == theirs


def test_runs_and_judgments(collection: Collection) -> None:
    identity = RunIdentity("teacher", {"model": "x"}, collection.describe())
    lists = [
        RankedList("q1", ["d2", "d1"], np.array([3.0, 1.0], np.float32)),
        RankedList("q2", ["d3", "d1"], np.array([1.0, np.nan], np.float32), [None, "too long"]),
    ]
    explainer = DocumentExplainer(collection, runs={"teacher": MemoryRun(identity, lists)})
    why = explainer.explain("q1", "d1")
    assert (why.query, why.grade, why.judged) == (QUERY, 2, True)
    run = why.runs[0]
    assert (run.rank, run.documents, run.score, run.flag) == (2, 2, 1.0, None)
    assert "its best rank is 2 of 2 in teacher. It is judged 2." in why.verdict()
    assert explainer.explain(f" {QUERY}", "d1").query_id == "q1"
    run = explainer.explain("q2", "d1").runs[0]
    assert (run.rank, run.score, run.flag) == (None, None, "too long")
    assert explainer.explain("q1", "d4").runs[0].documents == 2
    assert explainer.explain("q1", "d4").grade is None
    free = explainer.explain("dog", "d1")
    assert free.runs == [] and not free.judged and free.query_id is None


def test_a_cross_encoder_has_a_score_alone(collection: Collection, tmp_path: Path) -> None:
    student = ird.CrossEncoderStudent(str(tiny_backbone(tmp_path / "b", layers=1)))
    student.save(tmp_path / "model")
    why = ird.explain(collection, "q1", "d1", str(tmp_path / "model"), precision="float32")
    candidates = {"q1": {"d1": 1.0}}
    run = ird.score(
        collection,
        candidates=candidates,
        teacher=str(tmp_path / "model"),
        out=tmp_path / "run",
        precision="float32",
        settings={"backend": "torch"},
    )
    assert why.model is not None and why.model.parts is None
    assert why.model.score == pytest.approx(float(run["q1"].scores[0]), abs=1e-5)


def test_what_cannot_be_explained(collection: Collection) -> None:
    explainer = DocumentExplainer(collection)
    with pytest.raises(NotFoundError, match="has no document 'd9'"):
        explainer.explain("dog", "d9")
    with pytest.raises(OptionError, match="the query is empty"):
        explainer.explain(" ", "d1")
    with pytest.raises(OptionError, match="use bm25"):
        DocumentExplainer(collection, "lucene")
    with pytest.raises(OptionError, match="aggregate is vector"):
        DocumentExplainer(collection, options=RetrieveOptions(aggregate="vector"))


def test_the_surfaces_agree(
    collection: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from irdistill.cli.entry_point import cli

    model = explained_model("terms", tmp_path)
    bundle = package(model, tmp_path / "bundle", collection, onnx=False)
    why = ird.explain(str(bundle.path), QUERY, "d1")
    json_file = tmp_path / "why.json"
    cli.main(
        ["explain", str(bundle.path), QUERY, "d1", "--json", str(json_file)],
        standalone_mode=False,
    )
    printed = capsys.readouterr().out
    assert why.to_markdown().strip() == printed.strip()
    assert json.loads(json_file.read_text())["model"]["score"] == why.model.score  # type: ignore[union-attr]
    assert {row["of"] for row in why.to_rows()} == {"bm25", str(bundle.path)}
    assert "| tower" in printed and "| dog" in printed
