"""Numpy's number scalars in a pickle, made from their bytes without asking numpy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

NUMBERS = {
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
}


class Refused(ValueError):
    """The pickle asks for something that is not a dictionary, text or a number."""


class Name(NamedTuple):
    """The name of one of the things that numpy's scalars are made with. It is never looked up."""

    module: str
    name: str

    @classmethod
    def of(cls, module: Any, name: Any) -> Name:
        """The name, if it is one of those.

        Raises:
            Refused: it is another.
        """
        if (
            not isinstance(module, str)
            or not isinstance(name, str)
            or (module, name) not in {DTYPE, BYTES, *SCALARS}
        ):
            raise Refused(f"it names {module}.{name}")
        return cls(module, name)


DTYPE = ("numpy", "dtype")
BYTES = ("_codecs", "encode")
"""How bytes stand in pickles of protocol 2 and below."""
SCALARS = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}


@dataclass
class Dtype:
    """A number's kind, ``f4`` say, and the order of its bytes as ``struct`` writes it."""

    code: str
    order: str = "<"

    def build(self, state: Any) -> None:
        """Take on the order of bytes that a pickled dtype's state names; in place, as other places
        may recall this one.

        Raises:
            Refused: it is no such state.
        """
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("it sets the state of an object")
        self.order = ">" if state[1] == ">" else "<"


def called(name: Any, arguments: Any) -> Dtype | bytes | float | int:
    """What ``numpy.dtype("f4", …)``, ``scalar(dtype, bytes)`` or ``encode(text, "latin1")`` would
    give.

    Raises:
        Refused: anything else is called, or these in another way.
    """
    if not isinstance(name, Name) or not isinstance(arguments, tuple) or not arguments:
        raise Refused("it calls something")
    if name == DTYPE:
        if not isinstance(arguments[0], str) or arguments[0] not in NUMBERS:
            raise Refused(f"it holds numpy values of the kind {arguments[0]!r}")
        return Dtype(arguments[0])
    if name == BYTES:
        if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
            raise Refused("it encodes text in an unusual way")
        return arguments[0].encode("latin-1")
    kind, data = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(kind, Dtype) or not isinstance(data, bytes) or len(data) != int(kind.code[1]):
        raise Refused("a numpy scalar is not made in the usual way")
    value: float | int = struct.unpack(kind.order + NUMBERS[kind.code], data)[0]
    return value
