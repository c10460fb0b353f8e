"""Bodies of requests and responses of ``/rerank`` and ``/embeddings``, as the providers document them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from irdistill.teachers.hosted.embedding_shapes import SHAPES as EMBEDDINGS
from irdistill.teachers.hosted.hosted_card import RequestLimits
from irdistill.teachers.hosted.hosted_model import search_units
from irdistill.teachers.hosted.hosted_requests import (
    DUPLICATE,
    LIKELY,
    NOT_A_NUMBER,
    NOT_RETURNED,
    WRONG_DIMENSION,
    HostedRequest,
    cut_into_requests,
)
from irdistill.teachers.hosted.rerank_shapes import SHAPES

REQUEST = HostedRequest(("first", "second"), "a query")
TOKENS = {"usage": {"total_tokens": 30}}
COHERE = {"meta": {"billed_units": {"search_units": 2}}}


@pytest.mark.parametrize(
    ("shape", "response", "headers", "usage"),
    [
        ("cohere", {"results": [(1, 0.75), (0, 0.25)]} | COHERE, {}, (0, 0, 0, 2)),
        ("jina", {"results": [(1, 0.75), (0, 0.25)]} | TOKENS, {}, (30, 0, 0, 0)),
        ("voyage", {"data": [(1, 0.75), (0, 0.25)]} | TOKENS, {}, (30, 0, 0, 0)),
        ("vllm", {"results": [(1, 0.75), (0, 0.25)]} | TOKENS, {}, (30, 0, 0, 0)),
        ("infinity", {"results": [(1, 0.75), (0, 0.25)]} | TOKENS, {}, (30, 0, 0, 0)),
        ("llama.cpp", {"results": [(1, 0.75), (0, 0.25)]} | TOKENS, {}, (30, 0, 0, 0)),
        ("tei", [(1, 0.75), (0, 0.25)], {"x-compute-tokens": "30"}, (30, 0, 0, 0)),
        ("tei", [(1, 0.75), (0, 0.25)], {}, None),
    ],
)
def test_scores_are_mapped_back_by_index(
    shape: str, response: Any, headers: dict[str, str], usage: Any
) -> None:
    name = "score" if shape == "tei" else "relevance_score"

    def entries(value: Any) -> Any:
        return [{"index": place, name: score} for place, score in value]

    written = (
        entries(response)
        if isinstance(response, list)
        else {
            key: entries(value) if isinstance(value, list) else value
            for key, value in response.items()
        }
    )
    reply = SHAPES[shape].read(json.dumps(written), 2, headers)
    assert reply.fault is None and not reply.flags
    assert reply.values is not None and reply.values.tolist() == [0.25, 0.75]
    assert reply.usage == usage


def test_bodies_of_rerank_requests() -> None:
    expected: dict[str, dict[str, Any]] = {
        "cohere": {"model": "m", "query": "a query", "documents": ["first", "second"]},
        "tei": {"query": "a query", "texts": ["first", "second"], "return_text": False},
    }
    expected["vllm"] = expected["llama.cpp"] = expected["cohere"]
    expected["jina"] = expected["cohere"] | {"return_documents": False}
    expected["voyage"] = expected["infinity"] = expected["jina"]
    assert {name: shape.request_body("m", REQUEST) for name, shape in SHAPES.items()} == expected


@pytest.mark.parametrize(
    ("results", "values", "flags"),
    [
        ([(0, 1.0), (2, 3.0)], [1.0, None, 3.0], {1: NOT_RETURNED}),
        ([(0, 1.0), (1, 2.0), (1, 2.0), (2, 3.0)], [1.0, None, 3.0], {1: DUPLICATE}),
        (
            [(0, 1.0), (1, 2.0), (1, 5.0), (1, 2.0)],
            [1.0, None, None],
            {1: DUPLICATE, 2: NOT_RETURNED},
        ),
        ([(0, 1.0), (1, 2.0), (3, 3.0)], [1.0, 2.0, None], {2: NOT_RETURNED}),
        ([(0, 1.0), (1, 2.0), (-1, 3.0)], [1.0, 2.0, None], {2: NOT_RETURNED}),
        (
            [(0, 1.0), (True, 2.0), ("2", 3.0)],
            [1.0, None, None],
            {1: NOT_RETURNED, 2: NOT_RETURNED},
        ),
        (
            [(0, 1.0), (1, float("nan")), (2, "3")],
            [1.0, None, None],
            {1: NOT_A_NUMBER, 2: NOT_A_NUMBER},
        ),
        ([(0, 1e39), (1, None), (2, True)], [None] * 3, dict.fromkeys(range(3), NOT_A_NUMBER)),
        ([], [None] * 3, dict.fromkeys(range(3), NOT_RETURNED)),
    ],
)
def test_a_wrong_index_or_score_is_null_with_a_flag(
    results: list[tuple[Any, Any]], values: list[float | None], flags: dict[int, str]
) -> None:
    entries = [{"index": place, "relevance_score": score} for place, score in results]
    reply = SHAPES["jina"].read(json.dumps({"results": [*entries, "no entry"]}), 3, {})
    assert reply.values is not None and reply.flags == flags
    assert [None if np.isnan(value) else value for value in reply.values.tolist()] == values


@pytest.mark.parametrize(
    "body", ["", "{", "[1", '{"results": 3}', '{"error": "busy"}', "[" * 100 + "]" * 100, "null"]
)
def test_what_is_no_list_of_scores_is_a_fault(body: str) -> None:
    assert SHAPES["jina"].read(body, 2, {}).fault is not None
    assert EMBEDDINGS["openai"].read(body, 2).fault is not None


def test_implausible_usage_is_no_usage() -> None:
    for usage in (
        {"total_tokens": -1},
        {"total_tokens": 1.5},
        {"total_tokens": True},
        {},
        {"total_tokens": 2**50},
    ):
        assert SHAPES["jina"].read(json.dumps({"results": [], "usage": usage}), 1, {}).usage is None
    for units in (-1, "2", None, 1e9):
        meta = {"billed_units": {"search_units": units}}
        assert SHAPES["cohere"].read(json.dumps({"results": [], "meta": meta}), 1, {}).usage is None
    assert SHAPES["tei"].read("[]", 1, {"x-compute-tokens": "-3"}).usage is None


def packed(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


def test_vectors_as_numbers_and_as_base64_are_the_same() -> None:
    numbers = [[0.1, -2.5, 3e-7], [1.0, 2.0, 3.0]]
    for encoded in (numbers, [packed(*vector) for vector in numbers]):
        data = [{"index": 1, "embedding": encoded[1]}, {"index": 0, "embedding": encoded[0]}]
        body = json.dumps({"data": data, "usage": {"prompt_tokens": 7}, "model": "m-1"})
        reply = EMBEDDINGS["openai"].read(body, 2)
        assert reply.values is not None and reply.values.dtype == np.float32
        assert np.array_equal(reply.values, np.array(numbers, np.float32))
        assert reply.usage == (7, 0, 0, 0) and reply.model == "m-1" and not reply.flags


def test_an_unusable_vector_has_a_flag() -> None:
    vectors: list[Any] = [
        packed(1, 2),
        packed(1, 2, 3),
        [1.0, float("nan")],
        packed(1, float("inf")),
        "not base64!",
        [1e300, 1.0],
        [True, "x"],
        [3.0, 4.0],
    ]
    data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    reply = EMBEDDINGS["openai"].read(json.dumps({"data": [*data, data[0]]}), 9)
    assert reply.flags == {
        0: DUPLICATE,
        1: WRONG_DIMENSION,
        **dict.fromkeys((2, 3, 4, 5, 6), NOT_A_NUMBER),
        8: NOT_RETURNED,
    }
    assert reply.values is not None and reply.values[7].tolist() == [3.0, 4.0]
    assert np.isnan(np.delete(reply.values, 7, axis=0)).all()


def test_bodies_of_embedding_requests() -> None:
    request = HostedRequest(("a", "b"))
    shared = {"model": "m", "input": ["a", "b"]}
    for shape, encoding, dimension, expected in (
        ("openai", "base64", None, {"encoding_format": "base64"}),
        ("openai", "float", 256, {"encoding_format": "float", "dimensions": 256}),
        ("jina", "base64", 64, {"embedding_type": "base64", "dimensions": 64}),
        ("voyage", "base64", 512, {"encoding_format": "base64", "output_dimension": 512}),
        ("voyage", "float", None, {}),
    ):
        assert (
            EMBEDDINGS[shape].request_body("m", request, encoding, dimension) == shared | expected
        )  # type: ignore[arg-type]


def test_long_documents_count_as_several_of_a_search_unit() -> None:
    # with the query 1,506 + 6 and 1,494 + 6 bytes: 504 and 500 tokens at three bytes each
    texts = ("a" * 1506, "b" * 1494)
    assert search_units(HostedRequest(texts[1:] * 100, "querie")) == 1
    assert search_units(HostedRequest(texts[:1] * 50, "querie")) == 1
    assert search_units(HostedRequest(texts[:1] * 51, "querie")) == 2
    assert search_units(HostedRequest(texts[:1] * 100, "querie"), LIKELY) == 1


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        ({}, [5]),
        ({"texts": 2}, [2, 2, 1]),
        ({"tokens": 3 * (3 + 2 + 8)}, [3, 2]),  # texts of 9 bytes, a query of 6
        ({"tokens": 5}, [1] * 5),
        ({"bytes": 8 + 2 * 13}, [2, 2, 1]),  # with quotation marks and a comma
        ({"bytes": 8 + 2 * 13, "texts": 1}, [1] * 5),
    ],
)
def test_requests_are_cut_to_the_limits(limits: dict[str, int], sizes: list[int]) -> None:
    request = HostedRequest(tuple(f"document{n}" for n in range(5)), "querie")
    parts = list(cut_into_requests(request, RequestLimits(**limits)))
    assert [len(part.texts) for part in parts] == sizes
    assert tuple(text for part in parts for text in part.texts) == request.texts
    assert {part.query for part in parts} == {"querie"}
