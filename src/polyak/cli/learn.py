"""polyak learn"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _inline, _options
from ._app import DATA, app

if TYPE_CHECKING:
    from ..learn import Learned, Learner
    from ..recipe import Recipe


@app.command(rich_help_panel=DATA)
def learn(
    method: Annotated[str, typer.Argument(help="The learner; `list` lists them.", show_default=False)],
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe with the models and their base.", show_default=False)
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task: a YAML file, or module:function.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the learned recipe here.")] = None,
    given: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: a setting of the learner.")] = None,
    device: _options.Device = "cpu",
    module: _options.Module = "",
    seed: Annotated[int, typer.Option(help="Seed for choosing and ordering examples.")] = 0,
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Learn the weights of a recipe's models from data, and write a recipe with them; `list` lists the learners."""
    from .. import learn as learning

    if method == "list":
        learning.load_all()
        print("\n\n".join(_described(learner) for _, learner in sorted(learning.registry.items())))
        return
    learner = learning.resolve(method)
    settings = _settings(learner, given or [])
    if recipe is None or out is None or not task:
        raise typer.BadParameter("Give RECIPE, one or more --task, and -o FILE for the learned recipe.")
    _check_out(out, recipe, force=force)
    shown = {"quiet": quiet, "as_json": as_json}
    result, learned = _learned(method, recipe, task, settings, out, module, device, seed, **shown)
    _write(out, learning.text_for(result, out))
    _show(result, learned, out, **shown)


def _learned(
    method: str, recipe: Path, task: Sequence[str], settings: Mapping[str, Any], out: Path, module: str, device: str,
    seed: int, *, quiet: bool, as_json: bool,
) -> tuple[Recipe, Learned]:  # fmt: skip
    from .. import learn as learning
    from .. import recipe as recipes
    from ._evaluation import load_tasks
    from ._progress import reporter

    loaded, tasks = recipes.load(recipe), load_tasks(task, module)
    lines: list[str] = []
    with reporter("learning", "steps", quiet=quiet, as_json=as_json) as progress:
        progress.start(int(settings.get("steps", settings.get("iterations", 0))))
        for note in dict.fromkeys(f"{scorer.name}: {note}" for scorer in tasks for note in scorer.notes):
            progress.say(f"note: {note}")

        def log(entry: Mapping[str, Any]) -> None:
            lines.append(json.dumps(entry))
            progress.advance(1)

        result = learning.learn(method, loaded, tasks, settings=settings, device=device, seed=seed, log=log)
        for note in result[1].notes:
            progress.say(f"note: {note}")
    _write(_log_of(out), "".join(f"{line}\n" for line in lines))
    return result


def _settings(learner: Learner, given: Sequence[str]) -> dict[str, Any]:
    return learner.bind(_inline.settings_of(given))


def _check_out(out: Path, recipe: Path, *, force: bool) -> None:
    from ..errors import OutputError, OutputExists

    if out.resolve() == recipe.resolve():
        raise OutputError(f"{out} is the recipe to learn from. Choose another file for the result.")
    for path in (out, _log_of(out)):
        if path.exists() and not force:
            raise OutputExists(f"{path} exists. Choose another path, or replace it with --force.")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out.absolute().parent} is not a folder. Make it, or choose another path.")


def _log_of(out: Path) -> Path:
    return out.with_suffix(".log.jsonl")


def _write(path: Path, text: str) -> None:
    from ..storage import write_whole

    write_whole(path, text)


def _described(learner: Learner) -> str:
    rows = [f"  {s.name}={_text(s.default)}{_allowed(s)}" for s in learner.settings.values()]
    return "\n".join([f"{learner.name}: {learner.summary}", *rows, f"  {learner.source}"])


def _allowed(setting: Any) -> str:
    words = ", ".join(setting.kind) if isinstance(setting.kind, tuple) else setting.range
    return f"  ({words})" if words else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show(result: Recipe, learned: Learned, out: Path, *, as_json: bool, quiet: bool) -> None:
    weights = {model.name: model.settings["weight"] for model in result.models}
    if as_json:
        data = {"recipe": str(out), "log": str(_log_of(out)), "weights": weights, "provenance": dict(result.provenance)}
        print(json.dumps(data))
    elif not quiet:
        each = f", on average over {len(learned.names)} tensors" if learned.names else ""
        print(f"{out}: learned weights{each}")
        width = max(len(name) for name in weights)
        for name, weight in weights.items():
            print(f"  {name:{width}}  {weight:8.4f}")
