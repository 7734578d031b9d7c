"""Cases for every registered method, made from what `polyak methods --json` says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .case import Case, command, merge, recipe_of
from .inputs import MODELS, Inputs

Method = Mapping[str, Any]
Settings = Mapping[str, Any]

# The statistics that a method takes; those of `mats` depend on its setting `by`.
STATISTICS = {"fisher": "fisher", "regmean": "gram", "regmean_plus_plus": "merged_gram", "mats": "gram"}
# Angles are computed by NumPy, whose arc cosine and sine depend on the processor.
ANGLES = {"slerp", "karcher", "multislerp", "nuslerp", "model_stock"}
# Kernels are compiled for each dtype, which takes seconds: these methods stand for the ways that tensors are read.
EVERY_DTYPE = {"linear", "task_arithmetic", "ties", "dare_ties", "slerp", "pcb", "median", "emr", "tsv_m", "wise_ft"}
OTHER_DTYPES = ("F16", "F64", "F8_E4M3")
# For settings that are text: nearly all are regular expressions.
TEXTS = {"exclude": r"layers\.1", "keep": "0-3,7"}
TOGETHER: Mapping[str, list[Settings]] = {
    "ties": [
        {"topk": "exact", "rescale": "l1", "zero_sum": "majority"},
        {"granularity": "model", "topk": "exact", "function": "max"},
    ],
    "dare_ties": [{"trim": 0.5, "topk": "exact"}, {"trim": 0.5, "granularity": "model"}],
    "breadcrumbs": [{"granularity": "tensor", "rescale": "l1"}],
    "breadcrumbs_ties": [{"granularity": "tensor", "rescale": "l1"}],
    "consensus": [{"of": "ties", "granularity": "model"}],
    "tall_masks": [{"of": "ties", "granularity": "model"}],
    "pcb": [{"granularity": "tensor", "ratio": 0.97, "clip": 0.05}],
    "trimmed_mean": [{"trim": 0.34}],
    "nuslerp": [{"flatten": False, "along": "first"}],
    "sce": [{"select_topk": 0.3}],
    "ram": [{"epsilon": 0.01}],
    "ramplus_tl": [{"epsilon": 0.01}],
    "nearswap": [{"t": 0.003}],
    "mats": [{"by": "fisher", "iterations": 5}],
    "fisher": [{"floored": "all", "normalize": True}],
}


def methods() -> list[Method]:
    """What the tree says of every method that it registers."""
    return json.loads(command("methods", "--json"))


def method_cases() -> Iterator[Case]:
    for method in methods():
        yield from _cases_of(method)


def _cases_of(method: Method) -> Iterator[Case]:
    """At the defaults in every dtype and size, and at a change of every setting."""
    name = method["name"]
    case = partial(_case, method, portable=_is_portable(method))
    yield case(f"method/{name}/default")
    yield case(f"method/{name}/default-two-workers", workers=2, quick=False)
    for label, settings in _changes(method):
        yield case(f"method/{name}/{label}", settings=settings, quick=_is_structural(settings))
    if not method["needs_base"]:
        yield case(f"method/{name}/no-base", base=False)
    for dtype in ("BF16", *(OTHER_DTYPES if name in EVERY_DTYPE else ())):
        yield case(f"method/{name}/{dtype}", dtype=dtype, workers=2, quick=dtype == "BF16")
    if name not in STATISTICS:
        yield case(f"method/{name}/odd", kind="odd", quick=False)
        if _is_local(method):
            yield from _large_cases(method, case)


def _large_cases(method: Method, case: Any) -> Iterator[Case]:
    """Tensors of several blocks, and of several pieces of work."""
    name = method["name"]
    yield case(f"method/{name}/large-BF16", kind="large", dtype="BF16", workers=2, quick=False)
    yield case(f"method/{name}/huge-BF16", kind="huge", dtype="BF16", workers=2, quick=False)
    for label, settings in [("default", {}), *_changes(method)]:
        if _is_structural(settings):
            yield case(f"method/{name}/large-{label}", kind="large", settings=settings, quick=False)


def _is_structural(settings: Settings) -> bool:
    return any(isinstance(value, str | bool) for value in settings.values()) or len(settings) != 1


def _is_local(method: Method) -> bool:
    """Whether a tensor's parts can be merged apart, so that no matrix is decomposed."""
    return not {"elementwise", "rows"}.isdisjoint(method["laws"])


def _is_portable(method: Method) -> bool:
    return _is_local(method) and method["name"] not in ANGLES


def _changes(method: Method) -> Iterator[tuple[str, Settings]]:
    """One setting at a time away from its default, then the combinations that take other ways."""
    for name, setting in method["settings"].items():
        for value in _others(method, name, setting):
            label = "own" if isinstance(value, list) else value
            yield f"{name}={label}", {name: value}
    for settings in TOGETHER.get(method["name"], []):
        yield ",".join(f"{name}={value}" for name, value in settings.items()), settings


def _others(method: Method, name: str, setting: Mapping[str, Any]) -> list[Any]:
    kind, default = setting["kind"], setting["default"]
    if isinstance(kind, list):
        return [word for word in kind if word != default]
    if kind == "bool":
        return [not default]
    if kind == "regex":
        return [TEXTS[name]]
    if kind == "int":
        return [max(default // 2, 1)]
    if not setting["per_model"]:
        return [_smaller(default)]
    own = [_smaller(default), default, _smaller(_smaller(default))]
    return [_smaller(default), own[: _count(method)]]


def _smaller(default: float) -> float:
    return 0.6 * default if default else 0.02


def _count(method: Method) -> int:
    """How many models are merged: three, or as many as the method takes."""
    return method["models"][1] or len(MODELS)


def _case(
    method: Method, name: str, *, settings: Settings | None = None, portable: bool, quick: bool = True, **more: Any
) -> Case:
    return Case(name, partial(_merge, method, settings or {}, **more), portable, quick)


def _merge(
    method: Method, settings: Settings, inputs: Inputs, out: Path,
    kind: str = "small", dtype: str = "F32", workers: int = 1, base: bool | None = None,
) -> None:  # fmt: skip
    folder = inputs.family(kind, dtype)
    with_base = method["uses_base"] if base is None else base
    recipe = recipe_of(folder, method["name"], base=with_base, models=_count(method), settings=settings, seed=11)
    if kind == "small" and (statistic := _statistic(method, settings)):
        first = settings.get("layout") == "in_out"
        place = inputs.statistics(statistic, inputs_first=first)
        recipe["models"] = [
            {"path": path, "statistics": {statistic: f"./{place}/{path.rpartition('/')[2]}.safetensors"}}
            for path in recipe["models"]
        ]
    merge(inputs, recipe, out, workers=workers)


def _statistic(method: Method, settings: Settings) -> str | None:
    if method["name"] == "mats":
        return settings.get("by", "gram")
    return STATISTICS.get(method["name"])
