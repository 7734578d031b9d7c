"""The safetensors reader: agreement with the safetensors package, and every way in which a file can lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak import checkpoint
from polyak.checkpoint import DTYPES, TensorSpec
from polyak.checkpoint.safetensors import ALIGNMENT, layout, parse_header
from polyak.errors import CheckpointError, InputChanged, UnsupportedFormat

NOWHERE = Path("model.safetensors")


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def assert_refused(path: Path, *words: str, kind: type[Exception] = CheckpointError) -> None:
    with pytest.raises(kind) as caught:
        checkpoint.open(path)
    for word in (path.name, *words):
        assert word in str(caught.value)


# What is read


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_reads_as_the_safetensors_package_wrote_it(dtype: str, tmp_path: Path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    names = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BF16": "bfloat16", "BOOL": "bool"}
    words = {"F": "float", "I": "int", "U": "uint"}
    kind = getattr(torch, names.get(dtype) or words[dtype[0]] + dtype[1:])
    tensors = {
        "matrix": (torch.arange(12).reshape(3, 4) % 5).to(kind),
        "scalar": torch.tensor(1).to(kind),
        "empty": torch.zeros(0, 7).to(kind),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    opened = checkpoint.open(tmp_path / "a.safetensors")
    assert opened.metadata == {"format": "pt"}
    for name, want in tensors.items():
        assert (opened.specs[name].dtype.name, opened.specs[name].shape) == (dtype, tuple(want.shape))
        assert opened.read(name).tobytes() == want.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_the_safetensors_package_reads_what_we_lay_out(tmp_path: Path):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    arrays = {"b": np.arange(6, dtype="<f4").reshape(2, 3), "a": np.array(3, "<i8"), "z": np.zeros((0, 2), "<f2")}
    specs = [TensorSpec(n, next(d for d in DTYPES.values() if d.numpy == a.dtype), a.shape) for n, a in arrays.items()]
    start, offsets = layout(specs, {"format": "pt"})
    file = bytearray(start + b"\0" * sum(s.nbytes for s in specs))
    for name, array in arrays.items():
        file[offsets[name] : offsets[name] + array.nbytes] = array.tobytes()
    (tmp_path / "a.safetensors").write_bytes(file)
    got = load_file(tmp_path / "a.safetensors")
    assert len(start) % ALIGNMENT == 0
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_ranges_are_read_without_the_rest(tmp_path: Path):
    opened = checkpoint.open(
        write(tmp_path / "a.safetensors", {"w": entry(0, 40, "I32", [2, 5])}, np.arange(10, dtype="<i4").tobytes())
    )
    out = np.empty(12, np.uint8)
    opened.read_into("w", 3, 6, out)
    assert list(out.view("<i4")) == [3, 4, 5]


def test_padding_after_the_header_is_allowed(tmp_path: Path):
    checkpoint.open(write(tmp_path / "a.safetensors", json.dumps({"w": entry(0, 1)}).encode() + b"   ", b"x"))


def test_tensors_may_be_listed_in_another_order_than_they_lie(tmp_path: Path):
    opened = checkpoint.open(write(tmp_path / "a.safetensors", {"b": entry(2, 5), "a": entry(0, 2)}, b"aabbb"))
    assert [bytes(opened.read(name)) for name in opened.specs] == [b"bbb", b"aa"]


def test_escapes_in_names_are_undone(tmp_path: Path):
    header = b'{"\\u0061\\u00e9\\ud83d\\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    assert list(checkpoint.open(write(tmp_path / "a.safetensors", header, b"x")).specs) == ["aé😀"]


# What is refused


@pytest.mark.parametrize("nbytes", range(8))
def test_a_file_without_a_whole_length_is_refused(tmp_path: Path, nbytes: int):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\0" * nbytes)
    assert_refused(path, f"has {nbytes} bytes")


def test_a_truncated_header_is_refused_by_name(tmp_path: Path):
    path = write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abcd")
    path.write_bytes(path.read_bytes()[:30])
    assert_refused(path, "truncated", "byte 30")


def test_a_truncated_body_is_refused_by_name(tmp_path: Path):
    path = write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abc")
    assert_refused(path, "truncated", "need 4 bytes", "has 3", "Download or copy it again")


def test_bytes_after_the_tensors_are_refused(tmp_path: Path):
    assert_refused(write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abcde"), "longer than its header states")


def test_a_huge_header_length_is_refused_before_anything_is_allocated(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert_refused(path, str(2**63))


def test_overlapping_tensors_are_refused(tmp_path: Path):
    assert_refused(
        write(tmp_path / "a.safetensors", {"v": entry(0, 4), "w": entry(2, 6)}, b"abcdef"), "'w'", "overlaps"
    )


def test_a_gap_between_tensors_is_refused(tmp_path: Path):
    assert_refused(
        write(tmp_path / "a.safetensors", {"v": entry(0, 2), "w": entry(4, 6)}, b"abcdef"), "'w'", "2 bytes unused"
    )


def test_offsets_beyond_the_data_are_refused(tmp_path: Path):
    assert_refused(write(tmp_path / "a.safetensors", {"w": entry(0, 10**18)}, b"abc"), "truncated")


@pytest.mark.parametrize("offsets", [[4, 0], [-4, 0], [0, 3], [0, 5]])
def test_offsets_that_contradict_the_shape_are_refused(tmp_path: Path, offsets: list[int]):
    header = {"w": {"dtype": "U8", "shape": [4], "data_offsets": offsets}}
    assert_refused(write(tmp_path / "a.safetensors", header, b"abcd"), "'w'", "takes 4 bytes")


@pytest.mark.parametrize(
    "header",
    [
        b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"w":5,"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"w":{"\\u0064type":"I8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"__metadata__":{"a":"1","a":"2"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b'{"__metadata__":{},"__metadata__":{},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    ],
)
def test_duplicate_keys_are_refused(tmp_path: Path, header: bytes):
    assert_refused(write(tmp_path / "a.safetensors", header, b"x"), "twice")


@pytest.mark.parametrize(
    "wrong",
    [
        5, None, [], "text", {}, {"dtype": "U8"}, {**entry(0, 1), "more": 1}, {**entry(0, 1), "shape": "1"},
        {**entry(0, 1), "data_offsets": [0]}, {**entry(0, 1), "data_offsets": [0, 1.0]},
        {**entry(0, 1), "dtype": ["U8"]},
        {**entry(0, 1), "data_offsets": [False, 1]},
        {**entry(0, 1), "data_offsets": [0, True]}, {**entry(0, 1), "data_offsets": "01"},
    ],
)  # fmt: skip
def test_entries_of_another_form_are_refused(tmp_path: Path, wrong: Any):
    assert_refused(write(tmp_path / "a.safetensors", {"w": wrong}, b"x"), "'w'", "needs exactly")


@pytest.mark.parametrize("shape", [[True], [-1], [1.0], ["1"], [2**63], [1] * 65, [[1]]])
def test_impossible_shapes_are_refused(tmp_path: Path, shape: list[Any]):
    assert_refused(write(tmp_path / "a.safetensors", {"w": {**entry(0, 1), "shape": shape}}, b"x"), "impossible shape")


@pytest.mark.parametrize("dtype", ["F4", "C64", "F8_E8M0", "u8", ""])
def test_dtypes_that_we_cannot_read_are_refused_by_name(tmp_path: Path, dtype: str):
    assert_refused(
        write(tmp_path / "a.safetensors", {"w": entry(0, 1, dtype)}, b"x"), repr(dtype), kind=UnsupportedFormat
    )


@pytest.mark.parametrize("metadata", [{"a": 1}, [], None, "text"])
def test_metadata_must_map_strings_to_strings(tmp_path: Path, metadata: Any):
    assert_refused(
        write(tmp_path / "a.safetensors", {"__metadata__": metadata, "w": entry(0, 1)}, b"x"), "__metadata__"
    )


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"5", b"{", b' {"w":1}', b"\xff\xfe", b'{"\\ud800":{}}', "{}".encode("utf-16")]
)
def test_headers_that_are_no_json_object_are_refused(tmp_path: Path, header: bytes):
    assert_refused(write(tmp_path / "a.safetensors", header), "header")


@pytest.mark.parametrize("header", [{"\ud800": entry(0, 1)}, {"__metadata__": {"a": "\udfff"}, "w": entry(0, 1)}])
def test_half_a_character_is_refused(tmp_path: Path, header: Any):
    assert_refused(write(tmp_path / "a.safetensors", header, b"x"), "surrogates not allowed")


@pytest.mark.parametrize("depth", [100, 990, 100_000])
@pytest.mark.parametrize(
    "wrap", [lambda n: b'{"w":' + b"[" * n + b"]" * n + b"}", lambda n: b'{"w":' * n + b"1" + b"}" * n]
)
def test_deep_nesting_is_refused(tmp_path: Path, depth: int, wrap: Callable[[int], bytes]):
    assert_refused(write(tmp_path / "a.safetensors", wrap(depth)))


def test_a_file_that_shrinks_while_it_is_open_is_noticed(tmp_path: Path):
    path = write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abcd")
    opened = checkpoint.open(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputChanged, match="truncated while being read"):
        opened.read("w")
    assert "bytes" in (opened.stamps[0].problem() or "")


def test_a_file_that_is_deleted_before_it_is_read_is_named(tmp_path: Path):
    path = write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abcd")
    opened = checkpoint.open(path)
    path.unlink()
    with pytest.raises(InputChanged, match="can no longer be opened"):
        opened.read("w")


def test_after_close_reading_is_an_error(tmp_path: Path):
    with checkpoint.open(write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abcd")) as opened:
        opened.read("w")
    with pytest.raises(CheckpointError, match="is closed"):
        opened.read("w")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path):
    path = write(tmp_path / "a.safetensors", {"w": entry(0, 4)}, b"abcd")
    path.chmod(0)
    assert_refused(path, "Permission denied")


# Properties

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name != "__metadata__")
specs = st.lists(
    st.builds(
        TensorSpec, names, st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 5), max_size=4).map(tuple)
    ),
    unique_by=lambda spec: spec.name,
    max_size=8,
)
metadatas = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
)


@pytest.mark.slow
@settings(deadline=None)
@given(specs, metadatas)
def test_what_is_laid_out_is_parsed_again(specs: list[TensorSpec], metadata: dict[str, str]):
    start, offsets = layout(specs, metadata)
    found, begins, metadata_found = parse_header(start[8:], sum(spec.nbytes for spec in specs), NOWHERE)
    assert found == {spec.name: spec for spec in specs}
    assert {name: begin + len(start) for name, begin in begins.items()} == offsets
    assert metadata_found == metadata
    assert all(offsets[s.name] % s.dtype.itemsize == 0 for s in specs)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(specs.filter(len), st.data())
def test_a_damaged_header_is_refused_or_consistent(specs: list[TensorSpec], data: st.DataObject):
    header = bytearray(layout(specs, {"format": "pt"})[0][8:].rstrip())
    nbytes = sum(spec.nbytes for spec in specs)
    if data.draw(st.booleans()):
        del header[data.draw(st.integers(0, len(header) - 1)) :]
    else:
        header[data.draw(st.integers(0, len(header) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found, begins, _ = parse_header(bytes(header), nbytes, NOWHERE)
    except CheckpointError:
        return
    spans = sorted((begins[name], begins[name] + spec.nbytes) for name, spec in found.items())
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans)][: len(spans)]
    assert (spans[-1][1] if spans else 0) == nbytes
