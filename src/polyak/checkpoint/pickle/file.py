"""PyTorch's own formats (.bin, .pt, .pth, .ckpt), read without PyTorch and without running any code.

There are two: since 1.6 a zip archive whose `data.pkl` describes tensors on storages in `data/0`, `data/1`
...; before that a sequence of pickles followed by the storages. Either way the pickle is small and the tensors
are read later, in ranges.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from ...errors import CheckpointError, UnsupportedFormat
from ...storage import read_at
from .._api import Bytes, Checkpoint, Stamp, TensorSpec
from .._file import RangeFile
from .stand_ins import Named, Storage, StridedTensor, Unreadable, find_global
from .state_dicts import Tensor, find_state_dict
from .strides import gather, is_row_major, reach
from .unpickler import MAX_PICKLE_NBYTES, Unpickler

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True, slots=True)
class _Contents:
    """Contents of a file: its object, the bytes that describe it, and the ranges of its storages."""

    saved: Any
    header: bytes
    spans: Mapping[str, tuple[int, int]]


class PickledFile(Checkpoint):
    """The state dict of one PyTorch file."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], contents: _Contents) -> None:
        self.path, self.label, self.folder = path, str(path), path.parent
        self._file = RangeFile(path)
        self.stamps = (Stamp.of(path, contents.header),)
        self._views: dict[str, tuple[int, StridedTensor]] = {}
        specs: dict[str, TensorSpec] = {}
        ties: dict[str, str] = {}
        holder: dict[object, str] = {}
        for name, tensor in tensors.items():
            start, view = _checked(name, tensor, contents.spans, path)
            first = holder.setdefault((start, view.offset, view.shape, view.stride, view.dtype.name), name)
            if first != name and 0 not in view.shape:
                ties[name] = first
                continue
            specs[name] = TensorSpec(name, view.dtype, view.shape)
            self._views[name] = start + view.offset * view.dtype.itemsize, view
        self.specs, self.ties = specs, ties

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        origin, view = self._views[name]
        if is_row_major(view.shape, view.stride):
            self._file.read_into(out, origin + start * view.dtype.itemsize)
            return

        def read_at(target: Bytes, offset: int) -> None:
            self._file.read_into(target, origin + offset)

        gather(read_at, view.shape, view.stride, start, stop, out.view(f"u{view.dtype.itemsize}"))

    def close(self) -> None:
        self._file.close()


def open_pickled(path: Path, *, key: str | None = None) -> Checkpoint:
    """Open a PyTorch file; the tensors stay on disk.

    Args:
        path: The file.
        key: The dotted path of the state dict in what was saved, such as `state_dict`; "" is the outermost
            mapping. The default takes the only mapping that holds tensors, outermost first.

    Raises:
        UnsupportedFormat: it would run code, or holds tensors of a kind that polyak cannot read.
        CheckpointError: it is damaged, or has no state dict, or several.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            contents = _read_zip(file, path) if start.startswith(b"PK") else _read_legacy(file, start, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    return PickledFile(path, find_state_dict(contents.saved, key, str(path)), contents)


def _checked(name: str, tensor: Tensor, spans: Mapping[str, tuple[int, int]], path: Path) -> tuple[int, StridedTensor]:
    """Offset of the tensor's storage in the file, after checking that the tensor lies within it."""
    if isinstance(tensor, Unreadable):
        raise UnsupportedFormat(f"{path}: {name!r} is a {tensor.kind}, which polyak cannot read.")
    storage, itemsize = tensor.storage, tensor.dtype.itemsize
    start, stop = spans.get(storage.key, (0, -1))
    if stop < start:
        raise CheckpointError(f"{path}: {name!r} lies in storage {storage.key!r:.80}, which is missing.")
    end = (tensor.offset + reach(tensor.shape, tensor.stride)) * itemsize if 0 not in tensor.shape else 0
    if end > storage.nbytes or storage.start + storage.nbytes > stop - start:
        raise CheckpointError(
            f"{path}: {name!r} reaches to byte {storage.start + end} of storage {storage.key!r:.80}, "
            f"which has {stop - start} (the pickle claims {storage.nbytes})."
        )
    return start + storage.start, tensor


