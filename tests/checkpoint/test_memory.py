"""Checkpoints in memory: NumPy arrays and torch tensors."""

from __future__ import annotations

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint import DTYPES
from polyak.errors import CheckpointError, UnsupportedFormat


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_of_numpy_is_read_back(dtype: str):
    array = np.arange(6).reshape(2, 3).astype(DTYPES[dtype].numpy)
    opened = checkpoint.open({"w": array})
    assert opened.specs["w"].dtype.name == dtype
    assert opened.read("w").tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_of_torch_is_read_back(dtype: str):
    torch = pytest.importorskip("torch")
    names = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BF16": "bfloat16", "BOOL": "bool"}
    kind = getattr(torch, names.get(dtype) or {"F": "float", "I": "int", "U": "uint"}[dtype[0]] + dtype[1:])
    tensor = (torch.arange(6).reshape(2, 3) % 2).to(kind)
    opened = checkpoint.open({"w": tensor})
    assert opened.specs["w"].dtype.name == dtype
    assert opened.read("w").tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_scalars_and_empty_tensors_survive():
    opened = checkpoint.open(
        {"scalar": np.float32(3), "array": np.array(4, np.int64), "empty": np.zeros((0, 3), np.float32)}
    )
    assert [opened.specs[name].shape for name in opened.specs] == [(), (), (0, 3)]
    assert opened.read("scalar") == 3 and opened.read("array") == 4 and opened.read("empty").shape == (0, 3)


def test_torch_scalars_and_empty_tensors_survive():
    torch = pytest.importorskip("torch")
    opened = checkpoint.open({"scalar": torch.tensor(3.0).bfloat16(), "empty": torch.zeros(3, 0).bfloat16()})
    assert opened.read("scalar").shape == () and opened.read("scalar") == 3
    assert opened.read("empty").shape == (3, 0)


def test_ranges_of_strided_arrays_are_in_row_major_order():
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T[:, ::-1]
    out = np.empty(20, np.uint8)
    checkpoint.open({"w": array}).read_into("w", 2, 7, out)
    assert list(out.view(np.int32)) == list(array.reshape(-1)[2:7])


def test_strided_torch_tensors_are_in_row_major_order():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12).reshape(3, 4).t()
    np.testing.assert_array_equal(checkpoint.open({"w": tensor}).read("w"), tensor.numpy())


def test_a_negated_view_has_its_negated_values():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(4).float()
    np.testing.assert_array_equal(checkpoint.open({"w": torch._neg_view(tensor)}).read("w"), -tensor.numpy())


def test_parameters_that_require_gradients_are_read():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(checkpoint.open({"w": torch.nn.Parameter(torch.ones(2))}).read("w"), [1, 1])


@pytest.mark.parametrize("view", [lambda w: w, lambda w: w.T, lambda w: w[1:, ::2]])
def test_the_same_view_of_the_same_memory_is_tied(view):
    torch = pytest.importorskip("torch")
    for whole in (np.arange(12.0).reshape(3, 4), torch.arange(12.0).reshape(3, 4)):
        opened = checkpoint.open({"a": view(whole), "b": view(whole)})
        assert opened.ties == {"b": "a"} and list(opened.specs) == ["a"]
        np.testing.assert_array_equal(opened.read("b"), np.asarray(view(whole)))


def test_other_views_of_the_same_memory_are_not_tied():
    whole = np.arange(16.0).reshape(4, 4)
    views = {
        "whole": whole,
        "flat": whole.reshape(-1),
        "transposed": whole.T,
        "half": whole[:2],
        "bits": whole.view(np.int64),
    }
    opened = checkpoint.open(views)
    assert not opened.ties
    for name, want in views.items():
        np.testing.assert_array_equal(opened.read(name), want)


def test_other_views_of_the_same_torch_memory_are_not_tied():
    torch = pytest.importorskip("torch")
    whole = torch.arange(16.0).reshape(4, 4)
    views = {"whole": whole, "flat": whole.reshape(-1), "transposed": whole.T, "half": whole[:2]}
    opened = checkpoint.open(views)
    assert not opened.ties
    for name, want in views.items():
        np.testing.assert_array_equal(opened.read(name), want.numpy())


def test_empty_tensors_are_never_tied():
    empty = np.zeros(0, np.float32)
    assert not checkpoint.open({"a": empty, "b": empty}).ties


def test_empty_torch_tensors_are_never_tied():
    torch = pytest.importorskip("torch")
    empty = torch.zeros(0)
    assert not checkpoint.open({"a": empty, "b": empty}).ties


@pytest.mark.parametrize("wrong", [3, 2.0, "text", [1.0], None, {"a": 1}])
def test_what_is_no_tensor_is_refused_by_name(wrong):
    with pytest.raises(UnsupportedFormat, match=f"'step' is a {type(wrong).__name__}"):
        checkpoint.open({"step": wrong})


def test_names_must_be_text():
    with pytest.raises(CheckpointError, match="named by strings; got 0"):
        checkpoint.open({0: np.zeros(1)})


@pytest.mark.parametrize("array", [np.zeros(2, np.complex64), np.zeros(2, ">f4"), np.array(["a"]), np.zeros(2, object)])
def test_dtypes_that_we_cannot_read_are_refused_by_name(array):
    with pytest.raises(UnsupportedFormat, match=r"'w' has dtype"):
        checkpoint.open({"w": array})


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex", "float8_e4m3fnuz"])
def test_torch_tensors_that_we_cannot_read_are_refused_by_name(kind):
    torch = pytest.importorskip("torch")
    wrong = {
        "sparse": lambda: torch.eye(2).to_sparse(),
        "meta": lambda: torch.zeros(2, device="meta"),
        "complex": lambda: torch.zeros(2, dtype=torch.complex64),
        "float8_e4m3fnuz": lambda: torch.zeros(2).to(torch.float8_e4m3fnuz),
    }[kind]()
    with pytest.raises(UnsupportedFormat, match=f"'w'.*{kind}"):
        checkpoint.open({"w": wrong})
