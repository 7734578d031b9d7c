"""The contract tests notice when a kernel is broken: every kernel is, in every way that fits it.

The ways are those in which compiled code goes wrong: a sign, a zero, a tail, a block, a count, a rounding. They wrap
the one function through which checks evaluate kernels, so they fit whatever kernels are registered.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from polyak.methods import Cut, Method, Role, Rows, Stat, load_all, registry
from polyak.testing import _cases, _kernel_checks
from polyak.testing._kernels import by_kernel, has_kernel

load_all()

Kernel = Callable[..., Any]
Tile = dict[str, Any]
FIRST_MODEL_ALONE = {"lines"}  # once its norms are known, it reads no other
CHECK = _kernel_checks.check_kernel_equals_definition


@dataclass(frozen=True)
class Mutant:
    """A broken kernel of a method: evaluated in place of `by_kernel`."""

    method: Method
    name: str
    kernel: Kernel


def mutants(method: Method) -> Iterator[Mutant]:
    """Every way of breaking the kernel that fits the method."""
    for ways in (of_results, of_stacks, of_settings, of_first_passes, of_places):
        for name, kernel in ways(method):
            yield Mutant(method, name, kernel)


def of_results(method: Method) -> Iterator[tuple[str, Kernel]]:
    """What is written is spoilt."""

    def spoilt(spoil: Callable[[Any], Any]) -> Kernel:
        return lambda *args: spoil(by_kernel(*args))

    yield "the entries after the last whole vector of 8 are zero", spoilt(_without_tail)
    yield "the entries after the first 1024 are zero", spoilt(lambda out: np.where(np.arange(out.size) < 1024, out, 0))
    yield "results below 1e-20 are zero", spoilt(lambda out: np.where(abs(out) < 1e-20, 0, out))
    yield "results are at most 1e15", spoilt(lambda out: np.clip(out, -1e15, 1e15))
    yield "results are rounded to eight bits", spoilt(lambda out: (out.view(np.uint32) & 0xFFFF0000).view(np.float32))
    yield "results are written twice as large", spoilt(lambda out: 2 * out)


def _without_tail(out: Any) -> Any:
    return np.where(np.arange(out.size) < out.size // 8 * 8, out, 0)


def of_stacks(method: Method) -> Iterator[tuple[str, Kernel]]:
    """What is read is spoilt, or makes the result so."""
    low, high = method.models
    yield "NaN where all that is read is zero", _nan_where(method, lambda stack: ~stack.any(axis=0))
    if high != 1:
        yield "NaN where all models are equal", _nan_where(method, lambda s: (s == s[0]).all(axis=0) & (len(s) > 1))
        yield (
            "NaN where any model is zero",
            _nan_where(method, lambda s: (s == 0).any(axis=0) & (len(s) > 1)),
        )
    if high != 1 and method.name not in FIRST_MODEL_ALONE:
        yield "the last model is left out", _reading(method, lambda s: s if len(s) == 1 else _cleared(s, len(s) - 1))
    if high is None and method.name not in FIRST_MODEL_ALONE:
        yield "models after the sixteenth are left out", _reading(method, lambda stack: _cleared(stack, 16))
        yield "models after the third are left out", _reading(method, lambda stack: _cleared(stack, 3))
    if low == 1 and high != 1:
        yield (
            "one model alone counts twice",
            lambda m, tile, *rest: by_kernel(m, tile, *rest) * (2 if len(tile["tensors"]) == 1 else 1),
        )


def _stack_of(method: Method) -> str:
    return next(name for name, role in method.inputs.items() if role in (Role.TENSORS, Role.DELTAS))


def _reading(method: Method, change: Callable[[Any], Any]) -> Kernel:
    name = _stack_of(method)

    def kernel(m: Method, tile: Tile, *rest: Any) -> Any:
        return by_kernel(m, tile | {name: np.ascontiguousarray(change(tile[name]), np.float32)}, *rest)

    return kernel


def _cleared(stack: Any, first: int) -> Any:
    return np.concatenate([stack[:first], np.zeros_like(stack[first:])])


def _nan_where(method: Method, where: Callable[[Any], Any]) -> Kernel:
    name = _stack_of(method)

    def kernel(m: Method, tile: Tile, *rest: Any) -> Any:
        at = where(tile[name].reshape(len(tile[name]), -1).copy())
        return np.where(at, np.float32(np.nan), by_kernel(m, tile, *rest))

    return kernel


def of_settings(method: Method) -> Iterator[tuple[str, Kernel]]:
    """Settings are ignored or misread, among those that the definition reads once first passes are answered."""
    read = _read_by_the_definition(method)
    for name, setting in method.settings.items():
        if name not in read:
            continue
        if setting.default != setting.default or not _neutral(setting.default):
            continue
        yield f"the default for {name!r}", _setting(name, lambda value, d=setting.default: _like(value, d))
        if setting.per_model:
            yield f"{name!r} of the models in reverse", _setting(name, lambda value: value[::-1].copy())
        if setting.per_model and setting.problem_with(0.0) is None:
            yield f"1 for a {name!r} of zero", _setting(name, lambda value: np.where(value == 0, np.float32(1), value))
        if setting.kind is float and setting.range is None:
            yield f"{name!r} without its sign", _setting(name, abs)
            yield f"{name!r} of at most 32", _setting(name, lambda value: np.minimum(value, 32, dtype=np.float32))


def _read_by_the_definition(method: Method) -> set[str]:
    """Parameters that it reads once first passes are answered; no kernel needs another."""
    return {i.argval for i in dis.get_instructions(method.fn.__code__) if i.opname.startswith("LOAD_FAST")}


def _neutral(default: Any) -> bool:
    return isinstance(default, float | int | str | bool)


def _like(value: Any, default: Any) -> Any:
    return np.full_like(value, default) if isinstance(value, np.ndarray) else default


def _setting(name: str, change: Callable[[Any], Any]) -> Kernel:
    return lambda method, tile, *rest: by_kernel(method, tile | {name: change(tile[name])}, *rest)


def of_first_passes(method: Method) -> Iterator[tuple[str, Kernel]]:
    """Answers are misread, and statistics."""
    for name in sorted(_read_by_the_definition(method).intersection(method.passes)):
        yield f"another answer for {name!r}", _answer(name, _spoilt_answer)
    for name, kind in method.inputs.items():
        if isinstance(kind, Stat):
            yield f"NaN where {name!r} is zero", _nan_where_zero(name)


def _answer(name: str, change: Callable[[Any], Any]) -> Kernel:
    def kernel(method: Method, tile: Tile, answers: Mapping[str, Any], *rest: Any) -> Any:
        return by_kernel(method, tile | {name: change(tile[name])}, {**answers, name: change(answers[name])}, *rest)

    return kernel


def _spoilt_answer(answer: Any) -> Any:
    if isinstance(answer, Cut):
        return replace(answer, value=answer.value * np.float32(1.5))
    if isinstance(answer, Rows):
        value = np.array(answer.value)
        value[0, 0] *= 3
        return replace(answer, value=value)
    return None if answer is None else np.concatenate([-3 * answer[:1], answer[1:]])


def _nan_where_zero(name: str) -> Kernel:
    def kernel(method: Method, tile: Tile, *rest: Any) -> Any:
        at = False if tile[name] is None else (tile[name] == 0).any(axis=0)
        return np.where(at, np.float32(np.nan), by_kernel(method, tile, *rest))

    return kernel


def of_places(method: Method) -> Iterator[tuple[str, Kernel]]:
    """Every tile is taken for the first of its tensor."""
    if method.is_random or any(isinstance(kind, Role) and kind is Role.UNIFORM for kind in method.inputs.values()):
        yield "random numbers from the first entry on", _from_the_first_entry


def _from_the_first_entry(method: Method, tile: Tile, answers: Any, start: int, entries: int) -> Any:
    drawn = {name: replace(tile[name], start=0) for name, role in method.inputs.items() if role is Role.UNIFORM}
    return by_kernel(method, tile | drawn, answers, 0, entries)


WITH_KERNELS = [method for method in registry.values() if has_kernel(method)]
TABLE = [mutant for method in WITH_KERNELS for mutant in mutants(method)]


def survives(mutant: Mutant) -> bool:
    """Whether it passes; small cases first, since most are caught there."""
    for check in (replace(CHECK, cases=_cases.special), CHECK):
        try:
            check(mutant.method)
        except AssertionError:
            return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("mutant", TABLE, ids=lambda m: f"{m.method.name}-{m.name}")
def test_a_broken_kernel_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_kernel_checks, "by_kernel", mutant.kernel)
    with np.errstate(all="ignore"):
        assert not survives(mutant)


@pytest.mark.parametrize("method", WITH_KERNELS, ids=lambda method: method.name)
def test_every_kernel_is_broken_in_several_ways(method: Method):
    assert len(list(mutants(method))) >= 6


def test_the_table_is_long_enough():
    assert len(TABLE) >= 60
