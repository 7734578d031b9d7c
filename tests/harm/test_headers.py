"""Headers, indexes and pickles that are small and claim, repeat or copy much."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint.pickle import unpickler
from polyak.errors import CheckpointError, UnsupportedFormat

from ..engine.conftest import write_model
from .made import archive, at_most, entry, header, tensor

SHAPE = b"(" + b"K\x01" * 1000 + b"t"


def repeated(start: bytes, again: bytes, times: int) -> bytes:
    return b"\x80\x02" + start + again * times + b"."


ENTRIES = b"".join(b"M" + i.to_bytes(2, "little") + b"K\0" for i in range(1000))
PROGRAMS = {
    # Five bytes copy a thousand entries, again and again.
    "mapping": repeated(b"ccollections\nOrderedDict\nq\x01}(" + ENTRIES + b"uq\x02", b"h\x01h\x02\x85R0", 20_000),
    "size": repeated(b"ctorch\nSize\nq\x01" + SHAPE + b"q\x02", b"h\x01h\x02\x85R0", 20_000),
    "tuples": repeated(SHAPE + b"q\x020", b"(h\x02h\x02h\x02t", 1_000_000),
    "lists": repeated(b"", b"]", 2_000_000),
    "memo": repeated(b"", b"}\x94", 1_000_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_pickle_cannot_allocate_more_than_its_budget(tmp_path: Path, program: bytes, monkeypatch):
    monkeypatch.setattr(unpickler, "MAX_HELD_NBYTES", 1 << 24)  # a ninety-sixth, to be quick
    path = archive(tmp_path / "a.pt", program)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"builds objects of more than \d+ bytes"):
        checkpoint.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (1 << 26) + 3 * len(program)


def test_calls_nested_in_calls_are_refused(tmp_path: Path):
    nested = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x01)"
    for _ in range(3000):
        nested += b"q\x02" + b"0(h\x01K\0h\x02K\0t"
    path = archive(tmp_path / "a.pt", b"\x80\x02" + nested + b"q\x020h\x01h\x02R.")
    with pytest.raises(CheckpointError, match="invalid"):
        checkpoint.open(path)


def test_long_keys_are_not_joined_into_paths(tmp_path: Path):
    key = b"X" + (500_000).to_bytes(4, "little") + b"k" * 500_000
    inner = b"".join(b"M" + i.to_bytes(2, "little") + b"}h\x01" + tensor() + b"s" for i in range(500))
    path = archive(tmp_path / "a.pt", b"\x80\x02}" + key + b"q\x01}(" + inner + b"us.")
    with at_most(5), pytest.raises(CheckpointError, match="in 500 places") as caught:
        checkpoint.open(path)
    assert len(str(caught.value)) < 5000


def test_a_view_that_repeats_a_few_bytes_for_ever_is_refused(tmp_path: Path):
    numel = b"\x8a\x08" + (2**48).to_bytes(8, "little")
    path = archive(tmp_path / "a.pt", b"\x80\x02}X\x01\0\0\0w" + tensor(numel + b"\x85", b"K\0\x85") + b"s.")
    with pytest.raises(UnsupportedFormat, match=r"repeats 24 stored bytes to \d+.*contiguous"):
        checkpoint.open(path)


def test_a_small_view_that_repeats_elements_is_read(tmp_path: Path):
    path = archive(tmp_path / "a.pt", b"\x80\x02}X\x01\0\0\0w" + tensor(b"K\x04K\x03\x86", b"K\0K\x01\x86") + b"s.")
    assert checkpoint.open(path).read("w").shape == (4, 3)


def test_an_index_that_names_a_tensor_twice_is_refused_in_linear_time(tmp_path: Path):
    write_model(tmp_path, {"w": np.zeros(1, np.float32)})
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    names = [*(f"t{i}" for i in range(100_000)), "t99999"]
    pairs = ",".join(f'"{name}":"a.safetensors"' for name in names)
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{pairs}}}}}')
    with at_most(3), pytest.raises(CheckpointError, match="'t99999' is named twice"):
        checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "text", [b"[" * 5_000_000, b"[" * 100_000, b'{"a":' * 1_000_000, b"[" + b"{}," * 4_100_000 + b"{}]"]
)
def test_a_flood_of_brackets_is_refused(tmp_path: Path, text: bytes):
    with at_most(4), pytest.raises(CheckpointError, match=r"lists and objects|nested|not JSON|must be a JSON"):
        checkpoint.open(header(tmp_path / "a.safetensors", text))
    (tmp_path / "config.json").write_bytes(text)
    with at_most(4), pytest.raises(CheckpointError, match=r"lists and objects|nested|not JSON"):
        checkpoint.read_json(tmp_path / "config.json")


def test_a_config_of_900_levels_is_refused_when_it_is_read(tmp_path: Path):
    write_model(tmp_path, {"w": np.zeros(1, np.float32)})
    (tmp_path / "config.json").write_text('{"a":' * 900 + "1" + "}" * 900)
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON: it is nested more than 100 levels deep"):
        checkpoint.open(tmp_path)


def test_a_lone_surrogate_is_refused_when_it_is_read(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"a": "\\ud800 and \\ud83d\\ude00"}')
    with pytest.raises(CheckpointError, match="lone surrogate"):
        checkpoint.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"a": "\\ud83d\\ude00"}')
    assert checkpoint.read_json(tmp_path / "config.json") == {"a": "\N{GRINNING FACE}"}


@pytest.mark.slow
def test_metadata_of_53_million_characters_is_refused(tmp_path: Path):
    with at_most(4), pytest.raises(CheckpointError, match=r"__metadata__ has more than 16,000,000 characters"):
        checkpoint.open(header(tmp_path / "a.safetensors", {"__metadata__": {"a": "x" * 53_000_000}, "w": entry()}, 4))


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_name_of_a_million_characters_is_refused(tmp_path: Path, kind: str):
    name = "a." * 500_000
    if kind == "safetensors":
        path = header(tmp_path / "a.safetensors", {name: entry()}, 4)
    else:
        text = b"X" + len(name).to_bytes(4, "little") + name.encode()
        path = archive(tmp_path / "a.pt", b"\x80\x02}" + text + tensor() + b"s.")
    with at_most(3), pytest.raises(CheckpointError, match="name has 1,000,000 characters") as caught:
        checkpoint.open(path)
    assert len(str(caught.value)) < 500


def test_a_file_that_claims_a_petabyte_is_refused(tmp_path: Path):
    path = header(tmp_path / "a.safetensors", {"w": {"dtype": "F32", "shape": [2**48], "data_offsets": [0, 2**50]}})
    with pytest.raises(CheckpointError, match=r"truncated.*need 1125899906842624 bytes"):
        checkpoint.open(path)
    try:
        os.truncate(path, path.stat().st_size + 2**42)
    except OSError:
        pytest.skip("this file system has no files of this size")
    with pytest.raises(CheckpointError, match=r"claims \d+ bytes, of which \d+ are stored"):
        checkpoint.open(path)


def test_a_directory_of_an_archive_that_is_longer_than_memory_is_refused(tmp_path: Path):
    path = archive(tmp_path / "a.pt", b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\5\6")
    data[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"2147483648 bytes, of which at most"):
        checkpoint.open(path)


def test_a_deep_json_recipe_is_refused(tmp_path: Path):
    from polyak import recipe
    from polyak.errors import RecipeError

    (tmp_path / "r.json").write_text(json.dumps({"method": "linear"})[:-1] + ', "a": ' + "[" * 900 + "]" * 900 + "}")
    with pytest.raises(RecipeError, match="nested more than 100 levels"):
        recipe.load(tmp_path / "r.json")
