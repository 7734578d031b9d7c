"""polyak learn"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._app import app

if TYPE_CHECKING:
    from ..learn import Learned, Learner
    from ..recipe import Recipe


@app.command()
def learn(
    method: Annotated[str, typer.Argument(help="The learner; `list` says which there are.", show_default=False)],
    recipe: Annotated[Path | None, typer.Argument(help="The models and their base.", show_default=False)] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task: a YAML file, or module:function.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the learned recipe here.")] = None,
    given: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: a setting of the learner.")] = None,
    device: Annotated[str, typer.Option(help="Where modules run, as torch names it.")] = "cpu",
    module: Annotated[str, typer.Option(help="module:function that makes the torch module to run.")] = "",
    seed: Annotated[int, typer.Option(help="Chooses and orders examples.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Learn from data how to weigh the models of a recipe; the result is a recipe. `list` shows the learners."""
    from .. import learn as learning

    if method == "list":
        learning.load_all()
        print("\n\n".join(_described(one) for _, one in sorted(learning.registry.items())))
        return
    learner = learning.resolve(method)
    settings = _settings(learner, given or [])
    if recipe is None or out is None or not task:
        raise typer.BadParameter("Give RECIPE, one or more --task, and -o FILE for the learned recipe.")
    _check_out(out, recipe, force=force)
    found, learned = _learned(method, recipe, task, settings, out, module, device, seed, quiet=quiet or as_json)
    _write(out, learning.text_for(found, out))
    _tell(found, learned, out, as_json=as_json, quiet=quiet)


def _learned(
    method: str, recipe: Path, task: Sequence[str], settings: Mapping[str, Any], out: Path, module: str, device: str,
    seed: int, *, quiet: bool,
) -> tuple[Recipe, Learned]:  # fmt: skip
    from .. import learn as learning
    from .. import recipe as recipes
    from ._evaluation import load_tasks
    from ._progress import Bar

    asked, tasks = recipes.load(recipe), load_tasks(task, module)
    lines: list[str] = []
    with Bar(quiet=quiet, doing="learning", unit="steps") as bar:
        bar.start(int(settings.get("steps", settings.get("iterations", 0))))
        for note in dict.fromkeys(f"{one.name}: {note}" for one in tasks for note in one.notes):
            bar.say(f"note: {note}")

        def log(entry: Mapping[str, Any]) -> None:
            lines.append(json.dumps(entry))
            bar.advance(1)

        found = learning.learn(method, asked, tasks, settings=settings, device=device, seed=seed, log=log)
        for note in found[1].notes:
            bar.say(f"note: {note}")
    _write(_log_of(out), "".join(f"{line}\n" for line in lines))
    return found


def _settings(learner: Learner, given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, is_pair, value = text.partition("=")
        if not is_pair:
            raise typer.BadParameter(f"{text!r} is no NAME=VALUE.", param_hint="--set")
        found[name] = _value(value)
    return learner.bind(found)


def _value(text: str) -> Any:
    from ..reading.yaml import resolve

    try:
        return resolve(text)
    except ValueError:
        return text


def _check_out(out: Path, recipe: Path, *, force: bool) -> None:
    from ..errors import OutputError, OutputExists

    if out.resolve() == recipe.resolve():
        raise OutputError(f"{out} is the recipe to learn from; choose another place for what is learned.")
    for place in (out, _log_of(out)):
        if place.exists() and not force:
            raise OutputExists(f"{place} is there already; choose another place, or use --force to replace it.")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out.absolute().parent} is no folder, so nothing can be written there.")


def _log_of(out: Path) -> Path:
    return out.with_suffix(".log.jsonl")


def _write(place: Path, text: str) -> None:
    from ..storage import write_whole

    write_whole(place, text)


def _described(learner: Learner) -> str:
    rows = [f"  {s.name}={_shown(s.default)}{_allowed(s)}" for s in learner.settings.values()]
    return "\n".join([f"{learner.name}: {learner.summary}", *rows, f"  {learner.source}"])


def _allowed(setting: Any) -> str:
    words = ", ".join(setting.kind) if isinstance(setting.kind, tuple) else setting.range
    return f"  ({words})" if words else ""


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell(found: Recipe, learned: Learned, out: Path, *, as_json: bool, quiet: bool) -> None:
    weights = {model.name: model.settings["weight"] for model in found.models}
    if as_json:
        told = {"recipe": str(out), "log": str(_log_of(out)), "weights": weights, "provenance": dict(found.provenance)}
        print(json.dumps(told))
    elif not quiet:
        each = f", on average over {len(learned.names)} tensors" if learned.names else ""
        print(f"{out}: learned weights{each}")
        width = max(len(name) for name in weights)
        for name, weight in weights.items():
            print(f"  {name:{width}}  {weight:8.4f}")
