"""polyak recalibrate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._app import app
from .measure import BatchSize, Device, Examples, Force, Model, Module, Quiet, Seed, Split, TaskName


@app.command()
def recalibrate(
    model: Model,
    task: TaskName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new model.", show_default=False)],
    split: Split = "calibration",
    examples: Examples = 1024,
    batch_size: BatchSize = 128,
    seed: Seed = None,
    device: Device = "cpu",
    module: Module = "",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure the BatchNorm statistics of a merged model again, and write the model with them."""
    from .. import checkpoint
    from ..statistics import recalibrate as measure_again
    from ..statistics import write_with
    from .measure import _data

    data, live = _data(model, task, module, split, examples, batch_size, seed, device)
    found = measure_again(live.module, data.batches(), data.task.outputs)
    known = {live.names[name]: value for name, value in found.items() if name in live.names}
    note = f"BatchNorm statistics, over {data.count()} examples of {data.task.name} ({split})"
    write_with(checkpoint.open(model), known, out, note=note, force=force)
    if not quiet:
        print(f"{out}: {len(known)} tensors measured again on {data.count()} examples")
