"""Models of units: read into live modules, written as folders, scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import Checkpoint
from ..statistics import write_with
from ..tasks import Task, evaluate, on_device

if TYPE_CHECKING:
    from ..modules import LiveModel
    from ._setup import Setup

BATCH = 256  # examples per batch where no gradients are needed


def live_model(setup: Setup, checkpoint: Checkpoint) -> LiveModel:
    """A checkpoint as a live module on the device of a run; the task's own head, if it has one, is frozen.

    Raises:
        TaskError: the task cannot run the model.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)  # a module may draw buffers that no checkpoint holds
        live = setup.task().live(checkpoint)
    on_device(live.module, setup.device)
    for name, parameter in live.module.named_parameters():
        if name in live.heads:
            parameter.requires_grad_(False)
    return live


def write_live(live: LiveModel, source: Checkpoint, out: Path, *, note: str) -> None:
    """Write the weights of a live module as a model folder.

    Args:
        live: The module.
        source: The checkpoint that it was made from, whose other files, names and dtypes the folder has.
        out: The folder.
        note: Origin of the weights, for the provenance.
    """
    write_with(source, live.read(), out, note=note, force=True)


def scores(
    setup: Setup, model: Path | Checkpoint, splits: tuple[str, ...] = ("validation",), task: Task | None = None
) -> dict[str, float]:
    """The task's metric on some splits, by the name of the split.

    Raises:
        TaskError: the model cannot run the task, or a score is not finite.
    """
    scored = task or setup.task()
    return {
        split: evaluate(model, scored, split=split, batch_size=BATCH, device=setup.device).metric_value
        for split in splits
    }


def with_metric(task: Task, values: Mapping[str, float]) -> dict[str, Any]:
    """Scores by names that tell the metric, such as `validation accuracy`."""
    return {f"{split} {task.metric}": value for split, value in values.items()}
