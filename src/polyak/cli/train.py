"""polyak train"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import DATA, App, app
from ._derived import DerivedGroup

if TYPE_CHECKING:
    from ..training import Prepared, Trained, TrainingRecipe

Workers = Annotated[int, typer.Option(help="Processes that train at the same time, one thread each.", min=1)]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in OUT; without one, begin.")]
_EXPLAIN = "Show what would run, how many steps, estimated time and disk; start nothing."


def _recipes() -> Mapping[str, TrainingRecipe]:
    from ..training import registry

    registry.load_all()
    return registry


def _command_of(declared: TrainingRecipe) -> Callable[..., None]:
    """The subcommand of a recipe, with the keys of its file in its help."""

    def command(
        recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file.", show_default=False)],
        out: Annotated[Path | None, typer.Argument(help="Folder of the run.", show_default=False)] = None,
        explain: Annotated[bool, typer.Option("--explain", help=_EXPLAIN)] = False,
        resume: Resume = False, workers: Workers = 1,
        as_json: _options.AsJson = False, quiet: _options.Quiet = False,
    ) -> None:  # fmt: skip
        from ..training import prepare

        if out is None and not explain:
            raise typer.BadParameter("Give OUT, the folder of the run, or --explain.")
        prepared = prepare(declared.name, recipe)
        if explain or out is None:
            _explain(prepared, workers, as_json=as_json)
        else:
            _train(prepared, out, resume=resume, workers=workers, as_json=as_json, quiet=quiet)

    command.__doc__ = f"{declared.summary}\n\n\b\nKeys of the recipe:\n{_keys(declared)}\n\n{declared.source}"
    return command


class _Recipes(DerivedGroup):
    """One subcommand per declared recipe, in addition to those below."""

    def declared(self) -> Mapping[str, Callable[[], Callable[..., None]]]:
        return {name: lambda declared=declared: _command_of(declared) for name, declared in _recipes().items()}


train = App(
    name="train",
    cls=_Recipes,
    help="Train models by a published recipe whose weights are averaged.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(train, rich_help_panel=DATA)


@train.command(name="list")
def list_recipes(as_json: _options.AsJson = False) -> None:
    """List the training recipes."""
    recipes = _recipes()
    if as_json:
        print(json.dumps([{"name": name, "summary": r.summary, "source": r.source} for name, r in recipes.items()]))
        return
    print("\n".join(f"{name.replace('_', '-')}: {each.summary}\n  {each.source}" for name, each in recipes.items()))


def _keys(declared: TrainingRecipe) -> str:
    from ..declare import REQUIRED

    rows = [
        f"  {name}{'' if default is REQUIRED or default is None else f'={_text(default)}'}: {help}"
        for name, (help, default) in declared.described_keys.items()
    ]
    return "\n".join(rows)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _explain(prepared: Prepared, workers: int, *, as_json: bool) -> None:
    from ..training import explain

    explained = explain(prepared)
    if as_json:
        print(json.dumps({**explained.as_data(), "seconds": explained.seconds(workers)}))
    else:
        print(explained.text(workers))


def _train(prepared: Prepared, out: Path, *, resume: bool, workers: int, as_json: bool, quiet: bool) -> None:
    from ..display import watcher_for
    from ..training import launch
    from ._errors import Interrupted

    watcher = watcher_for(quiet=quiet, as_json=as_json)
    try:
        trained = launch(prepared, out, resume=resume, workers=workers, progress=watcher)
    except KeyboardInterrupt:
        raise Interrupted("interrupted. Continue with the same command and --resume.") from None
    _show(trained, as_json=as_json)


def _show(trained: Trained, *, as_json: bool) -> None:
    if as_json:
        data = {"out": str(trained.out), "model": str(trained.model), "metrics": dict(trained.metrics)}
        print(json.dumps({**data, "results": trained.results}))
        return
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in trained.metrics.items())
    print(f"{trained.model}: {numbers}")
