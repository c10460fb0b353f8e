"""Bundles: the same documents as exact search, nothing half written, the same bytes after a crash."""

from __future__ import annotations

import json
import os
import runpy
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import irdistill as ird
from irdistill.bundles import packaging
from irdistill.bundles.bundle_search import MaxSimSearch, best
from irdistill.collections import Collection, Query
from irdistill.errors import (
    DamagedError,
    InputError,
    LockedError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    OptionError,
    OutputExistsError,
    SettingsDifferError,
)
from irdistill.recipes import read_recipe, run_recipe
from irdistill.runs.named_passages import list_texts
from irdistill.search import retrieve
from irdistill.search.retrieve_options import RetrieveOptions
from irdistill.storage.files import staging_path
from irdistill.storage.locking import lock_folder
from irdistill.students import load_student
from irdistill.students.exported_model import ExportedModel
from irdistill.students.student_base import Student
from irdistill.students.towers import copy_tower, two_towers
from irdistill.students.word_vectors import WordVectors
from tests.bundles.small_packages import (
    HOSTILE,
    QUERIES,
    package,
    run_without_irdistill,
    small_collection,
    tiny_model,
)
from tests.recipes.tiny import beir_folder
from tests.search.passage_collection import passage_collection
from tests.students.plain_library import run_without
from tests.students.tiny import tiny_backbone
from tests.students.torch_networks import run_by_torch

