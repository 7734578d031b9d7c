"""A merge method as the engine sees it: the function, its declaration and its registered hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from ..declare import Registry, Setting, bind
from ..errors import DeclarationError, SettingError, UnknownMethod
from ._apply import apply
from ._masks import Masks
from ._passes import Array, call, parameters
from ._signature import FirstPass, Law, Role
from ._stat import Stat

# From the tensor's name, its shape and settings to another method's name and settings.
Delegate: TypeAlias = Callable[..., "tuple[str, Mapping[str, Any]] | None"]
Workspace: TypeAlias = Callable[[int, tuple[int, ...]], int]


@dataclass(frozen=True)
class KernelCall:
    """A merge that is one call of a compiled kernel: the engine may make it where the numbers are in the L1 cache.

    Attributes:
        kernel: Called with `out` (n,) float32, the stack (k, n) float32, which it may overwrite, the index in the
            tensor of the first entry, and `args`.
        args: Arrays, numbers and bools, the same for all entries of a tensor.
    """

    kernel: Any
    args: tuple[Any, ...]


@dataclass(eq=False)
class Method:
    """A merge method: its function, and what the function's signature says.

    Attributes:
        name: Its name in recipes.
        fn: The definition.
        source: Its publication.
        models: Minimum and maximum number of models, without the base.
        laws: The properties it claims.
        inputs: Its positional parameters by name.
        returns: The space of its result.
        settings: Its keyword-only parameters by name.
        optional_base: Take task vectors from zero if there is no base.
        workspace: For definitions on whole tensors: their bytes in addition to inputs and result, if known.
        kernel_form: The compiled form of the definition, if any; registered by `kernel`.
        masks: The function that recovers each model's task vector from the merged one, if any; registered by `masking`.
        mask_kernel: The compiled form of `masks`, if any; registered by `pack_masks`.
        conditions: Conditions that involve several settings; registered by `requires`.
        delegate: The choice of tensors that another method merges; registered by `delegates_to`.
    """

    name: str
    fn: Callable[..., Array]
    source: str
    models: tuple[int, int | None]
    laws: frozenset[Law]
    inputs: Mapping[str, Role | FirstPass | Stat]
    returns: Role
    settings: Mapping[str, Setting]
    optional_base: bool = False
    workspace: Workspace | None = None
    kernel_form: Callable[..., Any] | None = None
    masks: Callable[..., Masks] | None = None
    mask_kernel: Callable[..., Any] | None = None
    conditions: list[Callable[..., str | None]] = field(default_factory=list[Callable[..., "str | None"]])
    delegate: Delegate | None = None

    @property
    def needs_base(self) -> bool:
        return self.uses_base and not self.optional_base

    @property
    def uses_base(self) -> bool:
        """True if the result depends on a base."""
        return self.returns is Role.DELTA or not {Role.BASE, Role.DELTAS}.isdisjoint(self._roles)

    @property
    def is_random(self) -> bool:
        return Role.UNIFORM in self._roles

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

    def kernel(self, form: Callable[..., Any]) -> Callable[..., Any]:
        """Register a compiled form of the definition, for the CPU.

        It takes some of the definition's parameters, under the same names, in one of two forms:

        - A function with a parameter `out` (n,) is called for every tile and writes the merged tile there. Stacks are
          (k, n) float32 NumPy arrays that may be overwritten, settings per model (k,) float32, and `Uniform` is a
          `polyak.kernels.philox.Stream`.
        - A function without `out` is called once per tensor with settings, answers of first passes and `Uniform`, and
          returns a `KernelCall`. The engine then decodes, merges and encodes in one compiled loop, which is faster; the
          method must be elementwise and ask for one stack.

        Raises:
            DeclarationError: the function names something that the method does not have, or cannot be of its form.
        """
        named = set(parameters(form))
        allowed = {*self.inputs, *self.settings, "out"} if "out" in named else self._known_per_tensor
        if unknown := sorted(named - allowed):
            raise DeclarationError(
                f"the kernel of {self.name!r} takes {', '.join(unknown)}; it may take {', '.join(sorted(allowed))}."
            )
        if "out" not in named and not self._takes_one_stack:
            raise DeclarationError(
                f"the kernel of {self.name!r} has no parameter `out`, so the method must be elementwise and ask for "
                "one stack. Give the kernel `out` and the stacks that it merges."
            )
        self.kernel_form = form
        return form

    @property
    def is_fusable(self) -> bool:
        """True if the kernel is a `KernelCall`, which the engine may fuse with decoding and encoding."""
        return self.kernel_form is not None and "out" not in parameters(self.kernel_form)

    @property
    def _known_per_tensor(self) -> set[str]:
        drawn = {name for name, role in self.inputs.items() if role is Role.UNIFORM}
        return {*self.passes, *self.settings, *drawn}

    @property
    def _takes_one_stack(self) -> bool:
        stacks = [role for role in self.inputs.values() if not isinstance(role, FirstPass) and role is not Role.UNIFORM]
        return Law.ELEMENTWISE in self.laws and stacks in ([Role.TENSORS], [Role.DELTAS])

    def masking(self, masks: Callable[..., Masks]) -> Callable[..., Masks]:
        """Register how each model's own delta is cut from the merged one, as a function of the definition's arguments.

        Where the setting `masks` is true, a merge into a folder writes the masks next to the model.

        Raises:
            DeclarationError: the method has no setting `masks` that is true or false.
        """
        if "masks" not in self.settings or self.settings["masks"].kind is not bool:
            raise DeclarationError(f"{self.name!r} has masks, so it needs a setting `masks: bool`.")
        self.masks = masks
        return masks

    def pack_masks(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """Register a compiled form of `masks`, for the CPU; it takes some of a kernel's parameters, by name.

        It writes the masks into `packed` (k, ceil(n / 8)), one bit per entry with the lowest bit first, leaves the
        other arrays as they are, and returns the scales (k,).
        """
        self.mask_kernel = kernel
        return kernel

    def requires(self, condition: Callable[..., str | None]) -> Callable[..., str | None]:
        """Register a condition on the settings: a function of some of them that returns an error message, or None."""
        self.conditions.append(condition)
        return condition

    def delegates_to(self, delegate: Delegate) -> Delegate:
        """Register which tensors another method merges, as a function of settings, `name`, `shape` and `k` (models).

        It returns the other method's name and settings, or None. Plans carry the choice out, so that these tensors are
        merged as the other method can be: in tiles, say.
        """
        self.delegate = delegate
        return delegate

    def for_tensor(
        self, name: str, shape: tuple[int, ...], bound: dict[str, Any], k: int
    ) -> tuple[Method, dict[str, Any]]:
        """The method that merges a tensor, this one or its delegate, and that one's bound settings."""
        chosen = self.delegate and call(self.delegate, {**bound, "name": name, "shape": shape, "k": k})
        if chosen is None:
            return self, bound
        other = resolve(chosen[0])
        return other, other.bind(chosen[1], k)

    def bind(self, settings: Mapping[str, Any], k: int) -> dict[str, Any]:
        """Fill in defaults and check every value; settings with a value for each model become tuples of k.

        Raises:
            SettingError: a setting is missing, unknown, of the wrong kind, out of range, or they do not fit together.
        """
        bound = bind(f"method {self.name!r}", self.settings, settings, k)
        for condition in self.conditions:
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
        **settings: Any,
    ) -> Array:
        """Merge one tensor by the definition.

        Args:
            tensors: The models' tensors, float32 or float64, stacked: (k, *shape). NumPy, torch, CuPy ...
            base: The base's tensor: (*shape). Required if `needs_base`, ignored unless `uses_base`.
            name: The tensor's name, for methods that treat tensors by name.
            chance: Numbers in [0, 1) for a random method: (k, *shape) (default: drawn from `seed`).
            statistics: Statistics of the models, by name, stacked like the tensors; of the tensors' dtype.
            seed: Seeds them.
            **settings: Settings, by name.

        Returns:
            The merged tensor, of the same dtype: (*shape). It never shares memory with an input.

        Raises:
            SettingError: a setting or statistic does not fit, or the number of models, or the base is missing.
        """
        return apply(self, tensors, base, name, chance, seed, settings, statistics or {})


def _count(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more models"
    return f"exactly {low} model{'s' * (low != 1)}" if low == high else f"{low} to {high} models"


registry: Registry[Method] = Registry("method", package=f"{__package__}", group="polyak.methods", unknown=UnknownMethod)
resolve, load_all = registry.resolve, registry.load_all
