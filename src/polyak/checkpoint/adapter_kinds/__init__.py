"""Kinds of adapters: one registry, from the tensors of a module to the change that they make of its weight.

To add a kind, add one file to this folder, or name a module in the entry-point group `polyak.adapter_kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ...declare import Registry, summary_of
from ...errors import UnsupportedFormat
from ._change import AdaptedModule as AdaptedModule
from ._change import Change as Change
from ._change import Fitting as Fitting
from ._names import AdapterNames as AdapterNames
from ._names import sort_adapter_names as sort_adapter_names

Changes: TypeAlias = Callable[[Sequence[AdaptedModule]], Iterable[tuple[str, Change]]]


@dataclass(frozen=True)
class AdapterKind:
    """A kind of adapter.

    Attributes:
        changes: From the modules of this kind to the names of the base's tensors that they change, and the changes.
        roles: The roles of its tensors: the last parts of their names, such as `lora_A`.
        peft_types: The `peft_type` of its configurations.
        applies: Further test of a module, for kinds that share their roles with another one.
    """

    changes: Changes
    roles: frozenset[str]
    peft_types: tuple[str, ...]
    applies: Callable[[AdaptedModule], bool] | None = None

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.changes)


def _unknown(name: str, registered: Iterable[str]) -> UnsupportedFormat:
    return UnsupportedFormat(f"no kind of adapter is called {name!r}. Known: {', '.join(sorted(registered))}.")


registry: Registry[AdapterKind] = Registry(
    "kind of adapter", package=__name__, group="polyak.adapter_kinds", unknown=_unknown
)


def adapter_kind(
    name: str, *roles: str, peft_types: tuple[str, ...], applies: Callable[[AdaptedModule], bool] | None = None
) -> Callable[[Changes], Changes]:
    """Register the decorated function as the one that reads a kind of adapter.

    Args:
        name: The name of the kind.
        *roles: See `AdapterKind`.
        peft_types: See `AdapterKind`.
        applies: See `AdapterKind`.

    Raises:
        DeclarationError: the name is taken, or the function has no docstring.
    """

    def register(fn: Changes) -> Changes:
        registry.declare(name, fn, lambda owner: AdapterKind(fn, frozenset(roles), peft_types, applies))
        return fn

    return register


def peft_types() -> frozenset[str]:
    """The `peft_type` of all kinds."""
    registry.load_all()
    return frozenset(peft_type for kind in registry.values() for peft_type in kind.peft_types)


def roles() -> frozenset[str]:
    """The roles of the tensors of all kinds."""
    registry.load_all()
    return frozenset(role for kind in registry.values() for role in kind.roles)


def changes(fitting: Fitting, modules: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, Change]]:
    """The changes that an adapter makes: the name of a tensor of the base, and its change.

    Args:
        fitting: The adapter and its base.
        modules: Module name to the stored names of its tensors, by role.

    Raises:
        CheckpointError: a module does not fit the base.
        UnsupportedFormat: its tensors are those of no kind.
    """
    by_kind: dict[str, list[AdaptedModule]] = {}
    for name, by_role in modules.items():
        module = AdaptedModule(name, by_role, fitting)
        by_kind.setdefault(_kind_of(module), []).append(module)
    for kind, of_kind in by_kind.items():
        yield from registry[kind].changes(of_kind)


def _kind_of(module: AdaptedModule) -> str:
    """The kind with the fewest roles that has all roles of a module."""
    registry.load_all()
    fitting = [
        (kind.applies is None, len(kind.roles), name)
        for name, kind in registry.items()
        if set(module.by_role) <= kind.roles
        and module.settings.peft_type in kind.peft_types
        and (kind.applies is None or kind.applies(module))
    ]
    if fitting:
        return min(fitting)[2]
    raise UnsupportedFormat(
        f"{module.settings.path}: {module.name!r} has tensors that belong together in no adapter of type "
        f"{module.settings.peft_type!r:.40}: {', '.join(sorted(module.by_role))}."
    )
