"""Models whose tensors have other names than those of the base or first model, such as with a prefix."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..checkpoint import Checkpoint, renamed
from ..reading import Pattern, compiled
from ..recipe import Recipe
from .compatibility import Opened
from .open_models import OpenedModels
from .renamings import Renaming, renamings


def meet(recipe: Recipe, models: OpenedModels) -> Iterator[str]:
    """Rename the tensors of models by the one renaming that makes all their names those of the base or first model.

    Models whose source has `strip_prefix:` or `add_prefix:`, and recipes of slices and modules, stay as they are.
    Yields a note on each model that is renamed.
    """
    if recipe.slices or recipe.modules:
        return
    apart = [compiled(pattern) for pattern in (recipe.heads, recipe.skip) if pattern]
    reference, *others = models.in_order()
    for model in others:
        source = models.sources.get(model.name)
        if source is not None and (source.strip_prefix or source.add_prefix):
            continue
        if (renaming := _of(model, reference, apart)) is not None:
            remedy, pairs = renaming
            models.put(model.name, renamed(model.checkpoint, pairs))
            yield f"{model.name}: its tensors are renamed as in {reference.name} ({remedy})"


def _of(model: Opened, reference: Opened, apart: list[Pattern]) -> tuple[str, Mapping[str, str]] | None:
    """The renaming after which a model has the names and shapes of the reference; None if it has them already."""
    names, wanted = (_names(opened.checkpoint, apart) for opened in (model, reference))
    if names == wanted or len(names) != len(wanted):
        return None
    for renaming in (*renamings(names, wanted), *_at_run_time(model, reference, names, wanted)):
        pairs = {name: renaming.apply(name) for name in names}
        if set(pairs.values()) == wanted and all(_alike(model, reference, old, new) for old, new in pairs.items()):
            return renaming.remedy, pairs
    return None


def _names(checkpoint: Checkpoint, apart: list[Pattern]) -> set[str]:
    return {n for n in [*checkpoint.specs, *checkpoint.ties] if not any(pattern.search(n) for pattern in apart)}


def _alike(model: Opened, reference: Opened, old: str, new: str) -> bool:
    return model.checkpoint.spec(old).shape == reference.checkpoint.spec(new).shape


def _at_run_time(
    model: Opened, reference: Opened, names: Collection[str], wanted: Collection[str]
) -> Iterator[Renaming]:
    """The names of two versions of transformers, which are the same once a model runs."""
    from ..checkpoint import run_time_of

    own, other = run_time_of(model.checkpoint), run_time_of(reference.checkpoint)
    if own is None or other is None or own.blocks or other.blocks:
        return
    stored = {new: old for new, old in other.names.items() if old in wanted}
    pairs = {old: stored[new] for new, old in own.names.items() if old in names and new in stored}
    if pairs.keys() == set(names):
        yield Renaming("both are called alike at run time", lambda name: pairs.get(name, name))
