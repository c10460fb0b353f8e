"""Structured answers: JSON schemas of orders and choices, how servers take them, and their readers.

A server that restricts its model's tokens to a schema is the only source of such answers. So what
is read is the schema's JSON and nothing else: no text around it, no other keys, no guesses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from irdistill.errors import OptionError
from irdistill.teachers.llm.language_model import CUT, Answer
from irdistill.teachers.llm.reading import (
    GARBLED,
    NO_ANSWER,
    REFUSED,
    Reading,
    is_refusal,
)
from irdistill.teachers.llm.thinking import split_thinking

#: The parameter of a request that holds the schema; servers differ.
SchemaForm = Literal[
    "response_format", "json_object", "structured_outputs", "guided_json", "json_schema"
]
FORMS = get_args(SchemaForm)
#: Parameters that restrict an answer; a card cannot set one beside a schema.
RESTRICTIONS = (*FORMS[:1], *FORMS[2:], "grammar", "guided_regex", "guided_choice", "regex", "ebnf")
ORDER, CHOICE = "order", "choice"
#: The value of ``by`` of teachers that read structured answers.
JSON = "json"
#: What is said of a schema in the errors of servers that do not accept it.
ABOUT_SCHEMA = re.compile(
    r"response.?format|json.?(?:schema|object)|structured|guided|grammar|schema|extra.?(?:inputs|fields)"
    r"|unrecognized|unknown (?:parameter|field)|unexpected keyword",
    re.IGNORECASE,
)


def schema_parameters(form: SchemaForm, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a request that restrict its answer to a schema.

    Args:
        form: ``response_format`` of OpenAI, vLLM, llama.cpp, SGLang and Ollama; ``json_object``,
            the same with the type of older llama.cpp, llama-cpp-python and some providers;
            ``structured_outputs`` of vLLM; ``guided_json`` of vLLM before 0.12; ``json_schema`` of
            llama.cpp.

    Examples:
        >>> schema_parameters("guided_json", {"type": "object"})
        {'guided_json': {'type': 'object'}}
    """
    named = {"name": "answer", "strict": True, "schema": schema}
    parameters: dict[str, dict[str, Any]] = {
        "response_format": {"response_format": {"type": "json_schema", "json_schema": named}},
        "json_object": {"response_format": {"type": "json_object", "schema": schema}},
        "structured_outputs": {"structured_outputs": {"json": schema}},
        "guided_json": {"guided_json": schema},
        "json_schema": {"json_schema": schema},
    }
    return parameters[form]


def order_schema(names: Sequence[int] | Sequence[str]) -> dict[str, Any]:
    """The schema of an order: a list with as many entries as passages, each one of their names.

    That each name occurs once is checked by `read_order`: few servers enforce it.

    Examples:
        >>> order_schema([1, 2])["properties"]["order"]["items"]
        {'type': 'integer', 'enum': [1, 2]}
    """
    kind = "string" if isinstance(names[0], str) else "integer"
    entries = {
        "type": "array",
        "items": {"type": kind, "enum": list(names)},
        "minItems": len(names),
        "maxItems": len(names),
    }
    return _object(ORDER, entries)


def choice_schema(labels: Sequence[str]) -> dict[str, Any]:
    """The schema of a choice: one of some labels.

    Examples:
        >>> choice_schema(["yes", "no"])["properties"]
        {'choice': {'type': 'string', 'enum': ['yes', 'no']}}
    """
    return _object(CHOICE, {"type": "string", "enum": list(labels)})


def read_order(
    answer: Answer, names: Sequence[int] | Sequence[str]
) -> tuple[str | None, Reading | None]:
    """The order of a structured answer; if it has none, the flag with the reason.

    Examples:
        >>> read_order(Answer('{"order": [3, 1, 2]}'), [1, 2, 3])[1].order
        [2, 0, 1]
    """
    flag, entries = _value(answer, ORDER)
    if flag is not None or not isinstance(entries, list) or not entries:
        return flag or GARBLED, None
    if any(type(entry) is not type(names[0]) for entry in entries):
        return GARBLED, None
    places = [names.index(entry) for entry in entries if entry in names]
    order = list(dict.fromkeys(places))
    if not order:
        return GARBLED, None
    repeated = [place for place in order if places.count(place) > 1]
    omitted = [place for place in range(len(names)) if place not in order]
    return None, Reading(order, repeated, omitted, len(entries) - len(places))


def read_choice(answer: Answer, labels: Sequence[str]) -> tuple[str | None, int | None]:
    """The index of the label that a structured answer chooses; if none, the flag with the reason.

    Examples:
        >>> read_choice(Answer('{"choice": "no"}'), ["yes", "no"])
        (None, 1)
    """
    flag, label = _value(answer, CHOICE)
    if flag is not None or not isinstance(label, str) or label not in labels:
        return flag or GARBLED, None
    return None, labels.index(label)


def check_structured(model: object, by: str, prompt: Mapping[str, Any]) -> None:
    """Refuse structured answers of a model whose answers cannot be restricted, and of a prompt that
    begins the answer.
    """
    if by != JSON:
        return
    if not getattr(model, "structured", False):
        raise OptionError(
            "by: json needs a server that restricts answers to a JSON schema (backend: openai), and"
            " this model runs on this machine. Use by: labels or by: text, or serve the model."
        )
    if prompt.get("assistant"):
        raise OptionError(
            "the prompt begins the answer (assistant), which an answer in JSON cannot continue."
            " Remove assistant, or use by: text."
        )


def _object(key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: entry},
        "required": [key],
        "additionalProperties": False,
    }


def _value(answer: Answer, key: str) -> tuple[str | None, Any]:
    """The value of an answer's only key; or the flag with the reason that there is none.

    An answer that the token limit ended counts if its JSON is whole, because some servers write
    white space up to the limit.
    """
    if answer.error is not None:
        return answer.error, None
    said = split_thinking(answer.text)
    text = said.text.strip()
    if not said.whole or (answer.cut and not text):
        return CUT, None
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse)
    except (ValueError, RecursionError):
        if answer.cut:
            return CUT, None
        return (NO_ANSWER if not text else REFUSED if is_refusal(text) else GARBLED), None
    if not isinstance(value, dict) or list(value) != [key]:
        return GARBLED, None
    return None, value[key]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
