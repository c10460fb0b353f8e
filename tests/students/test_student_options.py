"""The options of students: one declaration, checked before a model is loaded."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from irdistill.errors import OptionError
from irdistill.students import KINDS, DenseStudent, KernelStudent
from irdistill.students.student_options import (
    OPTION_NAMES,
    StudentOptions,
    check_student_options,
    option_kinds,
    options_of,
)


def test_every_option_has_a_kind_and_a_description() -> None:
    for name in OPTION_NAMES:
        assert set(option_kinds(name)) <= set(KINDS) and option_kinds(name)
        assert "description=" in str(StudentOptions.__annotations__[name])
    assert {name for kind in KINDS for name in options_of(kind)} == set(OPTION_NAMES)


def test_the_constructor_shows_the_options_of_its_kind() -> None:
    parameters = inspect.signature(DenseStudent).parameters
    assert parameters["query_layers"].default is None and "split_layer" not in parameters
    assert list(inspect.signature(KernelStudent).parameters) == [
        "backbone",
        *options_of("kernel"),
        "device",
        "seed",
    ]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("dens", {}, "the student 'dens' is unknown; choose one of dense"),
        ("dense", {"split_layer": 2}, "a dense student has no option split_layer=2"),
        ("dense", {"layers": "two"}, "layers='two' is not allowed: expected a valid integer"),
        ("dense", {"freeze_documents": 1}, "freeze_documents=1 is not allowed"),
        ("late-interaction", {"expand_queries": 2}, "greater than or equal to 3"),
        ("dense", {"lora_merge": False}, "lora_merge needs lora_rank"),
    ],
)
def test_wrong_options(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_student_options(kind, options)


def test_none_and_defaults_of_other_kinds_pass() -> None:
    options = {"layers": None, "inference_free": False, "max_length": 32}
    assert check_student_options("dense", options) == StudentOptions(max_length=32)
