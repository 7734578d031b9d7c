"""The checkpoints of a recipe, each opened once, however many parts of the recipe use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..checkpoint import Checkpoint, subset
from ..errors import RecipeError, Remedy
from ..recipe import BASE, Recipe, Source
from .compatibility import Opened, opened

Open = Callable[[Source, Path], Checkpoint]
Keep = Callable[[str], bool]


@dataclass
class OpenedModels:
    """Opens the sources of recipes.

    Attributes:
        open: Opens a source with all its layers.
        folder: The folder that paths are relative to.
        replacements: Checkpoints to use for models, by name, instead of their sources.
        by_name: The opened checkpoints, by their name in the plan.
        sources: The source of each of them.
        keep: Test for names of tensors to show (default: all).
    """

    open: Open
    folder: Path
    replacements: Mapping[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    by_name: dict[str, Opened] = field(default_factory=dict[str, Opened])
    sources: dict[str, Source | None] = field(default_factory=dict[str, "Source | None"])
    keep: Keep | None = None

    def of_names(self, keep: Keep) -> OpenedModels:
        """The same checkpoints, showing only some names."""
        return replace(self, keep=keep)

    def fill(self, recipe: Recipe) -> None:
        """Open all checkpoints that a recipe, its slices and its modules read."""
        for part in (*recipe.slices, *(module.recipe for module in recipe.modules)):
            self.fill(part)
        if recipe.models:
            self.base(recipe)
            self.models(recipe)

    def put(self, name: str, checkpoint: Checkpoint) -> None:
        """Replace a model by a view of it."""
        self.by_name[name] = replace(self.by_name[name], checkpoint=checkpoint)

    def in_order(self) -> list[Opened]:
        """List all opened checkpoints, the base first."""
        return sorted(self.by_name.values(), key=lambda model: model.name != BASE)

    def models(self, recipe: Recipe) -> list[Opened]:
        """The models of a recipe.

        Raises:
            RecipeError: two different models have the same name, or a model is called `base`.
        """
        base_named = next((model.source for model in recipe.models if model.name == BASE), None)
        if base_named and self.has_base(recipe) and (recipe.base is None or _whole(base_named) != _whole(recipe.base)):
            raise RecipeError(
                f"a model may not be called {BASE!r}, which is the name of the base.", remedies=[Remedy.NAME]
            )
        return [self._shown(self._take(model.name, model.source)) for model in recipe.models]

    def base(self, recipe: Recipe) -> Opened | None:
        """The base of a recipe, if it has one; another than the first is called `base 2`, and so on."""
        if not self.has_base(recipe):
            return None
        source, name, number = _whole(recipe.base) if recipe.base else None, BASE, 1
        while name in self.by_name and source is not None and self.sources[name] != source:
            number += 1
            name = f"{BASE} {number}"
        return self._shown(self._take(name, recipe.base))

    def has_base(self, recipe: Recipe) -> bool:
        return recipe.base is not None or BASE in self.replacements

    def donor(self, recipe: Recipe) -> Opened:
        """The model whose config and tokenizer the result takes: the base, else the first model."""
        while not self.has_base(recipe) and not recipe.models:
            recipe = recipe.slices[0] if recipe.slices else recipe.modules[0].recipe
        whole = replace(self, keep=None)
        return whole.base(recipe) or whole._take(recipe.models[0].name, recipe.models[0].source)

    def _take(self, name: str, source: Source | None) -> Opened:
        whole = _whole(source) if source else None
        if name in self.by_name:
            if self.sources[name] != whole:
                raise RecipeError(f"{name!r} is the name of two different models.", remedies=[Remedy.NAME])
            return self.by_name[name]
        checkpoint = self.replacements.get(name) or self.open(source or Source(), self.folder)
        self.sources[name] = whole
        self.by_name[name] = model = opened(name, checkpoint)
        return model

    def _shown(self, model: Opened) -> Opened:
        if self.keep is None:
            return model
        checkpoint = model.checkpoint
        names = [name for name in [*checkpoint.specs, *checkpoint.ties] if self.keep(name)]
        return replace(model, checkpoint=subset(checkpoint, names))


def _whole(source: Source) -> Source:
    """A source with all its layers."""
    return replace(source, layers=None, stack=None)
