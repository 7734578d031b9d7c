"""A plan in words, for people; and as data, for machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..display import fields, human_size, table
from ._model import Plan, Step
from .cost import peak_nbytes

_SHOWN = 3  # tensors named as examples of a treatment


def explain(plan: Plan) -> str:
    """Say what a merge will do: models, treatments with the tensors they match, bytes, memory and donors."""
    lines = [f"{len(plan.steps)} tensors: read {_gb(plan.nbytes_read)}, write {_gb(plan.nbytes_written)}, "
             f"hold about {_gb(peak_nbytes(plan, 2))} with 2 workers", ""]  # fmt: skip
    lines += ["models"] + [f"  {name:<20} {m.label}  ({len(m.specs)} tensors)" for name, m in plan.models.items()]
    lines += [f"  {name:<20} {s.label}  ({len(s.specs)} tensors)" for name, s in plan.statistics.items()]
    lines += ["", "treatments"]
    for treatment, steps in treatments(plan).items():
        shown = ", ".join(s.out.name for s in steps[:_SHOWN]) + (", ..." if len(steps) > _SHOWN else "")
        lines.append(f"  {treatment}")
        lines.append(f"    {len(steps)} tensors, {_gb(sum(s.out.nbytes for s in steps))}: {shown}")
    lines += _unmatched(plan)
    dtypes = Counter(step.out.dtype.name for step in plan.steps)
    lines += ["", f"dtypes: {', '.join(f'{n} x {name}' for name, n in dtypes.most_common())}"]
    if plan.sidecars.donor:
        files = ", ".join(plan.sidecars.files) or "none"
        own = plan.sidecars.config is not None or plan.sidecars.stems
        has = "config.json" if own else "no config.json"
        written = f"; written: {', '.join(plan.sidecars.written)}" if plan.sidecars.written else ""
        lines.append(f"config and tokenizer from {plan.sidecars.donor}: {has}; copied: {files}{written}")
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)])


def summary(plan: Plan) -> str:
    """A plan on one line."""
    methods = dict.fromkeys(step.method.name for step in plan.steps if step.method)
    return (
        f"{len(plan.steps)} tensors of {', '.join(plan.models)} by {', '.join(methods) or 'copying'}; "
        f"read {human_size(plan.nbytes_read)}, write {human_size(plan.nbytes_written)}"
    )


def as_html(plan: Plan) -> str:
    """A plan as tables: its cost, its models and what is done to which tensors."""
    about = {
        "tensors": str(len(plan.steps)),
        "read": human_size(plan.nbytes_read),
        "write": human_size(plan.nbytes_written),
        "memory with 2 workers": human_size(peak_nbytes(plan, 2)),
        **{name: f"{model.label} ({len(model.specs)} tensors)" for name, model in plan.inputs.items()},
        **{f"note {i}": note for i, note in enumerate(plan.notes, 1)},
    }
    rows = [
        [treatment, str(len(steps)), human_size(sum(step.out.nbytes for step in steps)), steps[0].out.name]
        for treatment, steps in treatments(plan).items()
    ]
    return fields("Plan", about) + table(["treatment", "tensors", "size", "first tensor"], rows, "Treatments")


def treatments(plan: Plan) -> dict[str, list[Step]]:
    """Steps by what is done to them, in words; numbers that change over the depth are given as ranges."""
    found: dict[tuple[object, ...], list[Step]] = {}
    for step in plan.steps:
        models = tuple(read.model for read in step.reads)
        method, known = step.method and step.method.name, tuple(step.statistics)
        key = (step.part, step.rule, step.kind, method, models, step.file, known)
        found.setdefault(key, []).append(step)
    return {_treatment(plan, steps): steps for steps in found.values()}


def _treatment(plan: Plan, steps: list[Step]) -> str:
    first = steps[0]
    models = ", ".join(read.model for read in first.reads)
    if first.kind == "beside":
        return f"masks and scales into {first.file}"
    name, recipe = plan.parts[first.part] if plan.parts else ("", plan.recipe)
    part = f"{name}: " if name else ""
    if first.method is None:
        what = "copied from" if first.kind == "copy" else "copied, if equal in"
        return f"{part}{what} {models}" + (f" into {first.file}" if first.file else "")
    lacking = [name for name in first.method.statistics if name not in first.statistics]
    settings = ", ".join(f"{name}={_values([step.settings[name] for step in steps])}" for name in first.settings)
    rule = "" if first.rule is None else f"rule {first.rule + 1} ({recipe.rules[first.rule].match!r}): "
    without = f", without {', '.join(lacking)}" if lacking else ""
    return f"{part}{rule}{first.method.name}({settings}) of {models}{without}"


def _values(values: list[Any]) -> str:
    """One setting over several steps."""
    if isinstance(values[0], tuple):
        return f"[{', '.join(_values(list(each)) for each in zip(*values, strict=True))}]"
    if isinstance(values[0], float):
        low, high = min(values), max(values)
        return f"{low:g}" if low == high else f"{low:g}..{high:g}"
    return "|".join(dict.fromkeys(str(v).lower() if isinstance(v, bool) else str(v) for v in values))


def _unmatched(plan: Plan) -> list[str]:
    used = {(step.part, step.rule) for step in plan.steps}
    return [
        f"  {name}{', ' if name else ''}rule {i + 1} ({rule.match!r}) matches no tensor, or an earlier rule takes all "
        "it matches"
        for number, (name, recipe) in enumerate(plan.parts)
        for i, rule in enumerate(recipe.rules)
        if (number, i) not in used
    ]


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan for `--json`."""
    return {
        "tensors": len(plan.steps),
        "nbytes_read": plan.nbytes_read,
        "nbytes_written": plan.nbytes_written,
        "nbytes_memory": peak_nbytes(plan, 2),
        "models": {name: model.label for name, model in plan.models.items()},
        "statistics": {name: found.label for name, found in plan.statistics.items()},
        "donor": plan.sidecars.donor,
        "copied": list(plan.sidecars.files),
        "notes": list(plan.notes),
        "steps": [_step_data(step) for step in plan.steps],
    }


def _step_data(step: Step) -> dict[str, Any]:
    return {
        "name": step.out.name,
        "dtype": step.out.dtype.name,
        "shape": list(step.out.shape),
        "kind": step.kind,
        "method": step.method.name if step.method else None,
        "settings": dict(step.settings),
        "models": [r.model for r in step.reads],
        "statistics": list(step.statistics),
        "rule": step.rule,
        "file": step.file,
    }


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.3g} MB"
