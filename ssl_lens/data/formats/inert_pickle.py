"""Pickles read without being run: numbers, strings, tuples, lists and NumPy arrays of them, and nothing else.

Python's unpickler imports and calls what a file names. Here the opcodes are decoded by `pickletools` and interpreted
by a table of our own, in which a name is only ever compared with an allow-list: no import, no call, no attribute.
"""

from __future__ import annotations

import math
import pickletools
import re
from typing import Any

import numpy as np

from ssl_lens.data.formats.sample import UnusableImage

_RECONSTRUCT, _SCALAR, _NDARRAY, _DTYPE, _ENCODE = "_reconstruct", "scalar", "ndarray", "dtype", "encode"
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,  # how protocol 2 writes bytes
}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMERIC = re.compile(r"[biuf]\d{1,2}")
_MOST_AXES, _LONGEST_AXIS = 32, 1 << 40


class PickledArray:
    """An array of a pickle.

    Attributes:
        shape: its axes.
        values: for numbers an ndarray of that shape, over the pickle's own bytes; for objects a list of its elements
            in C order, each a Python number, string, tuple, list or `PickledArray`; None where the pickle left it
            unfilled.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.values: np.ndarray | list[object] | None = None


class _Name:
    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class _Type:
    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


def read_pickle(data: bytes) -> object:
    """Interprets the first pickle in `data`.

    Sizes that it declares must agree with the bytes there are, and all bytes that it makes together are at most those
    of `data`: memory is bounded by the file. Lists may hold the same object many times, or themselves: walk them with
    care.

    Returns:
        Python number, string, bytes, tuple, list or `PickledArray`.
    Raises:
        UnusableImage: anything else in it, or damage; nothing has been executed.
    """
    try:
        return _Machine(len(data)).run(data)
    except UnusableImage:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise UnusableImage(f"damaged pickle: {' '.join(str(error)[:100].split())}") from error


class _Machine:
    """The stack, the marked outer stacks and the memo of a pickle; `budget` is bytes that may still be made."""

    def __init__(self, budget: int) -> None:
        self.stack: list[object] = []
        self.outer: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.budget = budget

    def run(self, data: bytes) -> object:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            if not (self._plain(opcode.name, argument) or self._memo(opcode.name, argument)):
                self._numpy(opcode.name, argument)
        raise UnusableImage("pickle has no end")

    def _plain(self, name: str, argument: Any) -> bool:
        """Numbers, strings, tuples and lists; False if the opcode is another."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise UnusableImage("damaged pickle: stack is empty")
            last = tuple(stack[len(stack) - count :])
            del stack[len(stack) - count :]
            stack.append(last)
        elif name == "MARK":
            self.outer.append(stack)
            self.stack = []
        elif name in ("TUPLE", "LIST"):
            items = self._since_mark()
            self.stack.append(tuple(items) if name == "TUPLE" else items)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            if not isinstance(self.stack[-1], list):
                raise UnusableImage(f"pickle appends to a {type(self.stack[-1]).__name__}: refused")
            self.stack[-1].extend(items)
        else:
            return name in ("PROTO", "FRAME")
        return True

    def _memo(self, name: str, argument: Any) -> bool:
        """What keeps and repeats objects; False if the opcode is another."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name == "POP_MARK" or (name == "POP" and not self.stack):
            self._since_mark()
        elif name == "POP":
            self.stack.pop()
        else:
            return False
        return True

    def _numpy(self, name: str, argument: object) -> None:
        """The few names, calls and states that make arrays, scalars and types; everything else is refused."""
        if name == "GLOBAL":
            self.stack.append(_allowed(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            self.stack.append(_allowed(module, attribute))
        elif name == "REDUCE":
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self._call(function, arguments))
        elif name == "BUILD":
            state, built = self.stack.pop(), self.stack[-1]
            if isinstance(built, PickledArray):
                self._fill(built, state)
            elif isinstance(built, _Type):
                _set_byte_order(built, state)
            else:
                raise UnusableImage(f"pickle sets the state of a {type(built).__name__}: refused")
        else:
            raise UnusableImage(f"pickle opcode {name} refused; only numbers and NumPy arrays are read")

    def _since_mark(self) -> list[object]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def _call(self, function: object, arguments: object) -> object:
        meaning = function.meaning if isinstance(function, _Name) else None
        if not isinstance(arguments, tuple) or meaning in (None, _NDARRAY):
            raise UnusableImage("pickle calls something that makes no array: refused")
        if meaning == _ENCODE:
            text, encoding = arguments
            if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
                raise UnusableImage("pickle encodes something else than bytes: refused")
            self._spend(len(text))
            return text.encode("latin-1")
        if meaning == _DTYPE:
            code = arguments[0]
            if not isinstance(code, str) or not (_NUMERIC.fullmatch(code) or re.fullmatch(r"O[48]", code)):
                shown = repr(code[:20]) if isinstance(code, str) else f"a {type(code).__name__}"
                raise UnusableImage(f"pickle holds numbers of type {shown}: refused")
            return _Type(code)
        if meaning == _SCALAR:
            kind, raw = arguments
            return _numbers(kind, raw, 1)[0].item()
        kind = arguments[0]
        if not (isinstance(kind, _Name) and kind.meaning == _NDARRAY):
            raise UnusableImage("pickle makes an array of an own type: refused")
        return PickledArray()

    def _fill(self, array: PickledArray, state: Any) -> None:
        _, shape, kind, fortran_order, raw = state
        if not isinstance(shape, tuple) or len(shape) > _MOST_AXES:
            raise UnusableImage("pickled array has no shape")
        if not all(type(length) is int and 0 <= length < _LONGEST_AXIS for length in shape):
            raise UnusableImage("pickled array of an absurd shape")
        count = math.prod(shape)
        if isinstance(raw, list) and isinstance(kind, _Type) and kind.dtype.hasobject:
            if count != len(raw):
                raise UnusableImage(f"pickled array of {count} objects holds {len(raw)}")
            self._spend(len(raw))  # copied, as a list may grow later; paid for, as one list may fill many arrays
            array.values = list(raw)  # NumPy lists objects in C order, whatever it says of the order
        else:
            if isinstance(raw, str):
                self._spend(len(raw))
            array.values = _numbers(kind, raw, count).reshape(shape, order="F" if fortran_order else "C")
        array.shape = shape

    def _spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise UnusableImage("pickle expands to more bytes than it has: refused")


def _allowed(module: object, attribute: object) -> _Name:
    """The meaning of a name, which is compared and never looked up."""
    if not (isinstance(module, str) and isinstance(attribute, str)):
        raise UnusableImage("pickle names something without a string: refused")
    meaning = _ALLOWED.get((module, attribute))
    if meaning is None:
        shown = " ".join(f"{module}.{attribute}"[:80].split())
        raise UnusableImage(f"pickle names {shown}: refused, nothing of it is run; save plain arrays")
    return _Name(meaning)


def _set_byte_order(built: _Type, state: object) -> None:
    if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
        raise UnusableImage("pickle holds records, not numbers: refused")
    if state[1] not in ("<", ">", "|", "="):
        raise UnusableImage("pickled type has no byte order")
    if not built.dtype.hasobject:
        built.dtype = built.dtype.newbyteorder(state[1])


def _numbers(kind: object, raw: object, count: int) -> np.ndarray:
    """`count` numbers [count] over the bytes `raw`, of which there must be as many."""
    if not isinstance(kind, _Type) or kind.dtype.hasobject:
        raise UnusableImage("pickled array is not of a numeric type: refused")
    if isinstance(raw, str):  # Python 2
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes) or len(raw) != count * kind.dtype.itemsize:
        found = f"{len(raw)} bytes" if isinstance(raw, bytes) else f"a {type(raw).__name__}"
        raise UnusableImage(f"pickled array declares {count * kind.dtype.itemsize} bytes and holds {found}")
    return np.frombuffer(raw, kind.dtype)
