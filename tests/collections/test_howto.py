"""The hand-written questions of the embedded collection: complete, unique and answerable."""

from __future__ import annotations

import json
import sys

import pytest

from irdistill.card_files import card_folder
from irdistill.collections import Collection, load_collection
from irdistill.collections.pydocs import HOWTO_FILE, Pydocs, open_pydocs
from irdistill.collections.pydocs_text import normalize_summary
from irdistill.storage.files import cache_folder

PATH = card_folder("data") / HOWTO_FILE
ENTRIES = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
JUDGED_ON_THIS_PYTHON = sys.version_info[:2] == (3, 11)


@pytest.fixture(scope="module")
def built() -> Pydocs:
    return open_pydocs(cache_folder())


@pytest.fixture(scope="module")
def howto() -> Collection:
    return load_collection("pydocs/howto")


def test_lines_are_complete_and_unique() -> None:
    assert len(ENTRIES) >= 120
    assert all(set(entry) == {"id", "question", "answers"} for entry in ENTRIES)
    assert len({entry["id"] for entry in ENTRIES}) == len(ENTRIES)
    assert len({normalize_summary(entry["question"]) for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert (
            entry["question"] == entry["question"].strip() and len(entry["question"].split()) >= 2
        )
        assert entry["answers"] and len(set(entry["answers"])) == len(entry["answers"])


@pytest.mark.slow
def test_every_question_is_a_judged_query(howto: Collection) -> None:
    assert len(howto.queries) >= 120
    assert set(howto.queries) == set(howto.qrels)
    assert all(howto.qrels[query] for query in howto.queries)
    if JUDGED_ON_THIS_PYTHON:
        assert len(howto.queries) == len(ENTRIES)
        assert "answers without document" not in howto.report.problems


def test_answers_resolve_to_distinct_documents(built: Pydocs) -> None:
    unknown = []
    for entry in ENTRIES:
        doc_ids = [built.resolve(answer) for answer in entry["answers"]]
        known = [doc_id for doc_id in doc_ids if doc_id is not None]
        assert len(set(known)) == len(known), entry
        unknown += [
            answer
            for answer, doc_id in zip(entry["answers"], doc_ids, strict=True)
            if doc_id is None
        ]
    assert len(unknown) <= (0 if JUDGED_ON_THIS_PYTHON else 30), unknown


def test_answers_are_in_the_standard_library() -> None:
    for entry in ENTRIES:
        for answer in entry["answers"]:
            first = answer.split(".")[0]
            assert first in sys.stdlib_module_names or hasattr(__import__("builtins"), first), (
                answer
            )


def test_some_questions_have_several_answers(howto: Collection) -> None:
    sizes = [len(howto.qrels[query]) for query in howto.queries]
    assert sum(size > 1 for size in sizes) >= 40
    assert max(sizes) <= 10


def test_no_question_quotes_a_summary(built: Pydocs) -> None:
    summaries = {normalize_summary(text) for text in built.queries.values()}
    assert [entry for entry in ENTRIES if normalize_summary(entry["question"]) in summaries] == []


def test_known_pair(howto: Collection) -> None:
    [query] = [
        query
        for query in howto.queries.values()
        if query.text == "how do I delete a folder and all it contains"
    ]
    assert dict(howto.qrels[query.id]) == {"shutil.rmtree": 1}
    assert "ignore_errors" in howto.corpus.text(howto.corpus.row("shutil.rmtree"))
