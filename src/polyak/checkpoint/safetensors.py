"""The safetensors format: an 8-byte length, a JSON header, then the tensors' bytes.

The reader is our own because the engine reads ranges of tensors straight into its buffers, from any
thread, and because a header is untrusted input: every number in it is checked before it is used.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError, UnsupportedFormat
from ..storage import regular_file
from ._api import DTYPES, Bytes, Checkpoint, Stamp, TensorSpec, check_name
from ._file import RangeFile
from .contents import first_repeated, refuse_many_containers

MAX_HEADER_NBYTES = 100_000_000  # the limit of the format's reference implementation
MAX_DIMENSIONS = 64  # the limit of NumPy and PyTorch
MAX_METADATA = 16_000_000  # characters of the free-form strings
_DTYPES = dict(DTYPES)  # lookups are faster than through the read-only view
ALIGNMENT = 4096  # the data section of files that we write starts on a page, so that blocks are whole pages


class SafetensorsFile(Checkpoint):
    """One safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path, self.label, self.folder = path, str(path), path.parent
        self._file = RangeFile(path)
        header = _read_header(path)
        self.stamps = (Stamp.of(path, header),)
        self._start = 8 + len(header)
        self.specs, self._offsets, self.metadata = parse_header(header, self.stamps[0].size - self._start, path)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        offset = self._start + self._offsets[name] + start * self.specs[name].dtype.itemsize
        self._file.read_into(out, offset)

    def close(self) -> None:
        self._file.close()


def _read_header(path: Path) -> bytes:
    try:
        with regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            _check_length(len(prefix), length, size, path)
            return file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _check_length(prefix_nbytes: int, length: int, size: int, path: Path) -> None:
    if prefix_nbytes < 8:
        raise CheckpointError(f"{path} is not a safetensors file: it has {prefix_nbytes} bytes, the format needs 8.")
    if length > MAX_HEADER_NBYTES:
        raise CheckpointError(
            f"{path} is not a safetensors file: it claims a header of {length} bytes; "
            f"the format allows {MAX_HEADER_NBYTES}."
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{path} is truncated: its header should end at byte {8 + length}, the file at byte {size}. "
            "Download or copy it again."
        )


def parse_header(
    header: bytes, data_nbytes: int, path: Path
) -> tuple[dict[str, TensorSpec], dict[str, int], dict[str, str]]:
    """Parse a header, and check it against the size of the data that follows it.

    Args:
        header: The JSON text.
        data_nbytes: Number of bytes that follow it.
        path: The file, for messages.

    Returns:
        The tensors in the order of the header, the offset of each in the data, and the metadata.

    Raises:
        CheckpointError: the header violates the format, or does not match the data.
        UnsupportedFormat: it holds a dtype that polyak cannot read.
    """
    entries = _parse_json(header, path)
    metadata = _checked_metadata(entries.pop("__metadata__", {}), path)
    specs: dict[str, TensorSpec] = {}
    offsets: dict[str, int] = {}
    reached, in_order = 0, True
    for name, entry in entries.items():
        check_name(name, path)
        specs[name], begin, end = _parse_entry(name, entry, path)
        offsets[name] = begin
        in_order = in_order and begin == reached
        reached = end
    if not in_order:
        reached = _check_spans(
            sorted((begin, begin + specs[name].nbytes, name) for name, begin in offsets.items()), path
        )
    if reached != data_nbytes:
        state = "truncated" if data_nbytes < reached else "longer than its header states"
        raise CheckpointError(
            f"{path} is {state}: the tensors need {reached} bytes, the file has {data_nbytes}. "
            "Download or copy it again."
        )
    return specs, offsets, metadata


def _checked_metadata(metadata: Any, path: Path) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in cast("dict[Any, Any]", metadata).values()):
        raise CheckpointError(f"{path}: __metadata__ must map strings to strings.")
    texts = cast("dict[str, str]", metadata)
    if sum(len(key) + len(text) for key, text in texts.items()) > MAX_METADATA:
        raise CheckpointError(f"{path}: __metadata__ has more than {MAX_METADATA:,} characters. Write it without them.")
    return texts


