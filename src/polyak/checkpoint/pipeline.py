"""Pipelines in the layout of diffusers: a folder of several models, each in its own folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UnsupportedFormat
from . import formats
from ._api import Bytes, Checkpoint

INDEX = "model_index.json"
OWN_STEM = "diffusion_pytorch_model"  # beginning of the names of weight files of models of diffusers


def stem_of(config: Mapping[str, Any]) -> str:
    """Beginning of the names of weight files, by the library that reads a model with this config."""
    return OWN_STEM if "_diffusers_version" in config else "model"


class Pipeline(Checkpoint):
    """The models of a pipeline as one: every tensor's name begins with its model's folder, as in `unet/...`."""

    def __init__(self, folder: Path, components: Mapping[str, Checkpoint]) -> None:
        self.label, self.folder = str(folder), folder
        self._components = components
        self.specs = {
            f"{folder}/{name}": replace(spec, name=f"{folder}/{name}")
            for folder, model in components.items()
            for name, spec in model.specs.items()
        }
        self.ties = {
            f"{folder}/{alias}": f"{folder}/{name}"
            for folder, model in components.items()
            for alias, name in model.ties.items()
        }
        self.stamps = tuple(stamp for model in components.values() for stamp in model.stamps)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        component, _, tensor = name.partition("/")
        self._components[component].read_into(tensor, start, stop, out)

    def close(self) -> None:
        for component in self._components.values():
            component.close()


def open_pipeline(folder: Path, opener: Callable[[Path], Checkpoint]) -> Pipeline:
    """Open all models of a pipeline.

    Raises:
        UnsupportedFormat: none of its folders holds weights, or one holds weights that cannot be read.
    """
    if not (models := models_in(folder)):
        raise UnsupportedFormat(f"{folder} is a pipeline ({INDEX}), and none of its folders holds weights.")
    return Pipeline(folder, {path.name: opener(path) for path in models})


def models_in(folder: Path) -> list[Path]:
    """The folders of a pipeline that hold weights."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    weights = formats.suffixes(foreign=True)
    return [path for path in folders if any(file.name.endswith(weights) for file in path.iterdir())]


def components_of(folder: Path | None, names: Iterable[str]) -> list[Path]:
    """The folders of a pipeline that tensors of these names belong to; none if this is not a pipeline."""
    if folder is None or not (folder / INDEX).is_file():
        return []
    first = dict.fromkeys(name.partition("/")[0] for name in names)
    models = [path for path in models_in(folder) if path.name in first]
    return models if len(models) == len(first) else []


def files_beside(folder: Path) -> Iterator[str]:
    """Files of a pipeline other than weights and the configs of its models, by path in the folder."""
    yield INDEX
    yield from (path.name for path in sorted(folder.glob("*.py")))
    models, weights = models_in(folder), formats.suffixes(foreign=True)
    for part in (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(part.iterdir()):
            stale = path.name.endswith((*weights, ".index.json")) or (part in models and path.name == "config.json")
            if not stale and (path.is_file() or path.is_symlink()) and not path.name.startswith("."):
                yield f"{part.name}/{path.name}"
