"""Mutations of bytes, and of JSON by its structure."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

JUNK = [
    None, True, 0, -1, 1.5, 2**31, 2**64, 10**30, 1e308, "", "x", "../x", "/etc/passwd", "\0", "\ud800",
    "(a+)+b", "a" * 2000,
    [], [None], [5], {}, {"x": 1}, {"": []}, {"search": [0, 1]}, "search", "linear", "ties", "union", "m0", "./m1",
]  # fmt: skip


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        MUTATIONS[chance.randrange(len(MUTATIONS))](data, seeds, chance)
    return bytes(data)


def _flip(data: bytearray, _seeds: list[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, _seeds: list[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice(
            [0, 1, 0x7F, 0x80, 0xFF, *b'"\\[]{}0919-.cRbQt()', chance.randrange(256)]
        )


def _cut(data: bytearray, _seeds: list[bytes], chance: random.Random) -> None:
    begin = chance.randrange(len(data) + 1)
    del data[begin : begin + chance.choice([1, 4, 50, len(data)])]


def _repeat(data: bytearray, _seeds: list[bytes], chance: random.Random) -> None:
    begin = chance.randrange(len(data) + 1)
    data[begin:begin] = data[begin : begin + chance.randrange(1, 40)] * chance.choice([1, 2, 300])
    del data[1 << 20 :]


def _splice(data: bytearray, seeds: list[bytes], chance: random.Random) -> None:
    other = chance.choice(seeds)
    begin = chance.randrange(len(other) + 1)
    at = chance.randrange(len(data) + 1)
    data[at : at + chance.choice([0, 20])] = other[begin : begin + chance.randrange(1, 60)]


def _number(data: bytearray, _seeds: list[bytes], chance: random.Random) -> None:
    value = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**30])
    packed = (value % 2**64).to_bytes(8, "little")[: chance.choice([2, 4, 8])]
    at = chance.randrange(len(data) + 1)
    data[at : at + len(packed)] = chance.choice([packed, str(value).encode()])


MUTATIONS: list[Callable[[bytearray, list[bytes], random.Random], None]] = [
    _flip,
    _replace,
    _cut,
    _repeat,
    _splice,
    _number,
]


def mutated_json(text: bytes, chance: random.Random) -> bytes:
    """Some JSON with a few values or keys replaced, removed or exchanged."""
    data = json.loads(text)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.choice(list(_places(data)))
        if not at:
            continue
        holder = data
        for key in at[:-1]:
            holder = holder[key]
        action = chance.randrange(4)
        if action == 0:
            del holder[at[-1]]
        elif action == 1 and isinstance(holder, dict):
            holder[str(chance.choice(JUNK))] = holder.pop(at[-1])
        elif action == 2:
            other = data
            for key in chance.choice(list(_places(data))):
                other = other[key]
            holder[at[-1]] = copy.deepcopy(other)
        else:
            holder[at[-1]] = copy.deepcopy(chance.choice(JUNK))
    return json.dumps(data).encode()


def _places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from _places(value, (*at, key))
