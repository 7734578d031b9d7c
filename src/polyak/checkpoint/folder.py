"""Checkpoints in folders, as Hugging Face lays them out: one file, or shards with an index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from ..errors import CheckpointError, Remedy, UnsupportedFormat
from . import formats
from ._api import Bytes, Checkpoint
from .contents import inside, listed, optional_json, read_json, unique
from .pipeline import INDEX, LIBRARY_FILES, OWN_STEM, Pipeline, models_in, modules_in, open_pipeline
from .quantised import refuse_quantised, refuse_quantised_config
from .training_folders import refuse_training_checkpoint

# Files that transformers loads come first, then those of diffusers.
_PREFERRED = (("model", ".safetensors"), ("pytorch_model", ".bin"), (OWN_STEM, ".safetensors"), (OWN_STEM, ".bin"))


class Sharded(Checkpoint):
    """Several files that together hold one model; every tensor is in exactly one of them."""

    def __init__(self, folder: Path, shards: Mapping[str, Checkpoint]) -> None:
        self.label, self.folder = str(folder), folder
        self._shards = shards
        self._holder = {name: shard for shard in shards.values() for name in shard.specs}
        self.specs = {name: shard.specs[name] for name, shard in self._holder.items()}
        self.ties = {alias: name for shard in shards.values() for alias, name in shard.ties.items()}
        self.stamps = tuple(stamp for shard in shards.values() for stamp in shard.stamps)
        self.metadata = {key: value for shard in shards.values() for key, value in shard.metadata.items()}

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        self._holder[name].read_into(name, start, stop, out)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()


def open_folder(folder: Path) -> Checkpoint:
    """Open the model in a Hugging Face folder, preferring what transformers would load.

    Raises:
        CheckpointError: the folder has no weights, or its index does not match its files.
        UnsupportedFormat: it is an adapter, a distributed checkpoint, a quantised model, or in a format that polyak
            cannot read.
    """
    opened = _open_with_modules(folder)
    opened.label, opened.folder = str(folder), folder
    refuse_quantised(opened)
    return opened


def _open_with_modules(folder: Path) -> Checkpoint:
    """The model of a folder, with the modules of sentence-transformers that have weights of their own."""
    names = _names_in(folder)
    modules = {} if INDEX in names else {path: _open_model(folder / path) for path in modules_in(folder)}
    if not modules:
        return _open_model(folder)
    return Pipeline(folder, {"": _open_model(folder), **modules} if _has_model(names) else modules)


def _has_model(names: Sequence[str]) -> bool:
    """Test for a model in the folder itself, by the names of its files."""
    preferred = {f"{stem}{suffix}{end}" for stem, suffix in _PREFERRED for end in ("", ".index.json")}
    return any(name in preferred or name in LIBRARY_FILES or name.endswith(".safetensors") for name in names)


def _open_model(folder: Path) -> Checkpoint:
    _refuse_quantised_config(folder)
    names = _names_in(folder)
    for stem, suffix in _PREFERRED:
        opener = formats.registry.resolve(suffix).open
        name, index = f"{stem}{suffix}", f"{stem}{suffix}.index.json"
        if name in names:
            if index in names:
                _refuse_second_model(folder, name, index, names)
            return opener(inside(folder, name))
        if index in names:
            return _open_sharded(inside(folder, index), opener)
    if INDEX in names:
        return open_pipeline(folder, open_folder)
    for name in LIBRARY_FILES:
        if name in names:
            return formats.open_file(inside(folder, name))
    return _open_unlisted(folder, names)


def _open_unlisted(folder: Path, names: list[str]) -> Checkpoint:
    """A model in shards without an index, or in one safetensors file of any name."""
    _refuse_other_formats(folder, names)
    for stem, suffix in _PREFERRED:
        if shards := _shards(folder, names, stem, suffix):
            return _open_without_index(folder, shards, formats.registry.resolve(suffix).open)
    singles = [name for name in names if name.endswith(".safetensors")]
    if len(singles) == 1:
        return formats.open_file(inside(folder, singles[0]))
    raise CheckpointError(
        f"{folder} holds no model: expected model.safetensors, model.safetensors.index.json, pytorch_model.bin or "
        f"pytorch_model.bin.index.json; found {', '.join(names[:12]) or 'nothing'}.{_parts_of(folder)}"
    )


def _parts_of(folder: Path) -> str:
    """Remedy for a folder whose subfolders hold models."""
    names = ", ".join(path.name for path in models_in(folder))
    return (
        f" There are models in {names}: name one of them, or put the pipeline's {INDEX} next to them." if names else ""
    )


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in listed(folder)]


def _refuse_other_formats(folder: Path, names: list[str]) -> None:
    if "adapter_config.json" in names:
        from .dialects import adapter_folder

        adapter_folder(folder)  # those of other libraries have another remedy
        raise UnsupportedFormat(
            f"{folder} is an adapter, not a model. Adapters are merged with one another by `polyak lora merge`.",
            remedies=[Remedy.LORA],
        )
    refuse_training_checkpoint(folder, names)
    for suffix, noun in formats.FOREIGN.items():
        if any(name.endswith(suffix) for name in names):
            raise UnsupportedFormat(
                f"{folder} holds {noun} model, which polyak cannot read. Convert it to safetensors first."
            )


def _refuse_quantised_config(folder: Path) -> None:
    refuse_quantised_config(folder, optional_json(folder, "config.json"))


def _open_sharded(index: Path, reader: Callable[[Path], Checkpoint]) -> Checkpoint:
    weight_map = _read_weight_map(index)
    folder = index.parent
    shards = {name: reader(inside(folder, name, index)) for name in dict.fromkeys(weight_map.values())}
    for name, shard in weight_map.items():
        if name not in shards[shard].specs and name not in shards[shard].ties:
            raise CheckpointError(f"{index}: {name!r} should be in {shard}, which does not have it.")
    for shard, opened in shards.items():
        for name in [*opened.specs, *opened.ties]:
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{folder / shard} holds {name!r}, which {index.name} places in {weight_map.get(name, 'no file')}. "
                    "Two merges may be mixed in this folder."
                )
    return Sharded(folder, shards)


def _refuse_second_model(folder: Path, name: str, index: str, names: Sequence[str]) -> None:
    shards = {shard for shard in _read_weight_map(inside(folder, index)).values() if shard != name}
    if present := [other for other in names if other in shards]:
        raise CheckpointError(
            f"{folder} holds two models: {name}, and {present[0]} with others in {index}. Remove one of them, or name "
            f"the file {name} as the model."
        )


def _shards(folder: Path, names: Sequence[str], stem: str, suffix: str) -> list[str]:
    """Names of a model's shards, without an index; empty if there are none."""
    pattern = re.compile(rf"{stem}-(\d+)-of-(\d+){re.escape(suffix)}")
    numbers = {name: (int(match[1]), int(match[2])) for name in names if (match := pattern.fullmatch(name))}
    complete = [(number, len(numbers)) for number in range(1, len(numbers) + 1)]
    if sorted(numbers.values()) != complete:
        raise CheckpointError(
            f"{folder} has {stem}{suffix} in shards, but neither an index nor all of them; found "
            f"{', '.join(list(numbers)[:12])}. Copy the rest and {stem}{suffix}.index.json from where the model is."
        )
    return list(numbers)


def _open_without_index(folder: Path, names: Sequence[str], reader: Callable[[Path], Checkpoint]) -> Checkpoint:
    shards = {name: reader(inside(folder, name)) for name in names}
    holders = dict[str, str]()
    for shard, opened in shards.items():
        for name in [*opened.specs, *opened.ties]:
            if (other := holders.setdefault(name, shard)) != shard:
                raise CheckpointError(f"{folder}: {name!r} is in {other} and in {shard}, and there is no index.")
    return Sharded(folder, shards)


def _read_weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index, unique).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(v, str) for v in cast("dict[str, object]", weight_map).values()
    ):
        raise CheckpointError(f"{index}: weight_map must map tensor names to file names.")
    if not weight_map:
        raise CheckpointError(f"{index}: weight_map is empty; the model has no tensors.")
    return cast("dict[str, str]", weight_map)
