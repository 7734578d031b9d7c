"""Update a config for layers that were dropped, repeated or stacked, in any architecture.

The parts of a config that depend on layers are found by their keys and values, not by a list of models: counts that
equal the number of layers, lists with one entry per layer, and lists of indices of layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from ...checkpoint import Stack, stacks
from ..compatibility import LAYER_COUNT, Opened, configs, layer_counts
from ..slices import Layer, Parts

_NUMBERS = re.compile(r"(?:_layers|layer_?(?:ids|idx|idxs|indices|indexes)|_idxs|_indices)$")
# Lists that may be as long as the stack by chance.
_NO_LAYERS = re.compile(r"architectures|_token_ids?$|_tokens$|_mean$|_std$|(?:image|patch|kernel|window)_size|stride")
_PERIOD = re.compile(r"_pattern$|_step$|_interval$|_period$|_freq(?:uency)?$|^first_k_dense|_every_n_layers$")
PLACES = {"encoder": r"encoder", "decoder": r"decoder", "text": r"text|language", "vision": r"vision|visual"}

Config = dict[str, Any]


def other_layers(divided: Parts, donor: Opened, written: Iterable[str]) -> dict[str, tuple[Layer, ...]]:
    """The stacks that differ from the donor's: made of slices, or of a model of another depth.

    Args:
        divided: The parts of the merge.
        donor: The model whose config the result takes.
        written: The names of the tensors of the result.
    """
    if len(divided.parts) == 1 and not divided.layers:
        return {}
    layers, own = dict(divided.layers), _stacks(donor)
    for prefix, stack in stacks(written).items():
        if prefix not in layers and prefix in own and len(own[prefix]) != len(stack):
            models = [model for part in divided.parts for model in part.whole]
            giver = next((model for model in models if len(_stacks(model).get(prefix, ())) == len(stack)), None)
            if giver is not None:
                layers[prefix] = tuple(Layer(giver, _stacks(giver)[prefix], i) for i in range(len(stack)))
    return layers


def _stacks(model: Opened) -> dict[str, Stack]:
    return stacks([*model.checkpoint.specs, *model.checkpoint.ties])


def follow_layers(
    config: Mapping[str, Any], layers: Mapping[str, Sequence[Layer]], donor: Opened
) -> tuple[Config, list[str]]:
    """The config with counts and lists updated for the layers of the result, and notes on what could not be updated.

    Args:
        config: The donor's config.
        layers: The source of each layer, by the prefix of each stack that differs from the donor's.
        donor: The model whose config it is.
    """
    followed, notes, own = dict(config), list[str](), _stacks(donor)
    for prefix, chosen in layers.items():
        old = len(own.get(prefix, chosen[0].stack))
        key, part = _part_of(followed, prefix, old)
        changed = _followed(part, prefix, chosen, old, several=len(_counted(part, old)) > 1)
        if not _counted(part, old):
            notes.append(
                f"config.json has no number of layers equal to {old}, the length of {prefix!r} in its model: check it."
            )
        periods = [key for key, value in part.items() if _PERIOD.search(key) and value not in (None, 0, 1)]
        if periods and any(layer.number != i for i, layer in enumerate(chosen)):
            notes.append(
                f"config.json gives layers a role by their index ({', '.join(periods)}), and layers moved: check it."
            )
        if key:
            followed[key] = changed
        else:
            followed = changed
    return followed, notes


def _part_of(config: Config, prefix: str, count: int) -> tuple[str, Config]:
    """The part of the config that describes a stack: itself, or a nested one such as `text_config`, with its key."""
    nested = {key: cast("Config", value) for key, value in config.items() if isinstance(value, dict)}
    fitting = {key: value for key, value in nested.items() if _counted(value, count)}
    for key, value in fitting.items():
        if any(re.search(words, prefix) and re.search(words, key) for words in PLACES.values()):
            return key, value
    if not _counted(config, count) and len(fitting) == 1:
        return next(iter(fitting.items()))
    if not _counted(config, count):
        for key, value in fitting.items():
            if re.search("text|language|decoder", key):
                return key, value
    return "", config


def _counted(config: Mapping[str, Any], count: int) -> list[str]:
    return layer_counts(config).get(count, [])


def _followed(config: Config, prefix: str, layers: Sequence[Layer], old: int, *, several: bool) -> Config:
    changed = dict(config)
    for key in _counted(config, old):
        if not several or _describes(key, prefix, config):
            changed[key] = len(layers)
    for key, values in _lists(config):
        if _NUMBERS.search(key) and _are_numbers(values, old):
            changed[key] = [i for i, layer in enumerate(layers) if layer.number in _own(layer, key, values)]
        elif len(values) == old and not _NO_LAYERS.search(key) and _describes(key, prefix, config):
            changed[key] = [_entry(layer, key, values) for layer in layers]
    return changed


def _describes(key: str, prefix: str, config: Mapping[str, Any]) -> bool:
    """Test whether a key describes this stack, in a config that may have an encoder and a decoder."""
    if not any("decoder" in name and LAYER_COUNT.fullmatch(name) for name in config):
        return True
    return ("decoder" in key) == bool(re.search(r"(?:^|\.)decoder\.", prefix))


def _lists(config: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for key, value in config.items():
        if isinstance(value, list):
            yield key, cast("list[Any]", value)


def _are_numbers(values: Sequence[Any], count: int) -> bool:
    """Test for ascending indices of some, not all, layers."""
    if len(values) >= count or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return False
    return all(0 <= v < count for v in values) and sorted(set(values)) == list(values)


def _own(layer: Layer, key: str, otherwise: Sequence[Any]) -> Sequence[Any]:
    """The list under this key of the model that a layer comes from, or `otherwise`."""
    for part in configs(layer.model.config):
        if isinstance(value := part.get(key), list):
            return cast("list[Any]", value)
    return otherwise


def _entry(layer: Layer, key: str, otherwise: Sequence[Any]) -> Any:
    own = _own(layer, key, otherwise)
    values = own if len(own) == len(layer.stack) else otherwise
    return values[layer.number % len(values)]
