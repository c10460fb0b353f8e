"""The kinds of artifacts that are damaged: each is made in a folder, and used as a command uses it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

Use = Callable[[Path], Any]
"""Uses an artifact in a folder, and returns a result that JSON holds."""


def _collection() -> Any:
    from tests.search.tiny_collection import make_collection

    return make_collection(300)


def _hits(engine: Any, collection: Any) -> Any:
    texts = [query.text for query in collection.queries.values()]
    groups = next(iter(engine.search([engine.encode(texts)], 20)))
    return [[hit.rows.tolist(), hit.scores.tolist()] for hit in groups]


def corpus(folder: Path) -> Use:
    from irdistill.collections import Document
    from irdistill.collections.compiling import open_or_compile

    documents = [
        Document(f"d{number}", f"title {number}", f"text {number} " * 30) for number in range(2000)
    ]

    def use(place: Path) -> Any:
        corpus = open_or_compile(lambda: documents, place / "key", "made up")
        ids = [document.id for document in documents]
        return [
            corpus.texts(range(len(corpus))),
            corpus.rows(ids).tolist(),
            [corpus.row(doc_id) for doc_id in ids[:50]],
        ]

    use(folder)
    return use


def bm25(folder: Path) -> Use:
    from irdistill.search.lexical.bm25 import BM25

    collection = _collection()

    def use(place: Path) -> Any:
        index = BM25(collection.corpus, cache=place)
        return [
            [ranking.doc_ids, ranking.scores.tolist()]
            for ranking in index.search(list(collection.queries.values()), 50)
        ]

    use(folder)
    return use


def engine(model: str, index: str) -> Callable[[Path], Use]:
    def make(folder: Path) -> Use:
        from irdistill.search import open_searcher
        from irdistill.students import load_student
        from tests.students.tiny import tiny_backbone
        from tests.teachers.tiny import tiny_colbert, tiny_splade

        makers: dict[str, Callable[[Path], Path]] = {
            "dense": lambda place: tiny_backbone(place, layers=2),
            "sparse": tiny_splade,
            "late": tiny_colbert,
        }
        student = load_student(str(makers[model](folder.with_name(f"{folder.name}-model"))))
        collection = _collection()

        def use(place: Path) -> Any:
            return _hits(
                open_searcher(collection.corpus, student, index, place, "float32"), collection
            )  # type: ignore[arg-type]

        use(folder)
        return use

    return make


def codes(vectors: Literal["binary", "int8"]) -> Callable[[Path], Use]:
    """Short codes of dense vectors, which the float vectors score again."""

    def make(folder: Path) -> Use:
        from irdistill.search import open_searcher
        from irdistill.search.retrieve_options import CodeOptions
        from irdistill.students import load_student
        from tests.students.tiny import tiny_backbone

        student = load_student(
            str(tiny_backbone(folder.with_name(f"{folder.name}-model"), layers=2))
        )
        collection, options = _collection(), CodeOptions(vectors=vectors, rescore_by="float")

        def use(place: Path) -> Any:
            searcher = open_searcher(collection.corpus, student, options, place, "float32")
            return _hits(searcher, collection)

        use(folder)
        return use

    return make


def document_vectors(folder: Path) -> Use:
    """The vectors of passages, and those that are fitted to split documents."""
    from irdistill.search import RetrieveOptions
    from irdistill.search.searchers import open_vector_searcher
    from irdistill.students import load_student
    from tests.search.passage_collection import passage_collection

    collection = passage_collection(folder.with_name(f"{folder.name}-collection"))
    student = load_student(str(folder.with_name(f"{folder.name}-collection") / "encoder"))
    options = RetrieveOptions(precision="float32", aggregate="vector")

    def use(place: Path) -> Any:
        searcher = open_vector_searcher(collection.corpus, student, options, place)
        return _hits(searcher, collection)

    use(folder)
    return use


def passages(folder: Path) -> Use:
    """The passages in the folder of a collection."""
    from irdistill.collections import load_collection
    from irdistill.collections.passage_files import PASSAGE_FILES
    from tests.search.passage_collection import passage_collection

    place = folder.with_name(f"{folder.name}-collection")
    passage_collection(place)
    folder.mkdir(exist_ok=True)
    for name in PASSAGE_FILES:
        shutil.copy(place / "docs" / name, folder)

    def use(damaged: Path) -> Any:
        for name in PASSAGE_FILES:
            (place / "docs" / name).unlink(missing_ok=True)
            if (damaged / name).is_file():
                shutil.copy(damaged / name, place / "docs")
        split = load_collection(place / "docs", cache=damaged / ".cache").corpus.passages
        return split and [split.corpus.texts(range(len(split))), split.starts.tolist()]

    return use


def bundle(folder: Path) -> Use:
    """A packaged model with its index, which is searched without the package's caches."""
    from irdistill.bundles.bundle_searcher import Searcher
    from tests.bundles.small_packages import QUERIES, package, tiny_model

    package(tiny_model("dense", folder.with_name(f"{folder.name}-model")), folder, onnx=False)
    return lambda place: [
        [[hit.doc_id, hit.score, hit.text] for hit in hits]
        for hits in Searcher(place).search(QUERIES, 10)
    ]


