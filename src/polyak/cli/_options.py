"""Options that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Tasks: TypeAlias = Annotated[
    list[str], typer.Option(help="A task: a YAML file, or module:function.", show_default=False)
]
Limit: TypeAlias = Annotated[int | None, typer.Option(help="At most so many examples a task.", min=1)]
BatchSize: TypeAlias = Annotated[int, typer.Option(help="Examples that go through a model together.", min=1)]
Device: TypeAlias = Annotated[str, typer.Option(help="Where models run, as torch names it.")]
Module: TypeAlias = Annotated[str, typer.Option(help="module:function that makes the torch module to run.")]
Cache: TypeAlias = Annotated[Path | None, typer.Option(help="Folder that keeps scores.", show_default=False)]
Html: TypeAlias = Annotated[Path | None, typer.Option(help="Write a report here.", show_default=False)]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]

# Of training runs and their averages.
Run: TypeAlias = Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)]
Last: TypeAlias = Annotated[int | None, typer.Option(help="Average only so many of the latest checkpoints.", min=1)]
Stride: TypeAlias = Annotated[int, typer.Option(help="Of the latest, every so manyth.", min=1)]
After: TypeAlias = Annotated[float, typer.Option(help="Leave this first fraction of the run out of averages.")]
Floor: TypeAlias = Annotated[float, typer.Option(help="Bad is less than this share of the best.")]
Penalty: TypeAlias = Annotated[float, typer.Option(help="How strongly the metric speaks.")]
Decay: TypeAlias = Annotated[float, typer.Option(help="For ema: an older checkpoint's share of a newer one's weight.")]
Better: TypeAlias = Annotated[
    bool | None,
    typer.Option("--higher-is-better/--lower-is-better", help="Of metrics, if their names are not clear."),
]
Table: TypeAlias = Annotated[
    Path | None, typer.Option(help="CSV with path, step and metrics, instead of the logs.", show_default=False)
]
Space: TypeAlias = Annotated[str, typer.Option(help="Of adapters: their product, or their factors each by itself.")]
Rank: TypeAlias = Annotated[int | None, typer.Option(help="Of averaged adapters: the most a module has.", min=1)]
Key: TypeAlias = Annotated[str, typer.Option(help="Where in a pickled checkpoint the state dict lies.")]
Prefix: TypeAlias = Annotated[str, typer.Option(help="What to remove from the beginning of tensor names.")]
