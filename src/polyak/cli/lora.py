"""polyak lora merge|extract|bake"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _inline, _options
from ._app import ADAPTERS, App, Group, app

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..adapters import Report
    from ..recipe import Recipe

lora = App(
    name="lora",
    cls=Group,
    help="Merge LoRA adapters, extract one from a fine-tune, or bake one into its base.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lora, rich_help_panel=ADAPTERS)

_PLACES = "A recipe (or - for standard input) or the adapters to merge, then the output folder."

Rank = Annotated[int | None, typer.Option(help="Maximum rank of a module.", min=1)]
Energy = Annotated[float | None, typer.Option(help="Minimum share of a module's squared norm to keep, such as 0.95.")]
DType = Annotated[str, typer.Option(help="Dtype of the result (default: float32).")]


@lora.command()
def merge(
    places: Annotated[list[str], typer.Argument(metavar="RECIPE|ADAPTER... [OUT]", help=_PLACES, show_default=False)],
    out: _inline.Out = None,
    adapter: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    method: _inline.Method = "",
    weight: _inline.Weights = None,
    given: _inline.Settings = None,
    rank: Rank = None,
    energy: Energy = None,
    absent: Annotated[str, typer.Option(help="Modules missing from an adapter: refuse, or zero.")] = "",
    space: Annotated[str, typer.Option(help="Merge the product of the factors, or the factors.")] = "",
    base: Annotated[str, typer.Option(help="Name of the base model that the result is for.")] = "",
    dtype: DType = "",
    seed: _options.Seed = None,
    workers: _options.Workers = 0,
    memory: _options.Memory = "",
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Merge adapters into one adapter: those of a recipe, or those given."""
    from functools import partial

    from ..adapters import merge as run
    from ._size import parse_size

    recipe, folder = _inline.recipe_and_out(
        [*(adapter or []), *places], out, _inline.Inline(method, "", weight or [], given or [])
    )
    changes = {"rank": rank, "energy": energy, "absent": absent, "space": space, "base": base}
    recipe = _with(recipe, {key: value for key, value in changes.items() if value}, dtype, seed)
    limit = parse_size(memory, "--memory") if memory else None
    work = partial(run, recipe, folder, memory=limit, workers=workers or None, force=force)
    merge_adapters(work, as_json=as_json, quiet=quiet)


def _with(recipe: Recipe, changes: dict[str, Any], dtype: str, seed: int | None) -> Recipe:
    """The recipe with the command line's options instead of its own; checked as a recipe is."""
    from dataclasses import replace

    from .. import recipe as recipes

    data: dict[str, Any] = {"models": ["x"], "method": "linear", "adapter": changes} | (
        {"dtype": dtype} if dtype else {}
    )
    checked = recipes.read(data)
    if changes and checked.adapter is not None:
        before = recipe.adapter or recipes.Factorisation()
        recipe = replace(recipe, adapter=replace(before, **{key: getattr(checked.adapter, key) for key in changes}))
    recipe = replace(recipe, dtype=checked.dtype) if dtype else recipe
    return recipe if seed is None else replace(recipe, seed=seed)


@lora.command()
def extract(
    base: Annotated[str, typer.Argument(help="The base model.", show_default=False)],
    tuned: Annotated[str, typer.Argument(help="The fine-tuned model.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the adapter.", show_default=False)],
    rank: Rank = None,
    energy: Energy = None,
    modules: Annotated[str, typer.Option(help="Regular expression of the matrices to factorise.")] = "",
    whole: Annotated[str, typer.Option(help="Regular expression of tensors to keep whole (modules_to_save).")] = "",
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Weights are stored as (in, out), as in GPT-2.")
    ] = False,
    dtype: DType = "",
    workers: _options.Workers = 0,
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Write the change of a fine-tune from its base as an adapter, truncated by rank or by energy."""
    from functools import partial

    from ..adapters import Choice
    from ..adapters import extract as run

    choice = Choice(modules or None, whole or None, transposed)
    work = partial(run, base, tuned, out, rank=rank, energy=energy, choice=choice, dtype=dtype or "float32")
    merge_adapters(partial(work, workers=workers or None, force=force), as_json=as_json, quiet=quiet)


@lora.command()
def bake(
    base: Annotated[str, typer.Argument(help="The model that the adapter was trained on.", show_default=False)],
    adapter: Annotated[str, typer.Argument(help="The adapter's folder.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the model.", show_default=False)],
    scale: Annotated[float, typer.Option(help="Scale of the update.")] = 1.0,
    dtype: Annotated[str, typer.Option(help="Dtype of the result (default: that of the base).")] = "",
    workers: _options.Workers = 0,
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Bake an adapter into its base: write the full model (for masks of a merge: polyak bake)."""
    from ..adapters import bake as run
    from ..display import watcher_for
    from ._report import show

    report = run(
        base, adapter, out, scale=scale, dtype=dtype or None, workers=workers or None, force=force,
        progress=watcher_for(quiet=quiet, as_json=as_json),
    )  # fmt: skip
    show(report, as_json=as_json, quiet=quiet)


def merge_adapters(work: Callable[..., Report], *, as_json: bool, quiet: bool) -> None:
    """Make an adapter with progress, and print its report.

    Raises:
        Interrupted: by the user.
    """
    from ..display import watcher_for
    from ._errors import Interrupted

    try:
        report = work(progress=watcher_for(quiet=quiet, as_json=as_json))
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was written.") from None
    if as_json:
        print(json.dumps(report.as_data()))
    elif not quiet:
        _show(report)


def _show(report: Report) -> None:
    print(report)
    worst = sorted((m for m in report.modules if m.lost), key=lambda m: -m.share_lost)[:3]
    for module in worst:
        print(f"  {module.name} (rank {module.rank}) loses {module.share_lost:.3g}")
    if report.left_out:
        few = ", ".join(list(report.left_out)[:3]) + (", ..." if len(report.left_out) > 3 else "")
        print(f"  {len(report.left_out)} tensors differ and are left out: {few}")
