"""polyak lora merge|extract|bake"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._app import app

if TYPE_CHECKING:
    from ..adapters import Report
    from ..recipe import Recipe

lora = typer.Typer(
    name="lora",
    help="Merge LoRA adapters, take one from a fine-tune, or put one into its base.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lora)

Workers = Annotated[int, typer.Option(help="Threads; 0 is one a CPU.", min=0)]
Memory = Annotated[str, typer.Option(help="Most memory to use, such as 400MB; fewer threads run if need be.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Report as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Rank = Annotated[int | None, typer.Option(help="The most that a module has.", min=1)]
Energy = Annotated[float | None, typer.Option(help="The least share of a module's squares to keep, such as 0.95.")]
DType = Annotated[str, typer.Option(help="How the result is stored (default: float32).")]


@lora.command()
def merge(
    places: Annotated[list[Path], typer.Argument(metavar="[RECIPE] OUT", show_default=False)],
    adapter: Annotated[list[Path] | None, typer.Option(help="An adapter's folder, instead of a recipe.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Its weight: one an adapter, or none.")] = None,
    method: Annotated[str, typer.Option(help="The merge method, with --adapter (default: linear).")] = "",
    rank: Rank = None,
    energy: Energy = None,
    absent: Annotated[str, typer.Option(help="Modules that an adapter lacks: refuse, or zero.")] = "",
    space: Annotated[str, typer.Option(help="Merge the product, or the factors each by itself.")] = "",
    base: Annotated[str, typer.Option(help="Name of the base that the result is for.")] = "",
    dtype: DType = "",
    seed: Annotated[int | None, typer.Option(help="Seed of random methods.", min=0)] = None,
    workers: Workers = 0,
    memory: Memory = "",
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Merge adapters into an adapter: those of a recipe, or those given by --adapter."""
    from functools import partial

    from ..adapters import merge as run
    from ._size import parse_size

    said = {"rank": rank, "energy": energy, "absent": absent, "space": space, "base": base}
    if len(places) != (1 if adapter else 2):
        raise typer.BadParameter("Give a RECIPE and OUT; or --adapter FOLDER, once an adapter, and OUT.")
    asked = _inline(adapter, weight or [], method) if adapter else _loaded(places[0], weight, method)
    asked = _with(asked, {key: value for key, value in said.items() if value}, dtype, seed)
    work = partial(run, memory=parse_size(memory, "--memory") if memory else None)
    _run(work, (asked, places[-1]), workers, force, as_json, quiet)


def _inline(adapters: list[Path], weights: list[float], method: str) -> Recipe:
    from .. import recipe as recipes

    if weights and len(weights) != len(adapters):
        raise typer.BadParameter(f"{len(adapters)} adapters have {len(weights)} weights.", param_hint="--weight")
    names = [path.name if [p.name for p in adapters].count(path.name) == 1 else str(path) for path in adapters]
    each = zip(names, adapters, weights or [None] * len(adapters), strict=True)
    models = [{"name": n, "path": str(p)} | ({} if w is None else {"weight": w}) for n, p, w in each]
    return recipes.read({"models": models, "method": method or "linear"}, Path())


def _loaded(path: Path, weights: list[float] | None, method: str) -> Recipe:
    from .. import recipe as recipes

    if weights or method:
        raise typer.BadParameter("weights and the method stand in the recipe.", param_hint="--weight, --method")
    return recipes.load(path)


def _with(recipe: Recipe, said: dict[str, Any], dtype: str, seed: int | None) -> Recipe:
    """The recipe with what the command line says instead; checked as a recipe is."""
    from dataclasses import replace

    from .. import recipe as recipes

    given: dict[str, Any] = {"models": ["x"], "method": "linear", "adapter": said} | ({"dtype": dtype} if dtype else {})
    checked = recipes.read(given)
    if said and checked.adapter is not None:
        before = recipe.adapter or recipes.Factorisation()
        recipe = replace(recipe, adapter=replace(before, **{key: getattr(checked.adapter, key) for key in said}))
    recipe = replace(recipe, dtype=checked.dtype) if dtype else recipe
    return recipe if seed is None else replace(recipe, seed=seed)


@lora.command()
def extract(
    base: Annotated[str, typer.Argument(help="The model before.", show_default=False)],
    tuned: Annotated[str, typer.Argument(help="The model after.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the adapter.", show_default=False)],
    rank: Rank = None,
    energy: Energy = None,
    modules: Annotated[str, typer.Option(help="Pattern of the matrices that become factors.")] = "",
    whole: Annotated[str, typer.Option(help="Pattern of tensors to keep whole (modules_to_save).")] = "",
    transposed: Annotated[bool, typer.Option("--transposed", help="Weights are (in, out), as GPT-2's.")] = False,
    dtype: DType = "",
    workers: Workers = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write what a fine-tune changed of its base as an adapter, by rank or by energy."""
    from functools import partial

    from ..adapters import Choice
    from ..adapters import extract as run

    choice = Choice(modules or None, whole or None, transposed)
    work = partial(run, rank=rank, energy=energy, choice=choice, dtype=dtype or "float32")
    _run(work, (base, tuned, out), workers, force, as_json, quiet)


@lora.command()
def bake(
    base: Annotated[str, typer.Argument(help="What the adapter was trained on.", show_default=False)],
    adapter: Annotated[str, typer.Argument(help="The adapter's folder.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the model.", show_default=False)],
    scale: Annotated[float, typer.Option(help="Factor of the update.")] = 1.0,
    dtype: Annotated[str, typer.Option(help="How the result is stored (default: as the base).")] = "",
    workers: Workers = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put an adapter into its base: an ordinary merge of a model with an adapter on it."""
    from ..adapters import bake as run
    from ._progress import Bar
    from ._report import tell

    bar = Bar(quiet=quiet or as_json)
    with bar:
        report = run(
            base, adapter, out, scale=scale, dtype=dtype or None, workers=workers or None, force=force, progress=bar
        )
    tell(report, as_json=as_json, quiet=quiet)


def _run(work: Any, places: tuple[Any, ...], workers: int, force: bool, as_json: bool, quiet: bool) -> None:
    from ._progress import Bar

    bar = Bar(quiet=quiet or as_json)
    try:
        with bar:
            report = work(*places, workers=workers or None, force=force, progress=bar)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        raise typer.Exit(130) from None
    tell(report, as_json=as_json, quiet=quiet)


def tell(report: Report, *, as_json: bool, quiet: bool) -> None:
    """Say what became of an adapter."""
    if as_json:
        print(json.dumps(report.as_data()))
    elif not quiet:
        _tell(report)


def _tell(report: Report) -> None:
    from ._size import human

    low, high = report.ranks
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    print(
        f"{report.out}: {len(report.modules)} modules of {ranks}, {human(report.nbytes_written)} written in "
        f"{report.seconds:.1f} s; energy lost: {report.share_lost:.3g} (relative error {report.share_lost**0.5:.3g})"
    )
    worst = sorted((m for m in report.modules if m.lost), key=lambda m: -m.share_lost)[:3]
    for module in worst:
        print(f"  {module.name} (rank {module.rank}) loses {module.share_lost:.3g}")
    if report.left_out:
        few = ", ".join(list(report.left_out)[:3]) + (", ..." if len(report.left_out) > 3 else "")
        print(f"  {len(report.left_out)} tensors differ and are left out: {few}")
