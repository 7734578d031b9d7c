"""What a merge method is, and how one is declared.

A method is a pure function over arrays, and its signature is its declaration:

- positional parameters say which arrays it wants, in which space, which first passes and which statistics;
- keyword-only parameters are its settings, with types, defaults and ranges;
- the return annotation says which space the result is in.

The recipe's schema, the command line's help, the documentation, the checks of bad input and the contract
tests all derive from it.
"""

from __future__ import annotations

import enum
import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin, get_type_hints

from ..errors import DeclarationError, SettingError, UnknownMethod, suggestion
from ._masks import Masks
from ._passes import Array, Request, call, parameters
from ._stat import Stat

REQUIRED = inspect.Parameter.empty  # the default of a setting that the recipe must give
_LARGEST = (2 - 2.0**-24) * 2.0**127  # from here on numbers round to infinity in float32, in which methods compute


class Role(enum.Enum):
    """What the engine puts into a positional parameter, or takes from the result."""

    TENSORS = "the models' tensors, stacked: (k, *shape)"
    DELTAS = "the models' tensors minus the base's, stacked: (k, *shape)"
    BASE = "the base's tensor: (*shape)"
    NAME = "the tensor's name: text"
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
Name: TypeAlias = Annotated[str, Role.NAME]
Chance: TypeAlias = Annotated[Array, Role.CHANCE]
Merged: TypeAlias = Annotated[Array, Role.MERGED]
Delta: TypeAlias = Annotated[Array, Role.DELTA]
Coefficient: TypeAlias = Annotated[Array, PerModel(1.0)]
Fraction: TypeAlias = Annotated[float, In(0, 1)]
# From the tensor's name, its shape and settings to another method's name and settings.
Choice: TypeAlias = Callable[..., "tuple[str, Mapping[str, Any]] | None"]
Workspace: TypeAlias = Callable[[int, tuple[int, ...]], int]
Pattern: TypeAlias = str  # as a setting: a regular expression for `re.search`, or nothing


class Law(enum.Enum):
    """A property that a method may claim; the contract tests check every claim, the engine uses it."""

    SYMMETRIC = "reordering the models and their settings changes nothing"
    IDEMPOTENT = "merging copies of one model gives that model"
    ELEMENTWISE = "once its first passes are known, merging a slice gives that slice of the merge"
    ROWS = "merging some of a matrix' rows gives those rows of the merge"
    HOMOGENEOUS = "scaling every delta scales the result's delta"
    LINEAR = "the result is a sum of the models and the base, each times a number that the settings alone decide"
    ZERO_IS_ABSENT = "a model whose weight is zero might as well not be there"


@dataclass(frozen=True)
class Setting:
    """A keyword-only parameter of a method.

    Attributes:
        name: What recipes call it.
        kind: The type of a value, or the words it may be; text is a regular expression.
        default: Its value when the recipe gives none; `REQUIRED` when the recipe must.
        per_model: Whether each model has its own.
        range: Which numbers are allowed.
    """

    name: str
    kind: type[float | int | bool | str] | tuple[str, ...]
    default: Any
    per_model: bool = False
    range: In | None = None

    def problem_with(self, value: object) -> str | None:
        """Say what one value must be instead, or return None when it is fine."""
        if isinstance(self.kind, tuple):
            return None if value in self.kind else f"one of {', '.join(self.kind)}"
        if self.kind is bool:
            return None if isinstance(value, bool) else "true or false"
        if self.kind is str:
            return _problem_with_pattern(value)
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return "a whole number" if self.kind is int else "a number"
        if not math.isfinite(value):
            return "finite"
        if self.kind is float and abs(value) >= _LARGEST:
            return "a number that float32 can hold"
        return str(self.range) if self.range is not None and value not in self.range else None


