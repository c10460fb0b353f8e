"""Sentences in the form of questions, as texts for `align` and `static`."""

from __future__ import annotations

import pytest

from irdistill.collections import Collection
from irdistill.queries.query_kinds import as_question
from irdistill.queries.raw_texts import TextOptions, open_texts


@pytest.mark.parametrize(
    ("text", "form", "question"),
    [
        ("Merge two lists into one.", 0, "how do i merge two lists into one"),
        ("Merge two lists into one.", 5, "how to merge two lists into one"),
        ("HTTP requests of a session:", 2, "how can i HTTP requests of a session"),
        ("What is a list?", 0, ""),
        ("word " * 17, 0, ""),
        (" .", 0, ""),
    ],
)
def test_forms(text: str, form: int, question: str) -> None:
    assert as_question(text, form) == question


def test_texts_of_a_collection(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences become questions in turn; queries only where they are taken, too."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path))
    documents = {"a": "Merge two lists into one list. Sort the items of a list."}
    collection = Collection.from_dicts("set", documents, {"q": "join several lists"}, {})
    questions = ["how do i merge two lists into one list", "how to sort the items of a list"]
    assert list(open_texts([collection], TextOptions(("questions",))).texts(range(2))) == questions
    texts = open_texts([collection], TextOptions(("queries", "questions")))
    assert list(texts.texts(range(len(texts)))) == [
        *questions,
        "join several lists",
        "how can i join several lists",
    ]
