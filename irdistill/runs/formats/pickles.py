"""An unpickler for score dictionaries: allow-lists of instructions and names, read as a stream.

A pickle can run any code when Python loads it. This unpickler is Python's own, restricted in three
ways: instructions that make anything but ``None``, numbers, text, dictionaries and numpy's number
scalars are refused; the few names that numpy's scalars need are replaced by functions of this
module, and any other name is refused; and the size of texts and of all values is bounded. Each
query is yielded as soon as it is complete, so the file need not fit into memory (the C unpickler
cannot do this: it returns the whole dictionary at the end).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

LONGEST = 1 << 16
"""Bytes of the longest text. Ids are short, and a wrong length must not allocate memory."""

DEEPEST = 1 << 20
"""Values that may wait to be put into a dictionary; Python's pickler lets 2,000 wait per level."""

MEMORY = 1 << 28
"""Bytes for the values of one query and for the memo, for a small file."""

_COST = 100
"""Bytes of memory per value, as an entry of a dictionary or of the memo."""
_BUFFER = 1 << 20
_PAIR = np.dtype([("int", "u1"), ("key", "<i4"), ("float", "u1"), ("value", ">f8")])
_PythonUnpickler: Any = pickle._Unpickler  # the one written in Python can be restricted
_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


class RefusedPickleError(ValueError):
    """The pickle asks for something that is not a dictionary, text or a number."""


def memory_for(size: int) -> int:
    """Bytes of memory to allow for a file of ``size`` bytes.

    A value takes two bytes of a pickle and about 100 of memory, so 64 times the file is more than
    any plain pickle needs, and any compressed one that holds scores. Without a limit 20 KB of
    compressed instructions grow to 1.7 GB.
    """
    return MEMORY + 64 * size


def read_items(stream: IO[bytes], memory: int = MEMORY) -> Iterator[tuple[Any, Any]]:
    """The items of the pickled dictionary, in its order.

    Args:
        stream: the pickle.
        memory: bytes that values may take at a time (estimated).
    """
    return _ScoreUnpickler(stream, memory).items()


class _Dtype:
    """Stands for ``numpy.dtype(code)``: a type of numbers and its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _NUMBERS:
            raise RefusedPickleError(f"it holds numpy values of the kind {code!r}")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """Take the byte order from a pickled dtype's state."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise RefusedPickleError("it sets the state of an object")
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


def _scalar(kind: Any, data: Any) -> float | int:
    """Stands for numpy's ``scalar(dtype, bytes)``."""
    if not isinstance(kind, _Dtype) or not isinstance(data, bytes):
        raise RefusedPickleError("a numpy scalar is not made in the usual way")
    if len(data) != kind.dtype.itemsize:
        raise RefusedPickleError("a numpy scalar is not made in the usual way")
    value: float | int = np.frombuffer(data, kind.dtype)[0].item()
    return value


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands for ``_codecs.encode``, which makes bytes in protocol 2 and below."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedPickleError("it encodes text in an unusual way")
    return text.encode("latin-1")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}


class _Memo(dict[int, Any]):
    """Values that the pickle recalls later, without dictionaries, and their size in bytes.

    A dictionary is not kept: queries that were yielded could not be freed.
    """

    size = 0

    def __setitem__(self, key: int, value: Any) -> None:
        if key not in self:
            self.size += _COST + (len(value) if isinstance(value, str | bytes) else 0)
        super().__setitem__(key, dict if isinstance(value, dict) else value)

    def __getitem__(self, key: int) -> Any:
        value = super().__getitem__(key)
        if value is dict:
            raise RefusedPickleError("one dictionary stands in two places")
        return value


