"""polyak merge"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ._app import app
from ._size import parse_size


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or a mergekit YAML file.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the merged model.", show_default=False)],
    workers: Annotated[int, typer.Option(help="Threads; 0 is one a CPU.", min=0)] = 0,
    memory: Annotated[str, typer.Option(help="Most memory to use, such as 400MB; fewer threads run if need be.")] = "",
    shard_size: Annotated[str, typer.Option(help="Most bytes of tensors in a file.")] = "5GB",
    seed: Annotated[int | None, typer.Option(help="Seed of random methods, instead of the recipe's.", min=0)] = None,
    digest: Annotated[str, typer.Option(help="xxh3-128 or sha256.")] = "xxh3-128",
    device: Annotated[
        str, typer.Option(help="Where whole matrices are merged: cpu, cuda (by torch), or auto.")
    ] = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished merge of the same recipe.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Merge the models of a recipe into a folder."""
    from dataclasses import replace

    from .. import api
    from ..engine import run
    from ._progress import Bar
    from ._report import tell

    asked = api.load_recipe(recipe)
    planned = api.plan(asked if seed is None else replace(asked, seed=seed))
    bar = Bar(quiet=quiet or as_json)
    for note in planned.notes:
        bar.say(f"note: {note}")
    try:
        with bar:
            report = run(
                planned,
                out,
                workers=workers or None,
                memory=parse_size(memory, "--memory") if memory else None,
                shard_nbytes=parse_size(shard_size, "--shard-size"),
                digest=digest,
                resume=resume,
                force=force,
                progress=bar,
                device=device,
            )
    except KeyboardInterrupt:
        print(f"interrupted. Go on with: polyak merge {recipe} {out} --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    tell(report, as_json=as_json, quiet=quiet)
