"""Pickled score dictionaries, read by a machine that can build dictionaries, text and numbers and
nothing else.

Python's unpickler runs whatever code a file asks for. This one knows only the instructions that
make ``None``, whole numbers, floats, text, dictionaries and numpy's number scalars; any other
instruction ends the reading. It never looks a name up, imports or calls anything. Each query is
given out as soon as it is complete, so the file need not fit into memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from irdistill.runs.formats.scalars import Dtype, Name, Refused, called

LONGEST = 1 << 16
"""Bytes of the longest text: ids are short, and a length that is a lie must not ask for memory."""

DEEPEST = 1 << 20
"""Values that may wait to be put into a dictionary; Python's pickler lets 2,000 wait, for each of
two levels.
"""

_DICTIONARY = object()
"""Stands in the memo for a dictionary."""
_U1, _U2, _U4, _I4, _U8, _F8 = (
    struct.Struct(code) for code in ("<B", "<H", "<I", "<i", "<Q", ">d")
)
_LITERALS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
_LENGTHS = {
    ord("X"): _U4,
    0x8C: _U1,
    0x8D: _U8,
    ord("B"): _U4,
    ord("C"): _U1,
    0x8E: _U8,
    ord("U"): _U1,
    ord("T"): _U4,
    0x8A: _U1,
}
_BYTES = {ord("B"), ord("C"), 0x8E}
_PAIR = np.dtype([("int", "u1"), ("key", "<i4"), ("float", "u1"), ("value", ">f8")])
_GETS = {ord("h"): _U1, ord("j"): _U4}
_PUTS = {ord("q"): _U1, ord("r"): _U4}


MEMORY = 1 << 28
"""Bytes that the values of one query, and those that the pickle recalls later, may take by default.
"""

_COST = 100
"""Bytes that one value takes, as an entry of a dictionary or of the memo."""


def memory_for(size: int) -> int:
    """Bytes of memory to allow for a file of ``size`` bytes.

    A value takes two bytes of a pickle and about 100 of memory, so 64 times the file is more than
    any plain pickle needs and any packed one that holds scores. Without a limit 20 KB of packed
    instructions grow to 1.7 GB.
    """
    return MEMORY + 64 * size


def read_items(stream: IO[bytes], memory: int = MEMORY) -> Iterator[tuple[Any, Any]]:
    """The items of the pickled dictionary, in its order.

    Args:
        memory: bytes that values may take at a time (estimated).

    Raises:
        Refused: it holds anything but dictionaries, text and numbers, or its values take more than
            ``memory``.
        ValueError: it is not a pickle, is damaged or truncated, or is not a dictionary.
    """
    return _Machine(stream, memory).items()


class _Machine:
    def __init__(self, stream: IO[bytes], memory: int) -> None:
        self._stream = stream
        self._memory = memory
        self._current = 0  # bytes of the values since the last query
        self._kept = 0  # bytes of the memo
        self._buffer, self._at = b"", 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._root: dict[Any, Any] | None = None

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._buffer):
            if max(len(self._marks), len(self._stack)) > DEEPEST:
                raise Refused("it piles up values without end")
            self._buffer = self._buffer[self._at :] + self._stream.read(1 << 20)
            self._at, end = 0, size
            while end > len(self._buffer):
                more = self._stream.read(1 << 20)
                if not more:
                    raise ValueError("it ends too early")
                self._buffer += more
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def _number(self, kind: struct.Struct) -> Any:
        return kind.unpack(self._take(kind.size))[0]

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += self._take(1)
            if len(line) > LONGEST:
                raise Refused("a line is too long")
        return line[:-1].decode("utf-8")

    def _counted(self, op: int) -> bytes:
        size = self._number(_LENGTHS[op])
        if size > LONGEST:
            raise Refused(f"a text has {size} bytes; at most {LONGEST} were expected")
        return self._take(size)

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("its instructions do not fit together")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise ValueError("its instructions do not fit together")
        place = self._marks.pop()
        found = self._stack[place:]
        del self._stack[place:]
        return found

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def items(self) -> Iterator[tuple[Any, Any]]:
        stack = self._stack
        while True:
            op = self._take(1)[0]
            self._current += _COST
            if self._current + self._kept > self._memory:
                raise Refused(
                    f"its values take more than {self._memory >> 20} MiB of memory, far more than"
                    " its size explains"
                )
            if op == 0x4A:
                self._pairs()
            elif op == 0x47:
                stack.append(self._number(_F8))
            elif op == ord("."):
                if len(stack) != 1 or stack[0] is not self._root or self._root is None:
                    raise ValueError("it is not one dictionary")
                return
            elif op in (ord("u"), ord("s")):
                yield from self._set_items(op)
            elif op in _OPERATIONS:
                _OPERATIONS[op](self)
            elif op in _LITERALS:
                stack.append(_LITERALS[op])
            elif op in _LENGTHS:
                stack.append(self._value(op))
            elif op in _GETS or op == ord("g"):
                stack.append(
                    self._recall(int(self._line()) if op == ord("g") else self._number(_GETS[op]))
                )
            elif op in _PUTS or op == ord("p"):
                self._remember(int(self._line()) if op == ord("p") else self._number(_PUTS[op]))
            else:
                raise Refused(f"the instruction 0x{op:02x} makes something else")

    def _pairs(self) -> None:
        """BININT, and with it what score files are made of: whole number, float, whole number,
        float …
        """
        buffer, at = self._buffer, self._at - 1
        count = (len(buffer) - at) // _PAIR.itemsize
        if count and buffer[at + 5] == 0x47:
            pairs = np.frombuffer(buffer, _PAIR, min(count, 4096), at)
            other = np.flatnonzero((pairs["int"] != 0x4A) | (pairs["float"] != 0x47))
            pairs = pairs[: other[0]] if len(other) else pairs
            values: list[Any] = [None] * (2 * len(pairs))
            values[::2], values[1::2] = pairs["key"].tolist(), pairs["value"].tolist()
            self._stack += values
            self._current += _COST * len(pairs)
            self._at = at + len(pairs) * _PAIR.itemsize
        else:
            self._stack.append(self._number(_I4))

    def _value(self, op: int) -> Any:
        data = self._counted(op)
        self._current += len(data)
        if op == 0x8A:
            return int.from_bytes(data, "little", signed=True)
        return data if op in _BYTES else data.decode("utf-8", "surrogatepass")

    def _set_items(self, op: int) -> Iterator[tuple[Any, Any]]:
        if op == ord("u"):
            found = self._since_mark()
        else:
            value, key = self._pop(), self._pop()
            found = [key, value]
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, dict) or len(found) % 2:
            raise ValueError("its instructions do not fit together")
        keys, values = found[::2], found[1::2]
        wrong = set(map(type, keys)) - {str, int}
        if wrong:
            raise Refused(f"a key is a {wrong.pop().__name__}")
        if target is self._root:
            if any(value is self._root for value in values):
                raise Refused("a dictionary holds itself")
            yield from zip(keys, values, strict=True)
            self._current = 0
            return
        wrong = set(map(type, values)) - {int, float, str, bool, type(None)}
        if wrong:
            raise Refused(f"a value is a {wrong.pop().__name__}")
        target.update(zip(keys, values, strict=True))

    def _remember(self, place: int) -> None:
        if not self._stack:
            raise ValueError("its instructions do not fit together")
        value = self._stack[-1]
        if place not in self._memo:
            self._kept += _COST + (len(value) if isinstance(value, str | bytes) else 0)
        # a dictionary is not held on to: queries that were given out could not be forgotten
        self._memo[place] = (
            _DICTIONARY if isinstance(value, dict) and value is not self._root else value
        )

    def _recall(self, place: int) -> Any:
        if place not in self._memo:
            raise ValueError("its instructions do not fit together")
        if self._memo[place] is _DICTIONARY or self._memo[place] is self._root:
            raise Refused("one dictionary stands in two places")
        return self._memo[place]

    def _dictionary(self) -> None:
        made: dict[Any, Any] = {}
        if self._root is None:
            if self._stack:
                raise ValueError("it is not one dictionary")
            self._root = made
        self._stack.append(made)

    def _old_dictionary(self) -> None:
        found = self._since_mark()
        if found:
            raise Refused("a dictionary is not made in the usual way")
        self._dictionary()

    def _old_number(self) -> None:
        text = self._line()
        self._stack.append(int(text.rstrip("L")))

    def _name(self) -> None:
        module = self._line()
        self._stack.append(Name.of(module, self._line()))

    def _stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(Name.of(module, name))

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        self._stack.append(called(name, arguments))

    def _build(self) -> None:
        state = self._pop()
        if not self._stack or not isinstance(self._stack[-1], Dtype):
            raise Refused("it sets the state of an object")
        self._stack[-1].build(state)

    def _tuple(self, size: int | None) -> None:
        """Tuples stand only in numpy's scalars; anything else that holds one is refused where it is
        used.
        """
        if size is None:
            self._stack.append(tuple(self._since_mark()))
        else:
            found = [self._pop() for _ in range(size)]
            self._stack.append(tuple(reversed(found)))


_OPERATIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: lambda machine: machine._take(1),
    0x95: lambda machine: machine._take(8),
    ord("}"): _Machine._dictionary,
    ord("d"): _Machine._old_dictionary,
    ord("("): _Machine._mark,
    0x94: lambda machine: machine._remember(len(machine._memo)),
    ord("K"): lambda machine: machine._stack.append(machine._number(_U1)),
    ord("M"): lambda machine: machine._stack.append(machine._number(_U2)),
    ord("I"): _Machine._old_number,
    ord("L"): _Machine._old_number,
    ord("F"): lambda machine: machine._stack.append(float(machine._line())),
    ord("V"): lambda machine: machine._stack.append(
        machine._line().encode().decode("raw-unicode-escape")
    ),
    ord("t"): lambda machine: machine._tuple(None),
    0x85: lambda machine: machine._tuple(1),
    0x86: lambda machine: machine._tuple(2),
    0x87: lambda machine: machine._tuple(3),
    ord("c"): _Machine._name,
    0x93: _Machine._stack_name,
    ord("R"): _Machine._reduce,
    ord("b"): _Machine._build,
}
