"""What `evaluate` and `compare` have in common: models, tasks, and the bar."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ._progress import Bar

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..tasks import Scorer


def named(texts: Iterable[str], option: str) -> dict[str, str]:
    """Models by name, from `NAME=PATH` or paths, whose names are those of their last part.

    Raises:
        typer.BadParameter: two have one name.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, is_named, path = text.partition("=")
        if not is_named or Path(text).exists():
            name, path = Path(text).name.removesuffix(".yaml").removesuffix(".safetensors") or text, text
        if name in found:
            message = f"two models are called {name!r}. Name them: NAME={found[name]} NAME={path}."
            raise typer.BadParameter(message, param_hint=option)
        found[name] = path
    return found


def open_model(path: str) -> Checkpoint:
    """A checkpoint; or the merge of a recipe, computed in memory."""
    from .. import api, checkpoint

    if Path(path).suffix not in (".yaml", ".yml"):
        return checkpoint.open(path)
    from ..checkpoint.memory import MemoryCheckpoint
    from ..engine import run_in_memory

    merged = run_in_memory(api.plan(path), workers=1)
    return MemoryCheckpoint({n: t for n, t in merged.items() if not n.startswith("heads/")}, label=path)


def load_tasks(texts: Sequence[str], module: str) -> list[Scorer]:
    """Tasks as the command line names them, described ones run by the modules that the function `module` makes."""
    from ..tasks import import_function, load_task

    factory = import_function(module) if module else None
    return [load_task(text, factory=factory) for text in texts]


@contextmanager
def watched(tasks: Iterable[Scorer], models: int, split: str, limit: int | None, *, quiet: bool) -> Generator[Bar]:
    """A bar over the examples of all tasks and models."""
    bar = Bar(quiet=quiet, doing="evaluating", unit="examples")
    counts = [task.count(split) or 0 for task in tasks if split in task.splits]
    bar.start(models * sum(count if limit is None else min(count, limit) for count in counts))
    for note in dict.fromkeys(f"{task.name}: {note}" for task in tasks for note in task.notes):
        bar.say(f"note: {note}")
    with bar:
        yield bar


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns; the first is aligned to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    )


def opened(models: Mapping[str, str]) -> dict[str, Checkpoint]:
    """All models, opened."""
    return {name: open_model(path) for name, path in models.items()}
