"""What a merge will do, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import xxhash

from .. import recipe as recipes
from .._version import __version__
from ..checkpoint import DTYPES, Checkpoint, TensorSpec
from ..checkpoint._api import Bytes
from ..checkpoint.pipeline import stem_of
from ..errors import PolyakError
from ..methods import Law, Method

Kind = Literal["merge", "copy", "same", "beside"]


class Read(NamedTuple):
    """One tensor of one model, as a step reads it.

    Attributes:
        model: The model's name; `base` for the base.
        checkpoint: Where it is read.
        spec: Its entry there; `spec.name` is the name to read, which for a tied tensor is its holder's.
    """

    model: str
    checkpoint: Checkpoint
    spec: TensorSpec


NO_STATISTICS: Mapping[str, tuple[Read, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor of the result.

    Attributes:
        out: What is written.
        kind: `merge` by a method, `copy` of the only source, copy of sources that must be the `same`, or written
            `beside` another step's tensor, by that step.
        reads: The models' tensors, in the order of the recipe; models that a law excuses are left out.
        base: The base's tensor, where the method needs it.
        statistics: The models' statistics of it, by the method's parameter; none for what no model has.
        method: The merge method.
        settings: All its settings, with numbers resolved for this tensor.
        rule: Which rule decided: its number, or None.
        part: Which of the plan's parts it belongs to.
        file: Which file of the result the tensor goes to when it is not a shard of the model.
        masks: For each model in turn, the steps `beside` this one that hold its mask and its scale.
    """

    out: TensorSpec
    kind: Kind
    reads: tuple[Read, ...]
    base: Read | None = None
    method: Method | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    rule: int | None = None
    file: str | None = None
    part: int = 0
    statistics: Mapping[str, tuple[Read, ...]] = field(default_factory=lambda: NO_STATISTICS)
    masks: tuple[tuple[Step, Step], ...] = ()

    @property
    def own_reads(self) -> tuple[Read, ...]:
        """The models' tensors, and the base's."""
        return (*self.reads, self.base) if self.base else self.reads

    @property
    def every_read(self) -> tuple[Read, ...]:
        """`own_reads`, then the statistics in the order of the method's parameters."""
        return (*self.own_reads, *(read for reads in self.statistics.values() for read in reads))

    @property
    def unit(self) -> int:
        """How many entries must be merged together: one, a row (those that share their first index), or all."""
        laws = self.method.laws if self.method else {Law.ELEMENTWISE}
        if Law.ELEMENTWISE in laws:
            return 1
        rows = self.out.shape[0] if Law.ROWS in laws and len(self.out.shape) > 1 else 1
        return max(self.out.numel // max(rows, 1), 1)

    @property
    def is_whole(self) -> bool:
        """Whether a method merges the whole tensor at a time."""
        return self.method is not None and self.method.laws.isdisjoint((Law.ELEMENTWISE, Law.ROWS))

    @property
    def nbytes_read(self) -> int:
        return sum(r.spec.nbytes for r in self.every_read)


@dataclass(frozen=True)
class Sidecars:
    """Everything in the result's folder that is not a tensor.

    Attributes:
        config: Contents of config.json, already following the tensors; None if the donor has none.
        copied: Files that are copied from the donor as they are.
        donor: The model they come from.
        written: Other files, by name: JSON, or text.
        placed: Files that are copied from the donor into folders, by their path in the result.
        stems: For pipelines, what the names of each model's tensor files begin with, by the model's folder.
        files: Where `copied` and `placed` go, by path in the result.
        code: Those of them that are Python: never run by polyak, but perhaps by who loads the model.
    """

    config: Mapping[str, Any] | None = None
    copied: tuple[Path, ...] = ()
    donor: str = ""
    written: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    placed: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    stems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def files(self) -> Mapping[str, Path]:
        templates = "additional_chat_templates"
        where = {path: f"{templates}/" if path.parent.name == templates else "" for path in self.copied}
        return {f"{folder}{path.name}": path for path, folder in where.items()} | dict(self.placed)

    @property
    def code(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.endswith(".py"))

    @property
    def stem(self) -> str:
        """What the names of the tensor files begin with."""
        return stem_of(self.config or {})


class PlanPart(NamedTuple):
    """A part of a plan: a slice, a module, or all of it.

    Attributes:
        name: What it is called; empty if it is all.
        recipe: Its recipe.
    """

    name: str
    recipe: recipes.Recipe


@dataclass(frozen=True)
class Plan:
    """Everything a merge will do; made from headers alone.

    Attributes:
        recipe: What was asked for.
        steps: One a tensor of the result, in the order of the first source's file.
        models: The models by name, and the base under `base`.
        sidecars: Config, tokenizer and the like.
        notes: What the user should know before the merge.
        statistics: What was measured of the models, as `STATISTIC of MODEL`.
        parts: The slices or modules that the steps belong to.
    """

    recipe: recipes.Recipe
    steps: tuple[Step, ...]
    models: Mapping[str, Checkpoint]
    sidecars: Sidecars = Sidecars()
    notes: tuple[str, ...] = ()
    statistics: Mapping[str, Checkpoint] = field(default_factory=lambda: MappingProxyType({}))
    parts: tuple[PlanPart, ...] = ()

    @property
    def inputs(self) -> Mapping[str, Checkpoint]:
        """Models, base and statistics."""
        return {**self.models, **self.statistics}

    @cached_property
    def nbytes_read(self) -> int:
        return sum(step.nbytes_read for step in self.steps)

    @cached_property
    def nbytes_written(self) -> int:
        return sum(step.out.nbytes for step in self.steps)

    @cached_property
    def digest(self) -> str:
        """A name for this plan over these files, which changes when either does."""
        stamps = {
            name: [[s.path.name, s.size, s.mtime_ns, s.header] for s in model.stamps]
            for name, model in self.inputs.items()
        }
        text = json.dumps([__version__, recipes.digest(self.recipe), stamps], sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())

    def explain(self) -> str:
        """Say what the merge will do, without doing it."""
        from .explain import explain

        return explain(self)


class NestedMerge(Checkpoint):
    """The result of another plan: its header, before the merge.

    The engine puts a checkpoint that can be read in its place: plans know nothing of engines.
    """

    def __init__(self, plan: Plan, label: str) -> None:
        self.plan, self.label = plan, label
        self.folder = next((m.folder for m in plan.models.values() if m.folder), None)
        self.specs = {s.out.name: _as_delivered(s) for s in plan.steps if s.file is None}
        self.stamps = tuple(stamp for model in plan.inputs.values() for stamp in model.stamps)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        raise PolyakError(f"{self.label} is a planned merge; only a running merge can read it.")


def _as_delivered(step: Step) -> TensorSpec:
    """Merged tensors are handed on in float32, unrounded; copies as they are."""
    if step.kind != "merge":
        return step.out
    return TensorSpec(step.out.name, DTYPES["F32"], step.out.shape, rests_as=step.out.dtype)
