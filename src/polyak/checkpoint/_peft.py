"""The settings and the tensor names of PEFT's LoRA adapters, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ..errors import CheckpointError, SettingError, UnsupportedFormat
from ..reading import Pattern
from ._api import TensorSpec
from .contents import inside, listed, read_json
from .training_folders import refuse_training_checkpoint

# Settings that, if set, make an adapter something other than a change of the base's weights.
_REFUSED = {
    "use_qalora": "QALoRA, which pools its inputs",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow, which routes between adapters",
    "kasa_config": "KaSA, which truncates the base weights",
    "monteclora_config": "MonteCLoRA, which samples its weights",
    "alora_invocation_tokens": "activated LoRA, which works on some tokens only and cannot be merged",
}

_REPEATED_LAYERS = (
    "this adapter uses layer replication: its base has the layers {ranges}. Write that base first, by a recipe with "
    "`slices:`, one per range; remove layer_replication from the configuration; then bake the adapter into that base"
)

# Types of adapters that change the inputs or the wiring of a model, not its weights.
_NO_CHANGE_OF_WEIGHTS = frozenset(
    [
        "PROMPT_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "CPT",
        "ADAPTION_PROMPT",
        "XLORA",
        "CARTRIDGE",
    ]
)

# Initialisations that change the base weights.
_CHANGES_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """Settings of adapter_config.json that matter for merging.

    Attributes:
        config: All of them, for settings of one kind of adapter.
    """

    path: Path
    peft_type: str
    config: Mapping[str, Any]
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
        UnsupportedFormat: the adapter is of a kind that polyak does not merge, or in the parts of a training framework.
    """
    if not (folder / "adapter_config.json").exists():
        refuse_training_checkpoint(folder, [path.name for path in listed(folder)])
        raise CheckpointError(
            f"{folder} is not an adapter: it has no adapter_config.json. Name the folder that PEFT's save_pretrained "
            "wrote."
        )
    path = inside(folder, "adapter_config.json")
    config = read_json(path)
    _refuse_other_kinds(config, path)
    alpha = "lora_alpha" if config["peft_type"] == "LORA" else "alpha"
    return AdapterSettings(
        path=path,
        peft_type=config["peft_type"],
        config=config,
        rank=_positive(config.get("r", 8), "r", path),
        alpha=_alpha(config, alpha, path),
        rank_pattern={k: _positive(v, "rank_pattern", path) for k, v in _pattern(config, "rank_pattern", path)},
        alpha_pattern={k: _finite(v, "alpha_pattern", path) for k, v in _pattern(config, "alpha_pattern", path)},
        rank_stabilised=_boolean(config, "use_rslora", path),
        fan_in_fan_out=_boolean(config, "fan_in_fan_out", path),
        modules_to_save=_names(config, "modules_to_save", path),
    )


def _refuse_other_kinds(config: dict[str, Any], path: Path) -> None:
    from .adapter_kinds import peft_types

    kind, known = config.get("peft_type"), peft_types()
    if not isinstance(kind, str) or kind not in known:
        remedy = (
            "it changes the inputs of a model, not its weights"
            if str(kind) in _NO_CHANGE_OF_WEIGHTS
            else f"polyak reads {', '.join(sorted(known))}. {_MERGE_IN_PEFT}"
        )
        raise UnsupportedFormat(f"{path}: adapters of type {kind!r:.40} cannot be merged into weights: {remedy}.")
    if ranges := config.get("layer_replication"):
        raise UnsupportedFormat(f"{path}: {_REPEATED_LAYERS.format(ranges=f'{ranges!r:.200}')}.")
    for setting, kind_of_adapter in _REFUSED.items():
        if config.get(setting):
            raise UnsupportedFormat(f"{path}: this adapter is {kind_of_adapter}; polyak does not merge it.")
    initial = config.get("init_lora_weights")
    if isinstance(initial, str) and _CHANGES_BASE.search(initial):
        raise UnsupportedFormat(
            f"{path}: this adapter was initialised by {initial!r:.40}, which changes the base weights. Convert it to "
            "plain LoRA first: PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )


_MERGE_IN_PEFT = (
    "Others are merged in PEFT: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)"
)


def _positive(value: Any, setting: str, path: Path) -> int:
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{path}: {setting} must be an integer of at least 1; got {value!r:.80}.")
    return value


def _finite(value: Any, setting: str, path: Path) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e30:
        raise CheckpointError(f"{path}: {setting} must be a number; got {value!r:.80}.")
    return float(value)


def _alpha(config: dict[str, Any], setting: str, path: Path) -> float:
    alpha = _finite(config.get(setting, 8), setting, path)
    if alpha == 0 and not config.get("alpha_pattern"):
        raise CheckpointError(
            f"{path}: {setting} is 0, so the factors change nothing. verl's model_merger writes 0, since its "
            f"checkpoints do not hold alpha: set {setting} to the alpha of the training."
        )
    return alpha


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
            if _compiled(pattern).search(module):
                return value
        except (ValueError, SettingError) as error:
            raise CheckpointError(
                f"{path}: {pattern!r:.200} is not a valid pattern of module names: {error}."
            ) from error
    return default


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Pattern:
    return Pattern(rf"\A(.*\.)?({pattern})$")  # as PEFT writes it


def matches_module(patterns: Iterable[str] | str, module: str, path: Path) -> bool:
    """True if a module is one of those that a setting of PEFT names: by a regular expression, or by last parts."""
    if isinstance(patterns, str):
        return bool(_matched({patterns: 1}, module, 0, path))
    return any(f".{module}".endswith(f".{pattern}") for pattern in patterns)


def empty_message(spec: TensorSpec, label: str) -> str:
    """The message for a factor without entries."""
    return (
        f"{label}: {spec.name!r} is empty ({list(spec.shape)}): the adapter was saved without gathering its parts, as "
        "DeepSpeed ZeRO-3 and FSDP need. Save it again from the gathered model (stage3_gather_16bit_weights_on_model_"
        "save: true, or accelerator.get_state_dict), or convert the checkpoint with DeepSpeed's zero_to_fp32.py."
    )