def _parse_json(header: bytes, path: Path) -> dict[str, Any]:
    try:
        refuse_many_containers(header)
        text = header.decode()
        entries = json.loads(text)
        if not text.startswith("{"):
            raise CheckpointError(f"{path}: the header must be a JSON object, with nothing before it.")
        # A header without duplicate names has as many strings as the parsed mapping, two quotes each. Only other
        # headers, and those with escapes, are parsed again with a hook that sees every pair, which is slow.
        if "\\" in text or text.count('"') != 2 * _count_strings(entries):
            json.loads(text, object_pairs_hook=lambda pairs: _without_duplicates(pairs, path))
            json.dumps(entries, ensure_ascii=False).encode()  # an escape can encode a lone surrogate
        return entries
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON ({error!s:.200}).") from error


def _count_strings(entries: dict[str, Any]) -> int:
    metadata = entries.get("__metadata__")
    if not isinstance(metadata, dict):
        return 5 * len(entries)  # the name, dtype and its value, shape, data_offsets
    return 5 * (len(entries) - 1) + 1 + 2 * len(cast("dict[str, object]", metadata))


def _without_duplicates(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise CheckpointError(f"{path}: the header lists {first_repeated(n for n, _ in pairs)!r:.80} twice.")
    return entries


def _parse_entry(name: str, entry: Any, path: Path) -> tuple[TensorSpec, int, int]:
    # Runs once per tensor, and a model may have a hundred thousand: `match` statements are too slow.
    try:
        dtype_name, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if len(entry) != 3 or type(shape) is not list or type(begin) is not int or type(end) is not int:
            raise ValueError
        dtype = _DTYPES.get(dtype_name)
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{path}: {name!r} needs exactly dtype, shape and data_offsets in the header; got {reprlib.repr(entry)}."
        ) from None
    if dtype is None:
        raise UnsupportedFormat(
            f"{path}: {name!r} is stored as {dtype_name!r:.30}, which polyak cannot read. Known: {', '.join(DTYPES)}."
        )
    sizes: tuple[Any, ...] = tuple(entry["shape"])
    if len(sizes) > MAX_DIMENSIONS or not all([type(n) is int and 0 <= n < 2**63 for n in sizes]):  # noqa: C419  faster
        raise CheckpointError(f"{path}: {name!r} has an impossible shape {reprlib.repr(sizes)}.")
    nbytes = prod(sizes) * dtype.itemsize
    if not 0 <= begin <= end or end - begin != nbytes:
        raise CheckpointError(
            f"{path}: {name!r} is {dtype} {list(sizes)}, which takes {nbytes} bytes, "
            f"but its offsets are [{begin}, {end}]."
        )
    return TensorSpec(name, dtype, sizes), begin, end


def _check_spans(spans: list[tuple[int, int, str]], path: Path) -> int:
    """Check that the tensors fill the data without gap or overlap, and return where they end."""
    reached = 0
    for begin, end, name in spans:
        if begin != reached:
            gap = f"leaves {begin - reached} bytes unused before it"
            problem = "overlaps the tensor before it" if begin < reached else gap
            raise CheckpointError(
                f"{path}: {name!r} {problem} (offsets [{begin}, {end}], expected to begin at {reached})."
            )
        reached = end
    return reached


def layout(specs: Iterable[TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Lay out a file before its data is computed.

    Args:
        specs: The tensors, in any order.
        metadata: The free-form strings.

    Returns:
        The bytes before the data (length and header), and the offset of each tensor in the file.
    """
    rank = {name: i for i, name in enumerate(DTYPES)}
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offsets: dict[str, int] = {}
    end = 0
    for spec in sorted(specs, key=lambda s: (rank[s.dtype.name], s.name)):
        offsets[spec.name] = end
        end += spec.nbytes
        header[spec.name] = {"dtype": spec.dtype.name, "shape": spec.shape, "data_offsets": [offsets[spec.name], end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: start + offset for name, offset in offsets.items()}
