"""What a merge method is, and how one is declared.

A method is a pure function over arrays, and its signature is its declaration:

- positional parameters say which arrays it wants, in which space, and which first passes;
- keyword-only parameters are its settings, with types, defaults and ranges;
- the return annotation says which space the result is in.

The recipe's schema, the command line's help, the documentation, the checks of bad input and the contract
tests all derive from it.
"""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin, get_type_hints

from ..errors import DeclarationError, SettingError, UnknownMethod, suggestion
from ._passes import Array, Request, call, parameters

REQUIRED = inspect.Parameter.empty  # the default of a setting that the recipe must give


class Role(enum.Enum):
    """What the engine puts into a positional parameter, or takes from the result."""

    TENSORS = "the models' tensors, stacked: (k, *shape)"
    DELTAS = "the models' tensors minus the base's, stacked: (k, *shape)"
    BASE = "the base's tensor: (*shape)"
    CHANCE = "a number in [0, 1) for each model and entry, the same whatever the slabs: (k, *shape)"
    MERGED = "the merged tensor: (*shape)"
    DELTA = "what to add to the base: (*shape)"


@dataclass(frozen=True)
class FirstPass:
    """What must be known of the whole tensor or model first.

    Attributes:
        ask: From settings, by name, to the request; None when these settings need no such pass
            (the method is then given None).
    """

    ask: Callable[..., Request | None]


