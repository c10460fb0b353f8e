"""The verb *package*: a bundle to search with, or files that a search engine loads."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from irdistill import __version__
from irdistill.bundles.bundle_manifest import (
    DOCUMENTS,
    MODEL,
    OFFSETS,
    QUERY_TOWER,
    VERSION,
    Bundle,
    is_package,
    package_files,
)
from irdistill.bundles.engines import engine_format
from irdistill.bundles.engines.engine_files import EngineFormat, EngineIndex, write_engine_files
from irdistill.bundles.index_files import write_index
from irdistill.bundles.indexed_rows import IndexedRows, IndexedText
from irdistill.bundles.package_options import PackageOptions
from irdistill.bundles.package_scripts import search_script
from irdistill.bundles.staged_package import StagedPackage, finish, stage_package
from irdistill.bundles.stored_rows import searchable_rows
from irdistill.collections import Corpus
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.console.progress_bars import progress
from irdistill.console.terminal import counted
from irdistill.errors import InputError, IrdistillError, OptionError, OutputExistsError
from irdistill.search.vectors.document_vectors import check_dense, fit_document_vectors
from irdistill.search.vectors.faiss_index import import_faiss
from irdistill.search.vectors.vector_store import Store, VectorStore, corpus_vectors
from irdistill.storage.files import differences
from irdistill.storage.ownership import refuse_foreign_files
from irdistill.students.exporting import check_query_tower, export_query_tower
from irdistill.students.student_base import Student

logger = logging.getLogger(__name__)

_BLOCK = 4096
_LIBRARIES = ("sentence-transformers", "transformers", "torch", "faiss-cpu", "onnxruntime", "numpy")
_ELSEWHERE = ("model", "revision")
"""Keys of a model's identity that name its place, and not what it is."""