def _problem_with_pattern(value: object) -> str | None:
    if not isinstance(value, str):
        return "text, a regular expression"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(value)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return f"a regular expression ({error})"
    return None


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
        optional_base: Whether deltas are taken from zero where there is no base.
        workspace: For definitions on whole tensors: the bytes that they hold beside inputs and result, if known.
    """

    name: str
    fn: Callable[..., Array]
    source: str
    models: tuple[int, int | None]
    laws: frozenset[Law]
    inputs: Mapping[str, Role | FirstPass | Stat]
    returns: Role
    settings: Mapping[str, Setting]
    _maskings: list[Callable[..., Masks]] = field(default_factory=list[Callable[..., "Masks"]])
    optional_base: bool = False
    workspace: Workspace | None = None
    _packings: list[Callable[..., Any]] = field(default_factory=list[Callable[..., Any]])
    _twins: list[Callable[..., None]] = field(default_factory=list[Callable[..., None]])
    _directs: list[Callable[..., bool | None]] = field(default_factory=list[Callable[..., "bool | None"]])
    _conditions: list[Callable[..., str | None]] = field(default_factory=list[Callable[..., "str | None"]])
    _choices: list[Choice] = field(default_factory=list[Choice])

    @property
    def needs_base(self) -> bool:
        return self.uses_base and not self.optional_base

    @property
    def uses_base(self) -> bool:
        """Whether a base makes a difference."""
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
    def statistics(self) -> Mapping[str, Stat]:
        return {name: kind for name, kind in self.inputs.items() if isinstance(kind, Stat)}

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

    @property
    def direct(self) -> Callable[..., bool | None] | None:
        """The form that merges stored numbers, if there is one."""
        return self._directs[0] if self._directs else None

    def from_stored(self, direct: Callable[..., bool | None]) -> Callable[..., bool | None]:
        """Register a form of the twin that widens stored numbers itself and adds the base, for merges in memory.

        It takes `out` (n,), `stored` (`polyak.kernels.stored.Stored`), and what it names of the definition's other
        parameters, as the twin has them.  It writes the very bits of the twin, onto the base where the method returns
        a delta, and says whether they are all finite; or returns None, and writes nothing, where it cannot.
        """
        self._directs.append(direct)
        return direct

    @property
    def masks(self) -> Callable[..., Masks] | None:
        """What turns the merged delta back into each model's, if the method can: see `masking`."""
        return self._maskings[0] if self._maskings else None

    def masking(self, masks: Callable[..., Masks]) -> Callable[..., Masks]:
        """Register how each model's own delta is cut from the merged one, as a function of the definition's arguments.

        Where the setting `masks` is true, a merge into a folder writes the masks beside the model.

        Raises:
            DeclarationError: the method has no setting `masks` that is true or false.
        """
        if "masks" not in self.settings or self.settings["masks"].kind is not bool:
            raise DeclarationError(f"{self.name!r} has masks, so it needs a setting `masks: bool`.")
        self._maskings.append(masks)
        return masks

    @property
    def packs(self) -> Callable[..., Any] | None:
        """The fused form of `masks`, if there is one."""
        return self._packings[0] if self._packings else None

    def packing(self, packs: Callable[..., Any]) -> Callable[..., Any]:
        """Register a fused form of `masks`, for the CPU: it takes what it names of what a twin may take.

        It writes the masks into `packed` (k, ceil(n / 8)), a bit an entry with the lowest bit first, leaves the other
        arrays as they are, and returns the scales (k,).
        """
        self._packings.append(packs)
        return packs

    def requires(self, condition: Callable[..., str | None]) -> Callable[..., str | None]:
        """Register a condition on the settings, as a function of some of them that says what is wrong, or None."""
        self._conditions.append(condition)
        return condition

    def leaves(self, choice: Choice) -> Choice:
        """Register which tensors another method merges: a function of some of `name`, `shape`, the
        number of models `k`, and the settings.

        It returns the other method's name and settings, or None. Plans carry out the choice, so that these tensors
        are merged as the other method can: in tiles, say.
        """
        self._choices.append(choice)
        return choice

    def for_tensor(
        self, name: str, shape: tuple[int, ...], bound: dict[str, Any], k: int
    ) -> tuple[Method, dict[str, Any]]:
        """Who merges a tensor, this method or the one that it leaves it to; and that one's bound settings."""
        for choice in self._choices:
            if (left := call(choice, {**bound, "name": name, "shape": shape, "k": k})) is not None:
                other = resolve(left[0])
                return other, other.bind(left[1], k)
        return self, bound

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
        self,
        tensors: Array,
        base: Array | None = None,
        *,
        name: str = "",
        chance: Array | None = None,
        statistics: Mapping[str, Array] | None = None,
        seed: int = 0,
        **given: Any,
    ) -> Array:
        """Merge one tensor by the definition.

        Args:
            tensors: The models' tensors, float32 or float64, stacked: (k, *shape). NumPy, torch, CuPy ...
            base: The base's tensor: (*shape). Required if `needs_base`, ignored unless `uses_base`.
            name: The tensor's name, for methods that treat tensors by name.
            chance: Numbers in [0, 1) for a random method: (k, *shape) (default: drawn from `seed`).
            statistics: What was measured of the models, by name, stacked like the tensors; of the tensors' dtype.
            seed: Seeds them.
            **given: Settings, by name.

        Returns:
            The merged tensor, of the same dtype: (*shape). It never shares memory with an input.

        Raises:
            SettingError: a setting or statistic does not fit, or the number of models, or the base is missing.
        """
        from ._apply import apply

        return apply(self, tensors, base, name, chance, seed, given, statistics or {})


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
        optional_base: Without a base, take deltas from zero: the tensors themselves (default: a base is needed).
        workspace: From the number of models and the shape of a tensor to the bytes that the definition holds beside
            inputs and result, where it gets whole tensors (default: a copy of all inputs).

    Raises:
        DeclarationError: the signature does not say what the engine must know.
    """

    name: str
    source: str
    models: tuple[int, int | None] = (1, None)
    laws: frozenset[Law] | set[Law] = frozenset()
    optional_base: bool = False
    workspace: Workspace | None = None

    def __call__(self, fn: Callable[..., Array]) -> Method:
        if self.name in registry:
            other = registry[self.name].fn.__module__
            raise DeclarationError(f"{fn.__module__} and {other} both declare the method {self.name!r}.")
        if not inspect.getdoc(fn):
            raise DeclarationError(f"{self.name!r}: say what it computes in a docstring.")
        hints = get_type_hints(fn, include_extras=True)
        inputs: dict[str, Role | FirstPass | Stat] = {}
        settings: dict[str, Setting] = {}
        for p in inspect.signature(fn).parameters.values():
            if p.kind is p.KEYWORD_ONLY:
                settings[p.name] = _read_setting(self.name, p, hints.get(p.name))
            elif isinstance(mark := _mark(hints.get(p.name)), Role | FirstPass | Stat):
                inputs[p.name] = _read_input(mark, hints[p.name])
            else:
                raise DeclarationError(
                    f"{self.name!r}: annotate {p.name!r} as Tensors, Deltas, Base, Name, Chance, FirstPass or Stat."
                )
        self._check_statistics(inputs)
        returns = _mark(hints.get("return"))
        if returns not in (Role.MERGED, Role.DELTA):
            raise DeclarationError(f"{self.name!r}: annotate the result as Merged or Delta.")
        laws, space = frozenset(self.laws), cast("Role", returns)
        found = Method(
            self.name,
            fn,
            self.source,
            self.models,
            laws,
            inputs,
            space,
            settings,
            optional_base=self.optional_base,
            workspace=self.workspace,
        )
        registry[self.name] = found
        return found

    def _check_statistics(self, inputs: Mapping[str, object]) -> None:
        """A slice of a tensor has no Gram of its own."""
        grams = [name for name, kind in inputs.items() if isinstance(kind, Stat) and kind.shape == "gram"]
        if grams and Law.ELEMENTWISE in self.laws:
            raise DeclarationError(f"{self.name!r} takes a Gram, {grams[0]!r}, so it cannot be elementwise.")


def _read_input(mark: Role | FirstPass | Stat, hint: Any) -> Role | FirstPass | Stat:
    if not isinstance(mark, Stat):
        return mark
    return replace(mark, optional=type(None) in get_args(get_args(hint)[0]))


def _mark(hint: Any) -> object:
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def _read_setting(method_name: str, p: inspect.Parameter, hint: Any) -> Setting:
    mark = _mark(hint)
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if isinstance(mark, PerModel):
        return Setting(p.name, float, mark.default, per_model=True, range=mark.range)
    if get_origin(bare) is Literal:
        return Setting(p.name, get_args(bare), p.default)
    if bare in (float, int, bool, str):
        return Setting(p.name, bare, p.default, range=mark if isinstance(mark, In) else None)
    raise DeclarationError(
        f"{method_name!r}: annotate the setting {p.name!r} as float, int, bool, Pattern, Literal[...] or "
        "Annotated[Array, PerModel(...)]."
    )
