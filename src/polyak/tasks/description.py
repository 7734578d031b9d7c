"""Tasks described in YAML: plain data, read strictly; no code in a description is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..declare import read_keys
from ..errors import RecipeError, TaskError, suggestion
from ..reading import Place, Table, integer, is_list, is_mapping, number, pattern, patterns, read_file, text
from ._batch import SPLITS
from ._task import Task
from .frame import Frame, TaskKind, registry
from .splits import Part, Splits

if TYPE_CHECKING:
    from torch import nn


def read_task(path: str | Path, *, factory: Callable[[], nn.Module] | None = None) -> Task:
    """Read the description of a task from a YAML or JSON file, and the examples that it names.

    Args:
        path: The description; relative paths in it are relative to its folder.
        factory: Makes the module that runs the task, instead of transformers; its state dict must have the names of the
            models' tensors.

    Raises:
        TaskError: the description or the data is wrong.
    """
    file = Path(path)
    try:
        data = read_file(file)
    except RecipeError as error:
        raise TaskError(str(error)) from None
    return task_of(data, file.parent, factory=factory, where=str(file), name=file.name.partition(".")[0])


def task_of(
    data: object,
    folder: str | Path = ".",
    *,
    factory: Callable[[], nn.Module] | None = None,
    where: str = "the task",
    name: str = "task",
) -> Task:
    """A task from its description as plain data.

    Args:
        data: The contents of a description file.
        folder: Folder to which relative paths are relative.
        factory: As for `read_task`.
        where: Name of the description in messages.
        name: The task's name if the description gives none.

    Raises:
        TaskError: the description or the data is wrong.
    """
    try:
        table = Table(data, Place(where, whole="the task"))
        kind = table.take("kind", _kind)
        frame = _frame(table, Path(folder), factory, name)
        keys = read_keys(kind.keys, table)
        table.finish()
        return kind.fn(frame, **keys)
    except RecipeError as error:
        raise TaskError(str(error)) from None


def _kind(value: object, place: Place) -> TaskKind:
    written = text(value, place)
    try:
        return registry.resolve(written)
    except TaskError:
        near = suggestion(written, registry)
        raise place.expected(f"one of {', '.join(registry)}", value, near if near.startswith("Did") else "") from None


def _frame(table: Table, folder: Path, factory: Callable[[], nn.Module] | None, name: str) -> Frame:
    def path(value: object, place: Place) -> Path:
        return folder / Path(text(value, place)).expanduser()

    model = table.take("model", path, None)
    heads, head = table.take("heads", lambda value, place: _heads(value, place, path), ("", None))
    return Frame(
        name=table.take("name", text, name),
        splits=_splits(table, path),
        model=model,
        tokenizer=table.take("tokenizer", path, model),
        heads=heads,
        head=head,
        unused=table.take("unused", patterns, ""),
        factory=factory,
        folder=folder,
        place=table.place,
    )


def _heads(value: object, place: Place, path: Callable[[object, Place], Path]) -> tuple[str, Path | None]:
    if not is_mapping(value):
        return patterns(value, place), None
    table = Table(value, place)
    match_and_folder = table.take("match", pattern), table.take("from", path, None)
    table.finish()
    return match_and_folder


def _splits(table: Table, path: Callable[[object, Place], Path]) -> Splits:
    whole = table.take("data", lambda value, place: _part(value, place, path), None)
    seed = table.take("seed", integer, 0)
    place = table.place / "splits"
    section = table.take("splits", Table, None)
    if section is None:
        if whole is None:
            raise table.place.error(
                "has no examples", "Name their file as `data:`, or one file per split as `splits:`."
            )
        return Splits({"test": whole})
    if whole is not None:
        fractions = {name: section.take(name, _fraction) for name in SPLITS if name in section}
        section.known_keys.extend(SPLITS)
        section.finish()
        if sum(fractions.values()) > 1 + 1e-9:
            raise place.error(f"adds up to {sum(fractions.values()):g}, which is more than the whole of `data`")
        return Splits({"": whole}, fractions, seed)
    parts = {name: section.take(name, lambda value, at: _part(value, at, path)) for name in SPLITS if name in section}
    section.known_keys.extend(SPLITS)
    section.finish()
    if not parts:
        raise place.error("is empty", f"Name the examples of one or more of {', '.join(SPLITS)}.")
    return Splits(parts)


def _part(value: object, place: Place, path: Callable[[object, Place], Path]) -> Part:
    if not is_mapping(value):
        return Part(path(value, place))
    table = Table(value, place)
    part = Part(
        table.take("data", path),
        table.take("part", text, ""),
        table.take("rows", _range, None),
        {name: table.take(name, text) for name in table.left() if name not in ("data", "part", "rows")},
    )
    table.finish()
    return part


def _range(value: object, place: Place) -> tuple[int, int]:
    if not is_list(value) or len(value) != 2:
        raise place.expected("[first, one past the last]", value)
    return integer(value[0], place[0]), integer(value[1], place[1])


def _fraction(value: object, place: Place) -> float:
    fraction = number(value, place)
    if not 0 < fraction <= 1:
        raise place.expected("a share of `data`, above 0 and at most 1", value)
    return fraction
