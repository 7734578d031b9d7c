"""Weights of single experts that transformers joins into one parameter of all experts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from .facts import snapshot
from .rules import Rule, rule_of

_STORED = re.compile(r"experts\.\*\.(\w+)\.weight$")
_JOINED = re.compile(r"experts\.(\w+)$")
# The experts one after another, each with the rows of its weights one after another.
_OPERATIONS = ("MergeModulelist", {"dim": 0}), ("Concatenate", {"dim": 1})


@cache
def expert_weights() -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """The weights of one expert that a parameter such as `gate_up_proj` is made of: one tuple per form of storing them.

    Taken from the rules of all architectures, for models that do not tell theirs.
    """
    forms: dict[str, dict[tuple[str, ...], None]] = {}
    for rules in snapshot().rules.values():
        for rule in (rule_of(data, None, "") for data in rules):
            if (target := _JOINED.search(rule.targets[0])) and (weights := _joined(rule)):
                forms.setdefault(target[1], {})[weights] = None
    return {name: tuple(of) for name, of in forms.items()}


def _joined(rule: Rule) -> tuple[str, ...]:
    """The weights of an expert that a rule joins; none if it does something else."""
    operations = _OPERATIONS if len(rule.sources) > 1 else _OPERATIONS[:1]
    sources = [_STORED.search(source) for source in rule.sources]
    return tuple(source[1] for source in sources if source) if all(sources) and rule.operations == operations else ()
