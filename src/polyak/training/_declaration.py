"""The declaration of a training recipe: a function from the common keys and its own keys to the stages of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from ..declare import Key, Registry, argument_help, keys_of, read_keys, summary_of
from ..errors import DeclarationError, RecipeError, suggestion
from ..reading import Place, Table, read_file
from ..runs import Results, Stage
from ._setup import Setup, as_data, common, placed

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

Page = Callable[[Results, Mapping[str, str]], str]


@dataclass(frozen=True)
class TrainingPlan:
    """The work of a recipe, before it is done.

    Attributes:
        stages: The stages of the run.
        page: Makes the HTML report from the results of units, and from the errors of those that failed.
        result: The unit whose folder `model` is the result.
        scored: The unit whose `metrics`, a mapping from names to numbers, are shown at the end (default: `result`).
        notes: Messages for the user before anything starts.
        begins: Opens the model on which a step is timed (default: that of the recipe).
    """

    stages: Sequence[Stage]
    page: Page
    result: str
    scored: str = ""
    notes: tuple[str, ...] = ()
    begins: Callable[[], Checkpoint] | None = None


@dataclass(frozen=True)
class Prepared:
    """A recipe with all its keys read, and its plan.

    Attributes:
        recipe: The declaration.
        setup: The common keys.
        settings: All keys with their values, as plain data.
        plan: The stages of its run.
    """

    recipe: TrainingRecipe
    setup: Setup
    settings: Mapping[str, Any]
    plan: TrainingPlan


@dataclass(frozen=True)
class TrainingRecipe:
    """A declared training recipe.

    Attributes:
        name: Its name.
        fn: From a `Setup` and its own keys to a `TrainingPlan`; reads tasks and headers, trains nothing.
        source: Publication.
        keys: Its own keys, by name.
        defaults: Its defaults of common keys.
    """

    name: str
    fn: Callable[..., TrainingPlan]
    source: str
    keys: Mapping[str, Key]
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.fn)

    @property
    def described_keys(self) -> dict[str, tuple[str, Any]]:
        """The description and the default of each key, common ones first; `REQUIRED` where there is none."""
        shared = keys_of("the common keys", common)
        described = argument_help(common) | argument_help(self.fn)
        defaults = {name: key.default for name, key in {**shared, **self.keys}.items()} | dict(self.defaults)
        return {name: (described.get(name, ""), default) for name, default in defaults.items()}

    def prepare(self, data: Mapping[str, Any], folder: str | Path = ".", where: str = "") -> Prepared:
        """Read the keys of a recipe, and plan it.

        Args:
            data: The keys; from Python, tasks and modules may be objects.
            folder: Folder to which relative paths are relative.
            where: Name of the recipe in messages.

        Raises:
            RecipeError: a key is unknown, missing or wrong.
            TaskError: the task does not fit.
            CheckpointError: the model cannot be read.
        """
        table = Table(data, Place(where or self.name))
        named = table.take("recipe", lambda value, _: value, self.name)
        if str(named).replace("-", "_") != self.name:
            raise RecipeError(f"{table.place.file} is a recipe of {named!r}, not of {self.name!r}.")
        shared = keys_of("the common keys", common)
        values = read_keys(_with_defaults(shared, self.defaults), table)
        own = read_keys(self.keys, table)
        table.finish()
        setup = placed(common(**values), Path(folder))
        plan = self.fn(setup, **own)
        return Prepared(self, setup, {**as_data(setup), **_plain(own)}, plan)

    def prepare_file(self, path: str | Path) -> Prepared:
        """The same for a YAML or JSON file.

        Raises:
            RecipeError: as for `prepare`, or the file cannot be read.
        """
        file = Path(path)
        return self.prepare(Table(read_file(file), Place(str(file))).rest(), file.parent, str(file))


def _with_defaults(keys: Mapping[str, Key], defaults: Mapping[str, Any]) -> dict[str, Key]:
    return {name: Key(name, key.read, key.values, defaults.get(name, key.default)) for name, key in keys.items()}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys as a file may have them: what is None or empty text is left out, as it is by default."""
    return {
        name: list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value not in (None, "")
    }


def _unknown(name: str, names: Iterable[str]) -> RecipeError:
    return RecipeError(f"unknown training recipe {name!r}. {suggestion(name, names)}")


registry: Registry[TrainingRecipe] = Registry(
    "training recipe", package=f"{__package__}.recipes", group="polyak.training", unknown=_unknown
)


@dataclass(frozen=True)
class training_recipe:  # noqa: N801
    """Register the decorated function as the training recipe called `name`.

    It takes a `Setup`, and its own keys as keyword-only parameters; it returns a `TrainingPlan`.

    Args:
        name: Its name, with underscores.
        source: Publication: authors, year, title, identifier.
        defaults: Defaults of common keys, where its own are better.

    Raises:
        DeclarationError: the name is taken, there is no docstring, or a key is not annotated.
    """

    name: str
    source: str
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __call__(self, fn: Callable[..., TrainingPlan]) -> Callable[..., TrainingPlan]:
        registry.declare(self.name, fn, lambda owner: self._read(owner, fn))
        return fn

    def _read(self, owner: str, fn: Callable[..., TrainingPlan]) -> TrainingRecipe:
        keys, shared = keys_of(owner, fn), keys_of("the common keys", common)
        if taken := sorted(keys.keys() & shared.keys()):
            raise DeclarationError(f"{owner}: {taken[0]!r} is a key of every recipe; rename it, or set its default.")
        if unknown := sorted(self.defaults.keys() - shared.keys()):
            raise DeclarationError(f"{owner}: {unknown[0]!r} is not a common key. {suggestion(unknown[0], shared)}")
        return TrainingRecipe(self.name, fn, self.source, keys, MappingProxyType(dict(self.defaults)))
