"""Run a training recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingError
from ..events import Watcher, ignore
from ..runs import UNITS, About, LocalProcesses, Results, run
from ..tasks import digest_of_model
from ._declaration import Prepared, TrainingRecipe, registry
from ._setup import TEST, TRAIN, VALIDATION, forget_tasks

MODEL = "model"  # folder of the model within that of a unit


@dataclass(frozen=True)
class Trained:
    """The outcome of a run.

    Attributes:
        out: The folder of the run.
        model: The folder of the resulting model.
        metrics: The metrics of the result.
        results: The results of all units that were done.
    """

    out: Path
    model: Path
    metrics: Mapping[str, float]
    results: Results


def launch(
    prepared: Prepared, out: str | Path, *, resume: bool = False, workers: int = 1, progress: bool | Watcher = False
) -> Trained:
    """Run a prepared recipe, or continue a run of it.

    Args:
        prepared: The recipe.
        out: The folder of the run.
        resume: Continue a run that is there.
        workers: Processes that do units at the same time, one thread each; results do not depend on it.
        progress: True for a progress bar, or a function that receives events.

    Raises:
        OutputError: something else is in the folder, another run is writing there, or it cannot be written.
        CannotResume: the run there is another one.
        PolyakError: a part of the run failed.
    """
    plan, out = prepared.plan, Path(out)
    with LocalProcesses(workers) as executor:
        results = run(
            plan.stages, out, about=about(prepared), resume=resume, executor=executor, watcher=_watcher(progress),
            report=plan.page,
        )  # fmt: skip
    metrics = results.get(plan.scored or plan.result, {}).get("metrics", {})
    return Trained(out, out / UNITS / plan.result / MODEL, metrics, results)


def train(
    name: str,
    recipe: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    workers: int = 1,
    progress: bool | Watcher = False,
) -> Trained:
    """Run a training recipe.

    Args:
        name: The recipe, such as `sparse_soup`.
        recipe: Its keys: a YAML file, or a mapping, in which tasks and modules may be objects.
        out: The folder of the run.
        resume: Continue a run that is there.
        workers: Processes that do units at the same time, one thread each; results do not depend on it.
        progress: True for a progress bar, or a function that receives events.

    Raises:
        RecipeError: the recipe is unknown, or a key is wrong.
        PolyakError: as for `launch`.
    """
    return launch(prepare(name, recipe), out, resume=resume, workers=workers, progress=progress)


def prepare(name: str, recipe: str | Path | Mapping[str, Any]) -> Prepared:
    """Read the keys of a recipe, and plan it; nothing is trained or written.

    Raises:
        RecipeError: the recipe is unknown, or a key is wrong.
        TaskError: the task does not fit.
        CheckpointError: the model cannot be read.
    """
    forget_tasks()
    declared = registry.resolve(name)
    return declared.prepare(recipe) if isinstance(recipe, Mapping) else declared.prepare_file(recipe)


def function_of(declared: TrainingRecipe) -> Callable[..., Trained]:
    """The recipe as a function of its keys, such as `polyak.training.sparse_soup(out, task=..., ...)`."""

    def function(
        out: str | Path, *, resume: bool = False, workers: int = 1, progress: bool | Watcher = False, **keys: Any
    ) -> Trained:
        return train(declared.name, keys, out, resume=resume, workers=workers, progress=progress)

    function.__name__ = function.__qualname__ = declared.name
    function.__doc__ = declared.fn.__doc__
    return function


def about(prepared: Prepared) -> About:
    """The identity of a run of a prepared recipe."""
    setup, task = prepared.setup, prepared.setup.task()
    with setup.start() as start:
        inputs = {"model": digest_of_model(start)}
    inputs |= {split: task.digest(split) for split in (TRAIN, VALIDATION, TEST)}
    return About(prepared.recipe.name, prepared.settings, inputs, _versions())


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str] = {}
    for name in ("polyak", "torch", "transformers", "accelerate", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _watcher(progress: bool | Watcher) -> Watcher:
    if not isinstance(progress, bool):
        if not callable(progress):
            raise SettingError(f"progress must be True, False or a function that takes an event; got {progress!r}.")
        return progress
    if not progress:
        return ignore
    from ..display import watcher_for

    return watcher_for()
