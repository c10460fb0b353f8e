"""Structured answers: schemas, strict readers, and servers that follow, refuse or ignore them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.listwise_teacher import ListwiseLLMTeacher
from irdistill.teachers.llm.pairwise_teacher import PairwiseTeacher
from irdistill.teachers.llm.pointwise_teacher import PointwiseTeacher
from irdistill.teachers.llm.structured_answers import (
    FORMS,
    choice_schema,
    order_schema,
    read_choice,
    read_order,
    schema_parameters,
)
from irdistill.teachers.llm.window_prompt import WindowPrompt
from tests.teachers.llm.chat_stub import Reply, always, completion, error
from tests.teachers.llm.ranking_fakes import (
    LISTWISE,
    PAIRWISE,
    FakeModel,
    best_first,
    query_pairs,
)
from tests.teachers.llm.server_models import lines
from tests.teachers.llm.server_models import model as server_model

GRADES = {"user": "Grade the passage for {query}: {passage}"}
PROBE = "Say hello in one sentence."


class JsonModel(FakeModel):
    """A model whose answers can be restricted to a schema."""

    structured = True


def order_of(worths: list[int]) -> str:
    return json.dumps({"order": [place + 1 for place in best_first(worths)]})


def test_the_schema_admits_orders_and_little_else() -> None:
    schema = order_schema([1, 2, 3])
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid({"order": [3, 1, 2]}) and valid({"order": [1, 1, 2]})  # read_order finds repeats
    for wrong in ([1, 2], [1, 2, 4], ["1", "2", "3"], [1, 2, 3, 1]):
        assert not valid({"order": wrong})
    assert not valid({"order": [1, 2, 3], "why": "because"}) and not valid([1, 2, 3])
    letters = jsonschema.Draft202012Validator(order_schema(["A", "B"])).is_valid
    assert letters({"order": ["B", "A"]}) and not letters({"order": [1, 2]})
    choice = jsonschema.Draft202012Validator(choice_schema(["yes", "no"])).is_valid
    assert choice({"choice": "no"}) and not choice({"choice": "maybe"})


def test_each_form_sends_the_schema_in_its_place() -> None:
    schema = order_schema([1, 2])
    sent = {form: schema_parameters(form, schema) for form in FORMS}
    assert sent["response_format"]["response_format"]["json_schema"]["schema"] is schema
    assert sent["response_format"]["response_format"]["json_schema"]["strict"] is True
    assert sent["json_object"] == {"response_format": {"type": "json_object", "schema": schema}}
    assert sent["structured_outputs"] == {"structured_outputs": {"json": schema}}
    assert sent["guided_json"] == {"guided_json": schema}
    assert sent["json_schema"] == {"json_schema": schema}


@pytest.mark.parametrize(
    ("text", "flag", "order", "repeated", "omitted", "unknown"),
    [
        ('{"order": [2, 3, 1]}', None, [1, 2, 0], [], [], 0),
        (' \n{ "order" : [ 2 , 3 , 1 ] }\n\n', None, [1, 2, 0], [], [], 0),
        ('<think>[1] > [2]</think>{"order": [2, 3, 1]}', None, [1, 2, 0], [], [], 0),
        ('{"order": [2, 2, 1]}', None, [1, 0], [1], [2], 0),
        ('{"order": [2, 7]}', None, [1], [], [0, 2], 1),
        ('{"order": []}', "garbled", None, None, None, None),
        ('{"order": [7, 8, 9]}', "garbled", None, None, None, None),
        ('{"order": ["2", "3", "1"]}', "garbled", None, None, None, None),
        ('{"order": [2, 3, true]}', "garbled", None, None, None, None),
        ('{"order": [2.0, 3, 1]}', "garbled", None, None, None, None),
        ('{"order": "2, 3, 1"}', "garbled", None, None, None, None),
        ('{"order": [2, 3, 1], "order": [1, 2, 3]}', "garbled", None, None, None, None),
        ('{"order": [2, 3, 1], "note": ""}', "garbled", None, None, None, None),
        ('{"ranking": [2, 3, 1]}', "garbled", None, None, None, None),
        ("[2, 3, 1]", "garbled", None, None, None, None),
        ('Here it is: {"order": [2, 3, 1]}', "garbled", None, None, None, None),
        ('```json\n{"order": [2, 3, 1]}\n```', "garbled", None, None, None, None),
        ('{"order": [2, 3, 1]} {"order": [1, 2, 3]}', "garbled", None, None, None, None),
        ('{"order": [2, NaN, 1]}', "garbled", None, None, None, None),
        ("[2] > [3] > [1]", "garbled", None, None, None, None),
        ("I'm sorry, but I cannot rank these.", "refused", None, None, None, None),
        ("", "no answer", None, None, None, None),
        ("<think>[2] > [3]", "cut", None, None, None, None),
    ],
)
def test_orders_are_read_strictly(
    text: str, flag: str | None, order: Any, repeated: Any, omitted: Any, unknown: Any
) -> None:
    answered, reading = read_order(Answer(text), [1, 2, 3])
    assert answered == flag
    if reading is None:
        assert order is None
    else:
        assert (reading.order, reading.repeated) == (order, repeated)
        assert (reading.omitted, reading.unknown) == (omitted, unknown)


def test_a_cut_answer_counts_if_its_json_is_whole() -> None:
    whole = read_order(Answer('{"order": [2, 1]}      ', cut=True), [1, 2])[1]
    assert whole is not None and whole.order == [1, 0]
    assert read_order(Answer('{"order": [2, 1', cut=True), [1, 2]) == ("cut", None)
    assert read_order(Answer("", error="too long"), [1, 2]) == ("too long", None)
    assert read_choice(Answer('{"choice": "ye', cut=True), ["yes", "no"]) == ("cut", None)


@given(st.permutations(list(range(1, 9))), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_order_is_read_as_it_was_written(order: list[int], letters: bool) -> None:
    names: Any = list("ABCDEFGH") if letters else list(range(1, 9))
    text = json.dumps({"order": [names[number - 1] for number in order]})
    flag, reading = read_order(Answer(text), names)
    assert flag is None and reading is not None and reading.complete
    assert reading.order == [number - 1 for number in order]


@given(st.text(alphabet='{}[]":, order123abc\\', max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_text_is_an_order_but_the_schemas(text: str) -> None:
    flag, reading = read_order(Answer(text), [1, 2, 3])
    assert (flag is None) == (reading is not None)
    if reading is not None:
        value = json.loads(text)
        assert list(value) == ["order"]
        assert sorted([*reading.order, *reading.omitted]) == [0, 1, 2]
        assert [value["order"].index(place + 1) for place in reading.order] == sorted(
            value["order"].index(place + 1) for place in reading.order
        )


@pytest.mark.parametrize("labels", [None, list("ABCDEF")])
def test_a_listwise_teacher_sorts_by_json(labels: list[str] | None) -> None:
    def reply(worths: list[int]) -> str:
        names: Any = labels or range(1, 7)
        return json.dumps({"order": [names[place] for place in best_first(worths)]})

    worths = [101, 109, 103, 107, 105, 102, 108, 104, 106]
    model = JsonModel(reply)
    prompt = LISTWISE | ({"labels": labels} if labels else {})
    teacher = ListwiseLLMTeacher(model, prompt, by="json", window=6, step=2, passes=6)
    [ranking] = teacher.rank([query_pairs(worths)])
    assert ranking.order == best_first(worths) and ranking.usage["windows_ok"]
    assert model.requests[0].schema == order_schema((labels or [1, 2, 3, 4, 5, 6])[:6])
    assert teacher.identity["by"] == "json"


def test_a_pairwise_teacher_compares_by_json() -> None:
    model = JsonModel(lambda worths: json.dumps({"choice": "AB"[worths[1] > worths[0]]}))
    teacher = PairwiseTeacher(model, PAIRWISE, by="json")
    [ranking] = teacher.rank([query_pairs([3, 1, 2])])
    assert ranking.values is not None and ranking.values.tolist() == [2.0, 0.0, 1.0]
    assert model.requests[0].schema == choice_schema(["A", "B"])
    [ranking] = PairwiseTeacher(JsonModel(lambda worths: "A"), PAIRWISE, by="json").rank(
        [query_pairs([3, 1])]
    )
    assert ranking.flags == ["garbled"] * 2


def test_a_pointwise_teacher_takes_the_gain_of_the_chosen_label() -> None:
    def reply(worths: list[int]) -> str:
        return json.dumps({"choice": str(worths[0])}) if worths[0] < 4 else "3"

    teacher = PointwiseTeacher(
        JsonModel(reply), GRADES, labels=["0", "1", "2", "3"], gains=[0, 1, 3, 7], by="json"
    )
    scores = teacher.score(query_pairs([2, 0, 3, 9]))
    assert np.array_equal(scores.values, [3.0, 0.0, 7.0, math.nan], equal_nan=True)
    assert scores.flags == [None, None, None, "garbled"] and "label_mass_sum" not in scores.usage
    assert teacher.identity["score"] == "gain"


@pytest.mark.parametrize(
    ("create", "words"),
    [
        (lambda: ListwiseLLMTeacher(FakeModel(), LISTWISE, by="json"), "needs a server"),
        (lambda: PairwiseTeacher(FakeModel(), PAIRWISE, by="json"), "needs a server"),
        (
            lambda: ListwiseLLMTeacher(JsonModel(), LISTWISE | {"assistant": "["}, by="json"),
            "cannot continue",
        ),
        (lambda: PointwiseTeacher(JsonModel(), GRADES, labels=["a", "b"], by="json"), "gains"),
        (lambda: PointwiseTeacher(JsonModel(), GRADES, by="text"), "expected labels or json"),
    ],
)
def test_what_cannot_be_restricted_is_refused(create: Callable[[], Any], words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        create()


def obedient(prompt: str, nth: int) -> Reply:
    """Follows every schema, as constrained decoding does."""
    if prompt == PROBE:
        return Reply(body=completion('{"code": "irdistill-7391"}'))
    return Reply(body=completion('{"order": [2, 1, 3]}'))


def listwise(model: Any, **more: Any) -> ListwiseLLMTeacher:
    return ListwiseLLMTeacher(model, LISTWISE, by="json", **more)


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_follows_schemas(stub: Any, tmp_path: Path, form: Any) -> None:
    served = stub(obedient)
    teacher = listwise(server_model(served, tmp_path, {"structured": form}))
    rankings = teacher.rank([query_pairs([1, 2, 3], f"q{number}") for number in range(4)])
    assert [ranking.order for ranking in rankings] == [[1, 0, 2]] * 4
    assert served.request_counts[PROBE] == 1 and len(served.bodies) == 5
    sent = schema_parameters(form, order_schema([1, 2, 3]))
    for body in served.bodies:
        assert set(sent) <= body.keys() and "logprobs" not in body
        if body["messages"][-1]["content"] != PROBE:
            assert {key: body[key] for key in sent} == sent


def test_a_server_that_ignores_schemas_is_noticed_at_once(stub: Any, tmp_path: Path) -> None:
    served = stub(always(Reply(body=completion("Hello there, how are you?"))))
    with pytest.raises(IrdistillError, match=r"ignores JSON schemas.*Hello there.*guided_json"):
        listwise(server_model(served, tmp_path)).rank(
            [query_pairs([1, 2, 3], f"q{number}") for number in range(50)]
        )
    assert len(served.bodies) == 1
    assert lines(tmp_path)[0]["spent"]["requests"] == 1  # it is paid for, and counted


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_schemas_is_noticed_at_once(
    stub: Any, tmp_path: Path, status: int
) -> None:
    body = error("response_format of type json_schema is not supported")
    served = stub(always(Reply(status, body)))
    with pytest.raises(
        IrdistillError, match=r"refuses the JSON schema.*is not supported.*structured: one of"
    ):
        listwise(server_model(served, tmp_path)).rank([query_pairs([1, 2, 3])])
    assert len(served.bodies) == 1


def test_a_schema_that_is_refused_later_stops_the_job(stub: Any, tmp_path: Path) -> None:
    def plan(prompt: str, nth: int) -> Reply:
        if prompt == PROBE:
            return obedient(prompt, nth)
        return Reply(400, error("JSON schema keyword minItems is not supported"))

    with pytest.raises(IrdistillError, match="minItems is not supported"):
        listwise(server_model(stub(plan), tmp_path)).rank([query_pairs([1, 2, 3])])


def test_a_server_that_thinks_past_the_check_says_so(stub: Any, tmp_path: Path) -> None:
    served = stub(always(Reply(body=completion("<think>The user", finish="length"))))
    with pytest.raises(IrdistillError, match="Raise thinking_tokens"):
        listwise(server_model(served, tmp_path), thinking_tokens=50).rank([query_pairs([1, 2])])
    assert served.bodies[0]["max_tokens"] == 64 + 50


def test_parameters_that_restrict_answers_are_refused(stub: Any, tmp_path: Path) -> None:
    served = stub(obedient)
    parameters = {"parameters": {"response_format": {"type": "text"}}}
    with pytest.raises(IrdistillError, match="parameters set response_format"):
        listwise(server_model(served, tmp_path, parameters)).rank([query_pairs([1, 2])])
    assert not served.bodies


def test_a_resumed_job_sends_nothing_again(stub: Any, tmp_path: Path) -> None:
    served = stub(obedient)
    first = listwise(server_model(served, tmp_path)).rank([query_pairs([1, 2, 3])])
    sent = len(served.bodies)
    second = listwise(server_model(served, tmp_path)).rank([query_pairs([1, 2, 3])])
    replayed = listwise(server_model(served, tmp_path, replay=True)).rank([query_pairs([1, 2, 3])])
    assert first == second == replayed and len(served.bodies) == sent


@pytest.mark.parametrize("labels", [None, list("ABCDEFGHIJ")])
def test_json_has_room_for_white_space(labels: Any) -> None:
    """llama.cpp's schemas allow blank lines between all parts: up to seven tokens each."""
    parts = {"user": "{query} {passages}"} | ({"labels": labels} if labels else {})
    tokens = [
        WindowPrompt(parts, by).request("a query", ["a text"] * 10).max_tokens
        for by in ("json", "text")
    ]
    assert tokens == [2 * (10 * 6 + 16), 10 * 6 + 16]
    assert WindowPrompt(parts, "json", answer_tokens=50).request("q", ["a"]).max_tokens == 50


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="structured"):
        from irdistill.teachers.llm.remote import ServerModel

        ServerModel("m", {"url": "http://127.0.0.1:1/v1", "structured": "xml"}, log=tmp_path / "l")
