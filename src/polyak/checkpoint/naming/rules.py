"""One rule by which transformers renames, splits or fuses stored tensors when it loads a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_PLAIN = ("rename", "convert")


@dataclass(frozen=True)
class Rule:
    """A rule from stored names to the names of parameters at run time.

    Attributes:
        pattern: Regular expression with one named group g0, g1, ... for each source.
        sources: Patterns of stored names.
        targets: Names that replace what matches; the first one, where several tensors are made.
        operations: Treatment of the values: names and settings of operations; empty for a plain renaming.
        scope: The path of the part that it is limited to; None for the whole model.
        prefix: The base-model prefix of the whole model, which may stand before `scope`.
        kind: `rename`, `convert`, or the name of a rule that polyak cannot apply.
    """

    pattern: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: tuple[tuple[str, dict[str, Any]], ...]
    scope: str | None
    prefix: str
    kind: str

    @property
    def applicable(self) -> bool:
        return self.kind in _PLAIN

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def apply(self, name: str) -> tuple[str, int] | None:
        """The new name and the index of the source that matched; None if none does."""
        start = self._start(name)
        match = None if start is None else self.compiled.search(name[len(start) :])
        if start is None or match is None:
            return None
        group = next(key for key, value in match.groupdict().items() if value is not None)
        replacement = self.targets[0]
        if r"\1" in replacement:
            replacement = replacement.replace(r"\1", match.group(self.compiled.groupindex[group] + 1))
        return start + name[len(start) :].replace(match.group(0), replacement, 1), int(group[1:])

    def _start(self, name: str) -> str | None:
        """The beginning of a name that the rule leaves alone; None if the name is outside its scope."""
        if self.scope is None:
            return ""
        scope = re.escape(self.scope + "." if self.scope else "").replace(r"\*", r"\d+")
        prefix = re.escape(self.prefix + ".") if self.prefix else ""
        match = re.match(f"{prefix}{scope}", name) or re.match(scope, name)
        return match[0] if match else None


def rule_of(data: dict[str, Any], scope: str | None, prefix: str) -> Rule:
    """A rule from its plain data."""
    operations = tuple((name, settings) for name, settings in data.get("operations", []))
    kind = data.get("kind", "convert" if operations else "rename")
    return Rule(
        data["pattern"], tuple(data["sources"]), tuple(data["targets"]), operations, scope, prefix, kind
    )  # fmt: skip


def renamed(name: str, rules: Sequence[Rule]) -> str:
    """A stored name after all renamings, before tensors are split or fused."""
    for rule in rules:
        if rule.kind == "rename" and (applied := rule.apply(name)) is not None:
            name = applied[0]
    return name


def conversion(name: str, rules: Sequence[Rule]) -> tuple[Rule, str, int] | None:
    """The rule that splits or fuses a renamed tensor, its first target's name, and the index of the source."""
    for rule in rules:
        if rule.kind == "convert" and (applied := rule.apply(name)) is not None:
            return rule, *applied
    return None
