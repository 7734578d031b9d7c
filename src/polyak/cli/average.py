"""polyak average"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import app

if TYPE_CHECKING:
    from ..recipe import Recipe

_BY = "uniform; ema; step; or a logged metric such as loss or eval_accuracy."
_FORM = "From metrics to weights: shift, power, minmax, softmax or rank."


@app.command()
def average(
    run: _options.Run,
    out: Annotated[Path | None, typer.Argument(help="Folder for the average.", show_default=False)] = None,
    by: Annotated[str, typer.Option(help=_BY)] = "uniform",
    last: _options.Last = None, stride: _options.Stride = 1, after: _options.After = 0.0,
    dev: Annotated[str, typer.Option(help="Leave out checkpoints far below the best by this metric.")] = "",
    floor: _options.Floor = 0.9,
    form: Annotated[str, typer.Option(help=_FORM)] = "shift",
    penalty: _options.Penalty = 0.7, decay: _options.Decay = 0.9, higher_is_better: _options.Better = None,
    table: _options.Table = None, space: _options.Space = "product", rank: _options.Rank = None,
    key: _options.Key = "", strip_prefix: _options.Prefix = "",
    recipe: Annotated[Path | None, typer.Option("--recipe", "-o", help="Write the recipe of the average here.")] = None,
    workers: Annotated[int, typer.Option(help="Threads; 0 is one a CPU.", min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:  # fmt: skip
    """Average the checkpoints of one training run: all, the last, or weighted by a metric."""
    from .. import averaging
    from ..averaging import Choice, Weighting

    if out is None and recipe is None:
        raise typer.BadParameter("Give OUT, the folder for the average, or --recipe FILE, or both.")
    choice = Choice(after, last, stride, dev or None, floor)
    kept, notes = averaging.chosen(averaging.read_run(run, table), choice, higher_is_better=higher_is_better)
    weighting = Weighting(by, form_of(form), penalty, decay, higher_is_better)
    asked = averaging.averaged(
        kept, weighting, space=space_of(space), rank=rank, key=key or None, strip_prefix=strip_prefix or None
    )
    if not (quiet or as_json):
        _show(asked, notes)
    if recipe is not None:
        _write(recipe, asked, force=force)
    if out is not None:
        _merge(asked, out, workers=workers, force=force, as_json=as_json, quiet=quiet)
    elif as_json:
        print(_weights_as_json(asked))


def form_of(form: str) -> Any:
    """A form of weighting, if there is one of this name.

    Raises:
        SettingError: with the name that was probably meant.
    """
    from ..averaging import BY_METRIC
    from ..errors import SettingError, suggestion

    if form not in BY_METRIC:
        raise SettingError(f"there is no weighting {form!r}. {suggestion(form, BY_METRIC)}")
    return form


def space_of(space: str) -> Any:
    """What of adapters is averaged, if it is one of both.

    Raises:
        typer.BadParameter: it is not.
    """
    if space not in ("product", "factors"):
        raise typer.BadParameter(f"{space!r} is neither product nor factors.", param_hint="--space")
    return space


def _show(asked: Recipe, notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    width = max(len(model.name) for model in asked.models)
    for model in asked.models:
        print(f"{model.name:{width}}  {model.settings['weight']:7.4f}")


def _write(path: Path, asked: Recipe, *, force: bool) -> None:
    from .. import recipe as recipes
    from ..errors import OutputExists
    from ..storage import write_whole

    if path.exists() and not force:
        raise OutputExists(f"{path} is there already; choose another place, or use --force to replace it.")
    write_whole(path, recipes.dump(asked))


def _merge(asked: Recipe, out: Path, *, workers: int, force: bool, as_json: bool, quiet: bool) -> None:
    from .. import adapters, api
    from ..engine import run
    from ._progress import Bar
    from ._report import tell
    from .lora import tell as tell_of_adapter

    with Bar(quiet=quiet or as_json) as bar:
        if asked.adapter is not None:
            made = adapters.merge(asked, out, workers=workers or None, force=force, progress=bar)
            tell_of_adapter(made, as_json=as_json, quiet=quiet)
            return
        planned = api.plan(asked)
        for note in planned.notes:
            bar.say(f"note: {note}")
        report = run(planned, out, workers=workers or None, force=force, progress=bar)
    tell(report, as_json=as_json, quiet=quiet)


def _weights_as_json(asked: Recipe) -> str:
    import json

    return json.dumps({"weights": {model.name: model.settings["weight"] for model in asked.models}})
