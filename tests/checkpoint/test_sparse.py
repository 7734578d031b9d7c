"""Compact files of sparse models give the same bytes back, tell their sparsity, and are refused when damaged."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak.checkpoint import MemoryCheckpoint, SparseFile, write_sparse
from polyak.errors import CheckpointError

RNG = np.random.default_rng(0)


def sparse(shape, dtype=np.float32, share=0.1):
    values = RNG.normal(size=shape)
    values[RNG.random(shape) >= share] = 0
    return values.astype(dtype)


TENSORS = {
    "layer.weight": sparse((300, 401)),
    "half": sparse((17, 5), ml_dtypes.bfloat16),
    "double": sparse((9, 3), np.float64),
    "signed": np.array([0.0, -0.0, 1.0] + [0.0] * 20, np.float32),
    "zeros": np.zeros((40, 2), np.float32),
    "dense": RNG.normal(size=(4, 4)).astype(np.float32),
    "scalar": np.float32(2.0).reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "count": np.array(7, np.int64),
}


@pytest.fixture
def file(tmp_path):
    write_sparse(MemoryCheckpoint(TENSORS), tmp_path / "model.sparse")
    return tmp_path / "model.sparse"


def test_every_tensor_comes_back_bit_for_bit(file):
    with polyak.open(file) as model:
        assert isinstance(model, SparseFile)
        assert set(model.specs) == set(TENSORS)
        for name, tensor in TENSORS.items():
            read = model.read(name)
            assert read.shape == tensor.shape
            assert read.tobytes() == tensor.tobytes(), name


def test_any_range_is_read(file, monkeypatch):
    from polyak.checkpoint import sparse as module

    monkeypatch.setattr(module, "_BLOCK", 64)
    whole = TENSORS["layer.weight"].ravel()
    with polyak.open(file) as model:
        for start, stop in [
            (0, 1),
            (63, 65),
            (64, 128),
            (5, 5),
            (120_000, 120_300),
            *RNG.integers(120_300, size=(50, 2)),
        ]:
            first, last = sorted((int(start), int(stop)))
            out = np.empty(4 * (last - first), np.uint8)
            model.read_into("layer.weight", first, last, out)
            assert out.tobytes() == whole[first:last].tobytes()


def test_it_is_smaller_and_tells_its_sparsity_without_reading(file, polyak_main, capsys):
    dense = sum(tensor.nbytes for tensor in TENSORS.values())
    assert file.stat().st_size < 0.15 * dense + 8192  # 0.1 of 32 bits and 1 bit per entry, and the header
    polyak_main("inspect", str(file))
    shown = capsys.readouterr().out
    share = 1 - np.count_nonzero(TENSORS["layer.weight"]) / TENSORS["layer.weight"].size
    assert f"{share:.2%} zero" in shown
    assert "of the entries are zero" in shown
    polyak_main("inspect", str(file), "--json")
    assert 0.89 < json.loads(capsys.readouterr().out)["sparsity"] < 0.91


def test_it_merges_like_the_dense_model(file, tmp_path):
    merged = [
        polyak.plan({"models": [{"name": "a", "path": path}, {"name": "b", "path": TENSORS}], "method": "linear"})
        for path in (TENSORS, str(file))
    ]
    from polyak.engine import run_in_memory

    first, second = (run_in_memory(plan) for plan in merged)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_ties_survive(tmp_path):
    table = sparse((50, 8))
    write_sparse(MemoryCheckpoint({"embedding": table, "head": table}), tmp_path / "tied.sparse")
    with polyak.open(tmp_path / "tied.sparse") as model:
        assert dict(model.ties) == {"head": "embedding"}


def damaged(file, change):
    """The file with another header or other bytes."""
    from polyak.checkpoint import SafetensorsFile

    with SafetensorsFile(file) as opened:
        tensors, metadata = {name: opened.read(name) for name in opened.specs}, dict(opened.metadata)
    change(tensors, metadata)
    from safetensors.numpy import save_file

    save_file(tensors, file, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.pop("polyak"), "is not a compact file of a sparse model"),
        (lambda t, m: m.update(shapes="[]"), "its shapes are not a JSON object"),
        (lambda t, m: m.update(shapes='{"layer.weight": [-1]}'), "the shape of 'layer.weight' is"),
        (lambda t, m: m.update(shapes='{"layer.weight": [300, 400]}'), "bits or values of 'layer.weight'"),
        (lambda t, m: m.update(ties='{"a": 1}'), "its ties are not text"),
        (lambda t, m: t.pop("layer.weight:bits"), "bits or values of 'layer.weight' are missing"),
        (lambda t, m: t.update({"stray:bits": np.zeros(1, np.uint8)}), "its tensors are not those of its metadata"),
        (lambda t, m: t["layer.weight:bits"].__setitem__(0, 255), "values for"),
    ],
)
def test_a_damaged_file_is_refused(file, change, message):
    pytest.importorskip("safetensors")
    damaged(file, change)
    with pytest.raises(CheckpointError, match=message), polyak.open(file) as model:
        model.read("layer.weight")


@pytest.fixture
def polyak_main(monkeypatch):
    """The command, in this process."""
    import sys

    from polyak.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["polyak", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code

    return call
