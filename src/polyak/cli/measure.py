"""polyak measure"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from . import _options
from ._app import DATA, App, app
from ._derived import DerivedGroup

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..statistics import Data, Measurement, Statistic, StatisticKind
    from ..tasks import LiveModel, Task

_RECIPE = "recipe.yaml"

Model = Annotated[str, typer.Argument(help="The model.", show_default=False)]
TaskName = Annotated[str, typer.Option(help="Task: a YAML file, or module:function.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output file, .safetensors.", show_default=False)]
Split = Annotated[str, typer.Option(help="Split to measure on: calibration, validation or test.")]
Examples = Annotated[int, typer.Option(help="Use at most N examples.", min=1)]
Seed = Annotated[
    int | None, typer.Option(help="Seed for choosing examples at random (default: the first ones).", min=0)
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished measurement.")]


def _statistics() -> Mapping[str, StatisticKind]:
    from ..statistics import registry

    registry.load_all()
    return registry


def _command_of(kind: StatisticKind) -> Callable[..., None]:
    """The subcommand of a statistic: the common options, and its settings as options of its own."""
    from ._derived import with_settings

    def command(
        model: Model, task: TaskName, out: Out, split: Split = "calibration", examples: Examples = 256,
        batch_size: _options.BatchSize = 16, seed: Seed = None,
        device: _options.Device = "cpu", module: _options.Module = "", resume: Resume = False,
        force: _options.Force = False, as_json: _options.AsJson = False, quiet: _options.Quiet = False,
        **settings: Any,
    ) -> None:  # fmt: skip
        data, live = _data(model, task, module, split, examples, batch_size, seed, device)
        started = kind.start(data, live, settings)
        _run(started, data, out, resume=resume, force=force, as_json=as_json, quiet=quiet)

    return with_settings(command, kind.fn, kind.settings, owner=f"statistic {kind.name!r}")


class _Statistics(DerivedGroup):
    """One subcommand per declared statistic, in addition to those below."""

    def declared(self) -> Mapping[str, Callable[[], Callable[..., None]]]:
        return {name: lambda kind=kind: _command_of(kind) for name, kind in _statistics().items()}


measure = App(
    name="measure",
    cls=_Statistics,
    help="Measure statistics of a model on data, for methods that need them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(measure, rich_help_panel=DATA)


@measure.command()
def merged_gram(
    recipe: Annotated[Path, typer.Argument(help="A recipe of the method regmean_plus_plus.", show_default=False)],
    task: Annotated[list[str], typer.Option(help="MODEL=TASK, for each model of the recipe.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files and a recipe with them.")],
    blocks: Annotated[str, typer.Option(help="Module that holds the blocks (default: the largest module list).")] = "",
    split: Split = "calibration", examples: Examples = 256, batch_size: _options.BatchSize = 16, seed: Seed = None,
    device: _options.Device = "cpu", module: _options.Module = "", resume: Resume = False,
    force: _options.Force = False, as_json: _options.AsJson = False, quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Gram matrices of the inputs behind merged blocks, for regmean_plus_plus, and a recipe that uses them."""
    from .. import recipe as recipes
    from ..statistics import Data, measure_through_merge
    from ._progress import reporter

    loaded = recipes.load(recipe)
    _check_folder(out, [model.name for model in loaded.models], force=force)
    tasks = _tasks_by(task, module)
    data = {name: Data(each, split, examples, batch_size, seed, device) for name, each in tasks.items()}
    with _resumable(), reporter("measuring", "blocks", quiet=quiet, as_json=as_json) as progress:
        measurements = measure_through_merge(
            loaded, data, blocks=blocks, kept=out / ".unfinished", resume=resume, force=force, start=progress.start,
            advance=progress.advance,
        )  # fmt: skip
        for name, measured in measurements.items():
            for note in measured.notes:
                progress.say(f"note: {name}: {note}")
    for name, measured in measurements.items():
        measured.save(out / f"{name}.safetensors", force=force)
        _show(measured, out / f"{name}.safetensors", as_json=as_json, quiet=quiet)
    _write_recipe(loaded, out)


