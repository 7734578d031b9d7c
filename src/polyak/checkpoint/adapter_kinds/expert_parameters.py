"""LoRA on parameters of mixture-of-experts layers (`target_parameters`), one pair of factors per expert."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from ...errors import CheckpointError
from .._api import TensorSpec
from .._floats import Floats
from ..layers import layer_of
from ..naming import expert_weights
from . import adapter_kind
from ._change import AdaptedModule, Change, Once

_ROLES = ("lora_A", "lora_B")
_EXPERT = re.compile(r"experts\.(?P<expert>\d+)\.(?P<part>\w+)\.weight$")


_Experts: TypeAlias = dict[tuple[str, int], dict[tuple[int, str], str]]


@dataclass(frozen=True)
class _Parameter:
    """A parameter of shape (experts, rows, columns) or (rows, columns), as the base stores it.

    Attributes:
        pieces: Stored tensors, each with the index of its first entry in the parameter.
        shape: (experts, rows, columns).
    """

    pieces: Mapping[str, int]
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class _Fit:
    """A parameter that the factors of a module fit.

    Attributes:
        name: Its name in the configuration.
        parameter: The parameter.
        orientations: True for (experts, in, out); False for (experts, out, in); or both.
    """

    name: str
    parameter: _Parameter
    orientations: set[bool]


class _ExpertProduct(Change):
    """Adds scaling * B_e A_e to the entries of each expert e that a stored tensor holds."""

    def __init__(self, factors: Once[tuple[Floats, Floats]], scaling: float, first: int, nbytes: int) -> None:
        self._factors, self._scaling, self._first, self.nbytes = factors, np.float32(scaling), first, nbytes

    def apply(self, values: Floats, start: int) -> None:
        from .._low_rank import add_product

        lefts, rights = self._factors()
        size, done = lefts.shape[1] * rights.shape[2], 0
        while done < values.size:
            expert, entry = divmod(self._first + start + done, size)
            part = values[done : done + size - entry]
            add_product(part, entry, lefts[expert], rights[expert], self._scaling)
            done += part.size


def _applies(module: AdaptedModule) -> bool:
    return bool(_parameter_names(module))


@adapter_kind("expert_parameters", *_ROLES, peft_types=("LORA",), applies=_applies)
def expert_parameters(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """W_e + s B_e A_e for every expert e, where the base stores all experts in one tensor or each by itself."""
    experts = _experts(modules[0].fitting.names)
    fits = [(module, _fit(module, experts)) for module in modules]
    sure = {orientation for _, fit in fits for orientation in fit.orientations if len(fit.orientations) == 1}
    for module, fit in fits:
        possible = fit.orientations & sure if len(fit.orientations) > 1 else fit.orientations
        if len(possible) != 1:
            raise CheckpointError(
                f"{module.settings.path}: {fit.name!r} has as many rows as columns, so its factors fit both ways. "
                "Merge this adapter in PEFT (merge_and_unload) and name the model that it saves."
            )
        transposed = possible == {True}
        factors = Once(_reader(module, fit.parameter.shape[0], transposed=transposed))
        scaling = module.fitting.scale * module.settings.scaling_of(fit.name)
        nbytes = sum(4 * module.spec(role).numel for role in _ROLES)
        for name, first in fit.parameter.pieces.items():
            yield name, _ExpertProduct(factors, scaling, first, nbytes if first == 0 else 0)


def _reader(module: AdaptedModule, experts: int, *, transposed: bool) -> Any:
    """Reads the factors: (experts, rows, r) and (experts, r, columns).

    PEFT stores A (experts * r, in), experts one after another, and B (out, r * experts), ranks one after another.
    """

    def read() -> tuple[Floats, Floats]:
        a, b = module.floats("lora_A"), module.floats("lora_B")
        a = a.reshape(experts, -1, a.shape[1])
        b = b.reshape(b.shape[0], -1, experts).transpose(2, 0, 1)
        left, right = (a.transpose(0, 2, 1), b.transpose(0, 2, 1)) if transposed else (b, a)
        return np.ascontiguousarray(left), np.ascontiguousarray(right)

    return read


def _fit(module: AdaptedModule, experts: _Experts) -> _Fit:
    """The parameter that a module's factors belong to.

    PEFT nests one wrapper per parameter (`experts.base_layer.lora_A`), so that only shapes tell which is which.
    """
    names = _parameter_names(module)
    fits = [
        _Fit(name, parameter, orientations)
        for name in names
        if (parameter := _parameter(module, name, experts)) and (orientations := _orientations(module, name, parameter))
    ]
    if len(fits) == 1:
        return fits[0]
    problem = f"fit any of {', '.join(fit.name for fit in fits)}" if fits else "fit none of the base's tensors"
    shapes = " and ".join(str(list(module.spec(role).shape)) for role in ("lora_A", "lora_B"))
    raise CheckpointError(
        f"{module.settings.path}: the factors {shapes} of {module.name!r} {problem} for target_parameters "
        f"{', '.join(names)}. Merge this adapter in PEFT (merge_and_unload) and name the model that it saves."
    )


def _orientations(module: AdaptedModule, name: str, parameter: _Parameter) -> set[bool]:
    a, b = module.spec("lora_A").shape, module.spec("lora_B").shape
    experts, rows, columns = parameter.shape
    rank = module.settings.rank_of(name)
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] != rank * experts:
        return set()
    return {
        transposed
        for transposed in (False, True)
        if (b[0], a[1]) == ((columns, rows) if transposed else (rows, columns))
    }


def _parameter_names(module: AdaptedModule) -> list[str]:
    """The parameters of `target_parameters` that belong to a module, by their full names in the adapter."""
    named: Any = module.settings.config.get("target_parameters") or []
    names = [name for name in cast("list[Any]", named) if isinstance(name, str)]
    own = module.name.replace(".base_layer", "")
    return [f"{own}.{name.rpartition('.')[2]}" for name in names if _is_of(module, own, name)]


def _is_of(module: AdaptedModule, own: str, name: str) -> bool:
    """True if a name of `target_parameters` is that of a parameter of a module; PEFT compares the ends of names."""
    prefix = name.rpartition(".")[0]
    return (
        f".{own}".endswith(f".{prefix}")
        if prefix
        else _parameter(module, f"{own}.{name}", {}) is not None or own.endswith("experts")
    )


def _parameter(module: AdaptedModule, name: str, experts: _Experts) -> _Parameter | None:
    """A parameter as the base stores it: by itself, or one weight per expert."""
    fitting = module.fitting
    try:
        stored = fitting.find(name)
    except CheckpointError:
        return _joined(module, name, experts)
    shape = fitting.original(stored).shape
    if len(shape) not in (2, 3):
        return None
    count, rows, columns = (1, *shape)[-3:]
    return _Parameter({stored: 0}, (count, rows, columns))


def _joined(module: AdaptedModule, name: str, experts: _Experts) -> _Parameter | None:
    prefix, _, leaf = name.rpartition(".")
    own = layer_of(f"{prefix}.")
    weights = next((weights for layer, weights in experts.items() if _is_same_layer(own, layer)), {})
    for parts in expert_weights().get(leaf, ()):
        count = sum(part == parts[0] for _, part in weights)
        names = [weights[e, part] for e in range(count) for part in parts if (e, part) in weights]
        specs = [module.fitting.original(stored) for stored in names]
        if count and len(names) == count * len(parts) and len({spec.shape[1:] for spec in specs}) == 1:
            return _from_weights(dict(zip(names, specs, strict=True)), count)
    return None


def _from_weights(specs: Mapping[str, TensorSpec], experts: int) -> _Parameter:
    pieces, total = dict[str, int](), 0
    for name, spec in specs.items():
        pieces[name] = total
        total += spec.numel
    columns = next(iter(specs.values())).shape[1]
    return _Parameter(pieces, (experts, total // columns // experts, columns))


def _experts(names: Mapping[str, None]) -> _Experts:
    """The weights of single experts: for each layer, (expert, part) to the stored name."""
    by_layer: _Experts = {}
    for name in names:
        if (match := _EXPERT.search(name)) and (layer := layer_of(name)):
            by_layer.setdefault(layer[:2], {})[int(match["expert"]), match["part"]] = name
    return by_layer


def _is_same_layer(own: tuple[str, int, str] | None, other: tuple[str, int]) -> bool:
    """True if both are the same layer of a stack, one of whose names may have a longer prefix."""
    if own is None or own[1] != other[1]:
        return False
    return f".{own[0]}".endswith(f".{other[0]}") or f".{other[0]}".endswith(f".{own[0]}")
