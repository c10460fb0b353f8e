"""Raw texts: which are taken of collections and files, duplicates, and the number of texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.queries.raw_texts import TextOptions, open_texts

SENTENCE = "This sentence has exactly six words."
COLLECTION = Collection.from_dicts(
    "demo",
    {"a": ("A title", f"Short. {SENTENCE}"), "b": ("", f"{SENTENCE} Too short.")},
    {"q": "what is a title", "r": "A  title"},
)


def taken(*kinds: str) -> list[str]:
    corpus = open_texts([COLLECTION], TextOptions(kinds=kinds))  # type: ignore[arg-type]
    return corpus.texts(range(len(corpus)))


def test_kinds_of_texts_and_duplicates() -> None:
    assert taken("sentences") == [SENTENCE]
    assert taken("titles") == ["A title"]
    assert taken("queries") == ["what is a title", "A  title"]
    assert taken("titles", "queries") == ["A title", "what is a title"]
    assert taken("documents") == [f"A title Short. {SENTENCE}", f"{SENTENCE} Too short."]


def test_files_and_several_sources(tmp_path: Path) -> None:
    lines, objects = tmp_path / "a.txt", tmp_path / "b.jsonl"
    lines.write_text("one text\n\n  one text\nanother\n")
    objects.write_text(json.dumps({"body": "third"}) + "\n")
    options = TextOptions(field="body", kinds=("titles",))
    corpus = open_texts([lines, str(objects), COLLECTION], options)
    assert corpus.texts(range(len(corpus))) == ["one text", "another", "third", "A title"]
    assert open_texts([lines, objects, COLLECTION], options).folder == corpus.folder
    with pytest.raises(IrdistillError, match="has no field 'text'; it has body"):
        open_texts([objects])


def test_a_number_of_texts_is_drawn_by_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("\n".join(f"text {i}" for i in range(100)))
    draws = [
        open_texts([file], TextOptions(max_texts=10), seed).texts(range(10)) for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 10
    assert len(open_texts([file], TextOptions(max_texts=1000))) == 100


def test_sources_without_texts(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(IrdistillError, match="has no text of the kinds"):
        open_texts([empty])
    with pytest.raises(IrdistillError, match="no texts were given"):
        open_texts([])