def _check_folder(out: Path, models: list[str], *, force: bool) -> None:
    from ..statistics import refuse_to_overwrite

    for name in [*(f"{model}.safetensors" for model in models), _RECIPE]:
        refuse_to_overwrite(out / name, force=force)


def _tasks_by(texts: list[str], module: str) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for text in texts:
        name, is_named, task = text.partition("=")
        if not is_named or name in tasks:
            raise typer.BadParameter(f"{text!r}: give MODEL=TASK, once for each model.", param_hint="--task")
        tasks[name] = _load_task(task, module)
    return tasks


def _load_task(text: str, module: str) -> Task:
    """A task whose model outputs can be measured."""
    from ..errors import TaskError
    from ..tasks import Task
    from ._evaluation import load_tasks

    (task,) = load_tasks([text], module)
    if not isinstance(task, Task):
        raise TaskError(f"task {task.name!r} only returns scores; a statistic needs a task that returns model outputs.")
    return task


def _write_recipe(recipe: Recipe, out: Path) -> None:
    from dataclasses import replace

    from ..learn import text_for
    from ..storage import write_whole

    models = tuple(
        replace(model, statistics={"merged_gram": str((out / f"{model.name}.safetensors").resolve())})
        for model in recipe.models
    )
    write_whole(out / _RECIPE, text_for(replace(recipe, models=models), out / _RECIPE))


@measure.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Measurements of parts of the data.", show_default=False)],
    out: Out,
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Combine measurements of parts of the data, weighted by their numbers of examples."""
    from ..statistics import load, merged

    combined = merged([load(part) for part in parts])
    combined.save(out, force=force)
    _show(combined, out, as_json=as_json, quiet=quiet)


def _data(
    model: str, task: str, module: str, split: str, examples: int, batch_size: int, seed: int | None, device: str
) -> tuple[Data, LiveModel]:
    """The examples, and the model as a live module."""
    from .. import checkpoint
    from ..statistics import Data
    from ..tasks import on_device

    loaded = _load_task(task, module)
    data = Data(loaded, split, examples, batch_size, seed, device)
    data.count()  # a split that is not there is known before the model is read
    live = loaded.live(checkpoint.open(model))
    on_device(live.module, device)
    return data, live


def _run(
    statistic: Statistic, data: Data, out: Path, *, resume: bool, force: bool, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    from ..statistics import measure_to
    from ._progress import reporter

    with _resumable(), reporter("measuring", "examples", quiet=quiet, as_json=as_json) as progress:
        progress.say(f"{statistic.cost(data.count())}.")
        progress.start(data.count())
        done = 0

        def advance(examples: int) -> None:
            nonlocal done
            progress.advance(examples - done)
            done = examples

        measured = measure_to(out, statistic, data.trees, data=data.digest, resume=resume, force=force, advance=advance)
        for note in measured.notes:
            progress.say(f"note: {note}")
    _show(measured, out, as_json=as_json, quiet=quiet)


@contextmanager
def _resumable() -> Generator[None]:
    """Tell how to continue after an interruption."""
    from ._errors import Interrupted

    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted. Continue with the same command and --resume.") from None


def _show(measured: Measurement, out: Path, *, as_json: bool, quiet: bool) -> None:
    data: dict[str, Any] = {
        "out": str(out), "kind": measured.kind, "tensors": len(measured.tensors), "examples": measured.examples,
        "model": measured.model, "data": measured.data, **cast("dict[str, Any]", measured.facts),
        "notes": list(measured.notes),
    }  # fmt: skip
    if as_json:
        import json

        print(json.dumps(data))
    elif not quiet:
        how = ", ".join(f"{key} {value}" for key, value in measured.facts.items())
        print(f"{out}: {measured.kind} of {len(measured.tensors)} tensors over {measured.examples} examples ({how})")
