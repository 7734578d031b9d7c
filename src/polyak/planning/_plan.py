"""Plans: all steps of a merge and their cost, before any tensor is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import xxhash

from .. import recipe as recipes
from .._version import __version__
from ..checkpoint import DTYPES, Bytes, Checkpoint, TensorSpec
from ..display import fields, human_size, table
from ..errors import PolyakError
from .cost import PROCESS_NBYTES, step_nbytes
from .explain import step_data, treatment_lines, treatments
from .steps import PlanPart, Sidecars, Step


@dataclass(frozen=True)
class Plan:
    """All steps of a merge; made from headers alone.

    Attributes:
        recipe: The recipe.
        steps: One step per tensor of the result, in the order of the base's or first model's file.
        models: The models by name, and the base under `base`.
        sidecars: Config, tokenizer and other files.
        notes: Remarks for the user.
        statistics: Statistics of the models, by `STATISTIC of MODEL`.
        parts: The slices or modules that the steps belong to.
    """

    recipe: recipes.Recipe
    steps: tuple[Step, ...]
    models: Mapping[str, Checkpoint]
    sidecars: Sidecars = field(default_factory=Sidecars)
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
        """Digest of the recipe and of the files that it reads."""
        stamps = {
            name: [[s.path.name, s.size, s.mtime_ns, s.ctime_ns, s.inode, s.header] for s in model.stamps]
            for name, model in self.inputs.items()
        }
        text = json.dumps([__version__, recipes.digest(self.recipe), stamps], sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())

    def explain(self) -> str:
        """Describe the merge: models, treatments with the tensors they match, bytes, memory and donors."""
        read, written, peak = (
            human_size(self.nbytes_read),
            human_size(self.nbytes_written),
            human_size(peak_nbytes(self, 2)),
        )
        lines = [f"{len(self.steps)} tensors: read {read}, write {written}, hold about {peak} with 2 workers", ""]
        lines += ["models"] + [f"  {name:<20} {m.label}  ({len(m.specs)} tensors)" for name, m in self.inputs.items()]
        parts = self.parts or (PlanPart("", self.recipe),)
        lines += ["", "treatments", *treatment_lines(self.steps, parts)]
        dtypes = Counter(step.out.dtype.name for step in self.steps)
        lines += ["", f"dtypes: {', '.join(f'{n} x {name}' for name, n in dtypes.most_common())}"]
        lines += _sidecar_lines(self.sidecars)
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.explain()

    def __repr__(self) -> str:
        methods = dict.fromkeys(step.method.name for step in self.steps if step.method)
        summary = f"{len(self.steps)} tensors of {', '.join(self.models)} by {', '.join(methods) or 'copying'}"
        return f"<Plan: {summary}; read {human_size(self.nbytes_read)}, write {human_size(self.nbytes_written)}>"

    def _repr_html_(self) -> str:
        """HTML for notebooks: cost, models, and the treatment of each group of tensors."""
        facts = {
            "tensors": str(len(self.steps)),
            "read": human_size(self.nbytes_read),
            "write": human_size(self.nbytes_written),
            "memory with 2 workers": human_size(peak_nbytes(self, 2)),
            **{name: f"{model.label} ({len(model.specs)} tensors)" for name, model in self.inputs.items()},
            **{f"note {i}": note for i, note in enumerate(self.notes, 1)},
        }
        groups = treatments(self.steps, self.parts or (PlanPart("", self.recipe),))
        rows = [
            [treatment, str(len(steps)), human_size(sum(step.out.nbytes for step in steps)), steps[0].out.name]
            for treatment, steps in groups.items()
        ]
        return fields("Plan", facts) + table(["treatment", "tensors", "size", "first tensor"], rows, "Treatments")


class NestedMerge(Checkpoint):
    """The result of another plan, of which only the header can be read.

    The engine replaces it by a checkpoint whose tensors are merged while they are read.
    """

    def __init__(self, plan: Plan, label: str) -> None:
        self.plan, self.label = plan, label
        self.folder = next((m.folder for m in plan.models.values() if m.folder), None)
        self.specs = {s.out.name: _as_delivered(s) for s in plan.steps if s.file is None}
        self.stamps = tuple(stamp for model in plan.inputs.values() for stamp in model.stamps)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        raise PolyakError(f"{self.label} is a planned merge; only a running merge can read it.")


def _sidecar_lines(sidecars: Sidecars) -> list[str]:
    if not sidecars.donor:
        return []
    files = ", ".join(sidecars.files) or "none"
    has_config = sidecars.config is not None or any(name.endswith("config.json") for name in sidecars.written)
    config = "config.json" if has_config else "no config.json"
    written = f"; written: {', '.join(sidecars.written)}" if sidecars.written else ""
    return [f"config and tokenizer from {sidecars.donor}: {config}; copied: {files}{written}"]


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan for `--json`."""
    return {
        "tensors": len(plan.steps),
        "nbytes_read": plan.nbytes_read,
        "nbytes_written": plan.nbytes_written,
        "nbytes_memory": peak_nbytes(plan, 2),
        "models": {name: model.label for name, model in plan.models.items()},
        "statistics": {name: measured.label for name, measured in plan.statistics.items()},
        "donor": plan.sidecars.donor,
        "copied": list(plan.sidecars.files),
        "left_out": {reason: list(names) for reason, names in plan.sidecars.left_out.items()},
        "notes": list(plan.notes),
        "steps": [step_data(step) for step in plan.steps],
    }