def lucene(folder: Path) -> Use:
    from irdistill.search.lucene.lucene_search import LuceneBM25

    collection = _collection()

    def use(place: Path) -> Any:
        index = LuceneBM25(collection.corpus, cache=place)
        return [
            [hits.doc_ids, hits.scores.tolist()]
            for hits in index.search(list(collection.queries.values()), 50)
        ]

    use(folder)
    return use


def token_states(folder: Path) -> Use:
    from irdistill.search.multi_vector.token_states import corpus_states
    from irdistill.students.split_cross_encoder_student import SplitCrossEncoderStudent
    from tests.students.tiny import tiny_backbone

    backbone = tiny_backbone(folder.with_name(f"{folder.name}-model"), layers=2)
    student = SplitCrossEncoderStudent(str(backbone), max_length=9, device="cpu")
    collection = _collection()

    def use(place: Path) -> Any:
        states = corpus_states(collection.corpus, student, place, "float32")
        return [states.of(row).tolist() for row in range(len(states))]

    use(folder)
    return use


def _run(folder: Path) -> tuple[Any, Any]:
    from irdistill.runs import RankedList, RunIdentity, write_run

    collection = _collection()
    draw = np.random.default_rng(1)
    lists = [
        RankedList(
            query,
            [f"d{row}" for row in draw.permutation(300)[:100]],
            draw.normal(size=100).astype(np.float32),
            [None, "doubtful"] * 50,
        )
        for query in collection.queries
    ]
    identity = RunIdentity("teacher", {"model": "made up"}, collection.describe())
    return collection, lambda place: write_run(place, identity, lists, part_queries=2)


def run(folder: Path) -> Use:
    from irdistill.runs import open_run

    _, write = _run(folder)
    write(folder)
    return lambda place: [[one.doc_ids, one.scores.tolist(), one.flags] for one in open_run(place)]


def resumed_run(folder: Path) -> Use:
    _, write = _run(folder)
    write(folder)
    return lambda place: [[one.doc_ids, one.scores.tolist(), one.flags] for one in write(place)]


def merged_run(folder: Path) -> Use:
    from irdistill.runs import merge, open_run
    from tests.runs.shards import write_shard

    shards = [write_shard(folder.with_name(f"{folder.name}-{number}"), number) for number in (1, 2)]
    merge(shards, folder)

    def use(place: Path) -> Any:
        merge(shards, place)
        return [[one.doc_ids, one.scores.tolist()] for one in open_run(place)]

    return use


def compiled(folder: Path) -> Use:
    from irdistill.runs import compile_run, open_run

    collection, write = _run(folder)
    source = folder.with_name(f"{folder.name}-run")
    write(source)
    cached = compile_run(open_run(source), collection.corpus).folder
    assert cached is not None
    shutil.copytree(cached, folder, dirs_exist_ok=True)

    def use(place: Path) -> Any:
        shutil.rmtree(cached, ignore_errors=True)
        shutil.copytree(place, cached)
        try:
            run = compile_run(open_run(source), collection.corpus)
            return [
                [rows.tolist(), scores.tolist(), run.flags(number).tolist()]
                for number, (rows, scores) in enumerate(map(run.list, range(len(run))))
            ]
        finally:
            shutil.rmtree(place)
            shutil.copytree(cached, place)

    return use


