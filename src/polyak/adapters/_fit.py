"""Compatibility of adapters: one base, the same modules, the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TypeVar

from ..errors import Mismatch
from ..recipe import Factorisation
from ._opened import Adapter

_SHOWN = 8  # problems listed in one error
_T = TypeVar("_T")


def fitted(
    adapters: Sequence[Adapter], factorisation: Factorisation, skipped: Callable[[str], bool]
) -> dict[str, tuple[int, ...]]:
    """Every module with the shape of its weight, in the order of the first adapter, then of the others.

    Args:
        adapters: The adapters to merge.
        factorisation: Says what a module is in adapters that lack it, and may name the base.
        skipped: Predicate on names: True for tensors to leave out.

    Raises:
        Mismatch: they do not fit together; names which and where.
    """
    if factorisation.base is None:
        _check_bases(adapters)
    shapes: dict[str, tuple[int, ...]] = {}
    for adapter in adapters:
        shapes |= {
            name: m.shape for name, m in adapter.modules.items() if name not in shapes and not skipped(f"{name}.weight")
        }
    modules = {a.name: {n: m.shape for n, m in a.modules.items() if n in shapes} for a in adapters}
    whole = {a.name: {n: s.shape for n, s in a.whole.items() if not skipped(n)} for a in adapters}
    problems = _differing(modules) + _differing(whole) + _lacking(whole, "tensor")
    if factorisation.absent == "refuse":
        problems += _lacking(modules, "module")
    if problems:
        more = [f"  ... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise Mismatch(
            "\n".join(["the adapters do not fit together.", *problems[:_SHOWN], *more, *_remedies(modules.values())])
        )
    return shapes


_REMEDY = (
    "  `adapter: {absent: zero}` takes modules that an adapter lacks as unchanged by it (--absent zero); `skip: REGEX` "
    "leaves tensors out."
)
_BAKING = (
    "  If these are names of the same modules in two versions of a library: put each adapter into its base (`polyak "
    "lora bake BASE ADAPTER OUT`), and merge the models (`polyak merge`, with `base:`)."
)


def _remedies(modules: Iterable[Mapping[str, object]]) -> list[str]:
    first, *others = modules
    return [_REMEDY, _BAKING] if any(first.keys().isdisjoint(other) for other in others) else [_REMEDY]


def _check_bases(adapters: Sequence[Adapter]) -> None:
    named = {adapter.name: adapter.base for adapter in adapters if adapter.base}
    last = {PurePath(base).name.lower() for base in named.values()}
    if len(last) > 1:
        bases = "; ".join(f"{name} is for {base!r}" for name, base in named.items())
        raise Mismatch(
            f"the adapters are for different bases: {bases}. If these are copies of one model, name it: "
            "`adapter: {base: NAME}`, or --base NAME."
        )


def _differing(shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> list[str]:
    first: dict[str, tuple[str, tuple[int, ...]]] = {}
    problems: list[str] = []
    for who, of in shapes.items():
        for name, shape in of.items():
            whose, other = first.setdefault(name, (who, shape))
            if other != shape:
                problems.append(f"  {name!r} is {list(other)} in {whose} but {list(shape)} in {who}")
    return problems


def _lacking(names_of: Mapping[str, Mapping[str, object]], what: str) -> list[str]:
    names = dict.fromkeys(name for of in names_of.values() for name in of)
    lacking_by_name = {name: [who for who, of in names_of.items() if name not in of] for name in names}
    return [f"  {what} {name!r} is not in {', '.join(lacking)}" for name, lacking in lacking_by_name.items() if lacking]
