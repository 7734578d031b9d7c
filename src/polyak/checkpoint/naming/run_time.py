"""A checkpoint under the names and shapes that its model's parameters have at run time."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from .._api import DTYPES, Bytes, Checkpoint, TensorSpec
from .._finder import Finder
from .._floats import read_floats
from ..views import picked
from .layout import Block, Unsupported, inverted, made_by
from .rules import Rule, conversion, renamed
from .structure import starred


@dataclass(frozen=True)
class RunTime:
    """The parameters of a running model and the stored tensors that they are made of.

    Attributes:
        base: The stored model.
        view: The same model under the names and in the shapes of its parameters at run time.
        rules: The rules by which stored tensors become parameters.
        kinds: Kinds of parameters that are no weights of linear layers, by `starred` name.
        model_type: The `model_type` of its config.json.
        unsupported: Parameters whose values are rearranged in a way that polyak cannot follow, with the operation.
    """

    base: Checkpoint
    view: Checkpoint
    rules: Sequence[Rule]
    kinds: Mapping[str, str]
    model_type: str
    unsupported: Mapping[str, str]
    names: Mapping[str, str]
    blocks: Mapping[str, Block]

    @property
    def differs(self) -> bool:
        """True if any name or shape at run time is not the stored one."""
        return bool(self.blocks or self.unsupported) or any(new != old for new, old in self.names.items())

    @property
    def unfused(self) -> RunTime:
        """The parameters as they were before a version of the library fused or split them."""
        level = run_time(self.base, [rule for rule in self.rules if rule.kind == "rename"], self.kinds, self.model_type)
        return replace(level, unsupported=self.unsupported)

    def finder(self, label: str) -> Finder:
        """A finder of parameters of `view`."""
        return Finder([*self.view.specs, *self.view.ties], label, self._rename, self.unsupported)

    def _rename(self, name: str) -> str:
        new = renamed(name, self.rules)
        return name if conversion(new, self.rules) else new

    def kind(self, name: str) -> str:
        """The kind of a parameter: linear, embedding, conv1d, convolution, attention, experts, transposed experts,
        router or parameter; rearranged if it is stored in an arrangement that polyak cannot follow.
        """
        return "rearranged" if name in self.unsupported else self.kinds.get(starred(name), "linear")

    def in_module_order(self, names: Iterable[str]) -> list[str]:
        """Parameters of `kinds` in the order of the model's modules; the others come first."""
        order = {name: i for i, name in enumerate(self.kinds)}
        return sorted(names, key=lambda name: order.get(starred(name), 0))

    def like(self, model: Checkpoint) -> RunTime:
        """Another model of the same architecture under the names that its parameters have at run time."""
        return run_time(model, self.rules, self.kinds, self.model_type)

    def restored(self, changed: Checkpoint) -> Checkpoint:
        """A changed `view` under the stored names, in the stored shapes."""
        stored = {new: old for old, new in self.names.items()}
        inverse = inverted(self.blocks, self.base.specs)
        names = {old: new for old, new in stored.items() if new in changed.specs or new in changed.ties}
        extra = [n for n in [*changed.specs, *changed.ties] if n not in self.names and n not in self.blocks]
        names |= {name: name for name in extra}
        order = dict.fromkeys(n for n in [*self.base.specs, *self.base.ties, *extra] if n in names or n in inverse)
        return _Rearranged(changed, list(order), names, inverse)


@dataclass
class _Sorted:
    """Stored tensors, sorted by their treatment at run time."""

    names: dict[str, str] = field(default_factory=dict[str, str])
    groups: dict[str, tuple[Rule, dict[int, list[str]]]] = field(
        default_factory=dict[str, "tuple[Rule, dict[int, list[str]]]"]
    )


def run_time(base: Checkpoint, rules: Sequence[Rule], kinds: Mapping[str, str], model_type: str) -> RunTime:
    """Match a stored model with its parameters at run time."""
    stored = _sorted([*base.specs, *base.ties], rules)
    blocks: dict[str, Block] = {}
    unsupported: dict[str, str] = {}
    for name, (rule, by_source) in stored.groups.items():
        sources = [[base.spec(tensor) for tensor in by_source[i]] for i in sorted(by_source)]
        targets = _targets(name, rule)
        try:
            blocks |= dict(zip(targets, _made(rule, by_source, sources), strict=True))
        except Unsupported as error:
            left = [tensor for group in by_source.values() for tensor in group]
            unsupported |= dict.fromkeys([*targets, *left], str(error))
            stored.names |= {tensor: tensor for tensor in left}
    order = _in_order(base, stored.names, blocks)
    view = _Rearranged(base, order, stored.names, blocks)
    return RunTime(base, view, rules, kinds, model_type, unsupported, stored.names, blocks)


