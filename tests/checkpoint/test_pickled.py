"""PyTorch files: agreement with torch.load, and pickles that want more than to be read."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak import checkpoint
from polyak.checkpoint.pickle import strides as _strided
from polyak.checkpoint.pickle.unpickler import MAX_PICKLE_NBYTES
from polyak.errors import CheckpointError, InputChanged, UnsupportedFormat

both_formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(obj: Any, path: Path, *, zipped: bool = True, protocol: int = 2) -> Path:
    torch = pytest.importorskip("torch")
    torch.save(obj, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def assert_same(opened: checkpoint.Checkpoint, tensors: dict[str, Any]) -> None:
    import torch

    assert sorted([*opened.specs, *opened.ties]) == sorted(tensors)
    for name, want in tensors.items():
        bits = want.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert opened.read(name).tobytes() == bits, name
        assert opened.spec(name).shape == tuple(want.shape), name


def assert_refused(path: Path, *words: str, kind: type[Exception] = CheckpointError, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        checkpoint.open(path, **options)
    for word in (path.name, *words):
        assert word in str(caught.value)


# What is read


@both_formats
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_tensor_reads_as_torch_loads_it(tmp_path: Path, zipped: bool, protocol: int):
    torch = pytest.importorskip("torch")
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    if zipped:  # torch.load does not read them from the legacy files that torch.save writes
        kinds += ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"]
    tensors = {kind: (torch.arange(15).reshape(3, 5) % 3).to(getattr(torch, kind)) for kind in kinds}
    tensors |= {"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4), "parameter": torch.nn.Parameter(torch.ones(2))}
    path = save(tensors, tmp_path / "a.pt", zipped=zipped, protocol=protocol)
    assert_same(checkpoint.open(path), torch.load(path, weights_only=False))


@both_formats
def test_strided_tensors_are_in_row_major_order(tmp_path: Path, zipped: bool):
    torch = pytest.importorskip("torch")
    whole = torch.arange(5 * 6 * 7, dtype=torch.float32).reshape(5, 6, 7)
    tensors = {
        "whole": whole,
        "transposed": whole.transpose(0, 2),
        "permuted": whole.permute(1, 2, 0),
        "sliced": whole[1:4, ::2, 3:],
        "expanded": whole[:, :1, :1].expand(5, 4, 3),
        "diagonal": whole[:, :5, 0].diagonal(),
        "column": whole[:, 2, 2],
        "windows": whole.reshape(-1).as_strided((4, 9), (3, 2), 5),
    }
    opened = checkpoint.open(save(tensors, tmp_path / "a.pt", zipped=zipped))
    assert not opened.ties
    assert_same(opened, tensors)
    for name, tensor in tensors.items():
        flat = tensor.reshape(-1).numpy()
        for start, stop in [(0, 1), (1, 5), (2, flat.size), (flat.size - 1, flat.size), (3, 3)]:
            out = np.empty((stop - start) * 4, np.uint8)
            opened.read_into(name, start, stop, out)
            assert out.tobytes() == flat[start:stop].tobytes()


@both_formats
def test_the_same_view_of_a_storage_is_tied_and_another_is_not(tmp_path: Path, zipped: bool):
    torch = pytest.importorskip("torch")
    weight = torch.randn(4, 4)
    tensors = {"embed": weight, "head": weight, "again": weight[:], "turned": weight.t(), "part": weight[:2]}
    opened = checkpoint.open(save(tensors, tmp_path / "a.pt", zipped=zipped))
    assert opened.ties == {"head": "embed", "again": "embed"}
    assert_same(opened, tensors)


@both_formats
def test_a_module_s_state_dict_is_read(tmp_path: Path, zipped: bool):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    assert_same(checkpoint.open(save(module.state_dict(), tmp_path / "a.pth", zipped=zipped)), module.state_dict())


@both_formats
def test_what_lies_beside_the_weights_is_ignored(tmp_path: Path, zipped: bool):
    torch = pytest.importorskip("torch")
    import argparse

    module = torch.nn.Linear(3, 4)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimiser.step()
    saved = {
        "state_dict": module.state_dict(), "optimizer_states": [optimiser.state_dict()],
        "optimizer": optimiser.state_dict(), "epoch": 3, "loss": 0.5, "big": 2**70, "name": "é", "path": Path("x"),
        "set": {1, 2}, "frozen": frozenset({1}), "args": argparse.Namespace(lr=0.1),
        "dtype": torch.float32, "shape": torch.Size([1]), "device": torch.device("cpu"),
        "numpy": np.float64(1.5), "array": np.zeros(2), "bytes": b"x", "bytearray": bytearray(b"x"), "complex": 1j,
        "counter": collections.Counter("aab"), "default": collections.defaultdict(list, {"a": [1]}), "none": None,
    }  # fmt: skip
    path = save(saved, tmp_path / "a.ckpt", zipped=zipped)
    assert_same(checkpoint.open(path), module.state_dict())
    assert_same(checkpoint.open(path, key="state_dict"), module.state_dict())


@pytest.mark.parametrize("nested", [False, True])
def test_the_state_of_an_optimizer_is_no_model(tmp_path: Path, nested: bool):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 4, bias=False)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    path = save({"optimizer": state, "epoch": 1} if nested else state, tmp_path / "saved.pt", zipped=True)
    with pytest.raises(UnsupportedFormat, match=r"holds the state of an optimizer and no model\. Name the file"):
        checkpoint.open(path)


def test_a_key_is_a_dotted_path_whose_parts_may_have_dots(tmp_path: Path):
    torch = pytest.importorskip("torch")
    saved = {"model": {"ema": {"w": torch.ones(1)}, "raw.x": {"w": torch.zeros(1)}}, "w": torch.full((1,), 2.0)}
    path = save(saved, tmp_path / "a.pt")
    for key, want in [("model.ema", 1), ("model.raw.x", 0), ("", 2)]:
        assert checkpoint.open(path, key=key).read("w") == want


def test_several_state_dicts_are_listed(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = save({"model": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}}, tmp_path / "a.pt")
    assert_refused(path, "2 places", "'model', 'ema'", "key")


def test_a_tensor_beside_the_state_dict_does_not_pass_for_the_model(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = save({"model": {"w": torch.ones(1)}, "rng_state": torch.get_rng_state()}, tmp_path / "a.pt")
    assert_refused(path, "''", "'model'", "key")
    assert list(checkpoint.open(path, key="model").specs) == ["w"]


def test_a_key_that_is_not_there_is_refused(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = save({"model": {"w": torch.ones(1)}, "other": {"n": 1}}, tmp_path / "a.pt")
    assert_refused(path, "'modle'", "Did you mean 'model'?", key="modle")
    assert_refused(path, "no tensors at key 'other'", "'model'", key="other")


@pytest.mark.parametrize("saved", [{}, {"epoch": 1}, [], 5, "text", None, {"a": {"b": {}}}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, saved: Any):
    assert_refused(save(saved, tmp_path / "a.pt"), "state dict")


def test_a_tensor_by_itself_is_no_state_dict(tmp_path: Path):
    torch = pytest.importorskip("torch")
    assert_refused(save(torch.ones(1), tmp_path / "a.pt"), "holds a tensor")


def test_tensors_must_be_named_by_text(tmp_path: Path):
    torch = pytest.importorskip("torch")
    assert_refused(save({0: torch.ones(1)}, tmp_path / "a.pt"), "named by strings; got 0")


def test_a_mapping_that_holds_itself_is_no_trap(tmp_path: Path):
    torch = pytest.importorskip("torch")
    saved: dict[str, Any] = {"deep": {}}
    saved["deep"] |= {str(i): saved for i in range(50)}
    assert_refused(save(saved, tmp_path / "a.pt"), "no state dict")
    saved["deep"]["model"] = {"w": torch.ones(1)}
    assert list(checkpoint.open(save(saved, tmp_path / "a.pt")).specs) == ["w"]


@both_formats
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path: Path, zipped: bool):
    torch = pytest.importorskip("torch")
    wrong = {
        "ComplexFloat": torch.zeros(2, dtype=torch.complex64),
        "sparse": torch.eye(2).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
        "meta device": torch.zeros(2, device="meta"),
        "float8_e4m3fnuz": torch.zeros(2).to(torch.float8_e4m3fnuz),
        "negated": torch._neg_view(torch.ones(2)),
    }
    for word, tensor in wrong.items():
        path = save({"fine": torch.ones(1), "w": tensor}, tmp_path / "a.pt", zipped=zipped)
        assert_refused(path, "'w'", word, kind=UnsupportedFormat)


def test_tensors_of_other_kinds_outside_of_the_model_are_ignored(tmp_path: Path):
    torch = pytest.importorskip("torch")
    saved = {"model": {"w": torch.ones(1)}, "cache": [torch.eye(2).to_sparse(), torch.zeros(1, dtype=torch.complex64)]}
    assert list(checkpoint.open(save(saved, tmp_path / "a.pt")).specs) == ["w"]


def test_torch_is_not_imported(tmp_path: Path):
    torch = pytest.importorskip("torch")
    script = (
        "import sys; from polyak import checkpoint as c\n"
        "assert c.open(sys.argv[1]).read('w').sum() == 10\n"
        "assert not {'torch', 'numba'} & set(sys.modules), 'imported'"
    )
    path = save({"w": torch.arange(5).float()}, tmp_path / "a.pt")
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


# Strided views

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(deadline=None)
@given(shapes, st.data(), st.sampled_from([8, 64, 1 << 20]), st.sampled_from([4, 16, 1 << 14]))
def test_gathering_equals_numpy_s_strides(shape: list[int], data: st.DataObject, window: int, far: int):
    stride = data.draw(st.lists(st.integers(0, 9), min_size=len(shape), max_size=len(shape)))
    numel = int(np.prod(shape))
    start = data.draw(st.integers(0, numel))
    stop = data.draw(st.integers(start, numel))
    memory = np.arange(_strided.reach(tuple(shape), tuple(stride)), dtype=np.uint16)
    want = np.lib.stride_tricks.as_strided(memory, shape, [2 * step for step in stride]).reshape(-1)[start:stop]
    largest = 0

    def read_into(out: np.ndarray, offset: int) -> None:
        nonlocal largest
        largest = max(largest, out.nbytes)
        out[:] = memory.view(np.uint8)[offset : offset + out.nbytes]

    out = np.empty(stop - start, np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_strided, "WINDOW_NBYTES", window)
        patch.setattr(_strided, "_FAR_NBYTES", far)
        _strided.gather(read_into, tuple(shape), tuple(stride), start, stop, out)
    np.testing.assert_array_equal(out, want)
    assert largest <= max(window, far, 2)


# Pickles that want to run something


class _Wants:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@both_formats
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (builtins.eval, ("open({!r}, 'w')",), ".eval"),
        (builtins.exec, ("open({!r}, 'w')",), ".exec"),
        (subprocess.call, (["touch", "{}"],), ".call"),
        (getattr, ("", "join"), ".getattr"),
        (open, ("{}", "w"), "io.open"),
    ],
)
def test_a_pickle_that_wants_to_run_code_is_refused_by_name(
    tmp_path: Path, zipped: bool, protocol: int, function: Any, args: tuple[Any, ...], name: str
):
    trace = tmp_path / "trace"
    filled = tuple([part.format(trace) for part in a] if isinstance(a, list) else a.format(str(trace)) for a in args)
    path = save({"w": _Wants(function, *filled)}, tmp_path / "a.pt", zipped=zipped, protocol=protocol)
    assert_refused(path, f"{name}; refused", kind=UnsupportedFormat)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_plain_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, protocol: int):
    trace = tmp_path / "trace"
    (tmp_path / "a.bin").write_bytes(pickle.dumps(_Wants(os.system, f"touch {trace}"), protocol))
    assert_refused(tmp_path / "a.bin")
    assert not trace.exists()


def test_a_whole_module_is_refused_with_a_remedy(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    assert_refused(path, "torch.nn.modules.linear.Linear; refused", "state_dict", kind=UnsupportedFormat)


def zip_with(path: Path, program: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in entries.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", data)
    return path


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0%dX\x03\0\0\0cpuK%ctQ"


def tensor_program(numel: int = 4, offset: int = 0, shape: int = 4, stride: int = 1) -> bytes:
    """A state dict with one vector "w" on storage 0."""
    numbers = [b"\x8a\x08" + struct.pack("<q", n) for n in (offset, shape, stride)]
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE % (0, numel) + numbers[0]
    tensor += b"(" + numbers[1] + b"t(" + numbers[2] + b"t\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x01\0\0\0w" + tensor + b"s."


def test_our_hand_made_archive_is_read(tmp_path: Path):
    path = zip_with(tmp_path / "a.pt", tensor_program(), data__0=np.arange(4, dtype="<f4").tobytes())
    assert list(checkpoint.open(path).read("w")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1}, {"shape": 5}, {"stride": 2}, {"numel": 5}, {"offset": 2**62},
        {"shape": 2**62}, {"stride": 2**62},
        {"offset": -1}, {"shape": -1}, {"stride": -1},
    ],
)  # fmt: skip
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path: Path, changes: dict[str, int]):
    path = zip_with(tmp_path / "a.pt", tensor_program(**changes), data__0=bytes(16))
    assert_refused(path)


def test_a_missing_storage_is_named(tmp_path: Path):
    assert_refused(zip_with(tmp_path / "a.pt", tensor_program(), data__1=bytes(16)), "'w'", "storage '0'", "missing")


def test_a_big_endian_file_is_refused(tmp_path: Path):
    path = zip_with(tmp_path / "a.pt", tensor_program(), data__0=bytes(16), byteorder=b"big")
    assert_refused(path, "big-endian", kind=UnsupportedFormat)


def test_a_legacy_big_endian_file_is_refused(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = save({"w": torch.ones(1)}, tmp_path / "a.pt", zipped=False)
    path.write_bytes(path.read_bytes().replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    assert_refused(path, "big-endian", kind=UnsupportedFormat)


@pytest.mark.parametrize("entry", ["archive/data.pkl", "archive/data/0"])
def test_a_compressed_archive_is_refused_by_name(tmp_path: Path, entry: str):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"archive/data.pkl": tensor_program(), "archive/data/0": bytes(1 << 20)}.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name == entry else zipfile.ZIP_STORED)
    assert_refused(path, entry, "compressed", kind=UnsupportedFormat)


def test_a_pickle_with_the_wrong_checksum_is_refused(tmp_path: Path):
    path = zip_with(tmp_path / "a.pt", tensor_program(), data__0=bytes(16))
    path.write_bytes(path.read_bytes().replace(b"FloatStorage", b"HalfStorage\n"))
    assert_refused(path, "checksum")


def test_two_entries_of_one_name_are_refused(tmp_path: Path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("archive/data.pkl", tensor_program())
    assert_refused(path, "two entries")


def test_torchscript_and_other_archives_are_refused_by_name(tmp_path: Path):
    assert_refused(zip_with(tmp_path / "a.pt", b"", constants_pkl=b""), kind=CheckpointError)
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"")
        archive.writestr("m/constants.pkl", b"")
    assert_refused(tmp_path / "b.pt", "TorchScript", kind=UnsupportedFormat)
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        archive.writestr("readme.txt", b"")
    assert_refused(tmp_path / "c.pt", "not one of torch.save", kind=UnsupportedFormat)


@both_formats
def test_every_truncation_is_refused_at_open(tmp_path: Path, zipped: bool):
    torch = pytest.importorskip("torch")
    path = save({"w": torch.ones(4)}, tmp_path / "a.pt", zipped=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7 if zipped else 1):
        path.write_bytes(whole[:length])
        assert_refused(path)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(tmp_path: Path):
    torch = pytest.importorskip("torch")
    path = save({"w": torch.ones(400)}, tmp_path / "a.pt")
    opened = checkpoint.open(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputChanged):
        opened.read("w")
    opened.close()
    with pytest.raises(CheckpointError, match="is closed"):
        opened.read("w")


def test_an_archive_of_before_0_1_10_is_refused_by_name(tmp_path: Path):
    import tarfile

    with tarfile.open(tmp_path / "a.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    assert_refused(tmp_path / "a.pt", "tar archive", kind=UnsupportedFormat)


def test_a_plain_pickle_is_refused_by_name(tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"w": [1.0]}))
    assert_refused(tmp_path / "a.pt", "not one of torch.save", kind=UnsupportedFormat)


@pytest.mark.parametrize("start", [b"", b"GGUF\x03\0\0\0", b"{}", b"\x89HDF"])
def test_another_file_is_refused_by_its_beginning(tmp_path: Path, start: bytes):
    (tmp_path / "a.bin").write_bytes(start)
    assert_refused(tmp_path / "a.bin", repr(start))


BOMBS = {
    "deep lists": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 50_000 + b".",
    "doubling tuples as a key": b"\x80\x02})" + b"2\x86" * 200 + b"Ns.",
    "doubling tuples in a set": b"\x80\x04\x8f()" + b"2\x86" * 200 + b"\x90.",
    "a memo of 2**31": b"\x80\x02]r\xff\xff\xff\x7f.",
    "text of 4 GiB": b"\x80\x02X\xff\xff\xff\xff.",
    "text of 2**63 bytes": b"\x80\x04\x8d" + b"\xff" * 8 + b".",
    "bytes of 2**62 bytes": b"\x80\x05\x96" + b"\0" * 7 + b"\x40.",
    "a number of 2**31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a frame of 2**63": b"\x80\x04\x95" + b"\xff" * 8 + b".",
    "marks": b"\x80\x02" + b"(" * 50_000 + b".",
    "an empty stack": b"\x80\x02\x85.",
    "no end": b"\x80\x02N",
    "an unknown operation": b"\x80\x02\xff.",
    "an extension": b"\x80\x02\x82\x01.",
    "an endless name": b"\x80\x02c" + b"a" * 5000 + b".",
    "a call of text": b"\x80\x02X\x01\0\0\0a)R.",
    "state of a tensor": tensor_program()[:-2] + b"}bs.",
    "state of a function": b"\x80\x02ctorch\nSize\n}X\x03\0\0\0runNsb.",
    "a persistent id of text": b"\x80\x02X\x01\0\0\0aQ.",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_within_a_second_and_without_much_memory(tmp_path: Path, bomb: str):
    import resource
    import time

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    assert_refused(zip_with(tmp_path / "a.pt", BOMBS[bomb], data__0=bytes(16)))
    assert time.process_time() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_pickle_of_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("polyak.checkpoint.pickle.file.MAX_PICKLE_NBYTES", 50)
    assert MAX_PICKLE_NBYTES > 50
    assert_refused(zip_with(tmp_path / "a.pt", tensor_program(), data__0=bytes(16)), "at most 50")
