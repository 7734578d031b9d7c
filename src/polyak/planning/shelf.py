"""The checkpoints of a recipe, each opened once however many parts take tensors from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..checkpoint import Checkpoint, subset
from ..errors import RecipeError
from ..recipe import BASE, Recipe, Source
from .fit import Opened, opened

Open = Callable[[Source, Path], Checkpoint]
Keep = Callable[[str], bool]


@dataclass
class Shelf:
    """Opens what recipes name.

    Attributes:
        open: Opens a source, without its choice of layers.
        folder: What paths are relative to.
        given: Checkpoints that stand for models, by name, instead of what their source says.
        found: What has been opened, by what the plan calls it.
        sources: What each of those is.
        keep: Which names are shown (default: all).
    """

    open: Open
    folder: Path
    given: Mapping[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    found: dict[str, Opened] = field(default_factory=dict[str, Opened])
    sources: dict[str, Source | None] = field(default_factory=dict[str, "Source | None"])
    keep: Keep | None = None

    def of_names(self, keep: Keep) -> Shelf:
        """The same checkpoints, showing only some names."""
        return replace(self, keep=keep)

    def in_order(self) -> list[tuple[str, Opened]]:
        """All that has been opened, the base first."""
        return sorted(self.found.items(), key=lambda item: item[0] != BASE)

    def models(self, recipe: Recipe) -> list[Opened]:
        """The models of a recipe.

        Raises:
            RecipeError: a name stands for two different models, or is the base's.
        """
        if self.has_base(recipe) and any(model.name == BASE for model in recipe.models):
            raise RecipeError(
                f"a model may not be called {BASE!r}, which is what the base is called: give it another `name:`."
            )
        return [self._shown(self._take(model.name, model.source)) for model in recipe.models]

    def base(self, recipe: Recipe, part: str) -> Opened | None:
        """The base of a recipe, if it has one; that of a part may be another than the first."""
        if not self.has_base(recipe):
            return None
        name = BASE
        if BASE in self.found and recipe.base and self.sources[BASE] != _whole(recipe.base):
            name = f"{BASE} of {part}"
        return self._shown(self._take(name, recipe.base))

    def has_base(self, recipe: Recipe) -> bool:
        return recipe.base is not None or BASE in self.given

    def donor(self, recipe: Recipe) -> Opened:
        """Who gives config and tokenizer: the base, else the first model."""
        while not self.has_base(recipe) and not recipe.models:
            recipe = recipe.slices[0] if recipe.slices else recipe.modules[0].recipe
        whole = replace(self, keep=None)
        return whole.base(recipe, "the donor") or whole._take(recipe.models[0].name, recipe.models[0].source)

    def _take(self, name: str, source: Source | None) -> Opened:
        where = _whole(source) if source else None
        if name in self.found:
            if self.sources[name] != where:
                raise RecipeError(f"{name!r} stands for two different models; give one of them another `name:`.")
            return self.found[name]
        checkpoint = self.given.get(name) or self.open(source or Source(), self.folder)
        self.sources[name] = where
        self.found[name] = found = opened(name, checkpoint)
        return found

    def _shown(self, model: Opened) -> Opened:
        if self.keep is None:
            return model
        checkpoint = model.checkpoint
        names = [name for name in [*checkpoint.specs, *checkpoint.ties] if self.keep(name)]
        return replace(model, checkpoint=subset(checkpoint, names))


def _whole(source: Source) -> Source:
    """A source without its choice of layers: the same file, whatever is taken of it."""
    return replace(source, layers=None, stack=None)