def _read_zip(file: BinaryIO, path: Path) -> _Contents:
    entries = _entries(file, path)
    roots = [name.removesuffix("data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in entries:
        kind = "a TorchScript archive" if roots else "a zip archive, but not one of torch.save"
        raise UnsupportedFormat(f"{path} is {kind}. Save the state dict: torch.save(model.state_dict(), ...).")
    size = os.fstat(file.fileno()).st_size
    spans = {
        name.removeprefix(roots[0]): _span(file, info, size, path)
        for name, info in entries.items()
        if name.startswith(roots[0])
    }
    _check_byte_order(_read_span(file, spans.get("byteorder", (0, 0))) or b"little", path)
    header = _read_span(file, spans["data.pkl"])
    if zlib.crc32(header) != entries[f"{roots[0]}data.pkl"].CRC:
        raise CheckpointError(f"{path} is damaged: the checksum of data.pkl is not the one in the archive's directory.")
    saved = _Pickles(io.BytesIO(header), path).load()
    data = {name.removeprefix("data/"): span for name, span in spans.items() if name.startswith("data/")}
    return _Contents(saved, header, data)


def _entries(file: BinaryIO, path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, struct.error) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged: the directory at the archive's end is missing or wrong ({error!s:.100})."
        ) from error
    entries = {info.filename: info for info in infos}
    if len(entries) != len(infos):
        raise CheckpointError(f"{path} is damaged: its archive holds two entries of one name.")
    return entries


def _span(file: BinaryIO, info: zipfile.ZipInfo, size: int, path: Path) -> tuple[int, int]:
    """Range of an entry's bytes in the file; the directory gives the offset of its local header."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise UnsupportedFormat(
            f"{path}: {info.filename!r:.80} is compressed or encrypted in the archive; torch.save does neither. "
            "Load and save it again with torch."
        )
    local = read_at(file.fileno(), _LOCAL_HEADER.size, max(0, info.header_offset))
    if len(local) == _LOCAL_HEADER.size and info.header_offset >= 0:
        signature, name_nbytes, extra_nbytes = _LOCAL_HEADER.unpack(local)
        start = info.header_offset + _LOCAL_HEADER.size + name_nbytes + extra_nbytes
        if signature == b"PK\x03\x04" and start + info.file_size <= size:
            return start, start + info.file_size
    raise CheckpointError(f"{path} is truncated or damaged: {info.filename!r:.80} is not where the archive says.")


def _read_span(file: BinaryIO, span: tuple[int, int]) -> bytes:
    nbytes = span[1] - span[0]
    if nbytes > MAX_PICKLE_NBYTES:
        raise CheckpointError(f"{file.name}: its pickle has {nbytes} bytes; polyak reads at most {MAX_PICKLE_NBYTES}.")
    return read_at(file.fileno(), nbytes, span[0])


def _check_byte_order(order: bytes, path: Path) -> None:
    if order != b"little":
        raise UnsupportedFormat(
            f"{path} was written on a big-endian machine (byte order {order!r:.20}). Load and save it again on another."
        )


def _read_legacy(file: BinaryIO, start: bytes, path: Path) -> _Contents:
    if start[257:262] == b"ustar":
        raise UnsupportedFormat(f"{path} is a tar archive of PyTorch before 0.1.10. Load and save it again with torch.")
    if not start.startswith(b"\x80"):
        raise CheckpointError(f"{path} is not a PyTorch file: it begins with {start[:8]!r}. It may be truncated.")
    pickles = _Pickles(file, path)
    if pickles.load() != _LEGACY_MAGIC or pickles.load() != _LEGACY_PROTOCOL:
        raise UnsupportedFormat(f"{path} is a pickle, but not one of torch.save.")
    system = pickles.load()
    little = isinstance(system, dict) and cast("dict[Any, Any]", system).get("little_endian")
    _check_byte_order(b"little" if little else b"big", path)
    saved, keys = pickles.load(), pickles.load()
    header_nbytes = file.tell()
    spans = _legacy_spans(file, keys, pickles.itemsize, path)
    return _Contents(saved, read_at(file.fileno(), header_nbytes, 0), spans)


def _legacy_spans(file: BinaryIO, keys: Any, itemsize: Mapping[str, int], path: Path) -> dict[str, tuple[int, int]]:
    """The storages follow the pickles in the order of `keys`, each with its number of elements before it."""
    if not isinstance(keys, list) or not all(type(key) is str for key in cast("list[Any]", keys)):
        raise CheckpointError(f"{path} is damaged: its list of storages is not a list of names.")
    size, position = os.fstat(file.fileno()).st_size, file.tell()
    spans: dict[str, tuple[int, int]] = {}
    for key in cast("list[str]", keys):
        numel = int.from_bytes(read_at(file.fileno(), 8, position), "little")
        start = position + 8
        position = start + numel * itemsize.get(key, 0)
        if key not in itemsize or key in spans or position > size:
            raise CheckpointError(f"{path} is truncated or damaged at storage {key!r:.80}, byte {start}.")
        spans[key] = start, position
    return spans


class _Pickles:
    """The pickles of one file, in order, and the storages that they refer to."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._where = file, str(path)
        self.itemsize: dict[str, int] = {}

    def load(self) -> Any:
        return Unpickler(self._file, self._where, self._global, self._storage).load()

    def _global(self, module: str, name: str) -> object:
        return find_global(module, name, self._where)

    def _storage(self, saved: Any) -> Storage:
        """The meaning of a persistent id: ("storage", class, key, device, numel) and in old files a view."""
        tag, kind, key, _, numel, *rest = saved
        if tag != "storage" or not isinstance(kind, Named) or type(key) is not str or type(numel) is not int:
            raise TypeError("a persistent id is not a storage")
        storage = Storage(key, max(0, numel) * kind.itemsize, kind.dtype, kind.name)
        self.itemsize.setdefault(key, kind.itemsize)
        view = rest[0] if rest else None
        if view is None:
            return storage
        _, offset, view_numel = view
        if type(offset) is not int or type(view_numel) is not int or not 0 <= offset <= offset + view_numel <= numel:
            raise ValueError("a view lies outside of its storage")
        return replace(storage, start=offset * kind.itemsize, nbytes=view_numel * kind.itemsize)
