"""Folders of several models: pipelines of diffusers, and the modules of sentence-transformers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, cast

from ..errors import CheckpointError, UnsupportedFormat
from . import formats
from ._api import Bytes, Checkpoint
from .contents import folder_inside, inside, listed, read_json_value

INDEX = "model_index.json"
OWN_STEM = "diffusion_pytorch_model"  # beginning of the names of weight files of models of diffusers
# Weight files of libraries that load them by a name of their own, and the beginning of that name.
LIBRARY_FILES: Mapping[str, str] = {
    "open_clip_model.safetensors": "open_clip_model",
    "open_clip_pytorch_model.bin": "open_clip_model",
    "consolidated.safetensors": "consolidated",  # mistral-inference
}
MODULES = "modules.json"  # the modules of a model of sentence-transformers
# Where one of its modules chooses among others, and where older versions keep that choice.
_ROUTERS = ("router_config.json", "config.json")
_MOST_MODULES, _DEEPEST_MODULE = 1000, 10  # links may name one folder by very many paths


def library_of(config: Mapping[str, Any]) -> str:
    """The library that reads a model with this config: diffusers, timm, otherwise transformers."""
    if "_diffusers_version" in config:
        return "diffusers"
    return "timm" if "architecture" in config and "model_type" not in config else "transformers"


def stem_of(config: Mapping[str, Any]) -> str:
    """Beginning of the names of weight files, by the library that reads a model with this config."""
    return OWN_STEM if library_of(config) == "diffusers" else "model"


class Pipeline(Checkpoint):
    """Several models as one: every tensor's name begins with its model's folder, as in `unet/...` or `2_Dense/...`.

    Args:
        folder: The folder that holds them.
        components: The models, by folder; "" is the model in the folder itself, whose names stay as they are.
    """

    def __init__(self, folder: Path, components: Mapping[str, Checkpoint]) -> None:
        self.label, self.folder = str(folder), folder
        self._components = components
        self._holder = {
            _prefixed(component, name): (model, name) for component, model in components.items() for name in model.specs
        }
        self.specs = {name: replace(model.specs[own], name=name) for name, (model, own) in self._holder.items()}
        self.ties = {
            _prefixed(component, alias): _prefixed(component, name)
            for component, model in components.items()
            for alias, name in model.ties.items()
        }
        self.stamps = tuple(stamp for model in components.values() for stamp in model.stamps)
        if "" in components:
            self.metadata = components[""].metadata

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        model, own = self._holder[name]
        model.read_into(own, start, stop, out)

    def close(self) -> None:
        for component in self._components.values():
            component.close()


def _prefixed(component: str, name: str) -> str:
    return f"{component}/{name}" if component else name


def component_of(name: str, components: Collection[str]) -> str:
    """The component that a tensor belongs to by its name: the one with the longest path; "" if none."""
    folder = name.rpartition("/")[0]
    while folder and folder not in components:
        folder = folder.rpartition("/")[0]
    return folder


def open_pipeline(folder: Path, opener: Callable[[Path], Checkpoint]) -> Pipeline:
    """Open all models of a pipeline.

    Raises:
        UnsupportedFormat: none of its folders holds weights, or one holds weights that cannot be read.
    """
    if not (models := models_in(folder)):
        raise UnsupportedFormat(f"{folder} is a pipeline ({INDEX}), and none of its folders holds weights.")
    return Pipeline(folder, {path.name: opener(folder_inside(folder, path.name)) for path in models})


def models_in(folder: Path) -> list[Path]:
    """The folders of a pipeline that hold weights."""
    folders = [path for path in listed(folder) if path.is_dir() and not path.name.startswith(".")]
    return [path for path in folders if has_weights(path)]


def has_weights(folder: Path) -> bool:
    """Test for a file with the suffix of a checkpoint, in the folder itself."""
    weights = formats.suffixes(foreign=True)
    return any(file.name.endswith(weights) for file in listed(folder))


def components_in(folder: Path) -> list[str]:
    """The folders that belong to a model and hold weights of it, by their paths: those that its index names."""
    if (folder / INDEX).is_file():
        return [path.name for path in models_in(folder)]
    return modules_in(folder)


def modules_in(folder: Path) -> list[str]:
    """The modules of a model of sentence-transformers that hold weights, without the one in the folder itself.

    Raises:
        CheckpointError: modules.json is damaged, names a folder outside, or there are too many.
    """
    named = list(itertools.islice(_modules_below(folder, PurePath(), ()), _MOST_MODULES + 1))
    if len(named) > _MOST_MODULES:
        raise CheckpointError(f"{folder}: {MODULES} names more than {_MOST_MODULES} modules; refused.")
    return sorted(path for path in dict.fromkeys(named) if has_weights(folder / path))


def _modules_below(home: Path, place: PurePath, above: tuple[Path, ...]) -> Iterator[str]:
    real = (home / place).resolve()
    if real in above or len(above) == _DEEPEST_MODULE:
        return
    for name in _named_modules(home, place):
        inner = place / name
        if (home / inner).is_dir() or inner.is_absolute() or ".." in inner.parts:
            folder_inside(home, str(inner), home / place / MODULES)
            yield inner.as_posix()
            yield from _modules_below(home, inner, (*above, real))


def _named_modules(home: Path, place: PurePath) -> list[str]:
    """The folders that modules.json and the config of a router name, as paths from the folder, each once."""
    names: list[object] = []
    modules = _json(home, place / MODULES)
    for module in cast("list[Any]", modules) if isinstance(modules, list) else []:
        names.append(cast("dict[str, Any]", module).get("path") if isinstance(module, dict) else None)
    for file in _ROUTERS:
        router = _json(home, place / file)
        types = cast("dict[str, Any]", router).get("types") if isinstance(router, dict) else None
        names += cast("dict[str, Any]", types) if isinstance(types, dict) else []
    return [*dict.fromkeys(Path(name).as_posix() for name in names if isinstance(name, str) and Path(name).parts)]


def _json(home: Path, name: PurePath) -> object:
    return read_json_value(inside(home, str(name))) if (home / name).exists() else None
