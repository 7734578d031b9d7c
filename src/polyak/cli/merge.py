"""polyak merge"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _inline, _options
from ._app import MERGE, app
from ._size import parse_size

if TYPE_CHECKING:
    from ..engine import Report
    from ..planning import Plan

_PLACES = "A recipe (a mergekit file too, or - for standard input) or the models to merge, then the output folder."
_DEVICE = "Device for whole-matrix methods: cpu, cuda (by torch) or auto."


@app.command(rich_help_panel=MERGE)
def merge(
    places: Annotated[list[str], typer.Argument(metavar="RECIPE|MODEL... [OUT]", help=_PLACES, show_default=False)],
    out: _inline.Out = None,
    method: _inline.Method = "",
    base: Annotated[str, typer.Option("--base", "-b", help="Base model, for models without a recipe.")] = "",
    weight: _inline.Weights = None,
    given: _inline.Settings = None,
    workers: _options.Workers = 0,
    memory: _options.Memory = "",
    shard_size: Annotated[str, typer.Option(help="Maximum shard size.")] = "5GB",
    seed: _options.Seed = None,
    digest: Annotated[str, typer.Option(help="Digest algorithm: xxh3-128 or sha256.")] = "xxh3-128",
    device: Annotated[str, typer.Option(help=_DEVICE)] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished merge of the same recipe.")] = False,
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Merge models into a folder: those of a recipe, or those given with a --method."""
    from dataclasses import replace
    from functools import partial

    from .. import api
    from ..engine import run

    inline = _inline.Inline(method, base, weight or [], given or [])
    recipe, folder = _inline.recipe_and_out(places, out, inline)
    work = partial(
        run,
        workers=workers or None,
        memory=parse_size(memory, "--memory") if memory else None,
        shard_nbytes=parse_size(shard_size, "--shard-size"),
        digest=digest,
        resume=resume,
        force=force,
        device=device,
    )
    carry_out(api.plan(recipe if seed is None else replace(recipe, seed=seed)), folder, work, as_json, quiet)


def carry_out(plan: Plan, out: Path, work: Callable[..., Report], as_json: bool, quiet: bool) -> None:
    """Run a merge with progress, and print its report.

    Raises:
        Interrupted: by the user; the merge can be resumed.
    """
    from ..display import watcher_for
    from ..events import Notice
    from ._errors import Interrupted
    from ._report import show

    progress = watcher_for(quiet=quiet, as_json=as_json)
    for note in plan.notes:
        progress(Notice(f"note: {note}"))
    try:
        report = work(plan, out, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted("interrupted. Continue with the same command and --resume.") from None
    show(report, as_json=as_json, quiet=quiet)
