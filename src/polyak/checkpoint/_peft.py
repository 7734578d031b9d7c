"""The settings and the tensor names of PEFT's LoRA adapters, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError, UnsupportedFormat
from ._patterns import Pattern
from .folder import inside, read_json

# Settings that, if set, make an adapter something other than W + s * B @ A.
_REFUSED = {
    "use_dora": "DoRA, which also rescales the base weights",
    "use_qalora": "QALoRA, which pools its inputs",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow, which routes between adapters",
    "kasa_config": "KaSA, which truncates the base weights",
    "monteclora_config": "MonteCLoRA, which samples its weights",
    "alora_invocation_tokens": "activated LoRA, which works on some tokens only and cannot be merged",
    "layer_replication": "layer replication, which changes the base's layers",
    "target_parameters": "LoRA on bare parameters (target_parameters)",
    "trainable_token_indices": "trainable tokens",
    "lora_bias": "LoRA with a bias of its own (lora_bias)",
}

# Initialisations that change the base weights.
_CHANGES_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """Settings of adapter_config.json that matter for merging."""

    path: Path
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rank_stabilised: bool
    fan_in_fan_out: bool
    modules_to_save: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """The rank of a module's factors."""
        return int(_matched(self.rank_pattern, module, self.rank, self.path))

    def scaling_of(self, module: str) -> float:
        """s = alpha / r, or alpha / sqrt(r) if rank-stabilised (Kalajdzievski, 2023. arXiv:2312.03732)."""
        rank = self.rank_of(module)
        alpha = _matched(self.alpha_pattern, module, self.alpha, self.path)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_adapter_settings(folder: Path) -> AdapterSettings:
    """Read an adapter's configuration.

    Raises:
        CheckpointError: there is none, or a setting is invalid.
        UnsupportedFormat: the adapter is of a kind that polyak does not merge.
    """
    if not (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder} is not an adapter: it has no adapter_config.json. Name the folder that PEFT's save_pretrained "
            "wrote."
        )
    path = inside(folder, "adapter_config.json")
    config = read_json(path)
    _refuse_other_kinds(config, path)
    return AdapterSettings(
        path=path,
        rank=_positive(config.get("r", 8), "r", path),
        alpha=_finite(config.get("lora_alpha", 8), "lora_alpha", path),
        rank_pattern={k: _positive(v, "rank_pattern", path) for k, v in _pattern(config, "rank_pattern", path)},
        alpha_pattern={k: _finite(v, "alpha_pattern", path) for k, v in _pattern(config, "alpha_pattern", path)},
        rank_stabilised=_boolean(config, "use_rslora", path),
        fan_in_fan_out=_boolean(config, "fan_in_fan_out", path),
        modules_to_save=_names(config, "modules_to_save", path),
    )


