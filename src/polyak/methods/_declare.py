"""Declaration of a method: a pure function over arrays, whose signature is its declaration.

- positional parameters declare its arrays and their space, its first passes and its statistics;
- keyword-only parameters are its settings, with types, defaults and ranges;
- the return annotation declares the space of the result.

The recipe's schema, the command line's help, the documentation, the checks of bad input and the contract
tests all derive from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from ..errors import DeclarationError
from ._method import Method, Workspace
from ._passes import Array
from ._registry import registry
from ._setting import Setting
from ._signature import FirstPass, In, Law, PerModel, Role
from ._stat import Stat


@dataclass(frozen=True)
class method:  # noqa: N801
    """Register the decorated function as the merge method called `name`.

    Args:
        name: Its name in recipes.
        source: Its publication: authors, year, title, identifier.
        models: Minimum and maximum number of models (default: one or more).
        laws: The properties that it claims.
        optional_base: Without a base, take deltas from zero: the tensors themselves (default: a base is needed).
        workspace: From the number of models and the shape of a tensor to the bytes that the definition holds in
            addition to inputs and result, if it receives whole tensors (default: a copy of all inputs).

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
                settings[p.name] = read_setting(self.name, p, hints.get(p.name))
            elif isinstance(mark := _mark(hints.get(p.name)), Role | FirstPass | Stat):
                inputs[p.name] = _read_input(mark, hints[p.name])
            else:
                raise DeclarationError(
                    f"{self.name!r}: annotate {p.name!r} as Tensors, Deltas, Base, Name, Uniform, FirstPass or Stat."
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


def read_setting(method_name: str, p: inspect.Parameter, hint: Any) -> Setting:
    """A setting, as a keyword-only parameter declares it."""
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
