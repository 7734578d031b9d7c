"""polyak recalibrate"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _options
from ._app import DATA, app
from .measure import Examples, Model, Split

Seed = Annotated[int, typer.Option(help="Seed for choosing and shuffling the examples.", min=0)]


@app.command(rich_help_panel=DATA)
def recalibrate(
    model: Model,
    task: _options.Tasks,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new model.", show_default=False)],
    split: Split = "calibration",
    examples: Examples = 1024,
    batch_size: _options.BatchSize = 128,
    seed: Seed = 0,
    device: _options.Device = "cpu",
    module: _options.Module = "",
    force: _options.Force = False,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:
    """Recompute the BatchNorm statistics of a merged model on data, and write the model with them."""
    from .. import checkpoint
    from ..statistics import recalibrated_together, write_with

    measured = [_measured(model, text, module, split, examples, batch_size, seed, device) for text in task]
    counts = Counter[str]()
    for name, _, count in measured:
        counts[name] += count
    tensors, total = recalibrated_together([(tensors, count) for _, tensors, count in measured]), counts.total()
    on = ", ".join(f"{count} of {name}" for name, count in counts.items())
    note = f"BatchNorm statistics, over {total} examples ({on}; {split}, shuffled with seed {seed})"
    write_with(checkpoint.open(model), tensors, out, note=note, force=force)
    if as_json:
        about = {"examples": total, "tasks": counts, "seed": seed}
        print(json.dumps({"out": str(out), "tensors": sorted(tensors), **about}))
    elif not quiet:
        print(f"{out}: {len(tensors)} tensors recomputed on {total} examples ({on}), shuffled with seed {seed}")


def _measured(model: str, task: str, *where: Any) -> tuple[str, dict[str, Any], int]:
    """The task's name, the recomputed tensors by their names in the checkpoint, and the number of examples."""
    from ..statistics import recalibrate as recomputed
    from .measure import _data

    data, live = _data(model, task, *where)
    buffers = recomputed(live.module, data.batches(), data.task.outputs)
    tensors = {live.names[name]: value for name, value in buffers.items() if name in live.names}
    return data.task.name, tensors, data.count()
