"""Folders of many modules, and of many other files, that strangers lay out to keep a reader busy or to lead it away."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint import carried
from polyak.errors import CheckpointError

from ..engine.conftest import write_model


def _modules(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps([{"path": name} for name in names]))


@pytest.mark.slow
def test_modules_that_links_multiply_are_refused(tmp_path: Path):
    for i in range(20):
        _modules(tmp_path / str(i), "a", "b")
        for name in ("a", "b"):
            (tmp_path / str(i) / name).symlink_to(tmp_path / str(i + 1))
    _modules(tmp_path / "20")
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "0"}]))
    with pytest.raises(CheckpointError, match="names more than 1000 modules"):
        checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "away"])
def test_a_module_elsewhere_is_refused(tmp_path: Path, name: str):
    write_model(tmp_path / "elsewhere", {"w": np.ones(2, np.float32)})
    _modules(tmp_path / "model", name)
    (tmp_path / "model" / "away").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="out of the folder"):
        checkpoint.open(tmp_path / "model")


def test_brackets_without_end_in_modules_are_refused(tmp_path: Path):
    (tmp_path / "modules.json").write_text("[" * 5_000_000)
    with pytest.raises(CheckpointError, match=r"modules\.json is not JSON: it has more than"):
        checkpoint.open(tmp_path)


def test_folders_within_folders_are_refused(tmp_path: Path):
    (tmp_path / "/".join("a" * 60)).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="nested more than 20 deep"):
        carried(tmp_path, [""], [])


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["polyak.checkpoint.carried"], "_MOST_FILES", 3)  # its door is a function
    for i in range(4):
        (tmp_path / f"{i}.txt").touch()
    with pytest.raises(CheckpointError, match="more than 3 files"):
        carried(tmp_path, [""], [])


def test_a_config_that_is_a_link_is_not_read_beside_an_adapter(tmp_path: Path):
    from ..adapters.made import write_adapter

    write_model(tmp_path / "base", {"layer.weight": np.ones((4, 4), np.float32)})
    (tmp_path / "base" / "config.json").unlink(missing_ok=True)
    (tmp_path / "base" / "config.json").symlink_to("/etc/passwd")
    write_adapter(tmp_path / "adapter", shapes={"layer": (4, 4)})
    with pytest.raises(CheckpointError, match="link out of the folder"):
        checkpoint.with_lora(checkpoint.open(tmp_path / "base" / "model.safetensors"), tmp_path / "adapter")
