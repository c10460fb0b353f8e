"""The argument `validate` of `train` on each surface: a share, or one or several collections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from irdistill.cli.commands import read_words
from irdistill.errors import OptionError
from irdistill.recipes.recipe import Stage
from irdistill.recipes.stages import stage_collections
from irdistill.verbs import load_verb
from irdistill.verbs.argument_types import share_of
from irdistill.verbs.opening_inputs import open_validation
from irdistill.verbs.result_cache import _identity
from tests.training.tiny import make_collection


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("0.1",), "0.1"),
        (("pydocs/dev",), "pydocs/dev"),
        (("pydocs/dev", "pydocs/howto"), ["pydocs/dev", "pydocs/howto"]),
    ],
)
def test_the_command_line_takes_a_share_or_collections(words: Any, value: Any) -> None:
    option = load_verb("train").options["validate"]
    assert option.check(read_words(option, words), "--validate") == value


@pytest.mark.parametrize("value", [True, [0.1, "pydocs/dev"], {"dev": "pydocs/dev"}, [True]])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(OptionError, match="a share of the queries, or collections"):
        load_verb("train").options["validate"].check(value, "validate")


def test_names_are_opened_and_shares_are_numbers(tmp_path: Path) -> None:
    collection = make_collection()
    assert open_validation("0.25") == open_validation(0.25) == 0.25
    assert open_validation(collection) == open_validation([collection]) == [collection]
    assert share_of("pydocs/dev") is share_of(tmp_path) is share_of(True) is None


def test_the_cache_distinguishes_collections_and_shares() -> None:
    first, second = make_collection(), make_collection(queries=9)
    assert _identity("validation", [first]) != _identity("validation", [second])
    assert _identity("validation", 0.1) != _identity("validation", 0.2)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0.1, ["pydocs/train"]),
        ("pydocs/dev", ["pydocs/train", "pydocs/dev"]),
        (["pydocs/dev", "${made}#dev"], ["pydocs/train", "pydocs/dev"]),
        (None, ["pydocs/train"]),
    ],
)
def test_a_recipe_opens_its_collections_first(value: Any, names: list[str]) -> None:
    stage = Stage("student", "train", {"collection": "pydocs/train", "validate": value})
    assert stage_collections(stage) == names
