"""An adapter applied to its base, as a checkpoint that is computed while it is read and never stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import CheckpointError, SettingError
from ._api import DTYPES, Bytes, Checkpoint, Stamp, TensorSpec
from ._finder import Finder, NotInBase
from ._floats import Floats, read_floats
from .dialects import adapter_folder, open_factors
from .naming import RunTime, run_time_of
from .ties import config_of, left_out
from .views import picked, subset

if TYPE_CHECKING:
    from ._peft import AdapterSettings
    from .adapter_kinds import Change

F32 = DTYPES["F32"]
_T = TypeVar("_T")


def with_lora(base: Checkpoint, adapter: str | Path, *, scale: float = 1.0) -> Checkpoint:
    """A PEFT adapter on its base, such as W + scale * s * (B @ A) for LoRA, in float32 and unrounded.

    Kinds: LoRA (s is alpha / r, or alpha / sqrt(r) with `use_rslora`; also on experts by `target_parameters`), DoRA,
    LoHa, LoKr, (IA)^3 and trained tokens; `rank_pattern` and `alpha_pattern` match the end of a module's name as they
    do in PEFT. Tensors that the adapter trained whole (`modules_to_save`, biases, embeddings with more rows, rows of
    trained tokens) replace the base's, for any `scale`; every other tensor is the base's. Two tensors that are tied in
    the base, by its file or by its config, are untied if the adapter changes one of them.

    Args:
        base: The model that the adapter was trained on. Its tensor names may have a prefix that the adapter's lack, or
            lack a prefix that the adapter's have.
        adapter: A folder with adapter_config.json and adapter_model.safetensors or adapter_model.bin.
        scale: Factor of the change: W + scale * (changed - W).

    Raises:
        CheckpointError: the adapter is damaged or does not fit the base.
        UnsupportedFormat: it is of another kind, or was initialised by changing the base.
        SettingError: `scale` is not a finite number.

    Source: Hu et al., 2021. LoRA: Low-Rank Adaptation of Large Language Models. arXiv:2106.09685
    """
    from ._peft import read_adapter_settings

    if not math.isfinite(scale):
        raise SettingError(f"'scale' must be a finite number; got {scale}.")
    folder = adapter_folder(Path(adapter))
    settings = read_adapter_settings(folder)
    untold = left_out(base, config_of(base))
    stored = {name: name for name in (*base.specs, *base.ties)}
    view = _applied(picked(base, stored | untold) if untold else base, open_factors(folder), settings, scale)
    # The holder of a pair may be the other one at run time.
    holders = {name: view.ties.get(name, name) for name in (*view.specs, *view.ties)}
    still_tied = {alias for alias, holder in untold.items() if holders.get(alias) == holders.get(holder)}
    return subset(view, [name for name in (*view.specs, *view.ties) if name not in still_tied]) if still_tied else view


def _applied(base: Checkpoint, tensors: Checkpoint, settings: AdapterSettings, scale: float) -> Checkpoint:
    run_time = run_time_of(base)
    if run_time is None or not run_time.differs:
        return _LoraView(base, tensors, settings, scale)
    return _at_run_time(run_time, lambda model, names: _LoraView(model, tensors, settings, scale, names))


def _at_run_time(run_time: RunTime, apply: Callable[[Checkpoint, RunTime | None], Checkpoint]) -> Checkpoint:
    """An adapter on a base whose parameters have other names at run time, under the stored names.

    An adapter of an older version of the library may name single experts, or the tensors as they are stored.
    """
    problem: NotInBase | None = None
    for level in (run_time, run_time.unfused):
        try:
            return level.restored(apply(level.view, level))
        except NotInBase as error:
            problem = problem or error
    try:
        return apply(run_time.base, None)
    except NotInBase:
        raise problem or NotInBase(run_time.base.label) from None


class _LoraView(Checkpoint):
    def __init__(
        self,
        base: Checkpoint,
        tensors: Checkpoint,
        settings: AdapterSettings,
        scale: float,
        run_time: RunTime | None = None,
    ) -> None:
        self._base, self._tensors, self.inner = base, tensors, base
        self.label = f"{base.label} + {settings.path.parent}"
        self.metadata, self.folder = base.metadata, base.folder
        self.stamps = (*base.stamps, *tensors.stamps, Stamp.of_contents(settings.path))
        self._changes: dict[str, Change] = {}
        self._replaced: dict[str, str] = {}
        finder = run_time.finder(self.label) if run_time else Finder([*base.specs, *base.ties], self.label)
        self._fit(settings, scale, finder)
        self.held_nbytes = base.held_nbytes + sum(change.nbytes for change in self._changes.values())
        names_of_all = dict.fromkeys([*base.specs, *base.ties, *self._replaced])
        self.specs = {name: self._spec_of(name) for name in names_of_all if name not in self.ties}

    def _fit(self, settings: AdapterSettings, scale: float, finder: Finder) -> None:
        """Find the tensors of the base that the adapter changes."""
        from ._replacements import replacements
        from .adapter_kinds import Fitting, changes, sort_adapter_names

        names = sort_adapter_names([*self._tensors.specs, *self._tensors.ties], settings.path)
        in_base = dict.fromkeys([*self._base.specs, *self._base.ties])
        pairs = replacements(self._base, self._tensors, settings, names.replaced, finder)
        self._replaced = _unique(pairs, self.label)
        fitting = Fitting(self._tensors, settings, scale, in_base, finder.find, self._original, self._read)
        by_name = _unique(changes(fitting, names.modules), self.label)
        own = {*self._replaced, *(name for name, change in by_name.items() if not change.keeps_ties)}
        self.ties = {
            alias: holder
            for alias, holder in self._base.ties.items()
            if own.isdisjoint((alias, holder)) and not {alias, holder} <= by_name.keys()
        }
        self._changes = _unique(((self.ties.get(name, name), change) for name, change in by_name.items()), self.label)

    def _spec_of(self, name: str) -> TensorSpec:
        spec = self._source(name)[1]
        dtype = F32 if name in self._changes else spec.dtype
        in_base = name in self._base.specs or name in self._base.ties
        rests = self._base.spec(name).stored if in_base else spec.stored
        return TensorSpec(name, dtype, spec.shape, rests if rests != dtype else None)

    def _source(self, name: str) -> tuple[Checkpoint, TensorSpec]:
        """The checkpoint and entry of the values to which a change may be applied."""
        replacement = self._replaced.get(name)
        if replacement is None:
            return self._base, self._base.spec(name)
        return self._tensors, self._tensors.spec(replacement)

    def _original(self, name: str) -> TensorSpec:
        return replace(self._source(name)[1], name=name)

    def _read(self, name: str, start: int, stop: int, out: Floats) -> None:
        source, spec = self._source(name)
        read_floats(source, spec, start, stop, out)

    def read_into(self, name: str, start: int, stop: int, out: Bytes) -> None:
        change = self._changes.get(name)
        if change is None:
            source, spec = self._source(name)
            source.read_into(spec.name, start, stop, out)
            return
        values = out.view(np.float32)
        self._read(name, start, stop, values)
        change.apply(values, start)

    def close(self) -> None:
        self._base.close()
        self._tensors.close()


def _unique(pairs: Iterable[tuple[str, _T]], label: str) -> dict[str, _T]:
    by_name: dict[str, _T] = {}
    for name, value in pairs:
        if name in by_name:
            raise CheckpointError(f"{label}: two modules of the adapter are for {name!r}.")
        by_name[name] = value
    return by_name
