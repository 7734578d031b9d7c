"""Compatibility of the models' tensors: names, shapes and ties."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..checkpoint import EMBEDDING, HEAD, NO_TOKENS, Checkpoint, TensorSpec, config_of, holder_of, layer_of
from ..errors import CheckpointError, Mismatch, Remedy, UnsupportedFormat
from .classes import reordered
from .renamings import proposal

_SHOWN = 8  # problems listed in one error
_EMBEDDING = re.compile(EMBEDDING)
LAYER_COUNT = re.compile(r"(?:(?:num|n|hidden|encoder|decoder|transformer|text|vision)_)*(?:layers?|blocks?)|depth")


@dataclass(frozen=True)
class Opened:
    """A checkpoint with its config, which may declare a tied head.

    Attributes:
        name: Its name in the recipe.
        checkpoint: Its tensors.
        config: Its config.json; empty if there is none.
    """

    name: str
    checkpoint: Checkpoint
    config: Mapping[str, Any]

    def find(self, name: str) -> TensorSpec | None:
        """The entry that stores a tensor's values, following ties, or None."""
        checkpoint = self.checkpoint
        spec = checkpoint.specs.get(name)
        if spec is not None:
            return spec
        holder = holder_of(name, checkpoint, self.config)
        return checkpoint.specs[holder] if holder else None

    def ties(self, name: str) -> bool:
        """Test whether the tensor is tied to another, so that it has no values of its own."""
        return name not in self.checkpoint.specs and self.find(name) is not None


def opened(name: str, checkpoint: Checkpoint) -> Opened:
    """Read the config in the folder of a checkpoint.

    Raises:
        UnsupportedFormat: the weights are quantised.
        CheckpointError: its path is not UTF-8.
    """
    _refuse_unwritable_label(checkpoint.label)
    config = config_of(checkpoint)
    if "quantization_config" in config:
        raise UnsupportedFormat(
            f"{checkpoint.label} is quantised (config.json has quantization_config). Dequantise it first: "
            "load it in transformers, call .dequantize() and save it."
        )
    return Opened(name, checkpoint, config)


def _refuse_unwritable_label(label: str) -> None:
    """Refuse a path that is not UTF-8 before the merge: the result's provenance and card name it."""
    try:
        label.encode()
    except UnicodeEncodeError:
        raise CheckpointError(
            f"{label!r} is not UTF-8, and the result names its models. Rename the file or folder, or name it by a link "
            "in UTF-8."
        ) from None


def check(models: list[Opened], base: Opened | None, names: list[str]) -> None:
    """Refuse models whose tensors differ in names, shapes or kind, or whose classes are in another order.

    Args:
        models: The models.
        base: The base, if there is one.
        names: The tensors that all of them must have.

    Raises:
        Mismatch: they do not fit; every kind of problem is named.
    """
    everyone = [*([base] if base else []), *models]
    reference = everyone[0]
    missing: list[str] = []
    differing: list[str] = []
    remedies: dict[Remedy, None] = {}
    for name in names:
        specs = {model.name: model.find(name) for model in everyone}
        lacking = [model_name for model_name, spec in specs.items() if spec is None]
        if lacking:
            missing.append(f"{name!r} is not in {', '.join(lacking)}")
            continue
        for problem, remedy in _differences(name, specs, reference.name):
            differing.append(problem)
            remedies |= remedy
    if problem := reordered(models, names):
        differing.append(problem)
        remedies[Remedy.CLASSES] = None
    if missing:
        remedies |= dict.fromkeys([Remedy.HEADS, Remedy.SKIP, Remedy.PREFIX])
    if remedies.keys() & {Remedy.VOCABULARY, Remedy.SIZES}:
        remedies.pop(Remedy.CLASSES, None)  # a head's bias is as long as the vocabulary, a norm as wide as a layer
    if missing or differing:
        more = "".join(_proposals(everyone) if missing else [])
        raise Mismatch(_report(missing, differing) + more, remedies=remedies)


def _differences(
    name: str, specs: Mapping[str, TensorSpec | None], reference: str
) -> Iterator[tuple[str, dict[Remedy, None]]]:
    """The models whose tensor differs from the reference's in shape or kind, each with remedies."""
    first = specs[reference]
    for model_name, spec in specs.items():
        if spec and first and (spec.shape != first.shape or spec.dtype.floating != first.dtype.floating):
            here, there = f"{_description(first)} in {reference}", f"{_description(spec)} in {model_name}"
            yield f"{name!r} is {here} but {there}", _remedies(first, spec)


def _remedies(first: TensorSpec, other: TensorSpec) -> dict[Remedy, None]:
    """Remedies for two tensors that differ: few rows are classes, many are tokens."""
    if first.dtype.floating != other.dtype.floating:
        return {Remedy.SKIP_INTEGERS: None}
    if layer_of(first.name) is not None:
        return {Remedy.SIZES: None, Remedy.SKIP: None}
    if first.shape[1:] != other.shape[1:] or not first.shape or NO_TOKENS.search(first.name) is not None:
        return {Remedy.SKIP: None}
    is_table = _EMBEDDING.search(first.name) or HEAD.search(first.name)
    return {Remedy.VOCABULARY if is_table else Remedy.CLASSES: None}


def _proposals(everyone: list[Opened]) -> Iterator[str]:
    """Renamings with which the names of more tensors meet."""
    reference, *others = ([*model.checkpoint.specs, *model.checkpoint.ties] for model in everyone)
    for model, names in zip(everyone[1:], others, strict=True):
        if (remedy := proposal(names, reference)) is not None:
            yield f"\n  {model.name}: {remedy}."


def _description(spec: TensorSpec) -> str:
    return f"{spec.stored} {list(spec.shape)}"


def _report(missing: list[str], differing: list[str]) -> str:
    lines: list[str] = ["the models do not fit together."]
    if differing:
        lines += [f"  {line}" for line in differing[:_SHOWN]] + _rest(differing)
    if missing:
        lines += [f"  {line}" for line in missing[:_SHOWN]] + _rest(missing)
    return "\n".join(lines)


def _rest(problems: list[str]) -> list[str]:
    more = len(problems) - _SHOWN
    return [f"  ... and {more} more"] if more > 0 else []


def configs(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A config, and those nested in it, such as `text_config`."""
    return [config, *(cast("Mapping[str, Any]", value) for value in config.values() if isinstance(value, Mapping))]


def layer_counts(config: Mapping[str, Any]) -> dict[int, list[str]]:
    """Numbers of a config that may be numbers of layers, each with its keys."""
    counts: dict[int, list[str]] = {}
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool) and LAYER_COUNT.fullmatch(key):
            counts.setdefault(value, []).append(key)
    return counts


def read_config(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """config.json in the folder of a checkpoint, or None."""
    if checkpoint.folder is None or not (checkpoint.folder / "config.json").exists():
        return None
    try:
        return config_of(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{error} A merge needs the config of its base or first model.") from error
