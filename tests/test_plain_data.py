"""YAML and JSON that users wrote: limits and clear errors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json, read_json_object
from irdistill.storage.plain_data import (
    MOST_VALUES,
    check_values,
    parse_json,
    parse_yaml,
    read_yaml,
)


def billion_laughs(levels: int = 9) -> str:
    """Ten values, and ten aliases of each level in the next."""
    letters = "abcdefghijklmnop"
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [
        f"{letters[i + 1]}: &{letters[i + 1]} [{', '.join([f'*{letters[i]}'] * 10)}]"
        for i in range(levels)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (billion_laughs(), f"more than {MOST_VALUES} values"),
        (
            "a: &a {x: 1}\n"
            + "\n".join(
                f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}' if i else '*a'] * 9)}]}}"
                for i in range(9)
            ),
            "values",
        ),
        ("a: &a [*a]", "refers to itself"),
        ("[" * 5000, "nested too deeply"),
        ("- " * 3000, "nested too deeply"),
        ("a: 1\na: 2", "names 'a' twice"),
        ("? [a]\n: 1", "line 1: found unhashable key"),
        ("a: b: c", "line 1: mapping values"),
        ("a: 2024-12-25", "date"),
        ("a: 2024-13-45", "not readable"),
        ("a: .nan", "finite"),
        ("a: .inf", "finite"),
        ("yes: 1", "True"),
        ("1: x", "the key 1"),
        ("a: !!set {b}", "set"),
        ("a: !!binary aGk=", "bytes"),
        ("a: !!bool x", "not readable"),
        ("a: !!timestamp x", "not readable"),
        ("!!python/object/apply:os.system ['ls']", "python/object"),
        ("a: \x00", "not readable"),
        ("a: " + "9" * 5000, "not readable"),
        ("--- 1\n--- 2", "another document"),
        ("x" * (1 << 21), "at most"),
    ],
)
def test_yaml_beyond_the_limits_is_refused(text: str, words: str) -> None:
    with pytest.raises(IrdistillError, match="the card x") as raised:
        parse_yaml(text, "the card x")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_plain_yaml_equals_pyyaml() -> None:
    text = "a: &a {x: 1, y: [1.5, null, true]}\nb: {<<: *a, x: 2}\nc: text\n"
    assert parse_yaml(text, "x") == yaml.safe_load(text)
    assert parse_yaml("", "x") is None


def test_yaml_file_has_to_be_a_mapping_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    for data, words in [
        (b"- 1", "a mapping of names"),
        (b"", "a mapping of names"),
        (b"\xff\xfea", "not UTF-8"),
        (b" " * (2 << 20), "bytes"),
    ]:
        path.write_bytes(data)
        with pytest.raises(IrdistillError, match=words):
            read_yaml(path, "teacher card")
    path.write_bytes(b"\xef\xbb\xbfa: 1")  # a byte order mark
    assert read_yaml(path, "teacher card") == {"a": 1}


def test_json_nested_too_deeply_or_with_endless_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in (
        "[" * 100_000,
        "9" * 5000,
        "{",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ):
        with pytest.raises(IrdistillError, match="line 3"):
            parse_json(text, "line 3")
        path.write_text(text, encoding="utf-8")
        with pytest.raises(IrdistillError, match=r"a\.json is not readable as JSON"):
            read_json(path)
    path.write_text("[1]")
    assert read_json(path) == [1]
    with pytest.raises(IrdistillError, match="no JSON object"):
        read_json_object(path)


@dataclass
class Settings:
    k: int = 1
    rate: float = 0.1
    names: list[str] | None = None
    free: Any = None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": "3"}, "x: k is '3'; expected an integer"),
        ({"k": True}, "k is True"),
        ({"k": 2.0}, "k is 2.0"),
        ({"rate": "1e-4"}, "'1e-4'"),
        ({"names": ["a", 3]}, "names[1] is 3"),
        ({"names": "a"}, "names is 'a'"),
        ({"depth": 3}, "no setting 'depth'"),
    ],
)
def test_message_names_values_of_wrong_type(values: dict[str, Any], words: str) -> None:
    with pytest.raises(IrdistillError) as raised:
        check_values(values, Settings, "x")
    assert words in str(raised.value)


def test_values_of_the_declared_types_pass() -> None:
    check_values({"k": 3, "rate": 1, "names": None, "free": object()}, Settings, "x")
    check_values({"k": 3, "other": 1}, Settings, "x", free=True)


class Model:
    """A class that is not a dataclass, like a teacher."""

    def __init__(self, name: str, *, window: int = 20, labels: Sequence[str] = ()) -> None: ...


def test_arguments_of_a_class_are_checked() -> None:
    check_values({"window": 3, "labels": ["yes", "no"]}, Model, "x", free=True)
    check_values({"labels": ("yes", "no")}, Model, "x")
    with pytest.raises(IrdistillError, match="x: window is 'twenty'; expected an integer"):
        check_values({"window": "twenty"}, Model, "x", free=True)
    with pytest.raises(IrdistillError, match="labels is 'yes'"):
        check_values({"labels": "yes"}, Model, "x")


#: What stands in a mutated file in place of a value.
WEIRD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3.5,
    1e30,
    "",
    "x",
    "${a}",
    [],
    [1],
    ["x"],
    [[]],
    {},
    {"a": 1},
    {"for": {"a": [1]}, "each": "${a}"},
    {"x": {"y": []}},
    "../../x",
    "\x1b[31m",
    "9" * 300,
    10**400,
    "1e-4",
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value in a tree."""
    inner = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def mutated(text: str, rng: random.Random) -> str:
    """A YAML file with one of its values replaced, removed or added."""
    data = yaml.safe_load(text)
    *above, last = rng.choice([path for path in places(data) if path])
    node = data
    for key in above:
        node = node[key]
    action = rng.random()
    if action < 0.75:
        node[last] = rng.choice(WEIRD)
    elif action < 0.9:
        del node[last]
    elif isinstance(node, dict):
        node[rng.choice(["x", "seed", "collection", "k", "for", "depth", "loss", "kind"])] = (
            rng.choice(WEIRD)
        )
    else:
        node.append(rng.choice(WEIRD))
    return str(yaml.safe_dump(data, allow_unicode=True))


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", ["recipes", "teachers", "eval", "data"])
def test_card_with_any_value_changed_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    from irdistill.evaluation.suites import read_suite
    from irdistill.queries.rewriting import read_prompt
    from irdistill.recipes.recipe import read_recipe
    from irdistill.recipes.stages import check_stage, stage_collections
    from irdistill.teachers.teacher_card import read_card

    def recipe(path: str) -> None:
        for stage in read_recipe(path).stages:
            check_stage(stage)
            assert all(isinstance(name, str) for name in stage_collections(stage))

    read: Any = {"recipes": recipe, "teachers": read_card, "eval": read_suite, "data": read_prompt}[
        kind
    ]
    texts = [
        path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / kind).rglob("*.yaml"))
    ]
    rng, refused = random.Random(7), 0
    for _ in range(40 if kind == "recipes" else 150):
        (tmp_path / "card.yaml").write_text(mutated(rng.choice(texts), rng), encoding="utf-8")
        try:
            read(str(tmp_path / "card.yaml"))
        except IrdistillError as error:
            refused += 1
            assert len(str(error)) < 20_000
    assert refused > 10
