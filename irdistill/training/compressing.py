"""`compress`: linear layers behind a dense model, fitted for short codes of its vectors.

The corpus and the queries are encoded once; the layers are fitted to the stored vectors.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from torch import nn

from irdistill.collections import Collection
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.errors import InputError, OptionError
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.students.build import load_dense
from irdistill.students.dense_student import DenseStudent
from irdistill.students.tower_model import TextKind
from irdistill.students.towers import copy_tower, tower_modules
from irdistill.training.code_learning import StoredVectors, learn_maps
from irdistill.training.code_maps import Affine, CodeMaps, principal_components, rotate_for_signs
from irdistill.training.compress_options import CompressOptions
from irdistill.training.computed_models import write_computed_model

logger = logging.getLogger(__name__)


def compress(
    collection: Collection,
    model: str | DenseStudent,
    out: str | Path,
    options: CompressOptions | None = None,
    work: str | Path | None = None,
    overwrite: bool = False,
) -> DenseStudent:
    """Give both towers of a dense model a last linear layer for short document vectors.

    The layers begin as principal components of the document vectors. ``rotation`` rotates them so
    that signs lose least; ``learned`` learns the float scores of the model by gradients through the
    rounding, on the collection's queries and on documents as queries. Judgments are not read. The
    saved model loads in plain sentence-transformers and compares vectors by dot product.

    Args:
        collection: its corpus, and queries of the kind that will be asked.
        model: a dense model; it is not trained itself.
        out: folder; the model goes to ``model`` in it. A finished model for the same input is
            opened.
        work: folder of stored vectors (default: the cache folder).

    Raises:
        OptionError: a dimension is larger than that of the model.
        InputError: there are no queries to learn from, or the documents do not differ.
        SettingsDifferError: ``out`` has another model.
    """
    student = model if isinstance(model, DenseStudent) else load_dense(model)
    options = options or CompressOptions()
    options = replace(options, dimensions=options.sizes or (student.dimension,))
    if options.sizes[0] > student.dimension:
        raise OptionError(
            f"dimensions has {options.sizes[0]}, and the vectors of {student.source!r} have"
            f" {student.dimension}; give at most that many."
        )
    identity = {
        "verb": "compress",
        "model": student.identity(),
        "collection": collection.describe(),
        "settings": asdict(options),
    }

    def compute() -> tuple[DenseStudent, dict[str, Any]]:
        store: VectorStore = corpus_vectors(reading_corpus(collection.corpus), student, work)
        queries = _queries(collection, student, store, options)
        maps = fit_maps(StoredVectors(store.matrix, queries), options)
        return with_maps(student, maps), {"documents": len(store), "queries": len(queries)}

    folder = write_computed_model(out, identity, compute, overwrite)
    return DenseStudent.load(folder)


def fit_maps(stored: StoredVectors, options: CompressOptions) -> CodeMaps:
    """The maps of a method, see `compress`.

    Args:
        options: with at least one dimension.

    Raises:
        InputError: there are no queries to learn from, or the documents do not differ.
    """
    maps = principal_components(stored.documents, options.sizes[0])
    if options.method == "pca":
        return maps
    if options.vectors == "binary" or options.method == "rotation":
        maps = rotate_for_signs(maps, stored.documents, options.sizes, options.seed)
    if options.method == "rotation":
        return maps
    if not len(stored.queries):
        raise InputError(
            "method=learned needs queries: give a collection with queries, set document_queries, or"
            " choose method=rotation."
        )
    return learn_maps(stored, maps, options)


def _queries(
    collection: Collection, student: DenseStudent, store: VectorStore, options: CompressOptions
) -> np.ndarray:
    """Vectors (n, D) of the collection's queries and of some documents, to learn from."""
    if options.method != "learned":
        return np.empty((0, student.dimension), np.float32)
    texts = [query.text for query in collection.queries.values()]
    encoded = student.search_vectors(texts, "query")
    present = np.setdiff1d(np.arange(len(store)), store.absent_rows)
    count = min(options.document_queries, len(present))
    rows = np.random.default_rng([options.seed, 11]).choice(present, count, replace=False)
    return np.concatenate([encoded, store.take(np.sort(rows)).values.numpy()])


def with_maps(student: DenseStudent, maps: CodeMaps) -> DenseStudent:
    """The student with the maps as last layers of its towers, compared by dot product.

    Vectors that are compared by cosine are normalized before the layers.
    """
    routes: dict[str, list[nn.Module]] = {
        "document": _tower(student, "document", maps.documents),
        "query": _tower(student, "query", maps.queries),
    }
    model = SentenceTransformer(
        modules=[Router(routes, default_route="document")],
        device=str(student.device),
        prompts=dict(student.model.prompts),
        default_prompt_name=student.model.default_prompt_name,
        similarity_fn_name="dot",
    )
    return DenseStudent.from_model(model.float().eval(), student.source, student.revision)


def _tower(student: DenseStudent, kind: TextKind, affine: Affine) -> list[nn.Module]:
    if kind == "query" and not student.has_two_towers:
        modules = copy_tower(student.model, None)
    else:
        modules = list(tower_modules(student.model, kind))
    if student.similarity == "cosine" and not isinstance(modules[-1], Normalize):
        modules.append(Normalize())
    weight = torch.from_numpy(np.ascontiguousarray(affine.weight.T))
    layer = Dense(
        *affine.weight.shape,
        activation_function=nn.Identity(),
        init_weight=weight,
        init_bias=torch.from_numpy(np.asarray(affine.bias, np.float32)),
    )
    return [*modules, layer.to(student.device)]