class _ScoreUnpickler(_PythonUnpickler):
    def __init__(self, stream: IO[bytes], memory: int) -> None:
        super().__init__(stream, encoding="utf-8")
        self._stream, self._memory = stream, memory
        self._buffer, self._start = b"", 0
        self._current = 0  # bytes of the values since the last query
        self._root: dict[Any, Any] | None = None
        self._complete: list[tuple[Any, Any]] = []
        self.memo = _Memo()
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.read, self.readline = self._read, self._read_line

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The items of the outer dictionary, each as soon as it is complete."""
        while True:
            if self._start == len(self._buffer):
                self._fill()
            instruction = self._buffer[self._start]
            self._start += 1
            self._current += _COST
            if instruction == pickle.STOP[0]:
                break
            if self._current + self.memo.size > self._memory:
                raise RefusedPickleError(
                    f"its values take more than {self._memory >> 20} MiB of memory, far more than"
                    " its size explains"
                )
            handler = _HANDLERS.get(instruction)
            if handler is None:
                raise RefusedPickleError(
                    f"the instruction 0x{instruction:02x} makes something else"
                )
            try:
                handler(self)
            except (IndexError, pickle.UnpicklingError) as error:
                raise ValueError("its instructions do not fit together") from error
            if self._complete:
                yield from self._complete
                self._complete, self._current = [], 0
        if self.metastack or len(self.stack) != 1 or self._root is not self.stack[0]:
            raise ValueError("it is not one dictionary")

    def _fill(self) -> None:
        if max(len(self.metastack), len(self.stack)) > DEEPEST:
            raise RefusedPickleError("it piles up values without end")
        data = self._stream.read(_BUFFER)
        if not data:
            raise ValueError("it ends too early")
        self._buffer, self._start = self._buffer[self._start :] + data, 0

    def _read(self, size: int) -> bytes:
        if size > LONGEST:
            raise RefusedPickleError(f"a text has {size} bytes; at most {LONGEST} were expected")
        while self._start + size > len(self._buffer):
            self._fill()
        data = self._buffer[self._start : self._start + size]
        self._start += size
        self._current += size
        return data

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._start, self._start + LONGEST)) < 0:
            if len(self._buffer) - self._start > LONGEST:
                raise RefusedPickleError("a line is too long")
            self._fill()
        return self._read(end + 1 - self._start)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The function that stands for a name; nothing is imported."""
        if (module, name) not in _NAMES:
            raise RefusedPickleError(f"it names {module}.{name}")
        return _NAMES[module, name]

    def load_frame(self) -> None:
        """Skip the size of a frame: the stream is buffered anyway."""
        self._read(8)

    def load_empty_dictionary(self) -> None:
        """Begin a dictionary; the first one is the outer one."""
        if self._root is None and (self.stack or self.metastack):
            raise ValueError("it is not one dictionary")
        self.append({})
        if self._root is None:
            self._root = self.stack[-1]

    def load_dict(self) -> None:
        """Begin a dictionary in protocol 0, where it is empty."""
        if self.pop_mark():
            raise RefusedPickleError("a dictionary is not made in the usual way")
        self.load_empty_dictionary()

    def load_setitem(self) -> None:
        """Put one item into the dictionary below it."""
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        """Put the items since the last mark into the dictionary below them."""
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise pickle.UnpicklingError
        keys, values = items[::2], items[1::2]
        _check_types("key", keys, {str, int})
        if target is not self._root:
            _check_types("value", values, {int, float, str, bool, type(None)})
            target.update(zip(keys, values, strict=True))
        else:
            self._complete = list(zip(keys, values, strict=True))

    def load_reduce(self) -> None:
        """Call one of the functions of `_NAMES`."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if function not in _NAMES.values() or not isinstance(arguments, tuple) or not arguments:
            raise RefusedPickleError("it calls something")
        try:
            self.append(function(*arguments))
        except TypeError as error:
            raise RefusedPickleError("it calls something") from error

    def load_build(self) -> None:
        """Set the byte order of a dtype."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Dtype):
            raise RefusedPickleError("it sets the state of an object")
        self.stack[-1].set_state(state)

    def load_binint(self) -> None:
        """A whole number, and with it the pairs of whole number and float that follow."""
        count = (len(self._buffer) - self._start + 1) // _PAIR.itemsize
        if not count or self._buffer[self._start + 4] != pickle.BINFLOAT[0]:
            super().load_binint()
            return
        pairs = np.frombuffer(self._buffer, _PAIR, min(count, 4096), self._start - 1)
        other = (pairs["int"] != pickle.BININT[0]) | (pairs["float"] != pickle.BINFLOAT[0])
        pairs = pairs[: int(np.argmax(other))] if other.any() else pairs
        values: list[Any] = [None] * (2 * len(pairs))
        values[::2], values[1::2] = pairs["key"].tolist(), pairs["value"].tolist()
        self.stack += values
        self._current += _COST * len(pairs)
        self._start += len(pairs) * _PAIR.itemsize - 1


def _check_types(role: str, values: list[Any], allowed: set[type]) -> None:
    others = set(map(type, values)) - allowed
    if others:
        raise RefusedPickleError(f"a {role} is a {others.pop().__name__}")


_OVERRIDDEN: dict[bytes, Callable[[Any], None]] = {
    pickle.FRAME: _ScoreUnpickler.load_frame,
    pickle.EMPTY_DICT: _ScoreUnpickler.load_empty_dictionary,
    pickle.DICT: _ScoreUnpickler.load_dict,
    pickle.SETITEM: _ScoreUnpickler.load_setitem,
    pickle.SETITEMS: _ScoreUnpickler.load_setitems,
    pickle.REDUCE: _ScoreUnpickler.load_reduce,
    pickle.BUILD: _ScoreUnpickler.load_build,
    pickle.BININT: _ScoreUnpickler.load_binint,
}
_INHERITED = (
    *(pickle.PROTO, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.INT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1),
    *(pickle.FLOAT, pickle.BINFLOAT),
    *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL),
    *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
)
_HANDLERS: dict[int, Callable[[Any], None]] = {
    **{instruction[0]: _PythonUnpickler.dispatch[instruction[0]] for instruction in _INHERITED},
    **{instruction[0]: handler for instruction, handler in _OVERRIDDEN.items()},
}
"""The instructions that are allowed."""