@dataclass(frozen=True)
class In:
    """A range of numbers, closed unless `above` excludes its lower end."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return (
            f"{'above' if self.above else 'between'} {self.low:g} and {'at most ' if self.above else ''}{self.high:g}"
        )


@dataclass(frozen=True)
class PerModel:
    """A number for each model, shaped (k, 1, ..., 1) so that it multiplies a stack."""

    default: Any = REQUIRED
    range: In | None = None


Tensors: TypeAlias = Annotated[Array, Role.TENSORS]
Deltas: TypeAlias = Annotated[Array, Role.DELTAS]
Base: TypeAlias = Annotated[Array, Role.BASE]
Chance: TypeAlias = Annotated[Array, Role.CHANCE]
Merged: TypeAlias = Annotated[Array, Role.MERGED]
Delta: TypeAlias = Annotated[Array, Role.DELTA]
Coefficient: TypeAlias = Annotated[Array, PerModel(1.0)]
Fraction: TypeAlias = Annotated[float, In(0, 1)]


class Law(enum.Enum):
    """A property that a method may claim; the contract tests check every claim, the engine uses it."""

    SYMMETRIC = "reordering the models and their settings changes nothing"
    IDEMPOTENT = "merging copies of one model gives that model"
    ELEMENTWISE = "once its first passes are known, merging a slice gives that slice of the merge"
    HOMOGENEOUS = "scaling every delta scales the result's delta"
    ZERO_IS_ABSENT = "a model whose weight is zero might as well not be there"


@dataclass(frozen=True)
class Setting:
    """A keyword-only parameter of a method.

    Attributes:
        name: What recipes call it.
        kind: The type of a value, or the words it may be.
        default: Its value when the recipe gives none; `REQUIRED` when the recipe must.
        per_model: Whether each model has its own.
        range: Which numbers are allowed.
    """

    name: str
    kind: type[float | int | bool] | tuple[str, ...]
    default: Any
    per_model: bool = False
    range: In | None = None

    def problem_with(self, value: object) -> str | None:
        """Say what one value must be instead, or return None when it is fine."""
        if isinstance(self.kind, tuple):
            return None if value in self.kind else f"one of {', '.join(self.kind)}"
        if self.kind is bool:
            return None if isinstance(value, bool) else "true or false"
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return "a whole number" if self.kind is int else "a number"
        if not math.isfinite(value):
            return "finite"
        return str(self.range) if self.range is not None and value not in self.range else None


@dataclass(frozen=True, eq=False)
class Method:
    """A merge method: its function, and what the function's signature says.

    Attributes:
        name: What recipes call it.
        fn: The definition.
        source: Where it was published.
        models: The fewest and the most models it merges (the base not counted).
        laws: The properties it claims.
        inputs: Its positional parameters by name.
        returns: The space of its result.
        settings: Its keyword-only parameters by name.
    """

    name: str
    fn: Callable[..., Array]
    source: str
    models: tuple[int, int | None]
    laws: frozenset[Law]
    inputs: Mapping[str, Role | FirstPass]
    returns: Role
    settings: Mapping[str, Setting]
    _twins: list[Callable[..., None]] = field(default_factory=list[Callable[..., None]])
    _conditions: list[Callable[..., str | None]] = field(default_factory=list[Callable[..., "str | None"]])

    @property
    def needs_base(self) -> bool:
        return self.returns is Role.DELTA or not {Role.BASE, Role.DELTAS}.isdisjoint(self._roles)

    @property
    def is_random(self) -> bool:
        return Role.CHANCE in self._roles

    @cached_property
    def _roles(self) -> set[Role]:
        return {role for role in self.inputs.values() if isinstance(role, Role)}

    @cached_property
    def passes(self) -> Mapping[str, FirstPass]:
        return {name: kind for name, kind in self.inputs.items() if isinstance(kind, FirstPass)}

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.fn) or "").partition("\n")[0]

    @property
    def twin(self) -> Callable[..., None] | None:
        """The fused form, if there is one."""
        return self._twins[0] if self._twins else None

    def fused(self, twin: Callable[..., None]) -> Callable[..., None]:
        """Register a fused form of the definition, for the CPU.

        It takes `out` (n,), then the definition's parameters under the same names as NumPy arrays: stacks
        are (k, n) float32 and may be overwritten, numbers for each model are (k,) float32, `Chance` is a
        `polyak.kernels.philox.Stream`, and it writes the result into `out`.

        Raises:
            DeclarationError: its parameters are not `out` and then the definition's.
        """
        if (found := parameters(twin)) != (wanted := ("out", *self.inputs, *self.settings)):
            raise DeclarationError(
                f"the twin of {self.name!r} must take {', '.join(wanted)}; it takes {', '.join(found)}."
            )
        self._twins.append(twin)
        return twin

    def requires(self, condition: Callable[..., str | None]) -> Callable[..., str | None]:
        """Register a condition on the settings, as a function of some of them that says what is wrong, or None."""
        self._conditions.append(condition)
        return condition

    def bind(self, given: Mapping[str, Any], k: int) -> dict[str, Any]:
        """Fill in defaults and check every value; settings with a value for each model become tuples of k.

        Raises:
            SettingError: a setting is missing, unknown, of the wrong kind, out of range, or they do not fit together.
        """
        for name in given:
            if name not in self.settings:
                raise SettingError(f"method {self.name!r} has no setting {name!r}. {suggestion(name, self.settings)}")
        bound = {
            name: self._bind_one(setting, given.get(name, setting.default), k)
            for name, setting in self.settings.items()
        }
        for condition in self._conditions:
            if problem := call(condition, bound):
                raise SettingError(f"method {self.name!r}: {problem}")
        return bound

    def _bind_one(self, setting: Setting, value: Any, k: int) -> Any:
        if value is REQUIRED:
            raise SettingError(f"method {self.name!r} needs a value for {setting.name!r}.")
        many = setting.per_model and isinstance(value, Sequence) and not isinstance(value, str)
        each: list[Any] = list(cast("Sequence[Any]", value)) if many else [value]
        for one in each:
            if one is REQUIRED:
                raise SettingError(f"method {self.name!r} needs a value of {setting.name!r} for every model.")
            if wanted := setting.problem_with(one):
                raise SettingError(f"{setting.name!r} of method {self.name!r} must be {wanted}; got {one!r}.")
        if many and len(each) != k:
            raise SettingError(f"{setting.name!r} of method {self.name!r} has {len(each)} values for {k} models.")
        if setting.kind is float:
            each = [float(one) for one in each]
        return tuple(each * (1 if many else k)) if setting.per_model else each[0]

    def check_count(self, k: int) -> None:
        """Refuse a number of models that the method cannot merge.

        Raises:
            SettingError: too few or too many.
        """
        low, high = self.models
        if k < low or (high is not None and k > high):
            raise SettingError(f"method {self.name!r} merges {_count(low, high)}; got {k}.")

    def __call__(
        self, tensors: Array, base: Array | None = None, *, chance: Array | None = None, seed: int = 0, **given: Any
    ) -> Array:
        """Merge one tensor by the definition.

        Args:
            tensors: The models' tensors, float32 or float64, stacked: (k, *shape). NumPy, torch, CuPy ...
            base: The base's tensor: (*shape). Required if `needs_base`.
            chance: Numbers in [0, 1) for a random method: (k, *shape) (default: drawn from `seed`).
            seed: Seeds them.
            **given: Settings, by name.

        Returns:
            The merged tensor, of the same dtype: (*shape). It never shares memory with an input.

        Raises:
            SettingError: a setting does not fit, or the number of models does not, or the base is missing.
        """
        from ._apply import apply

        return apply(self, tensors, base, chance, seed, given)


def _count(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more models"
    return f"exactly {low} model{'s' * (low != 1)}" if low == high else f"{low} to {high} models"


registry: dict[str, Method] = {}


def resolve(name: str) -> Method:
    """Look a method up by name.

    Raises:
        UnknownMethod: there is none, with the name that was probably meant.
    """
    if name not in registry:
        raise UnknownMethod(name, registry)
    return registry[name]


@dataclass(frozen=True)
class method:  # noqa: N801
    """Register the decorated function as the merge method called `name`.

    Args:
        name: What recipes call it.
        source: Where it was published: authors, year, title, identifier.
        models: The fewest and the most models that it merges (default: one or more).
        laws: The properties that it claims.

    Raises:
        DeclarationError: the signature does not say what the engine must know.
    """

    name: str
    source: str
    models: tuple[int, int | None] = (1, None)
    laws: frozenset[Law] | set[Law] = frozenset()

    def __call__(self, fn: Callable[..., Array]) -> Method:
        if self.name in registry:
            other = registry[self.name].fn.__module__
            raise DeclarationError(f"{fn.__module__} and {other} both declare the method {self.name!r}.")
        if not inspect.getdoc(fn):
            raise DeclarationError(f"{self.name!r}: say what it computes in a docstring.")
        hints = get_type_hints(fn, include_extras=True)
        inputs: dict[str, Role | FirstPass] = {}
        settings: dict[str, Setting] = {}
        for p in inspect.signature(fn).parameters.values():
            if p.kind is p.KEYWORD_ONLY:
                settings[p.name] = _read_setting(self.name, p, hints.get(p.name))
            elif isinstance(mark := _mark(hints.get(p.name)), Role | FirstPass):
                inputs[p.name] = mark
            else:
                raise DeclarationError(
                    f"{self.name!r}: annotate {p.name!r} as Tensors, Deltas, Base, Chance or FirstPass."
                )
        returns = _mark(hints.get("return"))
        if returns not in (Role.MERGED, Role.DELTA):
            raise DeclarationError(f"{self.name!r}: annotate the result as Merged or Delta.")
        found = Method(
            self.name, fn, self.source, self.models, frozenset(self.laws), inputs, cast("Role", returns), settings
        )
        registry[self.name] = found
        return found


def _mark(hint: Any) -> object:
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def _read_setting(method_name: str, p: inspect.Parameter, hint: Any) -> Setting:
    mark = _mark(hint)
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if isinstance(mark, PerModel):
        return Setting(p.name, float, mark.default, per_model=True, range=mark.range)
    if get_origin(bare) is Literal:
        return Setting(p.name, get_args(bare), p.default)
    if bare in (float, int, bool):
        return Setting(p.name, bare, p.default, range=mark if isinstance(mark, In) else None)
    raise DeclarationError(
        f"{method_name!r}: annotate the setting {p.name!r} as float, int, bool, Literal[...] or "
        "Annotated[Array, PerModel(...)]."
    )
