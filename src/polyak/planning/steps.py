"""Steps of a merge, one per tensor of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .. import recipe as recipes
from ..checkpoint import Checkpoint, TensorSpec, stem_of
from ..errors import RecipeError
from ..methods import Law, Method

Kind = Literal["merge", "copy", "same", "mask"]


class Read(NamedTuple):
    """One tensor of one model, as a step reads it.

    Attributes:
        model: The model's name; `base` for the base.
        checkpoint: The checkpoint to read from.
        spec: Its entry there; for a tied tensor, that of the tensor that stores its values.
    """

    model: str
    checkpoint: Checkpoint
    spec: TensorSpec


NO_STATISTICS: Mapping[str, tuple[Read, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor of the result.

    Attributes:
        out: The tensor that it writes.
        kind: `merge` by a method, `copy` of the only source, copy of sources that must be the `same`, or `mask`: a mask
            or scale, which the step of its tensor computes and writes.
        reads: The models' tensors, in the order of the recipe, without models of weight zero that need not be read.
        base: The base's tensor, where the method needs it.
        statistics: The models' statistics of it, by the method's parameter.
        method: The merge method.
        settings: All its settings, with numbers resolved for this tensor.
        rule: Number of the rule that matched, or None.
        part: Index of its part of the plan.
        file: File of the result, if the tensor is not written to a shard of the model.
        masks: For each model in turn, the steps of its mask and its scale.
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
        """True if its method needs the whole tensor at once."""
        return self.method is not None and self.method.laws.isdisjoint((Law.ELEMENTWISE, Law.ROWS))

    @property
    def nbytes_read(self) -> int:
        return sum(r.spec.nbytes for r in self.every_read)


@dataclass(frozen=True)
class Sidecars:
    """All files of the result other than tensors.

    Attributes:
        config: Contents of config.json, adapted to the tensors of the result; None if the donor has none.
        files: Files that are copied from the donor unchanged, by their path in the result.
        donor: The model that they come from.
        written: Contents of other files, by name: JSON or text.
        stems: For several models in one folder, the beginning of the names of each one's tensor files, by its folder.
        left_out: Files of the donor that are not copied, by the reason.
        code: Names of copied Python files: polyak never runs them, but loading the model may.
    """

    config: Mapping[str, Any] | None = None
    files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    donor: str = ""
    written: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    stems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    left_out: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))

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
        name: Its name; empty if it is the whole plan.
        recipe: Its recipe.
    """

    name: str
    recipe: recipes.Recipe


def file_of(name: str, folder: str) -> str:
    """The path in the result of a file for one of the models.

    Raises:
        RecipeError: the model's name would lead out of the folder of the result.
    """
    if "/" in name:
        raise RecipeError(
            f"{folder} are written to one file per model, named after it, which {name!r} cannot be: give it a `name:` "
            "without '/'."
        )
    return f"{folder}/{name}.safetensors"
