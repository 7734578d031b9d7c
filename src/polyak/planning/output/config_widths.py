"""Make a config follow modules of another width: the part that speaks of them is that of the model they come from."""

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
    """The config with the parts of other models whose modules have other shapes, and what should be known about it.

    A part is found by its key and by the tensors' names: `vision_config` speaks of `vision_model.` and the like.

    Args:
        config: The donor's, perhaps with numbers of layers that follow the result already.
        divided: The parts of the merge.
        donor: Whose it is.
        written: What is written of the model.
    """
    followed, notes = dict(config), list[str]()
    for giver, names in _of_other_shapes(divided, donor, written):
        key = _part_of(followed, names)
        found = _own(giver, key, followed) if key else None
        if key and found is not None:
            followed[key] = found | _depths(followed[key])
            notes.append(
                f"config.json has the {key} of {giver.name}: its tensors have other shapes than {donor.name}'s."
            )
        else:
            notes.append(
                f"config.json is that of {donor.name}, but {len(names)} tensors have the shapes of {giver.name}: "
                f"check its sizes ({names[0]!r} ...)."
            )
    return followed, notes


def _of_other_shapes(divided: Parts, donor: Opened, written: Sequence[Step]) -> Iterator[tuple[Opened, list[str]]]:
    """For each module, a model that has the shapes of the result where the donor does not, and those tensors."""
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
    """The key of the nested part that speaks of these tensors."""
    nested = [key for key, value in config.items() if isinstance(value, dict)]
    for words in PLACES.values():
        if all(re.search(words, name) for name in names) and (found := [k for k in nested if re.search(words, k)]):
            return found[0]
    return None


def _depths(part: Config) -> Config:
    """Its numbers of layers, which follow the result already."""
    return {key: part[key] for keys in layer_counts(part).values() for key in keys if key in part}


def _own(giver: Opened, key: str, config: Config) -> Config | None:
    """Part of the giver's config: under the same key, or all of it where it is such a part by itself."""
    if isinstance(found := giver.config.get(key), dict):
        return dict(cast("Config", found))
    kind = cast("Config", config[key]).get("model_type")
    return dict(giver.config) if kind is not None and giver.config.get("model_type") == kind else None
