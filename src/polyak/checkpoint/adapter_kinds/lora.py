"""LoRA (Hu et al., 2021. arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import CheckpointError
from .._api import TensorSpec
from .._floats import Floats
from . import adapter_kind
from ._change import AdaptedModule, Change, Once

_ROLES = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_B.bias")


class Product(Change):
    """Adds scaling * left @ right.

    Args:
        module: The module.
        scaling: `scale` * s.
        swapped: True if the factors are A^T and B^T, since the weight is stored transposed.
    """

    def __init__(self, module: AdaptedModule, scaling: float, *, swapped: bool) -> None:
        self._module, self._scaling, self._swapped = module, np.float32(scaling), swapped
        self.nbytes = sum(4 * module.spec(role).numel for role in factor_roles(module))
        self._factors = Once(self._read)

    def apply(self, values: Floats, start: int) -> None:
        from .._low_rank import add_product

        add_product(values, start, *self._factors(), self._scaling)

    def _read(self) -> tuple[Floats, Floats]:
        a, b = (_as_matrix(self._module.floats(role)) for role in factor_roles(self._module))
        left, right = (a.T, b.T) if self._swapped else (b, a)
        return np.ascontiguousarray(left), np.ascontiguousarray(right)


def _as_matrix(values: Floats) -> Floats:
    return values.reshape(values.shape[0], -1)


class _Shift(Change):
    """Adds scaling * the bias of B."""

    def __init__(self, module: AdaptedModule, scaling: float) -> None:
        self.nbytes = 4 * module.spec("lora_B.bias").numel
        self._added = Once(lambda: module.floats("lora_B.bias") * np.float32(scaling))

    def apply(self, values: Floats, start: int) -> None:
        values += self._added()[start : start + values.size]


@adapter_kind("lora", *_ROLES, peft_types=("LORA",))
def lora(modules: Sequence[AdaptedModule]) -> Iterator[tuple[str, Change]]:
    """W + s B A; with `lora_bias`, also b + s times the bias of B."""
    for module, target, swapped in oriented(modules):
        yield target.name, Product(module, module.fitting.scale * module.scaling, swapped=swapped)
        yield from shifted_bias(module)


def shifted_bias(module: AdaptedModule) -> Iterator[tuple[str, Change]]:
    """The change of a module's bias by `lora_bias`.

    Raises:
        CheckpointError: the base has no such bias.
    """
    if "lora_B.bias" not in module.by_role:
        return
    try:
        target = module.target("bias")
    except CheckpointError as error:
        raise CheckpointError(
            f"{module.settings.path}: {module.name!r} has a bias of its own (lora_bias), which cannot be added: the "
            f"base's module has no bias. {error}"
        ) from error
    if module.spec("lora_B.bias").shape != target.shape:
        raise module.misfit(target)
    yield target.name, _Shift(module, module.fitting.scale * module.scaling)


def factor_roles(module: AdaptedModule) -> tuple[str, str]:
    """The roles of A and B."""
    embedding = is_embedding(module)
    return ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")


def is_embedding(module: AdaptedModule) -> bool:
    """True if a module is an embedding, by the roles of its factors."""
    return not module.by_role.keys().isdisjoint(("lora_embedding_A", "lora_embedding_B"))


def oriented(modules: Sequence[AdaptedModule]) -> Iterator[tuple[AdaptedModule, TensorSpec, bool]]:
    """Each module, its target, and True if its weight is stored transposed.

    Raises:
        CheckpointError: factors do not fit the weight, or a square weight may be stored either way.
    """
    fits = [(module, target := module.target(), _orientations(module, target)) for module in modules]
    transposed = any(fit == {True} for module, _, fit in fits if not is_embedding(module))
    for module, target, fit in fits:
        settings = module.settings
        if len(fit) == 2 and transposed and not settings.fan_in_fan_out:
            raise CheckpointError(
                f"{settings.path}: {module.name!r} is square, and other modules of this adapter are stored transposed "
                "while fan_in_fan_out is false. Set it to true if this module is a Conv1D (GPT-2)."
            )
        yield module, target, settings.fan_in_fan_out if len(fit) == 2 else fit == {True}


def _orientations(module: AdaptedModule, weight: TensorSpec) -> set[bool]:
    """Orientations in which B @ A fits the weight: as it is (False), transposed (True), or both.

    Shapes: A (r, in), B (out, r), weight (out, in); of a convolution A (r, in, ...), B (out, r, 1, ...), weight
    (out, in, ...); of an embedding A (r, vocabulary), B (size, r), weight (vocabulary, size).
    """
    a, b = (module.spec(role) for role in factor_roles(module))
    rank = module.settings.rank_of(module.name)
    fit: set[bool] = set()
    if a.shape[:1] == (rank,) and b.shape[1:2] == (rank,) and len(a.shape) == len(b.shape) == len(weight.shape) >= 2:
        if set(b.shape[2:]) <= {1} and weight.shape == (b.shape[0], *a.shape[1:]) and not is_embedding(module):
            fit.add(False)
        if weight.shape == (*a.shape[1:], b.shape[0]) and len(weight.shape) == 2:
            fit.add(True)
    if not fit:
        raise _misfit(module, a, b, rank, weight)
    return fit


def _misfit(module: AdaptedModule, a: TensorSpec, b: TensorSpec, rank: int, weight: TensorSpec) -> CheckpointError:
    grouped = len(weight.shape) == len(a.shape) > 2 and a.shape[2:] == weight.shape[2:] and weight.shape[1] < a.shape[1]
    reason = (
        " The base's convolution has groups, while A reads all input channels: their sum is no convolution of this "
        "shape, and PEFT does not merge it either. Keep this adapter separate, or train it without this module."
    )
    return CheckpointError(
        f"{module.settings.path}: {module.name!r} has A {list(a.shape)} and B {list(b.shape)}, which do not fit "
        f"together, the rank {rank} of the configuration, or the base's weight {list(weight.shape)}."
        f"{reason if grouped and a.shape[1] % weight.shape[1] == 0 else ''}"
    )
