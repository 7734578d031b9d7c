"""Methods, parameters and defaults of mergekit 0.1.5, with polyak's names for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...reading import Place, number
from .._model import Scalar


@dataclass(frozen=True)
class Parameter:
    """One of mergekit's parameters.

    Attributes:
        name: Its name in mergekit.
        setting: Its name in polyak; None if it has no influence on the result in mergekit.
        read: Converts a value in a file to polyak's value.
        default: mergekit's default, as `read` returns it; None if it is required.
        per_model: True if each model may have its own value.
    """

    name: str
    setting: str | None
    read: Callable[[object, Place], Scalar] = number
    default: Scalar | None = None
    per_model: bool = False


@dataclass(frozen=True)
class Translation:
    """One of mergekit's methods in polyak's terms.

    Attributes:
        parameters: Its parameters.
        base: The role of the base: required as origin of task vectors (`ancestor`), optional as origin (`optional`),
            the first of two models (`first`), or a model like any other (`model`).
        always: Settings without a counterpart in mergekit.
    """

    parameters: tuple[Parameter, ...]
    base: Literal["ancestor", "optional", "first", "model"] = "ancestor"
    always: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])


_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")


def flag(value: object, place: Place) -> bool:
    """Read a boolean in any spelling that mergekit accepts."""
    if isinstance(value, str) and value.lower() in (*_YES, *_NO):
        return value.lower() in _YES
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise place.expected("true or false", value)


def whole(value: object, place: Place) -> int:
    """Read an integer in any spelling that mergekit accepts."""
    parsed = number(value, place)
    if not parsed.is_integer():
        raise place.expected("an integer", value)
    return int(parsed)


def _choice(yes: str, no: str) -> Callable[[object, Place], str]:
    return lambda value, place: yes if flag(value, place) else no


_WEIGHT = Parameter("weight", "weight", per_model=True)
_DENSITY = Parameter("density", "density", default=1.0, per_model=True)
_LAMBDA = Parameter("lambda", "scale", default=1.0)
_INT8 = Parameter("int8_mask", None, flag, default=False)
_NO_DENSITY = Parameter("density", None, per_model=True, default=1.0)
_NO_RESCALE = Parameter("rescale", None, flag, default=False)
_GAMMA = Parameter("gamma", "gamma", default=0.01, per_model=True)
_EPSILON = Parameter("epsilon", "epsilon", default=0.15, per_model=True)
_CHANGE = Parameter("epsilon", "epsilon", default=1e-5)


def _rescale(default: str) -> Parameter:
    return Parameter("rescale", "rescale", _choice("l1", "none"), default)


def _function(default: str) -> Parameter:
    return Parameter("normalize", "function", _choice("mean", "sum"), default)


def _normalize(*, default: bool) -> Parameter:
    return Parameter("normalize", "normalize", flag, default)


_SHARED = (_WEIGHT, _LAMBDA, _INT8)
TRANSLATIONS: Mapping[str, Translation] = {
    "linear": Translation((_WEIGHT, _normalize(default=True)), base="model"),
    "slerp": Translation((Parameter("t", "t"),), base="first"),
    "passthrough": Translation((Parameter("scale", "scale", default=1.0, per_model=True),), base="model"),
    "task_arithmetic": Translation((*_SHARED, _NO_DENSITY, _NO_RESCALE, _normalize(default=False))),
    "ties": Translation(
        (*_SHARED, _DENSITY, _function("mean"), _rescale("none")),
        always={"topk": "exact", "granularity": "tensor", "zero_sum": "positive"},
    ),
    "dare_linear": Translation((*_SHARED, _DENSITY, _normalize(default=False), _rescale("l1"))),
    "dare_ties": Translation(
        (*_SHARED, _DENSITY, _function("sum"), _rescale("l1")), always={"trim": 1.0, "zero_sum": "positive"}
    ),
    "breadcrumbs": Translation(
        (*_SHARED, _DENSITY, _GAMMA, _normalize(default=False), _rescale("none")), always={"granularity": "tensor"}
    ),
    "breadcrumbs_ties": Translation(
        (*_SHARED, _DENSITY, _GAMMA, _function("sum"), _rescale("none")),
        always={"granularity": "tensor", "zero_sum": "positive"},
    ),
    "della": Translation(
        (*_SHARED, _DENSITY, _EPSILON, _function("mean"), _rescale("l1")), always={"zero_sum": "positive"}
    ),
    "della_linear": Translation((*_SHARED, _DENSITY, _EPSILON, _normalize(default=False), _rescale("l1"))),
    "sce": Translation(
        (Parameter("select_topk", "select_topk", default=1.0), _INT8), always={"zero_sum": "positive", "tiny": "alike"}
    ),
    "nuslerp": Translation(
        (
            _WEIGHT,
            Parameter("nuslerp_flatten", "flatten", flag, default=True),
            Parameter("nuslerp_row_wise", "along", _choice("first", "last"), "last"),
        ),
        base="optional",
    ),
    "multislerp": Translation(
        (
            _WEIGHT,
            Parameter("normalize_weights", "normalize", flag, default=True),
            Parameter("eps", "eps", default=1e-8),
        ),
        base="optional",
    ),
    "karcher": Translation(
        (Parameter("max_iter", "max_iter", whole, default=10), Parameter("tol", "tol", default=1e-5)), base="model"
    ),
    "arcee_fusion": Translation(()),
    "nearswap": Translation((Parameter("t", "t"),)),
    "ram": Translation((_CHANGE,)),
    "ramplus_tl": Translation((Parameter("r", "r", default=0.1), Parameter("alpha", "alpha", default=0.2), _CHANGE)),
    "model_stock": Translation(
        (Parameter("filter_wise", "granularity", _choice("row", "tensor"), "tensor"),), always={"clamp": False}
    ),
}