def _targets(name: str, rule: Rule) -> list[str]:
    return [name.replace(rule.targets[0], target) for target in rule.targets] if len(rule.targets) > 1 else [name]


def _made(rule: Rule, by_source: Mapping[int, list[str]], sources: list[list[TensorSpec]]) -> list[Block]:
    if len(by_source) != len(rule.sources) or len({spec.dtype for group in sources for spec in group}) != 1:
        raise Unsupported("the tensors that it is made of")
    return made_by(rule, sources)


def _sorted(names: Sequence[str], rules: Sequence[Rule]) -> _Sorted:
    out = _Sorted()
    for name in sorted(names, key=_natural):
        new = renamed(name, rules)
        converted = conversion(new, rules)
        if converted is None:
            out.names.setdefault(new, name)
        else:
            rule, target, source = converted
            out.groups.setdefault(target, (rule, {}))[1].setdefault(source, []).append(name)
    return out


def _in_order(base: Checkpoint, names: Mapping[str, str], blocks: Mapping[str, Block]) -> list[str]:
    """The parameters in the order of the stored tensors that they begin with."""
    position = {name: i for i, name in enumerate([*base.specs, *base.ties])}
    first = {new: position[old] for new, old in names.items()}
    first |= {name: position[block.segments[0].name] for name, block in blocks.items()}
    return sorted(first, key=first.__getitem__)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers by their value."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"\.", name)]


class _Rearranged(Checkpoint):
    """A checkpoint under other names, some of whose tensors are put together from segments of `inner`.

    Args:
        inner: The checkpoint beneath.
        order: The names, in order.
        names: Name to name in `inner`.
        blocks: Name to segments of tensors of `inner`.
    """

    def __init__(
        self, inner: Checkpoint, order: Sequence[str], names: Mapping[str, str], blocks: Mapping[str, Block]
    ) -> None:
        self._plain = picked(inner, {name: names[name] for name in order if name in names})
        self.inner, self._blocks = self._plain, {name: blocks[name] for name in order if name not in names}
        self.label, self.metadata, self.folder, self.stamps = inner.label, inner.metadata, inner.folder, inner.stamps
        self.held_nbytes = inner.held_nbytes
        self._ends = {n: list(accumulate(s.length for s in block.segments)) for n, block in self._blocks.items()}
        self.ties = self._plain.ties
        specs = {name: self._spec(name, inner) for name in order if name not in self.ties}
        self.specs = specs
        self._beneath = inner

    def _spec(self, name: str, inner: Checkpoint) -> TensorSpec:
        block = self._blocks.get(name)
        if block is None:
            return self._plain.specs[name]
        specs = [inner.spec(segment.name) for segment in block.segments]
        dtypes = {spec.dtype for spec in specs}
        dtype = specs[0].dtype if len(dtypes) == 1 else DTYPES["F32"]
        rests = specs[0].stored
        return TensorSpec(name, dtype, block.shape, rests if rests != dtype else None)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        block = self._blocks.get(name)
        if block is None:
            self._plain.read_into(name, start, stop, out)
            return
        dtype, ends, at = self.specs[name].dtype, self._ends[name], start
        for index in range(bisect_right(ends, start), len(ends)):
            if at >= stop:
                break
            segment = block.segments[index]
            first = segment.start + at - (ends[index] - segment.length)
            count = min(stop, ends[index]) - at
            spec = self._beneath.spec(segment.name)
            piece = out[(at - start) * dtype.itemsize : (at - start + count) * dtype.itemsize]
            if spec.dtype == dtype:
                self._beneath.read_into(spec.name, first, first + count, piece)
            else:
                read_floats(self._beneath, spec, first, first + count, piece.view(np.float32))
            at += count

    def close(self) -> None:
        self._beneath.close()
