"""Fuzz the parsers of what strangers write: the safetensors header and PyTorch files.

    python tests/fuzz_header.py [SECONDS] [--seed N]

Uses atheris where it is installed, else mutates a corpus made below.  Ends with status 1, and the input in
hexadecimal, if an input raises anything else than a CheckpointError, takes longer than two seconds, or if
the process grows beyond 1 GiB.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.pickle.file import open_pickled
from polyak.checkpoint.safetensors import layout, parse_header
from polyak.errors import CheckpointError

SLOWEST_SECONDS = 2.0
LARGEST_KIB = 1 << 20
TARGETS = ("header", "archive", "pickle", "legacy")
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x06tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0K\x02K\x03\x86K\x03K\x01\x86\x89}tR"


class Wants:
    def __reduce__(self) -> object:
        return print, ("this must never be printed",)


def headers() -> list[bytes]:
    """Each with the number of bytes behind it in front."""
    specs = [TensorSpec(f"layer.{i}.{name}", dtype, (i, 3)) for i, (name, dtype) in enumerate(DTYPES.items())]
    odd = json.dumps({'é\\"': {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode()
    laid_out = [(chosen, layout(chosen, {"format": "pt"})[0][8:].rstrip()) for chosen in (specs, specs[:2], specs[4:5])]
    sized = [(sum(spec.nbytes for spec in chosen), header) for chosen, header in laid_out]
    return [nbytes.to_bytes(8, "little") + header for nbytes, header in [*sized, (4, odd)]]


def programs() -> list[bytes]:
    values = {"epoch": 3, "text": "é" * 300, "list": [1, (2, 3.5), None, True], "set": {1}, "big": 2**70, "bytes": b"x"}
    plain = [pickle.dumps(values, protocol) for protocol in range(6)]
    state = b"\x80\x02}(X\x01\0\0\0w" + TENSOR + b"X\x01\0\0\0v" + TENSOR + b"u."
    return [
        *plain,
        state,
        pickle.dumps(Wants(), 2),
        pickle.dumps(Wants(), 4),
        b"\x80\x02}X\x05\0\0\0model" + state[2:-1] + b"s.",
    ]


def archive(program: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in {"data.pkl": program, "byteorder": b"little", "data/0": bytes(24)}.items():
            file.writestr(f"archive/{name}", data)
    return out.getvalue()


def legacy(program: bytes) -> bytes:
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    start = b"".join(pickle.dumps(part, 2) for part in parts)
    return start + program + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(24)


def corpus(target: str) -> list[bytes]:
    if target == "header":
        return headers()
    return [{"archive": archive, "legacy": legacy, "pickle": bytes}[target](program) for program in programs()]


def run_one(target: str, data: bytes, path: Path) -> bool:
    """Whether the input is accepted; every tensor of an accepted file is read."""
    try:
        if target == "header":
            parse_header(data[8:], int.from_bytes(data[:8], "little"), path)
            return True
        path.write_bytes(archive(data) if target == "pickle" else data)
        with open_pickled(path) as opened:
            for name, spec in opened.specs.items():
                if spec.nbytes < 1 << 20:  # a view may repeat a few bytes for ever
                    opened.read(name)
        return True
    except CheckpointError:
        return False


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


def check(target: str, data: bytes, path: Path) -> bool:
    began = time.perf_counter()
    try:
        accepted = run_one(target, data, path)
    except BaseException:
        print(f"\n{target}: this input broke the parser: {data.hex()}", file=sys.stderr)
        raise
    seconds = time.perf_counter() - began
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if seconds > SLOWEST_SECONDS or rss > LARGEST_KIB:
        sys.exit(f"{target}: {seconds:.1f} s, {rss >> 10} MiB for this input: {data.hex()}")
    return accepted


def fuzz_by_mutation(seconds: float, seed: int, path: Path) -> None:
    chance = random.Random(seed)
    seeds = {target: corpus(target) for target in TARGETS}
    runs, accepted = dict.fromkeys(TARGETS, 0), dict.fromkeys(TARGETS, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for target in TARGETS:
            accepted[target] += check(target, mutated(seeds[target], chance), path)
            runs[target] += 1
    total, rss = sum(runs.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    kept = ", ".join(f"{accepted[target]} of {runs[target]} {target}" for target in TARGETS)
    print(f"{total} executions in {seconds:g} s (seed {seed}), {rss} MiB at most; accepted {kept}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the checkpoint parsers.")
    parser.add_argument("seconds", nargs="?", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.pt"
        for target in TARGETS:
            if not any(check(target, data, path) for data in corpus(target)):
                sys.exit(f"the corpus of {target} holds no valid input")
        try:
            import atheris  # pyright: ignore[reportMissingImports]
        except ImportError:
            fuzz_by_mutation(options.seconds, options.seed, path)
            return
        fuzz_by_atheris(atheris, options, path)


def fuzz_by_atheris(atheris: object, options: argparse.Namespace, path: Path) -> None:
    def one_input(data: bytes) -> None:
        check(TARGETS[data[0] % len(TARGETS)] if data else "header", data[1:], path)

    with tempfile.TemporaryDirectory() as folder:
        for number, target in enumerate(TARGETS):
            for i, data in enumerate(corpus(target)):
                (Path(folder) / f"{target}-{i}").write_bytes(bytes([number]) + data)
        arguments = [sys.argv[0], folder, f"-max_total_time={options.seconds:.0f}", f"-seed={options.seed}"]
        atheris.instrument_all()  # type: ignore[attr-defined]
        atheris.Setup(arguments, one_input)  # type: ignore[attr-defined]
        atheris.Fuzz()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
