"""A base and its fine-tune, compared: what both hold, and heads and tables that only the fine-tune has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import Checkpoint, TensorSpec, config_of, holder_of, layer_of, locate, refuse_factors, subset
from ..checkpoint import open as opened
from ..planning import Plan, plan
from ..reading import Pattern
from ..recipe import Model, Recipe, Source
from ._parameters import Parameters


@dataclass(frozen=True)
class Compared:
    """Two models, tensor by tensor.

    Attributes:
        parameters: The base's parameters.
        plan: A plan of the tensors that both models have, for its checks of names, shapes, kinds and ties.
        tuned: The fine-tune.
        apart: Its tensors outside the layers that the base lacks or has in another shape, such as a task's head or
            the embeddings of added tokens.
    """

    parameters: Parameters
    plan: Plan
    tuned: Checkpoint
    apart: tuple[TensorSpec, ...]


def compared(base: str, tuned: str, modules: Pattern | None) -> Compared:
    """Open and compare two models.

    Raises:
        CheckpointError: one cannot be read, or tensors of the layers differ in names, shapes or kinds.
    """
    untuned, other = (refuse_factors(opened(locate(path, Path()))) for path in (base, tuned))
    parameters = Parameters(untuned, modules)
    before, after = parameters.view(untuned), parameters.view(other)
    apart = {name: spec for name, spec in after.specs.items() if _is_apart(spec, _entry(before, name))}
    absent = [name for name in before.specs if layer_of(name) is None and _entry(after, name) is None]
    models: Mapping[str, Checkpoint] = {
        "untuned": _without(before, {*apart, *absent}),
        "tuned": _without(after, {*apart, *absent}),
    }
    sources = tuple(Model(name, Source(path=model.label)) for name, model in models.items())
    together = plan(Recipe("linear", sources, buffers="first", door="extract"), models)
    return Compared(parameters, together, after, tuple(spec for spec in apart.values() if spec.dtype.floating))


def _entry(checkpoint: Checkpoint, name: str) -> TensorSpec | None:
    """The entry of a tensor or of the one that it is tied to; None if there is neither."""
    if name in checkpoint.specs:
        return checkpoint.specs[name]
    holder = holder_of(name, checkpoint, config_of(checkpoint))
    return checkpoint.specs[holder] if holder else None


def _is_apart(spec: TensorSpec, other: TensorSpec | None) -> bool:
    return layer_of(spec.name) is None and (other is None or other.shape != spec.shape)


def _without(checkpoint: Checkpoint, names: set[str]) -> Checkpoint:
    if not names & {*checkpoint.specs, *checkpoint.ties}:
        return checkpoint
    return subset(checkpoint, [name for name in [*checkpoint.specs, *checkpoint.ties] if name not in names])
