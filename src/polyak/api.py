"""The Python interface: plan and merge recipes, and merge modules or state dicts in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

from . import checkpoint as checkpoints
from . import planning as plans
from . import recipe as recipes
from .checkpoint import Checkpoint
from .errors import SettingError
from .events import Watcher, ignore
from .recipe import Recipe

if TYPE_CHECKING:
    from .engine import Report
    from .planning import Plan


@runtime_checkable
class Module(Protocol):
    """Anything with a state dict, such as a `torch.nn.Module`."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors by name."""
        ...


StateDict: TypeAlias = Mapping[str, Any] | Module  # NumPy arrays or torch tensors by name
RecipeLike: TypeAlias = str | Path | Mapping[str, Any] | Recipe


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file, native or mergekit's.

    Raises:
        RecipeError: it is not a recipe.
    """
    return recipes.load(path)


def plan(recipe: RecipeLike) -> Plan:
    """Plan a merge without reading a tensor.

    Args:
        recipe: A recipe file (native, or mergekit's), its contents as a mapping, or a `Recipe`. In a mapping, a model
            or the base may also be a module, a state dict or a `Checkpoint`, alone or as the `path` of its entry.

    Raises:
        PolyakError: an error of recipe or models that can be found before the merge.
    """
    return plans.plan(*_recipe_and_models(recipe))


def merge(
    recipe: RecipeLike,
    out: str | Path,
    *,
    workers: int | None = None,
    memory: int | None = None,
    shard_nbytes: int | None = None,
    digest: str = "xxh3-128",
    resume: bool = False,
    force: bool = False,
    device: str = "cpu",
    progress: bool | Watcher = False,
) -> Report:
    """Merge the models of a recipe into a folder.

    Args:
        recipe: As for `plan`.
        out: Folder for the merged model; it appears whole or not at all.
        workers: Worker threads (default: one per CPU that this process may use).
        memory: Limit of anonymous memory in bytes; fewer workers run if necessary (default: no limit).
        shard_nbytes: Maximum shard size in bytes (default: 5 GB).
        digest: Digest algorithm: `xxh3-128` or `sha256`.
        resume: Continue an unfinished merge of the same plan.
        force: Replace an existing model, and discard unfinished work.
        device: Device for whole-matrix methods: `cpu`, `cuda` or `auto`.
        progress: True for a progress bar (on a terminal or in a notebook), or a function that receives events.

    Raises:
        SettingError: unknown digest or device, `progress` that cannot be called, or a resumption whose models are in
            memory.
        PolyakError: the merge cannot be done; `out` is as it was before.
    """
    read, models = _recipe_and_models(recipe)
    if resume and models:
        raise SettingError("a merge of models in memory cannot be resumed: they may have changed since.")
    from .engine import run

    shards = {} if shard_nbytes is None else {"shard_nbytes": shard_nbytes}
    return run(
        plans.plan(read, models), out, workers=workers, memory=memory, digest=digest, resume=resume, force=force,
        device=device, progress=_watcher(progress), **shards,
    )  # fmt: skip


def merge_state_dicts(
    models: Sequence[StateDict] | Mapping[str, StateDict],
    *,
    method: str = "linear",
    base: StateDict | None = None,
    dtype: str | None = None,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
    statistics: Mapping[str, Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Merge modules or state dicts in memory.

    Args:
        models: Modules, or state dicts of NumPy arrays or torch tensors: a list, or a mapping from names.
        method: The merge method.
        base: The common ancestor, for methods that work on task vectors.
        dtype: Dtype of the result (default: that of the base or first model).
        seed: Seed of random methods.
        workers: Worker threads.
        device: Device for whole-matrix methods: `cpu`, `cuda` or `auto`.
        statistics: Measured statistics by kind, such as `fisher`: for each, a list or mapping like `models`, of
            float32 arrays under the tensors' names.
        **settings: Settings of the method; those that are per model take a list.

    Returns:
        Tensors by name: torch tensors if the first model has any, else NumPy arrays.

    Raises:
        PolyakError: the models do not fit together, or a setting is wrong.
    """
    named = _by_name(models)
    sources = tuple(recipes.Model(name, _placeholder(name)) for name in named)
    recipe = Recipe(method, sources, settings=settings, dtype=dtype, seed=seed)
    opened = {name: _opened(model) for name, model in named.items()}
    if base is not None:
        opened[plans.BASE] = _opened(base)
    from .engine import run_in_memory

    measured = {
        kind: {name: checkpoints.open(arrays) for name, arrays in _by_name(each, list(named)).items()}
        for kind, each in (statistics or {}).items()
    }
    merged = run_in_memory(plans.plan(recipe, opened, measured), workers=workers, device=device)
    first = next(iter(_state_dict(next(iter(named.values()))).values()))
    return {k: _as_torch(v) for k, v in merged.items()} if hasattr(first, "detach") else merged


def _by_name(models: Sequence[Any] | Mapping[str, Any], names: Sequence[str] | None = None) -> Mapping[str, Any]:
    """By name: their own names, those of `names`, or numbers."""
    if isinstance(models, Mapping):
        return models
    if names is not None and len(models) != len(names):
        raise SettingError(f"a statistic was given for {len(models)} of {len(names)} models; it must be all.")
    return dict(zip(names or [f"model-{i}" for i in range(len(models))], models, strict=True))


def _placeholder(name: str) -> recipes.Source:
    return recipes.Source(path=f"<{name}>")


def _state_dict(model: StateDict) -> Mapping[str, Any]:
    return model.state_dict() if isinstance(model, Module) else model


def _opened(model: StateDict | Checkpoint) -> Checkpoint:
    return model if isinstance(model, Checkpoint) else checkpoints.open(_state_dict(model))


def _watcher(progress: bool | Watcher) -> Watcher:
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return ignore
    from .display import watcher_for

    return watcher_for()


def _recipe_and_models(recipe: RecipeLike) -> tuple[Recipe, dict[str, Checkpoint]]:
    """The recipe, and those of its models that are in memory, by name."""
    if isinstance(recipe, Recipe):
        return recipe, {}
    if not isinstance(recipe, Mapping):
        return recipes.load(recipe), {}
    models: dict[str, Checkpoint] = {}
    data = dict(recipe)
    if isinstance(data.get("models"), Sequence) and not isinstance(data["models"], str):
        data["models"] = [_without_tensors(model, f"model-{i}", models) for i, model in enumerate(data["models"])]
    if "base" in data:
        data["base"] = _without_tensors(data["base"], plans.BASE, models)
    return recipes.read(data, Path.cwd()), models


def _without_tensors(entry: Any, name: str, models: dict[str, Checkpoint]) -> Any:
    """A model's entry of a recipe, with a placeholder for what is in memory, which is opened and added to `models`."""
    fields = cast("dict[str, Any]", dict(entry)) if _is_entry(entry) else {"path": entry}
    source = fields.get("path")
    if source is None or isinstance(source, str | Path):
        return entry
    if name != plans.BASE:
        name = fields.setdefault("name", name)
    models[name] = _opened(source)
    return {**fields, "path": f"<{name}>"}


def _is_entry(value: object) -> bool:
    """Tell a model's entry of a recipe from a state dict."""
    return isinstance(value, Mapping) and any(key in value for key in ("path", "recipe", "name"))


def _as_torch(array: Any) -> Any:
    import torch

    name = array.dtype.name
    if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        bits = array.view("u1" if name.startswith("float8") else "i2")
        return torch.from_numpy(bits.copy()).view(getattr(torch, name))
    return torch.from_numpy(array)