def package_model(
    corpus: Corpus,
    student: Student,
    out: str | Path,
    options: PackageOptions | None = None,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a package. A stopped call resumes, and ends with the same bytes.

    Args:
        student: a dense, sparse or late-interaction model.
        out: folder of the package; one that irdistill wrote is replaced with ``overwrite``.

    Raises:
        OptionError: the format cannot hold the vectors of this kind of model.
        OutputExistsError: ``out`` holds another package, or files of others.
    """
    options, out = options or PackageOptions(), Path(out)
    _check_options(corpus, student, options)
    single = options.aggregate == "vector"
    rows = IndexedRows(corpus.with_passages(None) if single else corpus)
    facts = _facts(student, rows, options)
    engine: EngineFormat | None = None
    if options.format != "bundle":
        engine, index = engine_format(options.format), EngineIndex.of(facts, options.name, student)
        engine.check(index, corpus.ids)
    identity = _identity(student, corpus, options)
    finished = Bundle.open(out) if is_package(out) and not overwrite else None
    if finished is None:
        refuse_foreign_files(out, package_files(out), "a package")
    else:
        _refuse_other(finished, identity)
    store = _vectors(corpus, student, options)
    identity["vectors"] = store.fingerprint
    if finished is not None:
        _refuse_other(finished, identity)
        return finished
    present = searchable_rows(store)
    if not len(present):
        raise InputError("no document has a token that the model reads; there is nothing to index.")
    if len(present) < len(store):
        logger.info("%s without tokens left out", counted(len(store) - len(present), "row"))
    facts |= {"rows": len(present), "left_out": len(store) - len(present)}
    with stage_package(out, identity) as staged:
        staged.write_folder(MODEL, partial(_save_model, student))
        if engine is None:
            facts |= _write_bundle(staged, student, store, rows, present, options, facts)
        else:
            write_engine_files(staged, engine, index, store, rows, present, options)
        finish(staged, facts, identity, _versions())
    return Bundle.open(out)


def _check_options(corpus: Corpus, student: Student, options: PackageOptions) -> None:
    """Refuse what would fail after the corpus is encoded."""
    if student.kind not in ("dense", "sparse", "late-interaction"):
        student.search_vectors([], "document")  # raises
    if options.index != "flat" and (student.kind != "dense" or options.format != "bundle"):
        raise OptionError(
            f"index={options.index!r} is for the bundle of a dense model, and the"
            f" {options.format} of a {student.kind} model has none; leave out index."
        )
    if options.format == "bundle" and student.kind == "dense":
        import_faiss()
    if options.format == "bundle" and options.onnx is True:
        check_query_tower(student)
    if options.aggregate == "vector":
        check_dense(student)
        if corpus.passages is None:
            raise OptionError(
                "aggregate is vector, and the documents are not split into passages. Split them"
                " (collect with --passage-tokens), or leave it out."
            )


def _refuse_other(finished: Bundle, identity: Mapping[str, Any]) -> None:
    """Refuse to replace a package that differs in a key of an identity."""
    known = finished.manifest["identity"]
    present = {key: value for key, value in known.items() if key in identity}
    if present != identity:
        changed = "; ".join(differences(present, identity)[:4])
        raise OutputExistsError(
            f"{finished.path} holds another package ({changed}). Choose another --out, or give"
            " --overwrite."
        )


def _vectors(corpus: Corpus, student: Student, options: PackageOptions) -> Store:
    """The vectors of the rows of a package."""
    texts = reading_corpus(corpus)
    store: Store = corpus_vectors(texts, student, precision=options.precision)
    if options.aggregate == "maxp":
        return store
    assert isinstance(store, VectorStore)
    return fit_document_vectors(corpus, store, student, precision=options.precision)


def _facts(student: Student, rows: IndexedRows, options: PackageOptions) -> dict[str, Any]:
    """What the package holds, as its manifest and scripts say."""
    return {
        "version": VERSION,
        "format": options.format,
        "kind": student.kind,
        "similarity": "dot" if options.aggregate == "vector" else student.similarity,
        "dimension": student.dimension,
        "truncated": options.dimension is not None,
        "needs_code": _needs_code(student),
        "passages": rows.passages,
        "texts": options.texts,
        "index": options.index,
        "model": str(student.source),
        "prompts": student.prompts(),
    }


def _needs_code(student: Student) -> bool:
    """Whether plain sentence-transformers needs ``trust_remote_code`` to open the model.

    The code of our modules lies in the folder of the model.
    """
    return any(
        not type(module).__module__.startswith("sentence_transformers.")
        for module, _ in student.saved_modules()
    )


def _identity(student: Student, corpus: Corpus, options: PackageOptions) -> dict[str, Any]:
    """Everything that determines the bytes, as JSON, apart from the vectors and versions of
    libraries.
    """
    model = {key: value for key, value in student.identity().items() if key not in _ELSEWHERE}
    identity = {
        "irdistill": __version__,
        "version": VERSION,
        "model": model,
        "corpus": corpus.fingerprint,
        "passages": None if corpus.passages is None else corpus.passages.fingerprint,
        "options": asdict(options),
    }
    loaded: dict[str, Any] = json.loads(json.dumps(identity))
    return loaded


def _versions() -> dict[str, str]:
    versions = {"irdistill": __version__}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _save_model(student: Student, folder: Path) -> None:
    student.save(folder)


def _write_bundle(
    staged: StagedPackage,
    student: Student,
    store: Store,
    rows: IndexedRows,
    present: np.ndarray,
    options: PackageOptions,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the index, the documents and the script."""
    if options.onnx is not False:
        write = partial(_write_query_tower, student, required=options.onnx is True)
        staged.write_folder(QUERY_TOWER, write)
    write_index(staged, store, present, options.index, options.seed)
    staged.write_file(DOCUMENTS, lambda path: _write_documents(path, rows, present, options.texts))
    staged.write_file(OFFSETS, lambda path: _write_offsets(path, staged.folder / DOCUMENTS))
    staged.write_text("search.py", search_script(facts))
    return {"query_tower": any(name.startswith(f"{QUERY_TOWER}/") for name in staged.files)}


def _write_query_tower(student: Student, folder: Path, required: bool) -> None:
    """Unless it is required, a failure is logged and the folder stays empty."""
    try:
        export_query_tower(student, folder)
    except IrdistillError as error:
        if required:
            raise
        shutil.rmtree(folder)
        folder.mkdir()
        logger.info(
            "the bundle is searched with sentence-transformers, which takes seconds to start: %s",
            error,
        )


def _write_documents(path: Path, rows: IndexedRows, present: np.ndarray, texts: bool) -> None:
    """One line of JSON for each row of the index."""
    with (
        open(path, "w", encoding="utf-8", newline="\n") as stream,
        progress(len(present), "documents", "write documents") as bar,
    ):
        for block in rows.blocks(present, _BLOCK):
            for text in rows.texts(block):
                stream.write(json.dumps(document_fields(text, texts), ensure_ascii=False) + "\n")
            bar.update(len(block))


def document_fields(text: IndexedText, texts: bool) -> dict[str, Any]:
    """The fields of a document in a bundle: ``id``, and ``passage``, ``title`` and ``text`` if it
    has them.
    """
    fields: dict[str, Any] = {"id": text.id}
    if text.passage is not None:
        fields["passage"] = text.passage
    if texts and text.title:
        fields["title"] = text.title
    return fields | ({"text": text.text} if texts else {})


def _write_offsets(path: Path, documents: Path) -> None:
    """(N + 1,) int64: where each line starts, and where the last one ends."""
    ends = np.fromiter(_line_ends(documents), np.int64)
    with open(path, "wb") as stream:
        np.save(stream, np.concatenate([[0], ends]).astype(np.int64))


def _line_ends(documents: Path) -> Iterator[int]:
    end = 0
    with open(documents, "rb") as stream:
        for line in stream:
            end += len(line)
            yield end
