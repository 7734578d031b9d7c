"""polyak bake"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from . import _options
from ._app import MERGE, app

_MASKS = "Masks of one model: MERGED/masks/MODEL.safetensors."


@app.command(rich_help_panel=MERGE)
def bake(
    masks: Annotated[Path, typer.Argument(help=_MASKS, show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for that model.", show_default=False)],
    base: Annotated[Path | None, typer.Option(help="Base of the merge, if it has moved.")] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the result (default: that of the merge).")] = "",
    workers: _options.Workers = 0,
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Write one task's model, recovered from a merged model by its masks (for LoRA adapters: polyak lora bake)."""
    from .. import planning
    from .. import recipe as recipes
    from ..checkpoint import open_task
    from ..engine import run
    from .merge import carry_out

    if (masks / "adapter_config.json").exists():
        raise typer.BadParameter(
            f"{masks} is a LoRA adapter, not masks. Use: polyak lora bake BASE {masks} {out}", param_hint="MASKS"
        )
    model = recipes.Model(masks.stem, recipes.Source(path=str(masks.absolute())))
    recipe = recipes.Recipe("passthrough", (model,), dtype=dtype or None)
    plan = planning.plan(recipe, {model.name: open_task(masks, base)})
    carry_out(plan, out, partial(run, workers=workers or None, force=force), as_json, quiet)
