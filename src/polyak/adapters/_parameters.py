"""The parameters of a model that a LoRA adapter can change, and the form in which PEFT reads the change."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..checkpoint import Checkpoint, RunTime, run_time_of
from ..reading import Pattern
from .low_rank import Factors, Limit, factorised

Form = Literal["module", "embedding", "parameter", "none"]

# Matrices that are no linear layer: their rows are looked up, or the layer's type cannot be told from its shape.
_EMBEDDING = re.compile(r"embed|wte|wpe|shared\.weight$|relative_attention_bias\.weight$")
_HEAD_OR_EMBEDDING = re.compile(rf"{_EMBEDDING.pattern}|lm_head", re.IGNORECASE)
_NOT_LINEAR = re.compile(rf"{_EMBEDDING.pattern}|lm_head|norm|conv", re.IGNORECASE)
# PEFT takes modules of these names for experts that are fused at run time, in models that have such experts.
_NAMES_OF_EXPERTS = frozenset(["gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"])
# PEFT refuses these modules of these models, whose kernels read the weights past the adapter.
_REFUSED_MODULES = frozenset(["out_proj", "conv1d"])
_REFUSING = frozenset(["falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"])
_FORMS: Mapping[str, Form] = {
    "linear": "module", "conv1d": "module", "convolution": "module", "embedding": "embedding",
    "experts": "parameter", "transposed experts": "parameter", "router": "parameter",
}  # fmt: skip


class Parameters:
    """The parameters of a model as PEFT names them, that is as they are called at run time.

    Args:
        base: The stored model.
        modules: Pattern for the names of those to factorise (default: by kind and name).
    """

    def __init__(self, base: Checkpoint, modules: Pattern | None) -> None:
        self._run_time, self._modules = run_time_of(base), modules
        self._model_type = self._run_time.model_type if self._run_time else ""
        names = self._run_time.view.specs if self._run_time else base.specs
        self._has_experts = any(self._kind(name).endswith("experts") for name in names)

    def view(self, model: Checkpoint) -> Checkpoint:
        """A model of the same architecture with its parameters as they are at run time."""
        if self._run_time is None:
            return model
        own: RunTime = run_time_of(model) or self._run_time.like(model)
        return own.view

    def _kind(self, name: str) -> str:
        return self._run_time.kind(name) if self._run_time else "linear"

    def form(self, name: str, shape: Sequence[int]) -> Form:
        """The form in which an adapter holds the change of a parameter; `none` if it is left out."""
        kind = self._kind(name)
        if self._run_time is None and len(shape) == 2 and _EMBEDDING.search(name):
            kind = "embedding"
        form = _FORMS.get(kind, "none")
        if len(shape) < 2 or not self._chosen(name, kind, shape):
            return "none"
        if form == "parameter":
            return form
        module, _, leaf = name.rpartition(".")
        last = module.rpartition(".")[2]
        if leaf != "weight" or (last in _REFUSED_MODULES and self._model_type in _REFUSING):
            return "none"
        return "parameter" if len(shape) == 2 and self._has_experts and last in _NAMES_OF_EXPERTS else form

    def _chosen(self, name: str, kind: str, shape: Sequence[int]) -> bool:
        if self._modules is not None:
            return self._modules.search(name)
        if kind.endswith("experts") or kind == "router":
            return True
        by_name = _NOT_LINEAR if self._run_time is None else _HEAD_OR_EMBEDDING
        return len(shape) == 2 and kind in ("linear", "conv1d") and by_name.search(name) is None

    def transposed(self, name: str) -> bool:
        """True if a matrix, or that of each expert, is stored as (in, out)."""
        return self._kind(name) in ("conv1d", "transposed experts")

    def targets(self, names: Sequence[str]) -> list[str]:
        """`target_parameters` among some names, in the order in which PEFT wraps them."""
        return self._run_time.in_module_order(names) if self._run_time else list(names)


def wrapper(name: str, targets: Sequence[str]) -> str:
    """The module under which PEFT keeps the factors of a parameter.

    PEFT wraps the parameters of a module one around another; the last one is the outermost.

    Args:
        name: The parameter, such as `experts.gate_up_proj`.
        targets: All `target_parameters`, in the order in which they are wrapped.
    """
    module = name.rpartition(".")[0]
    beside = [target for target in targets if target.rpartition(".")[0] == module]
    return module + ".base_layer" * (len(beside) - 1 - beside.index(name))


def experts_factorised(difference: Any, limit: Limit, *, transposed: bool) -> Factors:
    """Factors of the change of a parameter (experts, out, in) as PEFT keeps them.

    Shapes: A (experts * r, in), B (out, r * experts).

    Every expert has the same rank, which zeros fill up. A parameter of two dimensions is a single expert.
    """
    stacked = difference if difference.ndim == 3 else difference[None]
    each = [factorised(matrix.T if transposed else matrix, limit) for matrix in stacked]
    rank = limit.rank or max(factors.rank for factors in each)
    rights = np.stack([np.pad(f.right, ((0, rank - f.rank), (0, 0))) for f in each])
    lefts = np.stack([np.pad(f.left, ((0, 0), (0, rank - f.rank))) for f in each], axis=-1)
    energy, lost = (float(sum(getattr(factors, what) for factors in each)) for what in ("energy", "lost"))
    return Factors(lefts.reshape(lefts.shape[0], -1), rights.reshape(-1, rights.shape[2]), energy, lost)