def representations(folder: Path) -> Use:
    from irdistill.runs.stored_representations import (
        Item,
        RepresentationPlan,
        Representations,
        RepresentationWriter,
    )

    collection, write = _run(folder)
    source = write(folder)
    identity, queries = source.identity, source.manifest.queries_digest
    plan = RepresentationPlan(
        "pairs", "float32", identity.producer, identity.collection, None, {}, queries, 2
    )
    draw = np.random.default_rng(2)
    writer = RepresentationWriter(folder, plan, np.ones((1, 16), np.float32))
    for number in range(3):
        owners = range(2 * number, min(2 * number + 2, len(collection.queries)))
        writer.write(
            number,
            len(owners),
            [
                Item(owner, row, draw.normal(size=(1, 16)).astype(np.float32))
                for owner in owners
                for row in range(40)
            ],
        )
    writer.finish()

    def use(place: Path) -> Any:
        stored = Representations(place)
        assert stored.classifier is not None
        return [
            [
                vector.tolist()
                for query in collection.queries
                for vector in stored.pairs(query, np.arange(40))
            ],
            stored.classifier.tolist(),
        ]

    return use


def checkpoint(folder: Path) -> Use:
    from irdistill.training import checkpoints

    draw = random.Random(3)
    for step in (3, 6):
        place = folder / f"checkpoint-{step}"
        place.mkdir(parents=True)
        for name in ("weights.pt", "optimizer.pt", "trainer_state.json"):
            (place / name).write_bytes(draw.randbytes(5000))
        checkpoints.write_marker(place)

    def use(place: Path) -> Any:
        checkpoint = checkpoints.latest_checkpoint(place)
        contents = (
            {}
            if checkpoint is None
            else {path.name: path.read_bytes().hex() for path in sorted(checkpoint.iterdir())}
        )
        right = (
            None
            if checkpoint is None
            else {
                path.name: path.read_bytes().hex()
                for path in sorted((folder / checkpoint.name).iterdir())
            }
        )
        return contents == (right or {})  # an older whole one, or none, is a right answer

    return use


def model(folder: Path) -> Use:
    """The model of a training that is run again: complete, or trained again."""
    from irdistill.training import TrainOptions, train
    from tests.training.tiny import make_backbone, make_collection, make_run, make_student

    place = folder.with_name(f"{folder.name}-inputs")
    scores, backbone = (
        make_run(place / "scores", make_collection()).path,
        make_backbone(place / "backbone"),
    )
    options = TrainOptions(steps=3, batch_size=4, list_size=5, precision="float32", seed=7)

    def use(out: Path) -> Any:
        train(make_collection(), str(scores), make_student(backbone), "KL()", out, options)
        return {
            path.name: path.read_bytes().hex()
            for path in sorted((out / "model").rglob("*"))
            if path.is_file()
        }

    use(folder)
    return use


KINDS: dict[str, Callable[[Path], Use]] = {
    "corpus": corpus,
    "compiled": compiled,
    "run": run,
    "resumed-run": resumed_run,
    "merged-run": merged_run,
    "representations": representations,
    "bm25": bm25,
    "dense": engine("dense", "flat"),
    "hnsw": engine("dense", "hnsw"),
    "ivfpq": engine("dense", "ivfpq"),
    "sq8": engine("dense", "sq8"),
    "sparse": engine("sparse", "flat"),
    "late": engine("late", "flat"),
    "plaid": engine("late", "plaid"),
    "token-states": token_states,
    "binary": codes("binary"),
    "int8": codes("int8"),
    "document-vectors": document_vectors,
    "passages": passages,
    "bundle": bundle,
    "checkpoint": checkpoint,
    "model": model,
    "lucene": lucene,
    "lucene-hnsw": engine("dense", "lucene"),
    "lucene-impact": engine("sparse", "lucene"),
}
SLOW = ("model", "lucene", "lucene-hnsw", "lucene-impact")
