"""Candidates of a search, merged in memory and into live modules; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import planning
from ..checkpoint import Checkpoint
from ..checkpoint.memory import MemoryCheckpoint
from ..engine.masking import without_masks
from ..engine.memory import merge_into
from ..engine.merging import Sink
from ..engine.remembered import Remembered
from ..engine.spans import Span
from ..planning import Plan, Step
from ..recipe import Recipe, Scalar, filled
from .inputs import Inputs

if TYPE_CHECKING:
    from ..tasks import LiveModel


class _Places(Sink):
    """A sink: arrays that stay the same from one candidate to the next, so that what did not change is there still."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.live: list[Mapping[str, Any]] = []

    def prepare(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.file is None and step.out.name not in self.arrays:
                self.arrays[step.out.name] = np.empty(step.out.numel, step.out.dtype.numpy)

    def write(self, step: Step, start: int, data: Any) -> None:
        if step.file is not None:  # heads and masks lie beside the model
            return
        values = data.view(step.out.dtype.numpy)
        self.arrays[step.out.name][start : start + len(values)] = values
        for places in self.live:
            if step.out.name in places:
                places[step.out.name][start : start + len(values)] = values

    def done(self, span: Span, out: bytes, reads: Sequence[bytes]) -> None:
        pass


class Candidates:
    """Merges one candidate after another.

    Args of the constructor:
        recipe: With what is to be searched.
        memory: Bytes of the models' tensors to keep in memory.
        workers: Threads.
    """

    def __init__(self, recipe: Recipe, *, memory: int, workers: int) -> None:
        self._recipe, self._workers = recipe, workers
        self._inputs = Inputs(recipe, memory, workers)
        self._remembered, self._places = Remembered(), _Places()
        self._lives: list[LiveModel] = []
        self._copied: list[tuple[LiveModel, frozenset[str]]] = []
        self._shapes: dict[str, tuple[int, ...]] = {}

    def plan(self, values: Mapping[str, Scalar]) -> Plan:
        """The plan of a candidate, whose models are open already.

        Raises:
            PolyakError: the recipe cannot be merged with these values.
        """
        return without_masks(planning.plan(filled(self._recipe, values), opening=self._inputs))

    def merge(self, values: Mapping[str, Scalar]) -> Plan:
        """Merge a candidate into the modules that were joined.

        Raises:
            PolyakError: it cannot be merged.
        """
        plan = self.plan(values)
        self._places.prepare(plan.steps)
        self._shapes = {step.out.name: step.out.shape for step in plan.steps if step.file is None}
        changed = merge_into(self._places, plan, self._remembered, workers=self._workers)
        new = {step.out.name for step in changed if step.file is None}
        for live, names in self._copied:
            live.load({name: array for name, array in self.tensors().items() if name in new & names}, partial=True)
        return plan

    def tensors(self) -> dict[str, Any]:
        """The candidate's tensors, as `polyak merge` writes them; the next candidate overwrites them."""
        return {name: self._places.arrays[name].reshape(shape) for name, shape in self._shapes.items()}

    def checkpoint(self, label: str) -> Checkpoint:
        """The candidate as a checkpoint of its own."""
        return MemoryCheckpoint({name: array.copy() for name, array in self.tensors().items()}, label=label)

    def join(self, live: LiveModel) -> None:
        """Merge the candidates to come into a module too: straight into its memory, where that is float32 here.

        Modules with the same tensors share their memory from then on.
        """
        live.load(self.tensors())
        if twin := next((one for one in self._lives if one.tensors.keys() == live.tensors.keys()), None):
            live.share(twin)
            return
        self._lives.append(live)
        places = live.tensors
        views = {name: view for name, place in places.items() if (view := _view(place)) is not None}
        self._places.live.append(views)
        if others := frozenset(places.keys() - views.keys()):
            self._copied.append((live, others))


def _view(place: Any) -> Any:
    """A parameter's memory as flat NumPy floats; None where it has none of the kind."""
    plain = place.device.type == "cpu" and place.is_contiguous() and str(place.dtype) == "torch.float32"
    return place.detach().view(-1).numpy() if plain else None


def with_values(recipe: Recipe, values: Mapping[str, Scalar], provenance: Mapping[str, Any]) -> Recipe:
    """The recipe with the values that were found, and what is to be known of them."""
    found = filled(recipe, values)
    before = {"of": dict(found.provenance)} if found.provenance else {}
    return replace(found, provenance={**provenance, **before})
