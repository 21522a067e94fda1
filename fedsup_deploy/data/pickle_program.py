"""Looks at the program that a pickle is before it is run.

Even where nothing can be called, a few bytes can ask for gigabytes (an index of the memo), and nested tuples can
exhaust the stack of the C code that hashes them. So a program is followed first, with a few numbers in place of values.
"""

import io
import pickletools
from types import MappingProxyType
from typing import Final, NamedTuple

from fedsup_deploy.data.source import MAX_FILE_BYTES

# Official files have up to 500,000: two for each label and four for each name of an image.
_MAX_OPERATIONS: Final = 2_000_000
# An array in a dictionary is 5 deep: the type within the state of the array.
_MAX_DEPTH: Final = 10

_OPERATIONS: Final = frozenset(
    """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()  # noqa: SIM905  a table of names is read more easily
)
_PUTS: Final = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS: Final = ("GET", "BINGET", "LONG_BINGET")
# They change what lies below their arguments and leave it there.
_CHANGES: Final = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")
# From which of their arguments on every second one is a key of a dictionary, and so gets hashed.
_KEYS_FROM: Final = MappingProxyType({"DICT": 0, "SETITEM": 1, "SETITEMS": 1})


class _Value(NamedTuple):
    """What is known of a value.

    Args:
        depth: 0 of a plain value, one more than that of the deepest value in it of any other. A list that is changed
            after it was put into another leaves the depth of that as it was; but nothing here walks into lists.
        is_tuple: Whether it is hashed by walking into it.
        num_bytes: Of all text in it.
    """

    depth: int = 0
    is_tuple: bool = False
    num_bytes: int = 0


_PLAIN: Final = _Value()


def check_pickle(content: bytes) -> None:
    """Refuse a pickle that is not of the plain kind that data needs.

    Raises:
        ValueError: It is no pickle; or it has an operation that data does not need, more than 2,000,000 operations, a
            memo index beyond that, data nested deeper than 10, a tuple as the key of a dictionary, or makes more than
            `MAX_FILE_BYTES` of the same text again and again.
    """
    followed = _Followed()
    for number, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
        if operation.name not in _OPERATIONS:
            raise ValueError(f"operation {operation.name} is none that data needs")
        if number >= _MAX_OPERATIONS:
            raise ValueError(f"more than {_MAX_OPERATIONS:,} operations")
        followed.step(operation, argument)


class _Followed:
    """The stack and the memo of a pickle, with what is known of values in place of them."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Value] = {}
        self._made_bytes = 0

    def step(self, operation: pickletools.OpcodeInfo, argument: object) -> None:
        """Do what an operation does."""
        name = operation.name
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in _PUTS or name == "MEMOIZE":
            index = len(self._memo) if name == "MEMOIZE" else argument
            if not isinstance(index, int) or not 0 <= index <= _MAX_OPERATIONS:
                raise ValueError(f"memo index {index}, expected at most {_MAX_OPERATIONS:,}")
            (self._memo[index],) = self._top(1)
        elif name in _GETS:
            if not isinstance(argument, int) or argument not in self._memo:
                raise ValueError(f"memo index {argument} was never set")
            self._stack.append(self._memo[argument])
        elif operation.stack_before:
            self._replace(operation)
        elif operation.stack_after:
            num_bytes = len(argument) if isinstance(argument, str | bytes | bytearray) else 0
            self._stack.append(_Value(num_bytes=num_bytes) if num_bytes else _PLAIN)

    def _replace(self, operation: pickletools.OpcodeInfo) -> None:
        """Let an operation take its arguments from the stack and leave its result there."""
        taken = self._take(operation.stack_before)
        first_key = _KEYS_FROM.get(operation.name, len(taken))
        if any(key.is_tuple for key in taken[first_key::2]):
            raise ValueError("a key of a dictionary is a tuple")
        num_bytes = sum(value.num_bytes for value in taken)
        if operation.name == "REDUCE":
            # May make its arguments' text anew, whose parts may all be one value of the memo.
            self._made_bytes += num_bytes
            if self._made_bytes > MAX_FILE_BYTES:
                raise ValueError(f"makes more than {MAX_FILE_BYTES:,} bytes of text")
        depths = [value.depth for value in taken]
        if operation.name in _CHANGES:
            depth = max(depths[0], 1 + max(depths[1:], default=-1))
        else:
            depth = 1 + max(depths, default=-1)
        if depth > _MAX_DEPTH:
            raise ValueError(f"data nested deeper than {_MAX_DEPTH}")
        if operation.stack_after:
            self._stack.append(_Value(depth, "TUPLE" in operation.name, num_bytes))

    def _take(self, before: list[pickletools.StackObject]) -> list[_Value]:
        """Take from the stack what an operation needs: some values, and maybe all above the last mark."""
        if pickletools.markobject not in before:
            return self._pop(len(before))
        if not self._marks:
            raise ValueError("no mark on the stack")
        above = len(self._stack) - self._marks.pop()
        return self._pop(above + before.index(pickletools.markobject))

    def _pop(self, count: int) -> list[_Value]:
        taken = self._top(count)
        del self._stack[len(self._stack) - count :]
        return taken

    def _top(self, count: int) -> list[_Value]:
        if count > len(self._stack) - (self._marks[-1] if self._marks else 0):
            raise ValueError("too little on the stack")
        return self._stack[len(self._stack) - count :]
