"""The pages `Ask` and `Why`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

import irdistill as ird
from irdistill.bundles.bundle_searcher import Searcher
from irdistill.bundles.collection_search import CollectionSearch
from irdistill.collections import Collection, load_collection
from irdistill.evaluation.explaining import DocumentExplainer
from irdistill.search.retrieve_options import RetrieveOptions
from irdistill.view.application import build_application
from irdistill.view.linked_addresses import why_address
from irdistill.view.opened_systems import OpenedSystems, OpenSystem
from irdistill.view.search_systems import System, list_systems
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace
from tests.bundles.small_packages import package
from tests.evaluation.explained_models import explained_model
from tests.recipes.tiny import beir_folder
from tests.view.conftest import TOKEN, accessibility_problems

QUERY = "the small dog in snow"
WHY = "dl.figures"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a collection, and a cache for all tests."""
    folder = tmp_path_factory.mktemp("ask")
    beir_folder(folder / "docs", documents=40, queries=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRDISTILL_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def docs(place: Path) -> Collection:
    return load_collection(place / "docs")


@pytest.fixture(scope="module")
def make_bundle(place: Path, docs: Collection) -> Callable[[str], Path]:
    """Makes the bundle of a kind of model once; it is alone in its folder."""

    def make(kind: str) -> Path:
        folder = place / kind / "bundle"
        if not folder.exists():
            package(explained_model(kind, place / "made" / kind), folder, docs, onnx=False)
        return folder

    return make


def test_ask_a_bundle_and_bm25_by_keyboard(
    open_page: Callable[..., Any], docs: Collection, make_bundle: Callable[[str], Path]
) -> None:
    """Type, Enter, read both sides, Tab to Why, Enter, and back."""
    bundle = make_bundle("terms")
    page = open_page(bundle.parent, path="/ask")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    page.locator("#measured").wait_for()
    assert "q=the+small+dog+in+snow" in page.url and "b=bm25" in page.url
    sides = [
        [
            (item.locator("b").inner_text(), item.locator(".score").inner_text())
            for item in side.locator("li").all()
        ]
        for side in page.locator("#sides section").all()
    ]
    ours = [(hit.doc_id, f"{hit.score:.4f}") for hit in Searcher(bundle).search(QUERY, 10)]
    search = CollectionSearch(docs, "bm25", RetrieveOptions())
    theirs = [(hit.doc_id, f"{hit.score:.4f}") for hit in search.search(QUERY, 10)]
    assert sides == [ours, theirs]
    ranks = {doc: rank for rank, (doc, _) in enumerate(theirs, 1)}
    shared = [doc for doc, _ in ours if doc in ranks]
    assert f"A and B share {len(shared)} of 10 documents" in page.inner_text("#verdict")
    for rank, (doc, _) in enumerate(ours, 1):
        there = ranks.get(doc)
        moved = page.locator(f"#sides section:first-child li[data-doc={doc}] .moved").inner_text()
        if there is None:
            assert moved == "only here"
        elif there == rank:
            assert moved == "same rank there"
        else:
            arrow = "↑" if there > rank else "↓"
            assert moved == f"{arrow}{abs(there - rank)}, rank {there} there"
    assert page.locator("#sides mark").count() > 3
    assert " ms" in page.inner_text("#sides section:first-child [role=status]")
    assert accessibility_problems(page) == []
    for _ in range(5):  # A, B, documents, the button, then the first document
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Why"
    page.keyboard.press("Enter")
    page.locator(WHY).wait_for()
    why = ird.explain(str(bundle), QUERY, ours[0][0])
    assert page.inner_text(".verdict") == why.verdict()
    page.go_back()
    page.locator("#measured").wait_for()
    assert page.input_value("#q") == QUERY and page.locator("#sides section").count() == 2


def test_an_address_shows_a_judged_query_again(
    open_page: Callable[..., Any],
    place: Path,
    docs: Collection,
    make_bundle: Callable[[str], Path],
) -> None:
    bundle = make_bundle("sparse")
    query = docs.queries[next(iter(docs.qrels))]
    relevant = next(iter(docs.qrels[query.id]))
    address = urlencode({"q": query.text, "a": "bundle", "b": "", "k": 20})
    page = open_page(
        bundle.parent, path=f"/ask?{address}", width=390, collection=[str(place / "docs")]
    )
    page.locator("#measured").wait_for()
    assert page.locator("#sides section").count() == 1
    assert f"judged query {query.id}" in page.inner_text("#sides")
    hits = Searcher(bundle).search(query.text, 20)
    if relevant in {hit.doc_id for hit in hits}:
        assert "relevant (1)" in page.locator(f"li[data-doc={relevant}]").inner_text()
    assert "not judged" in page.inner_text("#sides")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    suggested = page.locator("#queries option").evaluate_all("all => all.map(one => one.value)")
    assert query.text in suggested and len(suggested) <= 12
    assert accessibility_problems(page) == []


@pytest.mark.parametrize("kind", ["terms", "sparse", "late-interaction"])
def test_why_shows_the_figures_of_the_command(
    open_page: Callable[..., Any],
    docs: Collection,
    make_bundle: Callable[[str], Path],
    kind: str,
) -> None:
    bundle = make_bundle(kind)
    doc_id = CollectionSearch(docs, "bm25", RetrieveOptions()).search(QUERY, 1)[0].doc_id
    page = open_page(bundle.parent, path=why_address(doc_id, at="bundle", query=QUERY))
    page.locator(WHY).wait_for()
    why = ird.explain(str(bundle), QUERY, doc_id)
    assert page.inner_text(".verdict") == why.verdict()
    findings = {finding.name: finding for finding in why.findings()}
    for name, title in (("model", "Model"), ("words", "Words")):
        section = page.locator("section", has=page.get_by_role("heading", name=title, exact=True))
        shown = section.locator("tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        rows = [list(row) for row in findings[name].tables[0].rows]
        if len(shown[0]) > len(rows[0]):  # a bar after the score
            shown = [[cell for place, cell in enumerate(row) if place != 2] for row in shown]
        assert shown == rows
    if kind == "late-interaction":
        tokens = why.model.tokens  # type: ignore[union-attr]
        assert tokens is not None
        cells = page.locator("svg.heat rect")
        assert cells.count() == len(tokens.query) * len(tokens.document)
        assert page.locator("svg.heat rect.best").count() == len(tokens.query)
    assert page.locator(".document mark").count() > 0
    assert accessibility_problems(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_why_from_a_run(
    open_page: Callable[..., Any], place: Path, tmp_path: Path, docs: Collection
) -> None:
    view = tmp_path / "view"
    ird.retrieve(str(place / "docs"), "bm25", 5, out=view / "bm25")
    run = ird.score(
        str(place / "docs"), candidates=view / "bm25", teacher="bm25", out=view / "teacher"
    )
    ranked = next(iter(run))
    address = why_address(ranked.doc_ids[1], at="teacher", query_id=ranked.query_id)
    page = open_page(view, path=address)
    page.locator(WHY).wait_for()
    rows = page.locator("section", has_text="Teachers and other runs").locator("tbody tr")
    assert [row.split("\t")[:3] for row in rows.all_inner_texts()] == [
        ["bm25", "2 of 5", f"{ranked.scores[1]:.4f}"],
        ["teacher", "2 of 5", f"{ranked.scores[1]:.4f}"],
    ]
    runs = {"bm25": ird.open_run(view / "bm25"), "teacher": run}
    why = DocumentExplainer(docs, runs=runs).explain(ranked.query_id, ranked.doc_ids[1])
    assert page.inner_text(".verdict") == why.verdict()


def test_models_are_offered_with_the_collection_of_their_training(tmp_path: Path) -> None:
    explained_model("dense", tmp_path / "out" / "a")
    (tmp_path / "out" / "a" / "training.json").write_text(
        '{"identity": {"collection": {"id": "mine"}}}'
    )
    explained_model("dense", tmp_path / "out" / "b")
    student = ird.CrossEncoderStudent(str(tmp_path / "out" / "a" / "backbone"))
    student.save(tmp_path / "out" / "c" / "model")
    systems = list_systems(Workspace([tmp_path / "out"]), ())
    assert [system.key for system in systems] == [
        "a/model @ mine",
        "b/model @ mine",
        "bm25 @ mine",
    ]
    systems = list_systems(Workspace([tmp_path / "out"]), ("other",))
    assert [(system.name, system.group) for system in systems] == [
        ("a", "other"),
        ("b", "other"),
        ("BM25", "other"),
        ("a", "mine"),
        ("b", "mine"),
        ("BM25", "mine"),
    ]


def test_what_goes_wrong_is_shown(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(tmp_path, path="/ask")
    assert "irdistill package MODEL COLLECTION" in page.inner_text("main")


def test_a_model_is_opened_while_the_page_answers(
    make_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle("terms")
    continued, opened = Event(), OpenedSystems._opened

    def slowly(self: OpenedSystems, system: System) -> OpenSystem:
        continued.wait(30)
        return opened(self, system)

    monkeypatch.setattr(OpenedSystems, "_opened", slowly)
    client = signed_in(bundle.parent)
    address = "/api/ask?at=bundle&q=dog"
    assert client.get(address).json()["state"] == "loading"
    assert "Loading bundle" in client.get(why_address("d001", at="bundle", query="dog")).text
    assert client.get("/ask").status_code == 200
    assert client.get("/api/why?at=bundle").json()["ready"] is False
    continued.set()
    while client.get(address).json()["state"] == "loading":
        client.get("/static/ask.js")
    assert len(client.get(f"{address}&k=5").json()["hits"]) == 5
    assert client.get(f"{address}&k=0").status_code == 400
    answer = client.get(why_address("d999", at="bundle", query="dog"))
    assert answer.status_code == 404 and "has no document" in answer.text and "<form" in answer.text
    assert client.get("/api/ask?at=nothing&q=dog").status_code == 404


def test_a_model_that_cannot_be_opened(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "view" / "a"
    explained_model("dense", model)
    next((model / "model").glob("**/model.safetensors")).write_bytes(b"damaged")
    client = signed_in(tmp_path / "view", collection=[str(place / "docs")])
    key = f"a/model @ {place / 'docs'}"
    answer = client.get("/api/ask", params={"at": key, "q": "dog"})
    while answer.status_code == 200:
        answer = client.get("/api/ask", params={"at": key, "q": "dog"})
    assert answer.status_code == 400 and "cannot be loaded" in answer.json()["error"]


def signed_in(folder: Path, **options: Any) -> TestClient:
    application = build_application(Workspace([folder]), TOKEN, ViewOptions(**options))
    client = TestClient(application, base_url="http://127.0.0.1:8620")
    client.get(f"/ask?token={TOKEN}")
    return client
