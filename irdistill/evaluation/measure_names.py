"""Names of measures as in ir-measures: parsed, checked, and matched with the program for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import ir_measures
from ir_measures.measures import SumAgg
from ir_measures.providers import registry
from ir_measures.providers.base import NOT_PROVIDED

from irdistill.errors import OptionError, one_line

_PROGRAMS = ("pytrec_eval", "cwl_eval", "compat", "judged", "msmarco", "gdeval", "accuracy")
"""The providers of ir-measures in its order. ``pyndeval`` is left out as it needs judgments by
subtopic, and ``ranx`` as the others compute its measures, except one that it normalizes differently
from trec_eval and gdeval.
"""
_GREATEST = 2**31 - 1
_LONGEST = 200
#: A measure ends at white space outside parentheses.
_WORD = re.compile(r"(?:\([^()]*\)|[^\s()])+|\S")
_TYPES = {
    int: "a whole number",
    float: "a decimal number, as 2.0",
    bool: "True or False",
    str: "a text",
    dict: "a mapping",
}


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "cutoff": (lambda value: 1 <= value <= _GREATEST, f"a whole number from 1 to {_GREATEST}"),
    "gains": (
        lambda value: all(
            type(number) is int and abs(number) <= _GREATEST
            for pair in value.items()
            for number in pair
        ),
        "a mapping of whole grades to whole gains, as {1:3}",
    ),
    "recall": (
        lambda value: 0 <= value <= 1 and round(value, 2) == value,
        "a share from 0.0 to 1.0 with at most two decimals",
    ),
    "p": (lambda value: 0 <= value <= 1, "a probability from 0.0 to 1.0"),
    "beta": (
        lambda value: "e" not in repr(value) and value < 1e6,
        "a number below a million, and 0.0 or at least 0.0001",
    ),
}


def parse_measures(measures: str | Sequence[Any]) -> list[Any]:
    """Parse measures such as ``"nDCG@10 RR@10 R(rel=2)@100"`` or a list of them.

    Examples:
        >>> [str(measure) for measure in parse_measures("nDCG@10 RR@10")]
        ['nDCG@10', 'RR@10']
    """
    if isinstance(measures, ir_measures.Measure):
        measures = [measures]
    names = _WORD.findall(measures) if isinstance(measures, str) else list(measures)
    parsed = [_parse(str(name)) for name in names]
    if not parsed or len(set(map(str, parsed))) != len(parsed):
        raise OptionError(
            f"the measures given are {list(map(str, names))}; at least one was expected, without"
            " duplicates."
        )
    return parsed


def is_count(measure: Any) -> bool:
    """Whether the figure of a measure is a sum over queries (``NumRet``, ``NumRel``, ``NumQ``)."""
    return isinstance(measure.aggregator(), SumAgg)


def program_of(measure: Any, written: str = "") -> Any:
    """Return the provider of ir-measures that computes a measure."""
    shown = repr(written or str(measure))
    missing = None
    for name in _PROGRAMS:
        program = registry[name]
        if program.supports(measure):
            if program.is_available():
                return program
            missing = missing or program
    if missing is not None:
        need = (
            "perl"
            if missing.NAME == "gdeval"
            else f"{missing.NAME}: pip install 'ir-measures[{missing.NAME}]'"
        )
        raise OptionError(f"the measure {shown} needs {need}.")
    if registry["pyndeval"].supports(measure):
        raise OptionError(
            f"the measure {shown} is one of diversity and needs judgments by subtopic; collections"
            " here hold one grade for each query and document."
        )
    raise OptionError(f"the measure {shown} cannot be computed: {_unsupported(measure)}.")


def _parse(name: str) -> Any:
    try:
        if len(name) > _LONGEST:
            raise ValueError("it is too long")
        measure = ir_measures.parse_measure(name)
    except Exception as error:  # the parser evaluates the text and may raise anything
        raise OptionError(
            f"the measure {name[:_LONGEST]!r} is not one of ir-measures"
            f" ({one_line(error, 200)}). Write it as nDCG@10, RR@10, R@100, AP,"
            " P(rel=2)@5."
        ) from error
    _check_parameters(name, measure)
    program = program_of(measure, name)
    if program.NAME == "pytrec_eval" and measure.params.get("rel", 1) < 1:
        raise OptionError(
            f"the measure {name!r} has rel={measure.params['rel']}; trec_eval takes a whole number"
            " of at least 1."
        )
    return measure


def _check_parameters(name: str, measure: Any) -> None:
    """Check names, types and ranges of the parameters."""
    supported, at = measure.SUPPORTED_PARAMS, measure.AT_PARAM
    unknown = [key for key in measure.params if key not in supported]
    if unknown:
        takes = ", ".join(supported) or "none"
        shown = f" (what follows @ is its {at})" if unknown == [at] else ""
        raise OptionError(
            f"the measure {name!r} has the parameter {', '.join(unknown)}{shown}, and"
            f" {measure.NAME} takes {takes}."
        )
    for key, info in supported.items():
        value = measure.params.get(key, NOT_PROVIDED)
        if value is NOT_PROVIDED:
            if info.required:
                example = (
                    f"{measure.NAME}@{'0.1' if key == 'recall' else '10'}"
                    if key == at
                    else f"{measure.NAME}({key}=3)"
                )
                raise OptionError(f"the measure {name!r} lacks its {key}; write {example}.")
            continue
        mixed = isinstance(value, bool) and info.dtype is not bool
        if mixed or not info.validate(value):
            choices = () if info.choices is NOT_PROVIDED else info.choices
            expected = (
                f"one of {', '.join(choices)}"
                if choices
                else _TYPES.get(info.dtype, "another value")
            )
            raise OptionError(
                f"the measure {name!r} has {key}={value!r}, and {expected} was expected."
            )
        fault = _fault(key, value)
        if fault:
            raise OptionError(
                f"the measure {name!r} has {key}={value!r}, and {fault} was expected."
            )


def _fault(key: str, value: Any) -> str:
    """What was expected of a value of the right type; empty if the value is right."""
    if key in _RANGES:
        holds, expected = _RANGES[key]
        return "" if holds(value) else expected
    small = not isinstance(value, int) or abs(value) <= _GREATEST
    return "" if small else f"a whole number up to {_GREATEST}"


def _unsupported(measure: Any) -> str:
    """Why no program computes a measure, as a clause."""
    reasons = []
    for name in _PROGRAMS:
        for form in registry[name].SUPPORTED_MEASURES:
            if form.NAME == measure.NAME:
                wrong = {
                    key: measure[key]
                    for key, spec in form.params.items()
                    if not spec.validate(measure[key])
                }
                clauses = [
                    f"without {key}" if value is NOT_PROVIDED else f"with {key}={value!r}"
                    for key, value in wrong.items()
                ]
                reasons.append(f"{name} does not compute it {' and '.join(clauses)}")
    return "; ".join(reasons) or "no program of ir-measures that irdistill uses does"
