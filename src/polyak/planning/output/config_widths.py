"""Update a config for modules of another width: it takes the part that describes them from their own model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ..compatibility import Opened, layer_counts
from ..slices import Parts
from ..steps import Step
from .config_layers import PLACES

Config = dict[str, Any]


def follow_widths(
    config: Mapping[str, Any], divided: Parts, donor: Opened, written: Sequence[Step]
) -> tuple[Config, list[str]]:
    """The config with the parts of other models for modules that have their shapes, and notes.

    A part is found by its key and by the tensors' names: `vision_config` describes `vision_model.`, for example.

    Args:
        config: The donor's config, in which numbers of layers may be updated already.
        divided: The parts of the merge.
        donor: The model whose config it is.
        written: The steps that write the model.
    """
    followed, notes = dict(config), list[str]()
    for giver, names in _of_other_shapes(divided, donor, written):
        key = _part_of(followed, names)
        part = _own(giver, key, followed) if key else None
        if key and part is not None:
            followed[key] = part | _depths(followed[key])
            notes.append(
                f"config.json has the {key} of {giver.name}, whose tensors have other shapes than {donor.name}'s."
            )
        else:
            notes.append(
                f"config.json is that of {donor.name}, but {len(names)} tensors have the shapes of {giver.name}: "
                f"check its sizes ({names[0]!r} ...)."
            )
    return followed, notes


def _of_other_shapes(divided: Parts, donor: Opened, written: Sequence[Step]) -> Iterator[tuple[Opened, list[str]]]:
    """For each module with other shapes than the donor: a model with those shapes, and the names of the tensors."""
    for number, part in enumerate(divided.parts if len(divided.parts) > 1 else ()):
        giver = part.whole[-1]
        own = [step.out for step in written if step.part == number and _shape(giver, step.out.name) == step.out.shape]
        names = [out.name for out in own if _shape(donor, out.name) not in (None, out.shape)]
        if names:
            yield giver, names


def _shape(model: Opened, name: str) -> tuple[int, ...] | None:
    spec = model.find(name)
    return spec.shape if spec is not None else None


def _part_of(config: Config, names: Sequence[str]) -> str | None:
    """The key of the nested part that describes these tensors, or None."""
    nested = [key for key, value in config.items() if isinstance(value, dict)]
    for words in PLACES.values():
        if all(re.search(words, name) for name in names) and (keys := [k for k in nested if re.search(words, k)]):
            return keys[0]
    return None


def _depths(part: Config) -> Config:
    """The numbers of layers of a part, which are updated already."""
    return {key: part[key] for keys in layer_counts(part).values() for key in keys if key in part}


def _own(giver: Opened, key: str, config: Config) -> Config | None:
    """Part of a model's config: under the same key, or all of it if it is of the same `model_type`."""
    if isinstance(part := giver.config.get(key), dict):
        return dict(cast("Config", part))
    kind = cast("Config", config[key]).get("model_type")
    return dict(giver.config) if kind is not None and giver.config.get("model_type") == kind else None
