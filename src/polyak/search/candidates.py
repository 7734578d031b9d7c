"""Candidates of a search, merged in memory and into live modules; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import planning
from ..checkpoint import Checkpoint, MemoryCheckpoint, TensorSpec
from ..engine import OpenModels, Session, Sink, without_masks
from ..planning import Plan, Step
from ..recipe import Recipe, Scalar, filled, sought

if TYPE_CHECKING:
    from ..tasks import LiveModel


class _Places(Sink):
    """A sink whose memory is reused by the next candidate, so that unchanged tensors need no work.

    A tensor lives in the memory of the first joined module that holds it as float32, else in an array of its own.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Any] = {}
        self._views: dict[str, Any] = {}
        self._outs: dict[str, TensorSpec] = {}

    def prepare(self, steps: Sequence[Step]) -> None:
        self._outs = {step.out.name: step.out for step in steps if step.file is None}
        for name, out in self._outs.items():
            if name not in self._arrays and name not in self._views:
                self._arrays[name] = np.empty(out.numel, out.dtype.numpy)

    def write(self, step: Step, start: int, data: Any) -> None:
        if step.file is not None:  # heads and masks are files beside the model
            return
        values = data.view(step.out.dtype.numpy)
        for places in (self._arrays, self._views):
            if (place := places.get(step.out.name)) is not None:
                place[start : start + len(values)] = values

    def place(self, step: Step) -> Any:
        """Memory into which a tensor may be merged directly, as float32; None if it must be written."""
        name = step.out.name
        if step.file is not None or (name in self._views and name in self._arrays):
            return None
        if name in self._views:
            return self._views[name]
        return self._arrays[name] if step.out.dtype.name == "F32" else None

    def move(self, views: Mapping[str, Any]) -> set[str]:
        """Keep tensors in a module's memory from now on, unless another has them; returns the names of those moved."""
        new = {name: view for name, view in views.items() if name not in self._views and name in self._outs}
        for name, view in new.items():
            self._views[name] = view
            if self._outs[name].dtype.name in _WITHIN_FLOAT32:
                del self._arrays[name]
        return set(new)

    def tensors(self) -> dict[str, Any]:
        """All tensors, in their dtypes; the next candidate overwrites them."""
        return {name: self._tensor(name).reshape(out.shape) for name, out in self._outs.items()}

    def _tensor(self, name: str) -> Any:
        if name in self._arrays:
            return self._arrays[name]
        return self._views[name].astype(self._outs[name].dtype.numpy, copy=False)


_WITHIN_FLOAT32 = frozenset({"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})  # a module's float32 holds them exactly


class Candidates:
    """Merges one candidate after another.

    Args of the constructor:
        recipe: Recipe with `search:` values.
        memory: Bytes of the models' tensors to cache.
        workers: Worker threads.
    """

    def __init__(self, recipe: Recipe, *, memory: int, workers: int) -> None:
        self._recipe, self._places = recipe, _Places()
        self._nested_change = any(".recipe." in f".{hyperparameter.place}" for hyperparameter in sought(recipe))
        self._models = OpenModels(memory, workers, nested_change=self._nested_change)
        self._session = Session(self._places, inputs=self._models.tensors, workers=workers)
        self._lives: list[LiveModel] = []
        self._copied: list[tuple[LiveModel, frozenset[str]]] = []
        self._planned: Plan | None = None

    def plan(self, values: Mapping[str, Scalar]) -> Plan:
        """The plan of a candidate.

        Raises:
            PolyakError: the recipe cannot be merged with these values.
        """
        recipe = filled(self._recipe, values)
        planned = planning.with_numbers(self._planned, recipe) if self._planned and not self._nested_change else None
        if planned is None:
            planned = without_masks(planning.plan(recipe, opening=self._models, tensors_only=self._planned is not None))
        self._planned = planned
        return planned

    def merge(self, values: Mapping[str, Scalar]) -> Plan:
        """Merge a candidate into the joined modules.

        Raises:
            PolyakError: it cannot be merged.
        """
        plan = self.plan(values)
        self._places.prepare(plan.steps)
        changed = self._session.merge(plan)
        new = {step.out.name for step in changed if step.file is None}
        for live, names in self._copied:
            live.load({name: array for name, array in self.tensors().items() if name in new & names}, partial=True)
        return plan

    def tensors(self) -> dict[str, Any]:
        """The candidate's tensors, as `polyak merge` writes them; the next candidate overwrites them."""
        return self._places.tensors()

    def checkpoint(self, label: str) -> Checkpoint:
        """The candidate as a checkpoint of its own."""
        return MemoryCheckpoint({name: array.copy() for name, array in self.tensors().items()}, label=label)

    def join(self, live: LiveModel) -> None:
        """Merge later candidates into a module too: directly into its memory, where that is float32 on the CPU.

        Modules with the same tensors share their memory from then on.
        """
        live.load(self.tensors())
        if twin := next((joined for joined in self._lives if joined.tensors.keys() == live.tensors.keys()), None):
            live.share(twin)
            return
        self._lives.append(live)
        places = live.tensors
        views = {name: view for name, place in places.items() if (view := _view(place)) is not None}
        if others := frozenset(places.keys() - self._places.move(views)):
            self._copied.append((live, others))


def _view(place: Any) -> Any:
    """A parameter's memory as a flat float32 NumPy array; None if it is elsewhere or of another dtype."""
    plain = place.device.type == "cpu" and place.is_contiguous() and str(place.dtype) == "torch.float32"
    return place.detach().view(-1).numpy() if plain else None


def with_values(recipe: Recipe, values: Mapping[str, Scalar], provenance: Mapping[str, Any]) -> Recipe:
    """The recipe with the best values, and their provenance."""
    best = filled(recipe, values)
    before = {"of": dict(best.provenance)} if best.provenance else {}
    return replace(best, provenance={**provenance, **before})
