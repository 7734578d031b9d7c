"""Name rules and module structure read from the installed transformers library, as plain data for a snapshot.

No model is loaded and no code of a model folder runs: classes are instantiated on the meta device, without values.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from .structure import Facts, starred

_LAYERS = re.compile(r"(?:(?:num|n|encoder|decoder|hidden|text|vision|transformer)_)*(?:layers?|blocks?)|depth")
_SETTINGS = ("dim", "dim0", "dim1", "check_dims")


def read_rules() -> dict[str, list[dict[str, Any]]]:
    """The library's rules by model type or class name, and under `legacy` those of all models."""
    mapping: Any = import_module("transformers.conversion_mapping")
    table: dict[str, Any] = mapping._build_checkpoint_conversion_mapping()
    return {key: [_rule(transform) for transform in transforms] for key, transforms in sorted(table.items())}


def read_bases() -> dict[str, str]:
    """The library's class without a head, by model type; the first one of several."""
    module: Any = import_module("transformers.models.auto.modeling_auto")
    names: dict[str, Any] = module.MODEL_MAPPING_NAMES
    return {kind: name if isinstance(name, str) else name[0] for kind, name in sorted(names.items())}


def _rule(transform: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "pattern": transform.compiled_sources.pattern,
        "sources": list(transform.source_patterns),
        "targets": list(transform.target_patterns),
    }
    if type(transform).__name__ not in ("WeightRenaming", "PrefixChange", "WeightConverter"):
        return rule | {"kind": type(transform).__name__}
    if hasattr(transform, "operations"):
        rule["operations"] = [_operation(operation) for operation in transform.operations]
    return rule


def _operation(operation: Any) -> list[Any]:
    settings = {name: getattr(operation, name) for name in _SETTINGS if hasattr(operation, name)}
    if getattr(operation, "num_shards_attribute", None):
        settings["shards"] = operation.num_shards_attribute
    return [type(operation).__name__, settings]


def read_classes(name: str, config: Any, facts: Facts) -> None:
    """Add the structure of a model class, and of the model classes nested in it, to `facts`.

    Args:
        name: A class of the library, such as LlamaForCausalLM.
        config: Its configuration, an object of the library.
        facts: Receives `classes`.
    """
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    with torch.device("meta"):
        _add(getattr(transformers, name)(config), facts)


def _add(model: Any, facts: Facts) -> None:
    entry = facts.classes.setdefault(
        type(model).__name__, {"prefix": model.base_model_prefix, "parts": {}, "kinds": {}}
    )
    nested = dict(_nested(model))
    for path, part in nested.items():
        entry["parts"].setdefault(starred(path), [type(part).__name__, part.config.model_type, _key(model, part)])
        _add(part, facts)
    for path, module in model.named_modules():
        if not any(path == part or path.startswith(f"{part}.") for part in nested):
            entry["kinds"].update(_kinds(path, module))


def _nested(model: Any) -> Iterator[tuple[str, Any]]:
    """The outermost models inside a model, by path."""
    kind: Any = import_module("transformers").PreTrainedModel
    outer: list[str] = []
    for path, module in model.named_modules():
        if path and isinstance(module, kind) and not any(path.startswith(f"{part}.") for part in outer):
            outer.append(path)
            yield path, module


def _key(model: Any, part: Any) -> str | None:
    """The key of a model's config that holds the config of a part; None if they share one."""
    if part.config.model_type == model.config.model_type:
        return None
    keys = [key for key, value in vars(model.config).items() if value is part.config]
    same = [k for k, v in vars(model.config).items() if getattr(v, "model_type", None) == part.config.model_type]
    return next(iter(keys or same), None)


def _kinds(path: str, module: Any) -> Iterator[tuple[str, str]]:
    """Kinds of the parameters of two or more dimensions that are no weights of linear layers."""
    for name, parameter in module.named_parameters(recurse=False):
        kind = _kind(module, name)
        if kind == "parameter" and parameter.ndim == 3 and "expert" in f"{path}.{type(module).__name__}".lower():
            kind = "transposed experts" if getattr(module, "is_transposed", False) else "experts"
        elif kind == "parameter" and name == "weight" and re.search("router|gate", type(module).__name__.lower()):
            kind = "router"
        if kind != "linear" and parameter.ndim >= 2:
            yield starred(f"{path}.{name}" if path else name), kind


def _kind(module: Any, name: str) -> str:
    nn: Any = import_module("torch.nn")
    if isinstance(module, nn.MultiheadAttention) or type(module).__name__ == "NonDynamicallyQuantizableLinear":
        return "attention"
    kinds = {nn.Linear: "linear", nn.Embedding: "embedding", nn.modules.conv._ConvNd: "convolution"}
    if name != "weight":
        return "parameter"
    if type(module).__name__ == "Conv1D":
        return "conv1d"
    return next((kind for base, kind in kinds.items() if isinstance(module, base)), "parameter")


def small(config: Any) -> Any:
    """The same configuration with two layers in every stack whose number of layers is a plain number."""
    for key, value in list(vars(config).items()):
        if type(value) is int and value > 2 and _LAYERS.fullmatch(key):
            with contextlib.suppress(Exception):
                setattr(config, key, 2)
        elif hasattr(value, "model_type"):
            small(value)
    return config
