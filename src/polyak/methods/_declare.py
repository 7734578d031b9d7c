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
from typing import Any, cast, get_args, get_type_hints

from ..declare import annotation_mark, settings_of
from ..errors import DeclarationError
from ._method import Method, Workspace, registry
from ._passes import Array
from ._signature import FirstPass, Law, Role
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
        return registry.declare(self.name, fn, lambda owner: self._method(owner, fn))

    def _method(self, owner: str, fn: Callable[..., Array]) -> Method:
        hints = get_type_hints(fn, include_extras=True)
        inputs = self._inputs(owner, fn, hints)
        returns = annotation_mark(hints.get("return"))
        if returns not in (Role.MERGED, Role.DELTA):
            raise DeclarationError(f"{owner}: annotate the result as Merged or Delta.")
        return Method(
            self.name,
            fn,
            self.source,
            self.models,
            frozenset(self.laws),
            inputs,
            cast("Role", returns),
            settings_of(owner, fn),
            optional_base=self.optional_base,
            workspace=self.workspace,
        )

    def _inputs(
        self, owner: str, fn: Callable[..., Array], hints: Mapping[str, Any]
    ) -> dict[str, Role | FirstPass | Stat]:
        inputs: dict[str, Role | FirstPass | Stat] = {}
        for p in inspect.signature(fn).parameters.values():
            if p.kind is p.KEYWORD_ONLY:
                continue
            if isinstance(mark := annotation_mark(hints.get(p.name)), Role | FirstPass | Stat):
                inputs[p.name] = _read_input(mark, hints[p.name])
            else:
                raise DeclarationError(
                    f"{owner}: annotate {p.name!r} as Tensors, Deltas, Base, Name, Uniform, FirstPass or Stat."
                )
        self._check_statistics(owner, inputs)
        return inputs

    def _check_statistics(self, owner: str, inputs: Mapping[str, object]) -> None:
        """A slice of a tensor has no Gram of its own."""
        grams = [name for name, kind in inputs.items() if isinstance(kind, Stat) and kind.shape == "gram"]
        if grams and Law.ELEMENTWISE in self.laws:
            raise DeclarationError(f"{owner} takes a Gram, {grams[0]!r}, so it cannot be elementwise.")


def _read_input(mark: Role | FirstPass | Stat, hint: Any) -> Role | FirstPass | Stat:
    if not isinstance(mark, Stat):
        return mark
    return replace(mark, optional=type(None) in get_args(get_args(hint)[0]))
