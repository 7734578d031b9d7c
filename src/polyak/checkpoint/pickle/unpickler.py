"""An unpickler that runs no code.

A pickle is a program for a stack machine, and Python's own unpickler imports and calls what the program names.
This one implements only the operations that build containers, and passes every name to a function of ours that
returns a stand-in. Its memory is bounded by a multiple of what it reads: lengths are checked before they are used,
the memo is a dict, and only strings and integers are hashed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, cast

from ...errors import CheckpointError, UnsupportedFormat

MAX_PICKLE_NBYTES = 64 << 20  # headers of 100,000 tensors with optimizer state take less


class Opaque:
    """A value that is not needed: every operation on it is ignored."""

    __slots__ = ()

    def build(self, args: tuple[Any, ...]) -> object:
        return self


class Unpickler:
    """Run one pickle from a file.

    Args:
        file: Positioned at the beginning of the pickle; afterwards, at its end.
        where: Name of the file in messages.
        find_global: Returns the stand-in for `module` and `name`, or raises UnsupportedFormat.
        find_storage: Returns the storage of a persistent id.
    """

    def __init__(
        self,
        file: BinaryIO,
        where: str,
        find_global: Callable[[str, str], object],
        find_storage: Callable[[Any], object],
    ) -> None:
        self._read, self._readline = file.read, file.readline
        self._where, self._find_global, self._find_storage = where, find_global, find_storage
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._budget = MAX_PICKLE_NBYTES

    def load(self) -> Any:
        """Run the pickle and return the object that it builds.

        Raises:
            UnsupportedFormat: it uses a name that is not allowed, or an operation that runs code.
            CheckpointError: it is damaged.
        """
        read, operations = self._read, self._operations()
        try:
            for _ in range(MAX_PICKLE_NBYTES):
                code = read(1)
                if code == b".":
                    return self._stack.pop()
                operation = operations.get(code)
                if operation is None:
                    raise self._refusal(code)
                operation()
            raise ValueError(f"it is longer than {MAX_PICKLE_NBYTES} bytes")
        except (ValueError, TypeError, LookupError, struct.error, OverflowError, MemoryError) as error:
            raise CheckpointError(
                f"{self._where} is damaged or not a checkpoint: its pickle is invalid ({error!s:.200})."
            ) from error

    def _refusal(self, code: bytes) -> Exception:
        if not code:
            return ValueError("the end is missing")
        if code in _OF_CLASSES:
            return UnsupportedFormat(
                f"{self._where} would create objects by the operation {_OF_CLASSES[code]}; refused."
            )
        return ValueError(f"operation {code!r} is unknown")

    def _operations(self) -> dict[bytes, Callable[[], None]]:
        def wide(operation: Callable[[int], None], **codes: int) -> dict[bytes, Callable[[], None]]:
            """One operation under several codes, each with its own width in bytes."""
            return {bytes.fromhex(code[1:]): partial(operation, number) for code, number in codes.items()}

        push, take = self._push, self._skip
        return {
            b"N": partial(push, None), b"\x88": partial(push, True), b"\x89": partial(push, False),
            b"K": self._int8, b"M": self._int16, b"J": self._int32, b"G": self._float,
            **wide(take, x80=1, x95=8), **wide(self._long, x8a=1, x8b=4),
            **wide(self._text, x8c=1, x58=4, x8d=8), **wide(self._old_text, x55=1, x54=4),
            **wide(self._bytes, x43=1, x42=4, x8e=8, x96=8),
            b"0": self._pop, b"1": self._pop_mark, b"2": self._duplicate, b"(": self._mark,
            b")": partial(push, ()), b"t": self._tuple, **wide(self._tuple_of, x85=1, x86=2, x87=3),
            b"]": self._new_list, b"l": self._list, b"a": self._append, b"e": self._extend,
            b"}": self._new_dict, b"d": self._dict, b"s": self._set_item, b"u": self._set_items,
            b"\x8f": self._new_set, b"\x90": self._extend, b"\x91": self._frozenset,
            **wide(self._put, x71=1, x72=4), **wide(self._get, x68=1, x6a=4), b"\x94": self._memoize,
            b"c": self._global, b"i": self._instance, b"\x93": self._stack_global,
            b"R": self._call, b"\x81": self._call, b"b": self._state, b"Q": self._persistent,
        }  # fmt: skip

    # Reading

    def _take(self, nbytes: int) -> bytes:
        self._budget -= nbytes
        if nbytes < 0 or self._budget < 0:
            raise ValueError(f"it is longer than {MAX_PICKLE_NBYTES} bytes")
        data = self._read(nbytes)
        if len(data) != nbytes:
            raise ValueError("the end is missing")
        return data

    def _number(self, nbytes: int) -> int:
        return int.from_bytes(self._take(nbytes), "little")

    def _line(self) -> str:
        line = self._readline(1000)
        if not line.endswith(b"\n"):
            raise ValueError("a name does not end")
        return line[:-1].decode()

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    # Values

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _skip(self, nbytes: int) -> None:
        self._take(nbytes)

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self) -> None:
        self._since_mark()

    def _duplicate(self) -> None:
        self._stack.append(self._stack[-1])

    def _int32(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _int8(self) -> None:
        self._stack.append(self._read(1)[0])

    def _int16(self) -> None:
        self._stack.append(self._number(2))

    def _long(self, length_nbytes: int) -> None:
        nbytes = self._number(length_nbytes)
        if nbytes > 1024:
            raise ValueError(f"a number of {nbytes} bytes")
        self._stack.append(int.from_bytes(self._take(nbytes), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _text(self, length_nbytes: int) -> None:
        self._stack.append(self._take(self._number(length_nbytes)).decode())

    def _old_text(self, length_nbytes: int) -> None:
        data = self._take(self._number(length_nbytes))
        # Python 2 wrote text and bytes alike.
        self._stack.append(data.decode() if data.isascii() else data)

    def _bytes(self, length_nbytes: int) -> None:
        self._stack.append(self._take(self._number(length_nbytes)))

    # Containers

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _tuple(self) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("the stack is too short")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _new_list(self) -> None:
        self._stack.append([])

    def _new_dict(self) -> None:
        self._stack.append({})

    def _new_set(self) -> None:
        self._stack.append(Opaque())

    def _append(self) -> None:
        item = self._stack.pop()
        _as_list(self._stack[-1]).append(item)

    def _extend(self) -> None:
        items = self._since_mark()
        _as_list(self._stack[-1]).extend(items)

    def _list(self) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _set_items(self._stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self._since_mark()
        _set_items(self._stack[-1], items)

    def _dict(self) -> None:
        items = self._since_mark()
        self._stack.append({})
        _set_items(self._stack[-1], items)

    def _frozenset(self) -> None:
        self._since_mark()
        self._stack.append(Opaque())

    # Memo

    def _put(self, index_nbytes: int) -> None:
        self._memo[self._number(index_nbytes)] = self._stack[-1]

    def _get(self, index_nbytes: int) -> None:
        self._stack.append(self._memo[self._number(index_nbytes)])

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    # Names, calls and storages

    def _global(self) -> None:
        module = self._line()
        self._stack.append(self._find_global(module, self._line()))

    def _instance(self) -> None:
        self._global()
        raise ValueError("the operation INST is not supported")

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name is not text")
        self._stack.append(self._find_global(module, name))

    def _call(self) -> None:
        args, called = self._stack.pop(), self._stack.pop()
        if type(args) is not tuple or not hasattr(called, "build"):
            raise TypeError(f"a {type(called).__name__} is called")
        self._stack.append(called.build(args))

    def _state(self) -> None:
        """Attributes of an object; those of dicts (an OrderedDict's `_metadata`) and of opaque values are dropped."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict | Opaque):
            raise TypeError(f"attributes of a {type(self._stack[-1]).__name__} are set")

    def _persistent(self) -> None:
        self._stack.append(self._find_storage(self._stack.pop()))


def _as_list(target: Any) -> list[Any]:
    if isinstance(target, Opaque):
        return []
    if type(target) is not list:
        raise TypeError(f"items are added to a {type(target).__name__}")
    return cast("list[Any]", target)


def _set_items(target: Any, items: list[Any]) -> None:
    if len(items) % 2:
        raise ValueError("a key has no value")
    if isinstance(target, Opaque):
        return
    if type(target) is not dict:
        raise TypeError(f"items are set in a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is str or type(key) is int:  # other keys name no tensor, and can take arbitrarily long to hash
            target[key] = value


_OF_CLASSES = {
    b"o": "OBJ", b"\x82": "EXT1", b"\x83": "EXT2", b"\x84": "EXT4",
    b"\x92": "NEWOBJ_EX", b"P": "PERSID", b"\x97": "NEXT_BUFFER", b"\x98": "READONLY_BUFFER",
}  # fmt: skip
