"""The registry of checkpoint formats is the one place that knows suffixes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import polyak
from polyak import checkpoint
from polyak.checkpoint import MemoryCheckpoint, checkpoint_format, formats
from polyak.errors import CheckpointError, DeclarationError, UnsupportedFormat

SOURCE = Path(polyak.__file__).parent


@pytest.fixture
def raw():
    @checkpoint_format(".raw", in_folders=(".raw",))
    def open_raw(path: Path) -> checkpoint.Checkpoint:
        """Numbers, one after another."""
        return MemoryCheckpoint({"w": np.frombuffer(path.read_bytes(), np.float32)})

    yield open_raw
    del formats.registry[".raw"]


def test_a_new_format_is_known_wherever_suffixes_matter(raw, tmp_path):
    (tmp_path / "model.raw").write_bytes(np.ones(3, np.float32).tobytes())
    assert checkpoint.open(tmp_path / "model.raw").read("w").tolist() == [1, 1, 1]
    assert ".raw" in formats.suffixes() and formats.suffixes_in_folders() == (".safetensors", ".bin", ".raw")
    from polyak.checkpoint.hub import _patterns_to_download
    from polyak.checkpoint.pipeline import models_in

    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.raw").touch()
    assert models_in(tmp_path) == [tmp_path / "unet"]
    assert {"*.raw", "*.safetensors", "*.bin", "*.json"} <= set(_patterns_to_download())


def test_suffixes_are_taken_once_and_foreign_ones_never(raw):
    for suffix, message in ((".raw", "both declare the checkpoint format '.raw'"), (".gguf", "be free; got '.gguf'")):
        with pytest.raises(DeclarationError, match=message):
            checkpoint_format(suffix)(raw)
    with pytest.raises(DeclarationError, match="begin with a dot"):
        checkpoint_format("raw")(raw)


def test_an_unknown_suffix_is_answered_with_the_known_ones(tmp_path):
    (tmp_path / "model.xyz").touch()
    with pytest.raises(UnsupportedFormat, match=r"\.bin, \.ckpt, \.pt, \.pth, \.safetensors or \.sparse"):
        checkpoint.open(tmp_path / "model.xyz")


def test_no_other_place_lists_suffixes():
    several = re.compile(r"""["']\.(safetensors|bin|pt|pth|ckpt)["'],\s*["']\.(safetensors|bin|pt|pth|ckpt)["']""")
    listing = [p.name for p in SOURCE.rglob("*.py") if several.search(p.read_text()) and p.parent.name != "formats"]
    assert listing == []


@pytest.mark.parametrize("at", [".", "model.safetensors"])
def test_a_key_where_none_can_be_chosen_is_refused(tmp_path, at):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"eave out the key"):
        checkpoint.open(tmp_path / at, key="model")


@pytest.mark.parametrize("path", ["x" * 3000, "~nobody-of-this-name/model", "a\nb"])
def test_a_path_that_cannot_exist_does_not_exist(tmp_path, path):
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.locate(path, tmp_path)
