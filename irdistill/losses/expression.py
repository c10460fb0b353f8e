"""The language of losses: ``KL(tau=0.05) + 0.1*InfoNCE(tau=0.01)``, after that of ir-measures.

    expression = term { "+" term }
    term       = [ number "*" ] loss [ "@" depth ]
    loss       = NAME [ "(" parameter "=" value { "," parameter "=" value } ")" ]
               | "(" expression ")"

Python's parser reads it; only these forms are accepted, and nothing is executed.
"""

from __future__ import annotations

import ast
import difflib
from typing import Any

from irdistill.errors import OptionError
from irdistill.losses.loss_base import REGISTRY, Loss, check_parameter_names, signature

LONGEST = 1_000
"""Maximal characters of an expression; several thousand terms exhaust the recursion of Python's
parser.
"""


def parse_loss(expression: str | Loss) -> Loss:
    """Read a loss expression; a `Loss` is returned as it is.

    ``parse_loss(str(loss)) == loss`` holds for every loss.

    Raises:
        OptionError: a syntax error, an unknown loss or parameter, or a parameter out of range.

    Examples:
        >>> parse_loss("KL(tau=0.05) + 0.1*InfoNCE").needs == {"score", "label"}
        True
    """
    if isinstance(expression, Loss):
        return expression
    if len(expression) > LONGEST:
        raise OptionError(
            f"the loss {expression[:60]!r}… has {len(expression)} characters; at most {LONGEST}"
            " were expected."
        )
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise OptionError(
            f"the loss {expression!r} cannot be read ({getattr(error, 'msg', error)}). Write it as "
            "KL(tau=0.05) + 0.1*InfoNCE(tau=0.01), with @20 for the top 20 of each list."
        ) from error
    result = _read(tree, expression)
    if not isinstance(result, Loss):
        raise OptionError(f"the loss {expression!r} is a number; name a loss: {_known()}.")
    return result


def _known() -> str:
    return ", ".join(signature(name) for name in sorted(REGISTRY))


def _read(node: ast.expr, expression: str) -> Loss | float | int:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return _make(name, {}, expression)
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if all(
            k.arg for k in keywords
        ):
            parameters = {str(k.arg): _value(k.value, str(k.arg), expression) for k in keywords}
            return _make(name, parameters, expression)
        case ast.Call(func=ast.Name(id=name)):
            raise OptionError(
                f"the loss {expression!r}: parameters are written with their names, as in "
                f"{_signature_or_all(name)}."
            )
        case ast.BinOp(left=left, op=operator, right=right):
            return _combine(_read(left, expression), operator, _read(right, expression), expression)
    raise OptionError(
        f"the loss {expression!r} has a part that is no loss: {ast.unparse(node)!r}. Losses are"
        " added with +, weighted with a number and *, and cut to the top of the list with @."
        f" Known: {_known()}."
    )


def _combine(
    left: Loss | float, operator: ast.operator, right: Loss | float, expression: str
) -> Loss | float:
    match operator:
        case ast.Add() if isinstance(left, Loss) and isinstance(right, Loss):
            return left + right
        case ast.Mult() if not isinstance(right, Loss):
            return left * right
        case ast.Mult() if not isinstance(left, Loss):
            return left * right
        case ast.MatMult() if isinstance(left, Loss) and isinstance(right, int):
            return left @ right
    signs = {"Add": "+", "Mult": "*", "MatMult": "@", "Sub": "-", "Div": "/", "Pow": "**"}
    sign = signs.get(type(operator).__name__, "")
    raise OptionError(
        f"the loss {expression!r}: {str(left)!r} {sign} {str(right)!r} has no meaning. Losses are"
        " added with +, weighted with a number and *, and cut to the top of the list with @ and a"
        " whole number."
    )


def _value(node: ast.expr, name: str, expression: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = node
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise OptionError(
        f"the loss {expression!r}: the value of {name} must be a number, True, False, None or a"
        ' "word".'
    )


def _signature_or_all(name: str) -> str:
    return signature(name) if name in REGISTRY else _known()


def _make(name: str, parameters: dict[str, Any], expression: str) -> Loss:
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, REGISTRY, n=1, cutoff=0.5)
        close = close or [known for known in REGISTRY if known.lower() == name.lower()]
        hint = f"Did you mean {signature(close[0])}?" if close else f"Known: {_known()}."
        raise OptionError(f"the loss {expression!r} names {name!r}, which is not known. {hint}")
    try:
        check_parameter_names(REGISTRY[name], parameters)
    except OptionError as error:
        raise OptionError(f"the loss {expression!r}: {error}") from error
    return REGISTRY[name](**parameters)