KINDS = ("dense", "sparse", "late-interaction")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Student]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_model(kind, folder) for kind in KINDS}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def retrieved(student: Student, folder: Path, k: int) -> list[list[tuple[str, float]]]:
    """The documents of `retrieve`, which searches the stored vectors exactly."""
    corpus = small_collection().corpus
    queries = {str(place): Query(str(place), text) for place, text in enumerate(QUERIES)}
    collection = Collection("small", corpus, queries, ird.Qrels({}))
    run = retrieve(collection, student, folder, k, RetrieveOptions(precision="float32"))
    return [list(zip(one.doc_ids, one.scores.tolist(), strict=True)) for one in run]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_finds_what_exact_search_finds(
    kind: str, models: dict[str, Student], tmp_path: Path
) -> None:
    student = models[kind]
    bundle = package(student, tmp_path / "bundle", onnx=False)
    searcher = ird.Searcher(bundle)
    assert searcher.uses_torch and len(searcher) == bundle.contents["rows"]
    results = searcher.search(QUERIES, k=10)
    for hits, expected in zip(results, retrieved(student, tmp_path / "run", 10), strict=True):
        assert [hit.doc_id for hit in hits] == [doc_id for doc_id, _ in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [s for _, s in expected], rtol=1e-4)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    documents = {one.id: one for one in small_collection().corpus.documents()}
    for hit in searcher.search("the cat", k=60):
        assert (hit.title, hit.text) == (documents[hit.doc_id].title, documents[hit.doc_id].text)
    assert searcher.search(QUERIES[0], k=3) == results[0][:3] and searcher.search([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_prints_what_the_searcher_finds(
    kind: str,
    models: dict[str, Student],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = package(models[kind], tmp_path / "bundle", onnx=False)
    script = bundle.path / "search.py"
    code = [line for line in script.read_text().splitlines() if line and '"""' not in line]
    assert len(code) <= 16 and "irdistill" not in script.read_text()
    monkeypatch.setattr("sys.argv", [str(script), *QUERIES[1].split()])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    for hit in ird.Searcher(bundle).search(QUERIES[1], k=5):
        assert f"{hit.score:.4f}  {hit.doc_id}  " in printed


@pytest.mark.slow
def test_the_script_needs_no_irdistill(models: dict[str, Student], tmp_path: Path) -> None:
    """In a process that refuses to import irdistill."""
    bundle = package(models["dense"], tmp_path / "bundle", onnx=False)
    printed = run_without_irdistill(bundle.path / "search.py", QUERIES[1])
    assert printed.startswith(f"{ird.Searcher(bundle).search(QUERIES[1])[0].score:.4f}  ")


@pytest.mark.parametrize("kind", KINDS)
def test_search_by_the_exported_query_tower(
    kind: str, models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_by_torch(monkeypatch)
    bundle = package(models[kind], tmp_path / "bundle", onnx=True)
    searcher = ird.Searcher(bundle)
    assert not searcher.uses_torch and "without torch" in repr(searcher)
    for hits, expected in zip(
        searcher.search(QUERIES), retrieved(models[kind], tmp_path / "run", 10), strict=True
    ):
        assert [hit.doc_id for hit in hits] == [doc_id for doc_id, _ in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [s for _, s in expected], rtol=1e-4)
    assert searcher.search(QUERIES[0]) == searcher.search([QUERIES[0]])[0]


@pytest.mark.slow
def test_search_without_torch(models: dict[str, Student], tmp_path: Path) -> None:
    """In a process that refuses to import it."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    package(models["dense"], tmp_path / "bundle", onnx=True)
    repository = str(Path(__file__).parents[2])
    code = f"""
import sys
sys.path.insert(0, {repository!r})
import irdistill as ird

for hit in ird.Searcher("bundle").search({QUERIES[1]!r}):
    print(hit.doc_id, hit.score)
"""
    printed = run_without(code, tmp_path, ("torch", "transformers", "sentence_transformers"))
    expected = retrieved(models["dense"], tmp_path / "run", 10)[1]
    lines = [line.rpartition(" ") for line in printed.splitlines()]
    assert [doc_id for doc_id, _, _ in lines] == [doc_id for doc_id, _ in expected]
    scores = [float(score) for _, _, score in lines]
    np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-4)


def test_a_query_tower_without_normalization(
    models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of the network are not of length 1, but the queries of a cosine model are."""
    run_by_torch(monkeypatch)
    base = models["dense"]
    forms = [["cat", "cats"], ["dog"], ["the"]]
    words = WordVectors(base._first("query").tokenizer, forms, torch.eye(3, 32) * 9)
    model = two_towers(base.model, [*copy_tower(base.model, None), words], "dog cat: ")
    student = ird.DenseStudent.from_model(model)
    bundle = package(student, tmp_path / "bundle", onnx=True)
    searcher, texts = ird.Searcher(bundle), [*QUERIES, "dog dog cat"]
    vectors = searcher._encode(texts)
    expected = student.search_vectors(texts, "query", "float32")
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert not np.allclose(vectors[0], base.search_vectors(texts[:1], "query", "float32"), atol=0.1)
    written = ExportedModel(bundle.path / "onnx").encode_query(texts)
    assert np.linalg.norm(written, axis=1).min() > 2


def test_a_tower_that_differs_is_not_shipped(
    models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_by_torch(monkeypatch)
    encode = "irdistill.students.exported_model.ExportedModel.encode_query"
    monkeypatch.setattr(encode, lambda self, texts: np.ones((len(texts), 32), np.float32))
    with pytest.raises(ModelError, match=r"differ .* by\s+up to"):
        package(models["dense"], tmp_path / "bundle", onnx=True)
    assert not (tmp_path / "bundle").exists()
    bundle = package(models["dense"], tmp_path / "bundle")
    assert bundle.contents["query_tower"] is False and ird.Searcher(bundle).uses_torch
    assert not (bundle.path / "onnx").exists()


def test_an_interrupted_package_resumes_with_the_same_bytes(
    models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each file in turn; finished files are not written again."""
    whole = tree(
        package(models["dense"], tmp_path / "whole", format="qdrant", part_documents=10).path
    )
    out, written = tmp_path / "out", []
    original = packaging.StagedPackage._record

    def stop_after(self: Any, entries: Any) -> None:
        original(self, entries)
        written.extend(entries)
        raise KeyboardInterrupt

    monkeypatch.setattr(packaging.StagedPackage, "_record", stop_after)
    for _ in range(30):
        try:
            package(models["dense"], out, format="qdrant", part_documents=10)
            break
        except KeyboardInterrupt:
            assert not out.exists()
    assert tree(out) == whole and sorted(written) == sorted(set(written))
    assert sorted(written) == sorted(set(whole) - {"manifest.json"})
    assert list(tmp_path.glob(".out*")) == []


def test_what_a_crash_left_damaged_or_of_another_identity_is_written_again(
    models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tree(package(models["dense"], tmp_path / "whole", onnx=False).path)
    out = tmp_path / "out"

    def interrupted(**options: Any) -> Path:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

            def stop(*arguments: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(packaging, "finish", stop)
            package(models["dense"], out, onnx=False, **options)
        return staging_path(out)

    staged = interrupted(texts=False)
    with open(staged / "journal.jsonl", "a") as journal:
        journal.write('["documents.js')  # a line that a crash cut short
    (staged / "stray").write_text("x")
    staged = interrupted()
    (staged / "documents.jsonl").write_bytes(b"{}")
    assert tree(package(models["dense"], out, onnx=False).path) == whole


def test_only_our_folder_is_replaced(models: dict[str, Student], tmp_path: Path) -> None:
    student, out = models["dense"], tmp_path / "bundle"
    first = package(student, out, onnx=False)
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert package(student, out, onnx=False).fingerprint == first.fingerprint
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(OutputExistsError, match=r"options.texts: true there, false here"):
        package(student, out, onnx=False, texts=False)
    (out / "notes.txt").write_text("mine")
    corpus = small_collection().corpus
    options = ird.PackageOptions(onnx=False, texts=False, precision="float32")
    with pytest.raises(OutputExistsError, match=r"notes\.txt"):
        packaging.package_model(corpus, student, out, options, overwrite=True)
    (out / "notes.txt").unlink()
    packaging.package_model(corpus, student, out, options, overwrite=True)
    assert ird.Searcher(out).search("the cat")[0].text == ""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "search.py").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"search\.py"):
        package(student, tmp_path / "mine", onnx=False)
    staged = staging_path(tmp_path / "other")
    staged.mkdir()
    with lock_folder(staged), pytest.raises(LockedError):
        package(student, tmp_path / "other", onnx=False)


def test_damage_is_noticed(models: dict[str, Student], tmp_path: Path) -> None:
    whole = package(models["dense"], tmp_path / "whole", onnx=False).path
    for name in ("index/index.faiss", "documents.jsonl", "offsets.npy", "model/model.safetensors"):
        copied = tmp_path / name.replace("/", "-")
        shutil.copytree(whole, copied)
        content = bytearray((copied / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copied / name).write_bytes(content)
        with pytest.raises(DamagedError, match=os.path.basename(name)):
            ird.Searcher(copied).search("the cat")
    content = json.loads((whole / "manifest.json").read_text())
    content["contents"]["rows"] = 3
    (whole / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DamagedError, match="checksum"):
        ird.Searcher(whole)


def test_what_is_wrong_is_refused_before_texts_are_encoded(
    models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = models["dense"]
    package(student, tmp_path / "bundle", onnx=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    spaces = Collection.from_dicts("spaces", {"a b": "the cat"}, {})

    def encode(*arguments: Any) -> Any:
        raise AssertionError("texts were encoded")

    def no_extra(student: Student) -> Any:
        raise MissingExtraError("onnxscript", "onnx", "export")

    monkeypatch.setattr(packaging, "_vectors", encode)
    monkeypatch.setattr(packaging, "check_query_tower", no_extra)
    for out, options, error, message in (
        ("bundle", {"onnx": False, "texts": False}, OutputExistsError, "options.texts"),
        ("mine", {"onnx": False}, OutputExistsError, "notes.txt"),
        ("new", {"onnx": True}, MissingExtraError, "onnxscript"),
        ("new", {"onnx": False, "aggregate": "vector"}, OptionError, "not split into passages"),
        ("new", {"format": "anserini"}, InputError, "holds spaces"),
    ):
        with pytest.raises(error, match=message):
            package(student, tmp_path / out, spaces if "format" in options else None, **options)
    with pytest.raises(AssertionError, match="encoded"):
        package(student, tmp_path / "new", spaces, onnx=False)


def test_wrong_input(models: dict[str, Student], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="irdistill package MODEL COLLECTION"):
        ird.Searcher(tmp_path)
    bundle = package(models["dense"], tmp_path / "bundle", onnx=False)
    searcher = ird.Searcher(bundle)
    for query, k, message in (("  ", 3, "empty"), ("cat", 0, "k is 0"), (["cat", ""], 3, "empty")):
        with pytest.raises(OptionError, match=message):
            searcher.search(query, k)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a text"):
        searcher.search([3])  # type: ignore[list-item]
    points = package(models["dense"], tmp_path / "points", format="qdrant")
    with pytest.raises(OptionError, match="files for qdrant"):
        ird.Searcher(points)
    with pytest.raises(OptionError, match="leave out index"):
        package(models["sparse"], tmp_path / "x", index="hnsw")
    assert "d0" in {hit.doc_id for hit in searcher.search("the cat", k=100)}
    assert set(HOSTILE) <= {hit.doc_id for hit in searcher.search("the cat", k=100)}


def test_a_corpus_without_tokens(
    models: dict[str, Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "searchable_rows", lambda store: np.empty(0, np.int64))
    with pytest.raises(InputError, match="nothing to index"):
        package(models["dense"], tmp_path / "out", onnx=False)
    assert not (tmp_path / "out").exists()


def test_an_approximate_index(models: dict[str, Student], tmp_path: Path) -> None:
    flat = package(models["dense"], tmp_path / "flat", onnx=False)
    exact = ird.Searcher(flat).search(QUERIES)
    bundle = package(models["dense"], tmp_path / "hnsw", onnx=False, index="hnsw")
    for hits, expected in zip(ird.Searcher(bundle).search(QUERIES), exact, strict=True):
        assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in expected]


def test_maxsim_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores do not depend on how many tokens are read at once."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 50)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rng.standard_normal((starts[-1], 8)).astype(np.float32)
    np.save(tmp_path / "token_starts.npy", starts)
    np.save(tmp_path / "tokens.npy", tokens)
    query = rng.standard_normal((4, 8)).astype(np.float32)
    parts = np.split(tokens, starts[1:-1])
    expected = [(part @ query.T).max(axis=0).sum() for part in parts]
    for block in (1, 300, 1 << 20):
        monkeypatch.setattr("irdistill.bundles.bundle_search._TOKEN_BYTES", block)
        ((scores, rows),) = MaxSimSearch(tmp_path, mean=False).top([query], 50)
        np.testing.assert_allclose(scores, np.asarray(expected)[rows], rtol=1e-5)
        assert rows.tolist() == np.argsort(-np.asarray(expected)).tolist()


def test_ties_of_best_rows() -> None:
    scores, rows = best(np.array([2.0, 5.0, 5.0, 0.0, 2.0], np.float32), 10, above=0.0)
    assert rows.tolist() == [1, 2, 0, 4] and scores.tolist() == [5.0, 5.0, 2.0, 2.0]


def test_passages_are_searched_and_documents_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each document once, with its best passage, as `retrieve` ranks them by MaxP."""
    split = passage_collection(tmp_path)
    student = load_student(tmp_path / "encoder", device="cpu")
    run = retrieve(split, student, tmp_path / "run", 30, RetrieveOptions(precision="float32"))
    bundle = package(student, tmp_path / "bundle", split, onnx=False)
    searcher = ird.Searcher(bundle)
    assert len(searcher) == len(split.corpus.passages) - bundle.contents["left_out"]
    assert "passages" in repr(bundle) and "passages" in repr(searcher)
    for query, ranked in zip(split.queries.values(), run, strict=True):
        hits = searcher.search(query.text, k=30)
        assert [hit.doc_id for hit in hits] == ranked.doc_ids
        assert [hit.passage for hit in hits] == ranked.passages.tolist()
        assert [hit.text for hit in hits] == list_texts(split.corpus, ranked)
    script = bundle.path / "search.py"
    monkeypatch.setattr("sys.argv", [str(script), *query.text.split()])
    runpy.run_path(str(script), run_name="__main__")
    printed = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert printed == [hit.doc_id for hit in hits[:10]]


def test_a_stage_of_a_recipe(tmp_path: Path) -> None:
    """It is done once, and replaced with --overwrite if it was run with other settings."""
    data, model = beir_folder(tmp_path / "data"), tiny_backbone(tmp_path / "model", layers=1)
    recipe = tmp_path / "small.yaml"
    text = (
        "name: small\ndescription: A bundle.\nsettings: {texts: true}\nstages:\n"
        f"  - {{name: bundle, verb: package, model: '{model}', collection: '{data}#train', onnx: false,"
        " texts: '${texts}'}\n"
    )
    recipe.write_text(text)
    for texts in (True, False):
        with pytest.raises(SettingsDifferError) if not texts else nullcontext():
            run_recipe(read_recipe(recipe, [f"texts={str(texts).lower()}"]), tmp_path / "out")
    assert ird.Searcher(tmp_path / "out" / "bundle").search("the cat")[0].text
    run_recipe(read_recipe(recipe, ["texts=false"]), tmp_path / "out", overwrite=True)
    assert ird.Searcher(tmp_path / "out" / "bundle").search("the cat")[0].text == ""


def test_the_cache_holds_a_package_without_out(tmp_path: Path) -> None:
    data, model = beir_folder(tmp_path / "data"), tiny_backbone(tmp_path / "model", layers=1)
    first = ird.package(str(model), f"{data}#train", onnx=False)
    assert tmp_path / "cache" in first.path.parents
    assert ird.package(str(model), f"{data}#train", onnx=False).path == first.path
