"""polyak average"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import typer

from . import _options
from ._app import RUNS, app

if TYPE_CHECKING:
    from ..averaging import Weighting
    from ..recipe import Recipe

_BY = "Weighting: uniform, ema, ema-raw, posthoc-ema, step, or a logged metric such as loss or eval_accuracy."
_FORM = "Weighting function of the metric: shift, power, minmax, softmax or rank."
_DECAY = "Weights as a decay of the learning rate: 1-sqrt, linear, cosine or a file; a number is the decay of ema."
_WIDTH = "Width of posthoc-ema: standard deviation of the weights over steps, relative to the length of the run."
_CURVE = "Print the decay of the learning rate that the weights amount to."
_Decay: TypeAlias = Annotated[str, typer.Option(help=_DECAY, show_default=False)]
_Width: TypeAlias = Annotated[float | None, typer.Option(help=_WIDTH, show_default=False)]
_Curve: TypeAlias = Annotated[bool, typer.Option("--show-curve", help=_CURVE)]


@app.command(rich_help_panel=RUNS)
def average(
    run: _options.Run,
    out: Annotated[Path | None, typer.Argument(help="Folder for the average.", show_default=False)] = None,
    by: Annotated[str, typer.Option(help=_BY)] = "uniform",
    last: _options.Last = None, stride: _options.Stride = 1, after: _options.After = 0.0,
    dev: Annotated[str, typer.Option(help="Drop checkpoints that are far below the best by this metric.")] = "",
    floor: _options.Floor = 0.9,
    form: Annotated[str, typer.Option(help=_FORM)] = "shift",
    penalty: _options.Penalty = 0.7, decay: _Decay = "", width: _Width = None, higher_is_better: _options.Better = None,
    show_curve: _Curve = False, html: _options.Html = None,
    table: _options.Table = None, space: _options.Space = "product", rank: _options.Rank = None,
    key: _options.Key = "", strip_prefix: _options.Prefix = "",
    recipe: Annotated[Path | None, typer.Option("--recipe", "-o", help="Write the recipe of the average here.")] = None,
    workers: _options.Workers = 0, force: _options.Force = False, as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Average the checkpoints of one training run: all of them, the last ones, or weighted by a metric."""
    from .. import averaging
    from ..averaging import Choice, Weighting

    if out is None and recipe is None and html is None and not show_curve:
        raise typer.BadParameter("Give OUT, the folder for the average, or --recipe FILE, or both.")
    choice = Choice(after, last, stride, dev or None, floor)
    kept, notes = averaging.chosen(averaging.read_run(run, table), choice, higher_is_better=higher_is_better)
    weighting = weighting_of(by, decay, width, Weighting(by, form_of(form), penalty, 0.9, higher_is_better))
    averaged = averaging.averaged(
        kept, weighting, space=space_of(space), rank=rank, key=key or None, strip_prefix=strip_prefix or None
    )
    if not (quiet or as_json):
        _show(averaged, notes, with_curve=show_curve)
    _write_files(averaged, [checkpoint.step for checkpoint in kept], html, recipe, force=force)
    if out is not None:
        _merge(averaged, out, workers=workers, force=force, as_json=as_json, quiet=quiet)
    elif as_json:
        print(_weights_as_json(averaged))


def weighting_of(by: str, decay: str, width: float | None, other: Weighting) -> Weighting:
    """The weighting that `--by`, `--decay` and `--width` ask for.

    Raises:
        SettingError: they contradict each other, or there is no such curve.
    """
    from ..averaging import curve_of
    from ..errors import SettingError

    if (by == "posthoc-ema") != (width is not None):
        raise SettingError("--by posthoc-ema needs --width, such as 0.1, and no other weighting has one.")
    if by == "posthoc-ema" and not decay:
        return replace(other, width=width or 0.0)
    number = _number(decay)
    if number is not None and by not in ("ema", "ema-raw"):
        raise SettingError(f"--decay {decay} is the decay of --by ema or ema-raw; a curve is linear, 1-sqrt or cosine.")
    if not decay or number is not None:
        return other if number is None else replace(other, decay=number)
    if by != "uniform":
        raise SettingError(f"--decay {decay} gives all weights, and so does --by {by}: give one of them.")
    curve_of(decay)
    return replace(other, by="decay", curve=decay)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


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


_BAR = 30  # characters of a learning rate that has not decayed


def _show(average: Recipe, notes: list[str], *, with_curve: bool) -> None:
    from ..averaging import implied_decay

    facts = average.provenance or {}
    if "correlation" in facts:
        said = (
            f"the weights have a correlation of {facts['correlation']:.4f} with the profile of width {facts['width']:g}"
        )
        notes = [*notes, said]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    names, weights = [model.name for model in average.models], _weights(average)
    long = max(map(len, names))
    rates = ["", *(f"  {rate:7.4f}  {'#' * round(_BAR * rate)}".rstrip() for rate in implied_decay(weights))]
    if with_curve:
        print(f"{'':{long}}   weight  learning rate since the one before")
    for name, weight, rate in zip(names, weights, rates, strict=True):
        print(f"{name:{long}}  {weight:7.4f}{rate if with_curve else ''}")


def _weights(average: Recipe) -> list[float]:
    return [cast("float", model.settings["weight"]) for model in average.models]


def _write_files(average: Recipe, steps: list[int], html: Path | None, recipe: Path | None, *, force: bool) -> None:
    if html is not None:
        _write_page(html, average, steps)
    if recipe is not None:
        _write(recipe, average, force=force)


def _write_page(path: Path, average: Recipe, steps: list[int]) -> None:
    from ..averaging import implied_decay
    from ..report import decay_page
    from ..storage import write_whole

    weights = _weights(average)
    page = decay_page([model.name for model in average.models], steps, weights, implied_decay(weights))
    write_whole(path, page)


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
