"""Steps: what a merge reads, computes and writes, one step per tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .. import recipe as recipes
from ..checkpoint import Checkpoint, TensorSpec, stem_of
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
        """Number of entries that must be merged together: one, a row (equal first index), or all."""
        laws = self.method.laws if self.method else {Law.ELEMENTWISE}
        if Law.ELEMENTWISE in laws:
            return 1
        rows = self.out.shape[0] if Law.ROWS in laws and len(self.out.shape) > 1 else 1
        return max(self.out.numel // max(rows, 1), 1)

    @property
    def is_whole(self) -> bool:
        """Tell whether a method merges the whole tensor at once."""
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
        """Beginning of the names of the tensor files."""
        return stem_of(self.config or {})


class PlanPart(NamedTuple):
    """A part of a plan: a slice, a module, or all of it.

    Attributes:
        name: What it is called; empty if it is all.
        recipe: Its recipe.
    """

    name: str
    recipe: recipes.Recipe
