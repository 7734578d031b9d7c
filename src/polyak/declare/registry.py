"""One registry per kind of extension: the built-in ones, and those of installed packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DeclarationError, PolyakError
from .signature import check_docstring

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(dict[str, T]):
    """Declarations of one kind, by name.

    Built-in ones are the modules of a package whose names do not begin with `_`: to add one, add one file. Others come
    from installed packages, through entry points.

    Args of the constructor:
        noun: Word for one of them in messages, such as "learner".
        package: The package whose modules declare the built-in ones.
        group: The entry-point group of installed packages, such as `polyak.learners`.
        unknown: Makes the exception for an unknown name, from that name and the registered ones.
    """

    def __init__(
        self, noun: str, *, package: str, group: str, unknown: Callable[[str, Iterable[str]], Exception]
    ) -> None:
        super().__init__()
        self.noun, self.package, self.group = noun, package, group
        self._unknown, self._is_loaded = unknown, False
        self._modules: dict[str, str] = {}

    def add(self, name: str, declared: T, module: str) -> T:
        """Register a declaration.

        Args:
            name: Its name.
            declared: The declaration.
            module: The module that declares it.

        Raises:
            DeclarationError: the name is taken.
        """
        if name in self:
            raise DeclarationError(f"{module} and {self._modules[name]} both declare the {self.noun} {name!r}.")
        self[name], self._modules[name] = declared, module
        return declared

    def declare(self, name: str, fn: Callable[..., Any], read: Callable[[str], T]) -> T:
        """Register the declaration of a function.

        Args:
            name: Its name.
            fn: The function.
            read: Reads the declaration from its signature; takes the owner's name in messages, such as "learner 'x'".

        Raises:
            DeclarationError: the name is taken, there is no docstring, or the signature cannot be read.
        """
        owner = f"{self.noun} {name!r}"
        check_docstring(owner, fn)
        return self.add(name, read(owner), fn.__module__)

    def resolve(self, name: str) -> T:
        """Look a declaration up by name, in which dashes and underscores are the same.

        If a built-in module of that name declares it, no other module and no installed package is imported.

        Raises:
            Exception: the one that `unknown` makes, which suggests a similar name.
        """
        steps = (lambda: self._import(name.replace("-", "_")), self._import_built_in, self.load_all)
        for step in (lambda: None, *steps):  # a file may declare several, an installed package any name
            step()
            for spelling in (name, name.replace("-", "_"), name.replace("_", "-")):
                if spelling in self:
                    return self[spelling]
        raise self._unknown(name, self)

    def load_all(self) -> None:
        """Import every built-in module and every entry point of the group, and sort the declarations by name.

        Raises:
            DeclarationError: an entry point cannot be imported.
        """
        if self._is_loaded:
            return
        from importlib.metadata import entry_points  # takes longer to import than some merges

        self._import_built_in()
        for entry in entry_points(group=self.group):
            _load(entry)
        declared = sorted(self.items())
        self.clear()
        self.update(declared)
        self._is_loaded = True

    def is_built_in(self, name: str) -> bool:
        """True if polyak itself declares it."""
        return self._modules[name].startswith(f"{self.package}.")

    @cached_property
    def built_in(self) -> tuple[str, ...]:
        """The modules of the package that declare something, by name; none is imported."""
        path = importlib.import_module(self.package).__path__
        return tuple(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))

    def _import_built_in(self) -> None:
        for module in self.built_in:
            self._import(module)

    def _import(self, module: str) -> None:
        if module in self.built_in:
            importlib.import_module(f"{self.package}.{module}")


def _load(entry: EntryPoint) -> None:
    try:
        entry.load()
    except PolyakError:
        raise
    except Exception as error:  # a module of another package may raise anything
        package = entry.dist.name if entry.dist is not None else "an installed package"
        raise DeclarationError(
            f"{package} offers {entry.name!r} to polyak ({entry.group}), and {entry.value} cannot be imported: "
            f"{error} ({type(error).__name__}). Repair or uninstall {package}."
        ) from error
