"""adapter_config.json of results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ._opened import Adapter


def configuration(ranks: Mapping[str, int], kept: Mapping[str, Any]) -> dict[str, Any]:
    """adapter_config.json for modules of these ranks, each with the scaling alpha / r = 1.

    Args:
        ranks: The rank of each module.
        kept: Further keys; these take precedence.
    """
    usual = Counter(ranks.values()).most_common(1)[0][0]
    # Anchored, because PEFT takes a key for the end of a name.
    pattern = {f"^{name}": rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
        "modules_to_save": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
    } | dict(kept)


# What a merge keeps of the first adapter's configuration.
_KEPT = (
    "base_model_name_or_path", "revision", "task_type", "auto_mapping", "fan_in_fan_out", "modules_to_save", "bias",
)  # fmt: skip
_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def merged_configuration(
    adapters: Sequence[Adapter], ranks: Mapping[str, int], base: str | None, *, whole: bool
) -> dict[str, Any]:
    """The configuration of a merge.

    Args:
        adapters: The merged adapters.
        ranks: The rank of each module of the result.
        base: The name of its base, if it was given.
        whole: True if the result keeps any tensor whole.
    """
    first = adapters[0].config
    kept = {key: first[key] for key in _KEPT if key in first}
    named = [_targets(adapter.config) for adapter in adapters]
    # Their own words if they mean the same modules; else every module by its whole name.
    if all(_plain(configuration) == _plain(named[0]) for configuration in named) and all(
        set(a.modules) == set(ranks) for a in adapters
    ):
        kept |= named[0]
    if base is not None:
        kept["base_model_name_or_path"] = base
    return configuration(ranks, kept if whole else kept | {"modules_to_save": None, "bias": "none"})


def _targets(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in _TARGETS if config.get(key) is not None}


def _plain(targets: Mapping[str, Any]) -> str:
    """Text that is equal for equal targets; their order says nothing."""
    in_order = {k: sorted(map(str, cast("list[Any]", v))) if isinstance(v, list) else v for k, v in targets.items()}
    return json.dumps(in_order, sort_keys=True)
