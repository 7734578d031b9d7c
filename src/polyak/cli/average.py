"""polyak average"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import RUNS, app

if TYPE_CHECKING:
    from ..recipe import Recipe

_BY = "Weighting: uniform, ema, step, or a logged metric such as loss or eval_accuracy."
_FORM = "Weighting function of the metric: shift, power, minmax, softmax or rank."


@app.command(rich_help_panel=RUNS)
def average(
    run: _options.Run,
    out: Annotated[Path | None, typer.Argument(help="Folder for the average.", show_default=False)] = None,
    by: Annotated[str, typer.Option(help=_BY)] = "uniform",
    last: _options.Last = None, stride: _options.Stride = 1, after: _options.After = 0.0,
    dev: Annotated[str, typer.Option(help="Drop checkpoints that are far below the best by this metric.")] = "",
    floor: _options.Floor = 0.9,
    form: Annotated[str, typer.Option(help=_FORM)] = "shift",
    penalty: _options.Penalty = 0.7, decay: _options.Decay = 0.9, higher_is_better: _options.Better = None,
    table: _options.Table = None, space: _options.Space = "product", rank: _options.Rank = None,
    key: _options.Key = "", strip_prefix: _options.Prefix = "",
    recipe: Annotated[Path | None, typer.Option("--recipe", "-o", help="Write the recipe of the average here.")] = None,
    workers: _options.Workers = 0, force: _options.Force = False, as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Average the checkpoints of one training run: all of them, the last ones, or weighted by a metric."""
    from .. import averaging
    from ..averaging import Choice, Weighting

    if out is None and recipe is None:
        raise typer.BadParameter("Give OUT, the folder for the average, or --recipe FILE, or both.")
    choice = Choice(after, last, stride, dev or None, floor)
    kept, notes = averaging.chosen(averaging.read_run(run, table), choice, higher_is_better=higher_is_better)
    weighting = Weighting(by, form_of(form), penalty, decay, higher_is_better)
    averaged = averaging.averaged(
        kept, weighting, space=space_of(space), rank=rank, key=key or None, strip_prefix=strip_prefix or None
    )
    if not (quiet or as_json):
        _show(averaged, notes)
    if recipe is not None:
        _write(recipe, averaged, force=force)
    if out is not None:
        _merge(averaged, out, workers=workers, force=force, as_json=as_json, quiet=quiet)
    elif as_json:
        print(_weights_as_json(averaged))


def form_of(form: str) -> Any:
    """Check the name of a weighting function.

    Raises:
        SettingError: there is none of this name; the message suggests one.
    """
    from ..averaging import BY_METRIC
    from ..errors import SettingError, suggestion

    if form not in BY_METRIC:
        raise SettingError(f"unknown weighting {form!r}. {suggestion(form, BY_METRIC)}")
    return form


def space_of(space: str) -> Any:
    """Check the space in which adapters are averaged.

    Raises:
        typer.BadParameter: it is neither `product` nor `factors`.
    """
    if space not in ("product", "factors"):
        raise typer.BadParameter(f"{space!r} is neither product nor factors.", param_hint="--space")
    return space


def _show(average: Recipe, notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    width = max(len(model.name) for model in average.models)
    for model in average.models:
        print(f"{model.name:{width}}  {model.settings['weight']:7.4f}")


def _write(path: Path, average: Recipe, *, force: bool) -> None:
    from .. import averaging
    from .. import recipe as recipes
    from ..errors import OutputExists
    from ..storage import write_whole

    if path.exists() and not force:
        raise OutputExists(f"{path} exists. Choose another path, or replace it with --force.")
    write_whole(path, recipes.dump(averaging.relative_to(average, path.absolute().parent)))


def _merge(average: Recipe, out: Path, *, workers: int, force: bool, as_json: bool, quiet: bool) -> None:
    from functools import partial

    from .. import adapters, api
    from ..engine import run
    from .lora import merge_adapters
    from .merge import carry_out

    if average.adapter is not None:
        work = partial(adapters.merge, average, out, workers=workers or None, force=force)
        merge_adapters(work, as_json=as_json, quiet=quiet)
    else:
        carry_out(api.plan(average), out, partial(run, workers=workers or None, force=force), as_json, quiet)


def _weights_as_json(average: Recipe) -> str:
    import json

    return json.dumps({"weights": {model.name: model.settings["weight"] for model in average.models}})
