"""Costs of systems: operations against a count by hand, bytes, and every kind of model."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.evaluation.costs import Efficiency, index_tables
from irdistill.evaluation.efficiency import EfficiencyOptions, measure_efficiency
from irdistill.search.retrieve_options import CodeOptions
from irdistill.students import build_student
from tests.students.tiny import tiny_backbone

DOCS = {f"d{number}": f"the small text of number {number}" for number in range(7)}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("backbone"), layers=2)


@pytest.fixture()
def collection() -> Collection:
    return Collection.from_dicts(
        "c", DOCS, {"q0": "text one", "q1": "number two"}, {"q0": {"d0": 1}}
    )


def test_operations_of_a_dense_model(
    collection: Collection, backbone: Path, tmp_path: Path
) -> None:
    """Of each token: query, key, value and output matrices, the two of the feed-forward part,
    attention; of each query the pooler, which runs though nothing reads it, and the search.
    """
    student = build_student("dense", str(backbone))
    student.save(tmp_path / "m")
    result = measure_efficiency(
        collection, "dense", tmp_path / "m", EfficiencyOptions(k=3), work=tmp_path / "work"
    )
    config = student.model[0].model.config
    lengths = [
        len(ids)
        for ids in student.tokenize([query.text for query in collection.queries.values()], "query")[
            "input_ids"
        ]
    ]
    hidden, wide, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    expected = [
        layers
        * (2 * length * (4 * hidden * hidden + 2 * hidden * wide) + 4 * length * length * hidden)
        + 2 * hidden * hidden
        + 2 * len(DOCS) * hidden
        for length in lengths
    ]
    assert result.flops_per_query == pytest.approx(sum(expected) / 2)
    assert (
        result.index_bytes == len(DOCS) * hidden * 4 and result.layers == 2 and result.reranks == 0
    )
    assert result.parameters == sum(
        p.numel() for p in SentenceTransformer(str(tmp_path / "m")).parameters()
    )
    assert result.model_bytes == 4 * result.parameters
    assert result.documents_per_second is not None and result.documents_per_second > 0
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms and result.queries_per_second > 0


@pytest.mark.parametrize("kind", ["sparse", "late-interaction", "cross-encoder"])
def test_every_kind_of_model_is_measured(
    kind: str, collection: Collection, backbone: Path, tmp_path: Path
) -> None:
    student = build_student(kind, str(backbone))
    student.save(tmp_path / "m")
    result = measure_efficiency(collection, kind, tmp_path / "m", EfficiencyOptions(k=4, queries=1))
    assert (
        result.reranks == (4 if kind == "cross-encoder" else 0)
        and result.layers == 2
        and result.parameters > 0
    )
    assert (
        (result.documents_per_second is None)
        == (kind == "cross-encoder")
        == (result.index_bytes == 0)
    )
    if kind == "cross-encoder":
        one = measure_efficiency(
            collection, kind, tmp_path / "m", EfficiencyOptions(k=2, queries=1)
        )
        assert one.flops_per_query == pytest.approx(result.flops_per_query / 2, rel=0.05)
    if kind == "late-interaction":
        vectors = student.search_vectors(list(DOCS.values()), "document")
        assert result.index_bytes == sum(4 * part.size for part in vectors) + 4 * len(
            DOCS
        )  # and the number of each one's tokens


def test_bm25_and_fused_systems(collection: Collection, backbone: Path, tmp_path: Path) -> None:
    build_student("dense", str(backbone)).save(tmp_path / "m")
    alone = measure_efficiency(collection, "bm25", "bm25", work=tmp_path / "work")
    assert (alone.parameters, alone.layers, alone.flops_per_query, alone.documents_per_second) == (
        0,
        0,
        0,
        None,
    )
    dense = measure_efficiency(collection, "dense", tmp_path / "m", work=tmp_path / "work")
    both = measure_efficiency(collection, "both", ["bm25", tmp_path / "m"], work=tmp_path / "work")
    assert (
        both.index_bytes == alone.index_bytes + dense.index_bytes
        and both.flops_per_query == dense.flops_per_query
    )
    with pytest.raises(IrdistillError, match="no queries"):
        measure_efficiency(Collection.from_dicts("e", DOCS, {}), "bm25", "bm25")


def test_costs_show_themselves() -> None:
    costs = Efficiency("BM25", 0, 0, 0, 1000, 900.0, 0.5, 0.9, 1.0)
    assert "| BM25" in repr(costs) and costs._repr_html_().count("<table") == 1
    assert costs.to_rows() == [costs.to_json()]


def test_bytes_of_short_codes_by_part(
    collection: Collection, backbone: Path, tmp_path: Path
) -> None:
    """7 documents with ids of 2 bytes: 16 bits each, and the float vectors of the rescoring."""
    codes = CodeOptions(vectors="binary", rescore_by="float")
    options = EfficiencyOptions(k=1, index=codes, dimension=16)
    result = measure_efficiency(collection, "dense", str(backbone), options, work=tmp_path / "work")
    parts = {"codes": 14, "scales": 0, "rescoring": 7 * 16 * 4, "ids": 14}
    assert result.index_parts == parts and result.index_bytes == 14 + 448
    assert "68.0" in str(index_tables([result])[0].rows)
