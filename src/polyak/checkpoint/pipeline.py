"""Pipelines as diffusers lays them out: a folder of several models, each in a folder of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnsupportedFormat

INDEX = "model_index.json"
OWN_STEM = "diffusion_pytorch_model"  # what the files of its own models begin with, not those of transformers


def stem_of(config: Mapping[str, Any]) -> str:
    """What the library that reads a model with this config expects its files to begin with."""
    return OWN_STEM if "_diffusers_version" in config else "model"


def refuse_pipeline(folder: Path) -> None:
    """Refuse a pipeline, whose models are merged one at a time.

    Raises:
        UnsupportedFormat: always; it names the models of the pipeline and the command for each.
    """
    commands = "".join(f"\n  polyak merge {name}.yaml OUT/{name} --force" for name in _models(folder))
    if not commands:
        raise UnsupportedFormat(f"{folder} is a pipeline ({INDEX}), and none of its folders holds weights.")
    raise UnsupportedFormat(
        f"{folder} is a pipeline of several models ({INDEX}), which are merged one at a time. Copy it to OUT, write a "
        f"recipe for each model that is to be merged, in which every path ends with the folder of that model, and put "
        f"the results in place:{commands}"
    )


def _models(folder: Path) -> list[str]:
    held = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return [shlex.quote(path.name) for path in held if any(path.glob("*.safetensors")) or any(path.glob("*.bin"))]
