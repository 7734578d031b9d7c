"""polyak recalibrate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options
from ._app import DATA, app
from .measure import Examples, Model, Seed, Split, TaskName


@app.command(rich_help_panel=DATA)
def recalibrate(
    model: Model,
    task: TaskName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new model.", show_default=False)],
    split: Split = "calibration",
    examples: Examples = 1024,
    batch_size: _options.BatchSize = 128,
    seed: Seed = None,
    device: _options.Device = "cpu",
    module: _options.Module = "",
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Recompute the BatchNorm statistics of a merged model on data, and write the model with them."""
    from .. import checkpoint
    from ..statistics import recalibrate as measure_again
    from ..statistics.replaced import write_with
    from .measure import _data

    data, live = _data(model, task, module, split, examples, batch_size, seed, device)
    measured = measure_again(live.module, data.batches(), data.task.outputs)
    tensors = {live.names[name]: value for name, value in measured.items() if name in live.names}
    note = f"BatchNorm statistics, over {data.count()} examples of {data.task.name} ({split})"
    write_with(checkpoint.open(model), tensors, out, note=note, force=force)
    if as_json:
        import json

        print(json.dumps({"out": str(out), "tensors": sorted(tensors), "examples": data.count()}))
    elif not quiet:
        print(f"{out}: {len(tensors)} tensors recomputed on {data.count()} examples")
