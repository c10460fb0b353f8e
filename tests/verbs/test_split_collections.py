"""Every verb on a collection whose documents are split into passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.collections import Collection
from irdistill.collections.document_splitting import PassageOptions
from irdistill.errors import InputError, WrongCollectionError
from irdistill.runs import Run
from irdistill.runs.formats.texts import TextIndex
from tests.search.passage_collection import passage_collection, write_collection
from tests.students.tiny import tiny_backbone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("verbs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRDISTILL_CACHE", str(folder / "cache"))
        passage_collection(folder)
        tiny_backbone(folder / "model", layers=1)
        yield folder


@pytest.fixture(scope="module")
def collection(place: Path) -> Collection:
    return ird.load_collection(place / "docs")


@pytest.fixture(scope="module")
def bm25(collection: Collection) -> Run:
    return ird.retrieve(collection, "bm25", k=8)


@pytest.fixture(scope="module")
def dense(collection: Collection, place: Path) -> Run:
    return ird.retrieve(collection, str(place / "model"), k=8)


def passage_texts(collection: Collection) -> set[str]:
    passages = collection.corpus.passages
    assert passages is not None
    return set(passages.corpus.texts(range(len(passages))))


def test_evaluation_is_of_documents(collection: Collection, bm25: Run) -> None:
    figures = ird.evaluate(collection, {"BM25": bm25}, measures="nDCG@10 RR@10")
    by_hand = []
    for query_id, judged in collection.qrels.items():
        ranks = [rank for rank, doc in enumerate(bm25[query_id].doc_ids, 1) if doc in judged]
        by_hand.append(1 / ranks[0] if ranks else 0.0)
    values = figures.per_query[figures.datasets[0]]["BM25"].values["RR@10"]
    assert values.tolist() == pytest.approx(by_hand)


def test_search_shows_passages(collection: Collection, place: Path) -> None:
    hits = ird.search_text(str(place / "docs"), "cat dog", k=3)
    texts = passage_texts(collection)
    assert len(hits) == 3 and all(hit.text in texts and hit.passage is not None for hit in hits)


def test_fused_and_masked_runs_keep_passages(
    collection: Collection, bm25: Run, dense: Run, place: Path
) -> None:
    fused = ird.fuse([bm25, dense], method="rrf")
    for ranked in fused:
        assert ranked.passages is not None
        for doc, number in zip(ranked.doc_ids, ranked.passages.tolist(), strict=True):
            ranks = [
                (row.doc_ids.index(doc), int(row.passages[row.doc_ids.index(doc)]))  # type: ignore[index]
                for row in (bm25[ranked.query_id], dense[ranked.query_id])
                if doc in row.doc_ids
            ]
            assert number == min(ranks, key=lambda pair: pair[0])[1]
    masked = ird.mask(collection, dense, ["top-k=1"])
    assert all(
        np.array_equal(masked[q].passages, dense[q].passages)
        for q in dense.query_ids  # type: ignore[arg-type]
    )


def test_fused_runs_name_passages_of_one_split(
    collection: Collection, bm25: Run, dense: Run, place: Path
) -> None:
    whole = ird.retrieve(collection, str(place / "model"), k=8, aggregate="whole")
    assert "passages" not in whole.identity.collection
    passages = bm25.identity.collection["passages"]
    for runs in ([whole, bm25], [bm25, whole]):
        assert ird.fuse(runs, method="rrf").identity.collection["passages"] == passages
    options = PassageOptions(12, 0, str(place / "encoder"))
    other = ird.retrieve(ird.split_into_passages(collection, options), "bm25", k=8)
    with pytest.raises(WrongCollectionError, match="split in different ways"):
        ird.fuse([dense, other], method="rrf")


def test_runs_go_to_other_formats_and_back(collection: Collection, bm25: Run, place: Path) -> None:
    docs = str(place / "docs")
    ird.export_run(bm25, place / "run.trec")
    for name, form in (("run.jsonl", "flagembedding"), ("run.tevatron.jsonl", "tevatron")):
        ird.export_run(bm25, place / name, format=form, collection=docs, keep_empty=True)
    for name, form in (("run.trec", "trec"), ("run.tevatron.jsonl", "tevatron")):
        again = ird.import_run(place / name, docs, place / f"{name}-run", format=form)
        assert sorted(again["q0"].doc_ids) == sorted(bm25["q0"].doc_ids)
        assert again["q0"].passages is None
    index = TextIndex(collection)
    passages = collection.corpus.passages
    assert passages is not None
    rows = passages.all_of([4])
    assert index.find(passages.corpus.texts(rows)).tolist() == [4] * len(rows)
    texts = passage_texts(collection)
    line = json.loads((place / "run.jsonl").read_text().splitlines()[0])
    assert {*line["pos"], *line["neg"]} <= texts
    table = bm25.to_arrow()
    back = ird.as_run(table, collection)
    assert table.column_names[-1] == "passage"
    assert all(np.array_equal(back[q].passages, bm25[q].passages) for q in bm25.query_ids)  # type: ignore[arg-type]
    assert ird.verify_runs([str(bm25.path)]) is not None
    assert ird.diff_runs(bm25, bm25)["identical"] and ird.run_stats(bm25)["rows"] == bm25.num_rows


def test_audit_report_and_costs(collection: Collection, bm25: Run, dense: Run, place: Path) -> None:
    model = str(place / "model")
    scores = ird.score(collection, bm25, model)
    assert ird.estimate(collection, bm25, model, sample=1.0).pairs > bm25.num_rows
    audit = ird.audit(collection, [scores], first_stage=bm25, student=model, examples=2)
    assert audit.to_markdown()
    figures = ird.evaluate(collection, {"BM25": bm25, "dense": dense}, baseline="BM25")
    page = place / "page.html"
    ird.report(figures, page, collection=str(place / "docs"))
    assert figures.systems == ["BM25", "dense"] and page.is_file()
    costs = ird.measure(collection, {"BM25": "bm25", "dense": model}, queries=2, k=3)
    assert len(costs) == 2


def test_models_are_trained_on_passages(collection: Collection, bm25: Run, place: Path) -> None:
    model = str(place / "model")
    scores = ird.score(collection, bm25, "bm25")
    student = ird.train(
        collection, scores, ird.DenseStudent(model, freeze_documents=True), loss="KL(tau=0.2)",
        out=place / "student", steps=2, batch_size=3, list_size=4,
    )  # fmt: skip
    assert ird.retrieve(collection, student, k=3)["q0"].passages is not None
    terms = ird.fit_terms(collection, model, out=place / "terms")
    assert ird.retrieve(collection, terms, k=3)["q0"].passages is not None
    docs = str(place / "docs")
    aligned = ird.align([f"{docs}:documents"], model, out=place / "aligned", steps=2, batch_size=4)
    assert aligned is not None
    record = json.loads((place / "aligned" / "training.json").read_text())
    assert record["identity"]["texts"]


def test_generated_queries_name_documents(collection: Collection, place: Path) -> None:
    made = ird.generate(
        str(place / "docs"), out=place / "made", kinds=("sentence",), avoid="never", held_out=0.0
    )
    assert made.corpus.passages is not None
    passages, read = made.corpus.passages, collection.corpus.passages
    assert read is not None and passages.fingerprint == read.fingerprint
    for query in made.queries.values():
        _, source, _ = query.id.split(":")
        document = source.rpartition("#")[0]
        assert made.qrels[query.id] == {document: 1} and query.excluded == (document,)
        row = passages.corpus.row(source)
        assert query.text.split()[0] in passages.corpus.document(row).text
    ranked = ird.retrieve(made, "bm25", k=5)
    assert all(query.excluded[0] not in ranked[q].doc_ids for q, query in made.queries.items())
    scores = ird.score(made, ranked, "bm25")
    assert ird.audit(made, [scores]).to_markdown()


def test_passages_that_would_be_lost_are_refused(place: Path) -> None:
    whole = ird.load_collection(write_collection(place / "whole"))
    options = ird.PassageOptions(16, 0, str(place / "encoder"))
    split = ird.split_into_passages(whole, options)
    with pytest.raises(InputError, match="not in its folder"):
        ird.generate(split, out=place / "lost", kinds=("sentence",))
    assert not (place / "lost").exists()
    made = ird.load_collection(f"{place / 'made'}#train")
    ird.split_into_passages(str(place / "docs"), options, place / "docs")  # the same split
    assert ird.load_collection(made.id).corpus.passages is not None


@pytest.mark.slow
def test_specialise(place: Path) -> None:
    result = ird.specialise(
        str(place / "docs"), str(place / "model"), place / "special", time="40s", k=4,
        avoid="never", refine=False,
    )  # fmt: skip
    assert result is not None and (place / "special").is_dir()
