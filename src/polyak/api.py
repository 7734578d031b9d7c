"""What the command line does, from Python; and merges of state dicts that need no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import checkpoint as checkpoints
from . import planning as plans
from . import recipe as recipes
from .errors import SettingError
from .recipe import Recipe

if TYPE_CHECKING:
    from .engine import Report
    from .planning import Plan


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file, native or mergekit's.

    Raises:
        RecipeError: it is not a recipe.
    """
    return recipes.load(path)


def plan(recipe: str | Path | Mapping[str, Any] | Recipe) -> Plan:
    """Plan a merge without reading a tensor.

    Args:
        recipe: A recipe file (native, or mergekit's), its contents as a mapping, or a `Recipe`.

    Raises:
        PolyakError: whatever of recipe and models can be known to be wrong before the merge.
    """
    return plans.plan(_as_recipe(recipe))


def merge(recipe: str | Path | Mapping[str, Any] | Recipe, out: str | Path, **options: Any) -> Report:
    """Merge the models of a recipe into a folder.

    Args:
        recipe: As for `plan`.
        out: Where the merged model goes; it appears whole or not at all.
        **options: Those of `polyak.engine.run`: workers, memory, shard_nbytes, digest, resume, force, progress,
            device.

    Raises:
        PolyakError: the merge cannot be done; `out` is as it was before.
    """
    planned = plan(recipe)
    from .engine import run

    return run(planned, out, **options)


def merge_state_dicts(
    models: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    *,
    method: str = "linear",
    base: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
    statistics: Mapping[str, Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Merge state dicts in memory.

    Args:
        models: State dicts of NumPy arrays or torch tensors: a list, or a mapping with a name for each.
        method: The merge method.
        base: The common ancestor's state dict, for methods that work on differences.
        dtype: The result's dtype (default: as the base or first model has it).
        seed: Seeds random methods.
        workers: Threads.
        device: Where whole matrices are merged: `cpu`, `cuda` or `auto`.
        statistics: What was measured of the models, by its name, such as `fisher`: for each, a list or mapping like
            `models`, of float32 arrays under the tensors' names.
        **settings: The method's; those with a value for each model take a list.

    Returns:
        Tensors by name: torch tensors if the first model holds some, else NumPy arrays.

    Raises:
        PolyakError: the models do not fit together, or a setting does not fit.
    """
    named = _named(models)
    places = {name: recipes.Source(path=f"<{name}>") for name in named}
    recipe = Recipe(
        method, tuple(recipes.Model(n, s) for n, s in places.items()), settings=settings, dtype=dtype, seed=seed
    )
    given = {name: checkpoints.open(model) for name, model in named.items()}
    if base is not None:
        given[plans.BASE] = checkpoints.open(base)
    from .engine import run_in_memory

    measured = {
        kind: {name: checkpoints.open(one) for name, one in _named(each, list(named)).items()}
        for kind, each in (statistics or {}).items()
    }
    merged = run_in_memory(plans.plan(recipe, given, measured), workers=workers, device=device)
    first = next(iter(next(iter(named.values())).values()))
    return {k: _as_torch(v) for k, v in merged.items()} if hasattr(first, "detach") else merged


def _named(
    models: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]], names: Sequence[str] | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """By name: those given, those of `names`, or numbers."""
    if isinstance(models, Mapping):
        return models
    if names is not None and len(models) != len(names):
        raise SettingError(f"a statistic was given for {len(models)} of {len(names)} models; it must be all.")
    return dict(zip(names or [f"model-{i}" for i in range(len(models))], models, strict=True))


def _as_recipe(recipe: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return recipes.read(recipe, Path.cwd()) if isinstance(recipe, Mapping) else recipes.load(recipe)


def _as_torch(array: Any) -> Any:
    import torch

    name = array.dtype.name
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        bits = array.view("u1" if name.startswith("float8") else "i2")
        return torch.from_numpy(bits.copy()).view(getattr(torch, name))
    return torch.from_numpy(array)
