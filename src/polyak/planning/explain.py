"""Descriptions of the steps of a plan: as text, and as data for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..display import human_size
from .steps import PlanPart, Step

_SHOWN = 3  # tensors named as examples of a treatment


def treatment_lines(steps: Sequence[Step], parts: Sequence[PlanPart]) -> list[str]:
    """Describe each treatment with the tensors that it applies to, then the rules that match no tensor."""
    lines: list[str] = []
    for treatment, alike in treatments(steps, parts).items():
        shown = ", ".join(step.out.name for step in alike[:_SHOWN]) + (", ..." if len(alike) > _SHOWN else "")
        lines.append(f"  {treatment}")
        lines.append(f"    {len(alike)} tensors, {human_size(sum(step.out.nbytes for step in alike))}: {shown}")
    return lines + _unmatched(steps, parts)


def treatments(steps: Sequence[Step], parts: Sequence[PlanPart]) -> dict[str, list[Step]]:
    """Group steps by a description of their treatment; settings that vary with depth are given as ranges."""
    groups: dict[tuple[object, ...], list[Step]] = {}
    for step in steps:
        models = tuple(read.model for read in step.reads)
        method, statistics = step.method and step.method.name, tuple(step.statistics)
        key = (step.part, step.rule, step.kind, method, models, step.file, statistics)
        groups.setdefault(key, []).append(step)
    return {_treatment(alike, parts[alike[0].part]): alike for alike in groups.values()}


def _treatment(steps: list[Step], part: PlanPart) -> str:
    first = steps[0]
    models = ", ".join(read.model for read in first.reads)
    if first.kind == "mask":
        return f"masks and scales into {first.file}"
    name = f"{part.name}: " if part.name else ""
    if first.method is None:
        action = "copied from" if first.kind == "copy" else "copied, if equal in"
        return f"{name}{action} {models}" + (f" into {first.file}" if first.file else "")
    absent = [statistic for statistic in first.method.statistics if statistic not in first.statistics]
    settings = ", ".join(f"{key}={_values([step.settings[key] for step in steps])}" for key in first.settings)
    rule = "" if first.rule is None else f"rule {first.rule + 1} ({part.recipe.rules[first.rule].match!r}): "
    without = f", without {', '.join(absent)}" if absent else ""
    return f"{name}{rule}{first.method.name}({settings}) of {models}{without}"


def _values(values: list[Any]) -> str:
    """One setting over several steps."""
    if isinstance(values[0], tuple):
        return f"[{', '.join(_values(list(each)) for each in zip(*values, strict=True))}]"
    if isinstance(values[0], float):
        low, high = min(values), max(values)
        return f"{low:g}" if low == high else f"{low:g}..{high:g}"
    return "|".join(dict.fromkeys(str(v).lower() if isinstance(v, bool) else str(v) for v in values))


def _unmatched(steps: Sequence[Step], parts: Sequence[PlanPart]) -> list[str]:
    used = {(step.part, step.rule) for step in steps}
    return [
        f"  {name}{', ' if name else ''}rule {i + 1} ({rule.match!r}) matches no tensor, or an earlier rule takes all "
        "that it matches"
        for number, (name, recipe) in enumerate(parts)
        for i, rule in enumerate(recipe.rules)
        if (number, i) not in used
    ]


def step_data(step: Step) -> dict[str, Any]:
    """Plain data of a step, for `--json`."""
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
