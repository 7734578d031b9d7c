"""polyak bake"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import app


@app.command()
def bake(
    masks: Annotated[
        Path, typer.Argument(help="Masks of one model: MERGED/masks/MODEL.safetensors.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for that model.", show_default=False)],
    base: Annotated[Path | None, typer.Option(help="The merge's base, if it is no longer where it was.")] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the result, instead of the merge's.")] = "",
    workers: Annotated[int, typer.Option(help="Threads; 0 is one a CPU.", min=0)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Write the model of one task, which the masks of a merge cut out of it, as a model of its own."""
    from .. import checkpoint, planning
    from .. import recipe as recipes
    from ..checkpoint.masked import open_task
    from ..engine import run
    from ._progress import Bar
    from ._report import tell

    model = recipes.Model(masks.stem, recipes.Source(path=str(masks.absolute())))
    recipe = recipes.Recipe("passthrough", (model,), dtype=dtype or None)
    planned = planning.plan(recipe, {model.name: open_task(masks, base, opener=checkpoint.open)})
    bar = Bar(quiet=quiet)
    with bar:
        report = run(planned, out, workers=workers or None, force=force, progress=bar)
    tell(report, as_json=False, quiet=quiet)