def _refuse_other_kinds(config: dict[str, Any], path: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedFormat(
            f"{path}: adapters of type {kind!r:.40} cannot be merged into weights; only 'LORA' can."
        )
    for setting, kind_of_adapter in _REFUSED.items():
        if config.get(setting):
            raise UnsupportedFormat(f"{path}: this adapter is {kind_of_adapter}; polyak merges plain LoRA only.")
    initial = config.get("init_lora_weights")
    if isinstance(initial, str) and _CHANGES_BASE.search(initial):
        raise UnsupportedFormat(
            f"{path}: this adapter was initialised by {initial!r:.40}, which changes the base weights. Convert it to "
            "plain LoRA first: PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )


def _positive(value: Any, setting: str, path: Path) -> int:
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{path}: {setting} must be an integer of at least 1; got {value!r:.80}.")
    return value


def _finite(value: Any, setting: str, path: Path) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e30:
        raise CheckpointError(f"{path}: {setting} must be a number; got {value!r:.80}.")
    return float(value)


def _boolean(config: dict[str, Any], setting: str, path: Path) -> bool:
    value = config.get(setting, False)
    if type(value) is not bool:
        raise CheckpointError(f"{path}: {setting} must be true or false; got {value!r:.80}.")
    return value


def _pattern(config: dict[str, Any], setting: str, path: Path) -> Iterable[tuple[str, Any]]:
    value: Any = config.get(setting) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {setting} must map module names to numbers; got {value!r:.80}.")
    return cast("dict[str, Any]", value).items()


def _names(config: dict[str, Any], setting: str, path: Path) -> tuple[str, ...]:
    value: Any = config.get(setting) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in cast("list[object]", value)):
        raise CheckpointError(f"{path}: {setting} must be a list of module names; got {value!r:.80}.")
    return tuple(cast("list[str]", value))


def _matched(patterns: Mapping[str, float], module: str, default: float, path: Path) -> float:
    """The value of the first pattern that matches a module's name, or the end of it that follows a dot."""
    for pattern, value in patterns.items():
        try:
            if _compiled(pattern).matches_end(module):
                return value
        except ValueError as error:
            raise CheckpointError(
                f"{path}: {pattern!r:.200} is not a valid pattern of module names: {error}."
            ) from error
    return default


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Pattern:
    return Pattern(pattern)


@dataclass(frozen=True, slots=True)
class AdapterNames:
    """The tensors of an adapter by their purpose.

    Attributes:
        factors: Module name to the names of its A and B, which are transposed for embeddings.
        embeddings: The modules of `factors` that are embeddings.
        replaced: Tensor of the base to the name of the tensor that takes its place.
    """

    factors: Mapping[str, tuple[str, str]]
    embeddings: frozenset[str]
    replaced: Mapping[str, str]


_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?:\.[^.]+)??(?:\.weight)?")
_WRAPPED = re.compile(r"\.base_layer(?=\.)|\.modules_to_save(?:\.[^.]+)?(?=\.[^.]+$)")


def sort_adapter_names(names: Iterable[str], path: Path) -> AdapterNames:
    """Sort the tensors of an adapter by their purpose.

    Raises:
        CheckpointError: there are none, a factor lacks its partner, or several adapters are in one file.
        UnsupportedFormat: a tensor belongs to a kind of LoRA that polyak does not merge.
    """
    factors: dict[str, dict[str, str]] = {}
    embeddings: set[str] = set()
    replaced: dict[str, str] = {}
    # With `bias: all` a saved module's bias comes as itself, as the wrapper's (the same values, a longer
    # name) and as the original's (unused): the shortest name comes first.
    for name in sorted(names, key=len):
        bare = name.removeprefix("base_model.model.")
        match = _FACTOR.fullmatch(bare)
        if match:
            module, factor = match["module"], match["factor"]
            _take(factors.setdefault(module, {}), factor, name, path)
            if match["embedding"]:
                embeddings.add(module)
        elif ".lora_" in bare:
            raise UnsupportedFormat(f"{path}: {name!r} is not of a plain LoRA; polyak merges A and B factors only.")
        elif ".original_module." not in bare:
            _take_whole(replaced, bare, name, path)
    if not factors and not replaced:
        raise CheckpointError(f"{path}: the adapter holds no tensors.")
    pairs = {module: _pair(module, by_factor, path) for module, by_factor in factors.items()}
    return AdapterNames(pairs, frozenset(embeddings), replaced)


def _take_whole(replaced: dict[str, str], bare: str, name: str, path: Path) -> None:
    target = _WRAPPED.sub("", bare)
    module, _, leaf = target.rpartition(".")
    if target not in replaced or bare != f"{module}.modules_to_save.{leaf}":
        _take(replaced, target, name, path)


def _take(taken: dict[str, str], key: str, name: str, path: Path) -> None:
    if key in taken:
        raise CheckpointError(
            f"{path}: {name!r} and {taken[key]!r} are for the same tensor; keep one adapter per file."
        )
    taken[key] = name


def _pair(module: str, by_factor: Mapping[str, str], path: Path) -> tuple[str, str]:
    if len(by_factor) != 2:
        raise CheckpointError(f"{path}: {module!r} has a factor {next(iter(by_factor))} without its partner.")
    return by_factor["A"], by_factor["B"]
