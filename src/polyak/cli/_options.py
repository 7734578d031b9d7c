"""Options that several commands have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

# Of every command that works for a while.
Workers: TypeAlias = Annotated[int, typer.Option(help="Worker threads (0: one per CPU).", min=0)]
Memory: TypeAlias = Annotated[str, typer.Option(help="Memory limit, such as 400MB; fewer threads run if necessary.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result, progress and errors as JSON.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but results and errors.")]
Seed: TypeAlias = Annotated[
    int | None, typer.Option(help="Seed of random methods, overriding the recipe's.", min=0, max=2**64 - 1)
]

# Of tasks and their examples.
Tasks: TypeAlias = Annotated[list[str], typer.Option(help="Task: a YAML file, or module:function.", show_default=False)]
Limit: TypeAlias = Annotated[int | None, typer.Option(help="Use at most N examples per task.", min=1)]
BatchSize: TypeAlias = Annotated[int, typer.Option(help="Examples per batch.", min=1)]
Device: TypeAlias = Annotated[str, typer.Option(help="Device to run models on, as torch names it.")]
Module: TypeAlias = Annotated[str, typer.Option(help="module:function that builds the torch module to run.")]
Cache: TypeAlias = Annotated[Path | None, typer.Option(help="Folder that caches scores.", show_default=False)]
Html: TypeAlias = Annotated[Path | None, typer.Option(help="Write an HTML report here.", show_default=False)]

# Of training runs and their averages.
Run: TypeAlias = Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)]
Last: TypeAlias = Annotated[int | None, typer.Option(help="Average only the last N checkpoints.", min=1)]
Stride: TypeAlias = Annotated[int, typer.Option(help="Use every N-th checkpoint, counted from the latest.", min=1)]
After: TypeAlias = Annotated[float, typer.Option(help="Skip this first fraction of the run in averages.")]
Floor: TypeAlias = Annotated[float, typer.Option(help="Drop checkpoints below this share of the best metric.")]
Penalty: TypeAlias = Annotated[float, typer.Option(help="Strength of the metric weighting.")]
Decay: TypeAlias = Annotated[float, typer.Option(help="Decay of ema per checkpoint.")]
Better: TypeAlias = Annotated[
    bool | None,
    typer.Option("--higher-is-better/--lower-is-better", help="Direction of the metric, if its name is ambiguous."),
]
Table: TypeAlias = Annotated[
    Path | None, typer.Option(help="CSV with path, step and metrics, instead of the logs.", show_default=False)
]
Space: TypeAlias = Annotated[str, typer.Option(help="Average the product of an adapter's factors, or the factors.")]
Rank: TypeAlias = Annotated[int | None, typer.Option(help="Maximum rank of averaged adapters.", min=1)]
Key: TypeAlias = Annotated[str, typer.Option(help="Key of the state dict in pickled checkpoints.")]
Prefix: TypeAlias = Annotated[str, typer.Option(help="Prefix to strip from tensor names.")]
