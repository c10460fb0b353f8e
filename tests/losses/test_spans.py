"""Spans that two tokenizations share, and the losses over them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional as F

from irdistill.losses import (
    BatchRepresentations,
    EmbeddingCosine,
    Relational,
    ScoreBatch,
    SpanCosine,
    SpanRelation,
)
from irdistill.modeling.token_spans import NO_SPAN, shared_spans, span_starts
from tests.losses.representation_batches import batch, normal, spans, tokens

_TEXTS = [
    "the naïve proteins of photosynthesis",
    "Ünïcode, 数据 and данные: x86_64!",
    "a photo synth",
]


def _trained(kind: str) -> Tokenizer:
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=70, special_tokens=["[UNK]"])
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return tokenizer


TOKENIZERS = {kind: _trained(kind) for kind in ("bytes", "words")}


def _offsets(kind: str, text: str) -> np.ndarray:
    return np.array(TOKENIZERS[kind].encode(text).offsets, np.int32).reshape(-1, 2)


def _check_spans(first: np.ndarray, second: np.ndarray) -> None:
    """Spans are a partition, hold each token whole, and cannot be split."""
    starts = span_starts(first, second)
    both = np.concatenate([first, second])
    end = int(both[:, 1].max()) if len(both) else 0
    assert starts.tolist() == sorted(set(starts.tolist()))
    assert starts[:1].tolist() == ([0] if end else [])
    edges = [*starts.tolist(), end]
    for start, stop in pairwise(edges):
        for cut in range(start + 1, stop):
            assert any(a < cut < b for a, b in both.tolist())
    one, other, count = shared_spans(first, second)
    sides = [(first, one), (second, other)]
    for offsets, numbers in sides:
        for (a, b), number in zip(offsets.tolist(), numbers.tolist(), strict=True):
            at = int(np.searchsorted(starts, a, "right")) - 1
            assert a == b or (edges[at] <= a and b <= edges[at + 1])
            assert number == NO_SPAN or a < b
    used = [{int(n) for n in numbers if n != NO_SPAN} for _, numbers in sides]
    assert used == [set(range(count))] * 2


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="a photsyneÜï数-_!x8\n \u0301", max_size=40), st.integers(1, 40))
def test_spans_of_two_tokenizers(text: str, length: int) -> None:
    """Words against bytes, with accents, other scripts, and one side truncated."""
    _check_spans(_offsets("words", text), _offsets("bytes", text))
    _check_spans(_offsets("words", text)[:length], _offsets("bytes", text))
    _check_spans(_offsets("bytes", text), _offsets("bytes", text)[:length])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), min_size=2, max_size=2), max_size=6), st.data())
def test_spans_of_any_offsets(first: list[list[int]], data: st.DataObject) -> None:
    """Tokens may overlap, be empty or have gaps between them."""
    second = data.draw(st.lists(st.lists(st.integers(0, 12), min_size=2, max_size=2), max_size=6))
    _check_spans(*(np.sort(np.array(x, np.int64).reshape(-1, 2)) for x in (first, second)))


def test_equal_tokenizations_have_a_span_for_each_token() -> None:
    offsets = np.array([[0, 0], [0, 3], [4, 7], [7, 9], [0, 0]])
    one, other, count = shared_spans(offsets, offsets)
    assert one.tolist() == other.tolist() == [NO_SPAN, 0, 1, 2, NO_SPAN] and count == 3


def _span_batch() -> tuple[ScoreBatch, torch.Tensor, torch.Tensor]:
    """Two texts; the pooled vectors of the student, worked out by hand, and of the teacher."""
    ours, theirs = normal(2, 4, 3), normal(2, 2, 3, seed=1)
    places = [[0, -1, 1, 1], [0, 0, 0]]
    pooled = torch.stack([ours[0, 0], ours[0, 2:].mean(dim=0), ours[1, :3].mean(dim=0)])
    teacher = torch.stack([theirs[0, 0], theirs[0, 1], theirs[1, 0]])
    sample = batch(
        BatchRepresentations(document_tokens=tokens(ours, 4, 3)),
        BatchRepresentations(document_spans=spans(theirs, places)),
    )
    return sample, pooled, teacher


def test_the_losses_are_those_of_vectors_pooled_by_hand() -> None:
    sample, pooled, teacher = _span_batch()
    cosine = F.cosine_similarity(pooled, teacher, dim=-1)
    assert SpanCosine()(sample).item() == pytest.approx(float((1 - cosine).mean()), abs=1e-12)
    texts = batch(BatchRepresentations(queries=pooled), BatchRepresentations(queries=teacher))
    assert SpanCosine()(sample).item() == pytest.approx(EmbeddingCosine()(texts).item(), abs=1e-12)
    relation = Relational(tau=0.1)(texts).item()
    assert SpanRelation()(sample).item() == pytest.approx(relation, abs=1e-12)


def test_relations_survive_a_rotation_and_cosines_do_not() -> None:
    sample, _, _ = _span_batch()
    tokens_of = sample.student_representations.document_tokens  # type: ignore[union-attr]
    assert tokens_of is not None
    turned = tokens_of.vectors @ torch.linalg.qr(normal(3, 3, seed=5)).Q * 2.0
    rotated = batch(
        BatchRepresentations(document_tokens=tokens_of._replace(vectors=turned)),
        sample.teacher_representations,  # type: ignore[arg-type]
    )
    relation = SpanRelation()
    assert relation(rotated).item() == pytest.approx(relation(sample).item(), abs=1e-9)
    assert SpanCosine()(rotated).item() != pytest.approx(SpanCosine()(sample).item(), abs=1e-3)


def test_texts_without_spans_and_other_tokens() -> None:
    """No shared span gives a loss of 0; tokens of another text are refused."""
    none = batch(
        BatchRepresentations(document_tokens=tokens(normal(2, 2, 3), 2, 1)),
        BatchRepresentations(document_spans=spans(normal(2, 1, 3), [[-1, -1], [-1]])),
    )
    assert SpanCosine()(none).item() == SpanRelation()(none).item() == 0.0
    other = batch(
        BatchRepresentations(document_tokens=tokens(normal(2, 2, 3), 2, 1)),
        BatchRepresentations(document_spans=spans(normal(2, 1, 3), [[0], [0]])),
    )
    with pytest.raises(ValueError, match="not those that the spans are of"):
        SpanCosine()(other)
    with pytest.raises(ValueError, match="document_spans in teacher_representations"):
        SpanCosine()(batch(BatchRepresentations(), BatchRepresentations()))
