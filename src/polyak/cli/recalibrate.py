"""polyak recalibrate"""

from __future__ import annotations

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
    from ..statistics import recalibrate as measure_again
    from ..statistics import recalibrated_together, write_with
    from .measure import _data

    measured: list[Any] = []
    counts: dict[str, int] = {}
    for text in task:
        data, live = _data(model, text, module, split, examples, batch_size, seed, device)
        buffers = measure_again(live.module, data.batches(), data.task.outputs)
        measured.append(({live.names[n]: value for n, value in buffers.items() if n in live.names}, data.count()))
        counts[data.task.name] = counts.get(data.task.name, 0) + data.count()
    tensors, total = recalibrated_together(measured), sum(counts.values())
    on = ", ".join(f"{count} of {name}" for name, count in counts.items())
    note = f"BatchNorm statistics, over {total} examples ({on}; {split}, shuffled with seed {seed})"
    write_with(checkpoint.open(model), tensors, out, note=note, force=force)
    if as_json:
        import json

        print(
            json.dumps({"out": str(out), "tensors": sorted(tensors), "examples": total, "tasks": counts, "seed": seed})
        )
    elif not quiet:
        print(f"{out}: {len(tensors)} tensors recomputed on {total} examples ({on}), shuffled with seed {seed}")