def peak_nbytes(plan: Plan, workers: int) -> int:
    """Estimate of the peak of anonymous memory of a merge, in bytes.

    For methods that are elementwise after their first passes it does not grow with the size of tensors or models.
    """
    of_models = sum(_held_nbytes(model) for model in plan.models.values())
    kept = tensors_kept(workers) * _kept_nbytes(plan)
    return PROCESS_NBYTES + of_models + kept + workers * _worker_nbytes(plan)


def tensors_kept(workers: int) -> int:
    """Number of whole tensors of a nested merge that are kept while others read them in parts."""
    return workers + 1


def _kept_nbytes(plan: Plan) -> int:
    """Bytes in float32 of the largest such tensor of every nested merge, summed."""
    nested = [merge.plan for model in plan.models.values() if (merge := nested_merge(model))]
    return sum(4 * _largest_whole(plan_inside) + _kept_nbytes(plan_inside) for plan_inside in nested)


def _largest_whole(plan: Plan) -> int:
    return max((step.out.numel for step in plan.steps if step.is_whole), default=0)


def _worker_nbytes(plan: Plan) -> int:
    """Bytes of one worker, including those of nested merges, which are computed while it waits for them."""
    nested = [merge for model in plan.models.values() if (merge := nested_merge(model))]
    inside = sum(_worker_nbytes(merge_inside.plan) for merge_inside in nested)
    return inside + max((step_nbytes(step) for step in plan.steps), default=0)


def _held_nbytes(model: Checkpoint) -> int:
    """Bytes that a model holds however little of it is read: the factors of its adapters."""
    nested = nested_merge(model)
    inside = sum(_held_nbytes(inner) for inner in nested.plan.models.values()) if nested else 0
    return model.held_nbytes + inside


def nested_merge(model: Checkpoint) -> NestedMerge | None:
    """The nested merge that a model is a view of; None if it is not one."""
    inner: Checkpoint | None = model
    while inner is not None and not isinstance(inner, NestedMerge):
        inner = inner.inner
    return inner


def workers_within(plan: Plan, workers: int, memory: int) -> int:
    """Largest number of workers, up to `workers`, whose merge stays within `memory` bytes; 0 if one worker does not."""
    return next((n for n in range(workers, 0, -1) if peak_nbytes(plan, n) <= memory), 0)


def _as_delivered(step: Step) -> TensorSpec:
    """Entry of a step's tensor in a nested merge: merged tensors are delivered in float32, unrounded."""
    if step.kind != "merge":
        return step.out
    return TensorSpec(step.out.name, DTYPES["F32"], step.out.shape, rests_as=step.out.dtype)
