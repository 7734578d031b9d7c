"""The declaration of a statistic: a function whose keyword-only parameters are its settings, and the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..declare import Registry, Setting, bind, settings_of, summary_of
from ..errors import DeclarationError, RecipeError, suggestion
from ._data import Data
from ._statistic import Statistic

if TYPE_CHECKING:
    from ..modules import LiveModel

Start: TypeAlias = "Callable[..., Statistic]"  # (data, live, *, settings) -> a measurement without observations


@dataclass(frozen=True)
class StatisticKind:
    """A declared statistic.

    Attributes:
        name: The name in recipes and on the command line.
        fn: From data, a live model and settings to a measurement without observations.
        source: Publication.
        settings: Its settings, by name.
    """

    name: str
    fn: Start
    source: str
    settings: Mapping[str, Setting]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.fn)

    def start(self, data: Data, live: LiveModel, settings: Mapping[str, Any] | None = None) -> Statistic:
        """Start a measurement of a model on data.

        Raises:
            SettingError: a setting is unknown, of the wrong kind or out of range.
            TaskError: the statistic is not defined for this task or model.
        """
        started = self.fn(data, live, **bind(f"statistic {self.name!r}", self.settings, settings or {}))
        if started.kind != self.name:
            raise DeclarationError(
                f"{self.fn.__module__}: the statistic {self.name!r} returns a measurement of kind {started.kind!r}; "
                f"set `kind = {self.name!r}` on {type(started).__name__}."
            )
        return started


def _unknown(name: str, names: Iterable[str]) -> RecipeError:
    return RecipeError(f"unknown statistic {name!r}. {suggestion(name, names)}")


registry: Registry[StatisticKind] = Registry(
    "statistic", package=f"{__package__}", group="polyak.statistics", unknown=_unknown
)
resolve, load_all = registry.resolve, registry.load_all


def statistic(name: str, *, source: str) -> Callable[[Start], Start]:
    """Register the decorated function as the statistic called `name`.

    It takes `data` and `live`, and its settings as keyword-only parameters; it returns a `Statistic` whose `kind` is
    `name`. The command `polyak measure NAME` derives from it.

    Args:
        name: The name in recipes and on the command line.
        source: Publication: authors, year, title, identifier.

    Raises:
        DeclarationError: the name is taken, there is no docstring, or a setting is not annotated.
    """

    def register(fn: Start) -> Start:
        registry.declare(name, fn, lambda owner: StatisticKind(name, fn, source, settings_of(owner, fn)))
        return fn

    return register
