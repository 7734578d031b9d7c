"""A merge method as the engine sees it: the function, what its signature says, and who is registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from ..declare import Setting, bind
from ..errors import DeclarationError, SettingError
from ._masks import Masks
from ._passes import Array, call, parameters
from ._registry import resolve
from ._signature import FirstPass, Law, Role
from ._stat import Stat

# From the tensor's name, its shape and settings to another method's name and settings.
Choice: TypeAlias = Callable[..., "tuple[str, Mapping[str, Any]] | None"]
Workspace: TypeAlias = Callable[[int, tuple[int, ...]], int]


@dataclass(frozen=True)
class Loop:
    """A twin that is one call of a kernel: the engine may run it where the numbers are in the first-level cache.

    Attributes:
        kernel: Called with `out` (n,) float32, the stack (k, n) float32, which it may overwrite, the index in the
            tensor of the first entry, and `args`.
        args: Arrays, numbers and bools, the same for all entries of a tensor.
    """

    kernel: Any
    args: tuple[Any, ...]


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
    _loops: list[Callable[..., Loop]] = field(default_factory=list[Callable[..., Loop]])
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
    def loop(self) -> Callable[..., Loop] | None:
        """What makes the twin's loop, if the twin is one."""
        return self._loops[0] if self._loops else None

    def looped(self, loop: Callable[..., Loop]) -> Callable[..., Loop]:
        """Register a twin that is a `Loop`, as a function of settings, answers of first passes and `Chance`, by name.

        Settings are as for `fused`, answers and random numbers those of the whole tensor. The kernel gets the stack
        that the method asks for.

        Raises:
            DeclarationError: the method is not elementwise, asks for other arrays too, or has no such parameter.
        """
        drawn = {name for name, role in self.inputs.items() if role is Role.CHANCE}
        stacks = [role for name, role in self.inputs.items() if not isinstance(role, FirstPass) and name not in drawn]
        if Law.ELEMENTWISE not in self.laws or stacks not in ([Role.TENSORS], [Role.DELTAS]):
            raise DeclarationError(f"{self.name!r} cannot be a loop: it must be elementwise and ask for one stack.")
        if strange := set(parameters(loop)) - set(self.passes) - set(self.settings) - drawn:
            raise DeclarationError(
                f"the loop of {self.name!r} names {sorted(strange)}, which the method does not have."
            )
        self._loops.append(loop)
        return loop

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
        bound = bind(f"method {self.name!r}", self.settings, given, k)
        for condition in self._conditions:
            if problem := call(condition, bound):
                raise SettingError(f"method {self.name!r}: {problem}")
        return bound

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
