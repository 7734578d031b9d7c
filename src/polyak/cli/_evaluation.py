"""Models, tasks and progress of the commands that evaluate."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ._progress import reporter

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..events import Reporter
    from ..tasks import Scorer


def named(texts: Iterable[str], option: str) -> dict[str, str]:
    """Models by name, from `NAME=PATH`, or from paths, which are named by their last component.

    Raises:
        typer.BadParameter: two have the same name.
    """
    paths: dict[str, str] = {}
    for text in texts:
        name, is_named, path = text.partition("=")
        if not is_named or Path(text).exists():
            name, path = Path(text).name.removesuffix(".yaml").removesuffix(".safetensors") or text, text
        if name in paths:
            message = f"two models are named {name!r}. Name them: NAME={paths[name]} NAME={path}."
            raise typer.BadParameter(message, param_hint=option)
        paths[name] = path
    return paths


def open_model(path: str) -> Checkpoint:
    """A checkpoint, or the merge of a recipe, computed in memory."""
    from .. import api, checkpoint

    if Path(path).suffix not in (".yaml", ".yml"):
        return checkpoint.open(path)
    from ..checkpoint import MemoryCheckpoint
    from ..engine import run_in_memory

    merged = run_in_memory(api.plan(path), workers=1)
    return MemoryCheckpoint({n: t for n, t in merged.items() if not n.startswith("heads/")}, label=path)


def load_tasks(texts: Sequence[str], module: str) -> list[Scorer]:
    """Tasks as the command line names them; those of YAML files run modules built by the function `module`."""
    from ..tasks.loading import import_function, load_task

    factory = import_function(module) if module else None
    return [load_task(text, factory=factory) for text in texts]


@contextmanager
def evaluating(
    tasks: Iterable[Scorer], models: int, split: str, limit: int | None, *, quiet: bool, as_json: bool
) -> Generator[Reporter]:
    """Progress over the examples of all tasks and models."""
    counts = [task.count(split) or 0 for task in tasks if split in task.splits]
    with reporter("evaluating", "examples", quiet=quiet, as_json=as_json) as progress:
        for note in dict.fromkeys(f"{task.name}: {note}" for task in tasks for note in task.notes):
            progress.say(f"note: {note}")
        progress.start(models * sum(count if limit is None else min(count, limit) for count in counts))
        yield progress


def opened(models: Mapping[str, str]) -> dict[str, Checkpoint]:
    """Open models by name."""
    return {name: open_model(path) for name, path in models.items()}
