"""Tasks described in YAML: plain data, read strictly; nothing in a description is ever run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError, TaskError
from ..modules.recognition import Build, from_factory
from ..reading import Place, Table, integer, is_list, is_mapping, number, one_of, pattern, patterns, read_file, text
from . import kinds
from ._api import SPLITS, Task
from .examples import Body
from .rows import Rows
from .splits import Part, Splits

if TYPE_CHECKING:
    from torch import nn

KINDS = tuple(sorted(found.name.replace("_", "-") for found in iter_modules(kinds.__path__)))


@dataclass(frozen=True)
class Frame:
    """What all kinds of tasks are described by.

    Attributes:
        name: What reports call the task; its file's name if it has no other.
        splits: Where the examples are.
        model: Folder with the config of the models' architecture, and their tokenizer; None where a function makes it.
        tokenizer: Folder with the tokenizer; that of `model` unless given.
        heads: Regular expression for the tensors that stay with the task.
        head: The model that they are read from.
        unused: Regular expression for tensors that the module has no use for.
        factory: Makes the module instead of transformers; only ever from Python or the command line.
        folder: What relative paths are relative to.
        place: Where the description stands.
    """

    name: str
    splits: Splits
    model: Path | None
    tokenizer: Path | None
    heads: str
    head: Path | None
    unused: str
    factory: Callable[[], nn.Module] | None
    folder: Path
    place: Place

    def body(self, transformers: Callable[[Path], Build]) -> Body:
        """What runs the task: the function's module, or that of transformers for a folder with its config.

        Raises:
            TaskError: there is neither.
        """
        if self.factory is not None:
            build = from_factory(self.factory)
        else:
            own = self.head is not None and (self.head / "config.json").is_file()
            build = transformers(self.head if self.head is not None and own else self.config)
        return Body(build, self.heads, self.head, self.unused)

    @property
    def config(self) -> Path:
        """The folder with the architecture's config."""
        if self.model is None:
            raise TaskError(
                f"{self.place.file} does not say what runs the task: name a folder with config.json as `model:`, or a "
                "function that makes the module as --module package.module:function."
            )
        return self.model

    def read(self, columns: Mapping[str, str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
        """The rows of each split, and notes on them."""
        return self.splits.read(columns)

    @property
    def settings(self) -> dict[str, Any]:
        """What the digest of a task covers beside its examples and its head."""
        return {"heads": self.heads, "unused": self.unused, "files": _small_files(self.model, self.tokenizer)}


def read_task(path: str | Path, *, factory: Callable[[], nn.Module] | None = None) -> Task:
    """Read the description of a task from a YAML or JSON file, and its examples from where it says.

    Args:
        path: The description; relative paths in it are relative to its folder.
        factory: Makes the module that runs the task, instead of transformers; the names in its state dict must be those
            of the models' tensors.

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
        data: What a file would hold.
        folder: What relative paths are relative to.
        factory: As for `read_task`.
        where: What messages call the description.
        name: The task's name if the description gives none.

    Raises:
        TaskError: the description or the data is wrong.
    """
    try:
        table = Table(data, Place(where, whole="the task"))
        kind = import_module(f"{kinds.__name__}.{table.take('kind', one_of(KINDS)).replace('-', '_')}")
        frame = _frame(table, Path(folder), factory, name)
        make = kind.read(table)
        table.finish()
    except RecipeError as error:
        raise TaskError(str(error)) from None
    return make(frame)


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
    found = table.take("match", pattern), table.take("from", path, None)
    table.finish()
    return found


def _splits(table: Table, path: Callable[[object, Place], Path]) -> Splits:
    whole = table.take("data", lambda value, place: _part(value, place, path), None)
    seed = table.take("seed", integer, 0)
    place = table.place / "splits"
    given = table.take("splits", Table, None)
    if given is None:
        if whole is None:
            raise table.place.error("has no examples", "Name their file as `data:`, or one a split as `splits:`.")
        return Splits({"test": whole})
    if whole is not None:
        fractions = {name: given.take(name, _fraction) for name in SPLITS if name in given}
        given.known.extend(SPLITS)
        given.finish()
        if sum(fractions.values()) > 1 + 1e-9:
            raise place.error(f"adds up to {sum(fractions.values()):g}, which is more than the whole of `data`")
        return Splits({"": whole}, fractions, seed)
    parts = {name: given.take(name, lambda value, at: _part(value, at, path)) for name in SPLITS if name in given}
    given.known.extend(SPLITS)
    given.finish()
    if not parts:
        raise place.error("is empty", f"Name the examples of one or more of {', '.join(SPLITS)}.")
    return Splits(parts)


def _part(value: object, place: Place, path: Callable[[object, Place], Path]) -> Part:
    if not is_mapping(value):
        return Part(path(value, place))
    table = Table(value, place)
    found = Part(
        table.take("data", path),
        table.take("part", text, ""),
        table.take("rows", _range, None),
        {name: table.take(name, text) for name in table.left() if name not in ("data", "part", "rows")},
    )
    table.finish()
    return found


def _range(value: object, place: Place) -> tuple[int, int]:
    if not is_list(value) or len(value) != 2:
        raise place.wanted("[first, one past the last]", value)
    return integer(value[0], place[0]), integer(value[1], place[1])


def _fraction(value: object, place: Place) -> float:
    found = number(value, place)
    if not 0 < found <= 1:
        raise place.wanted("a share of `data`, above 0 and at most 1", value)
    return found


def _small_files(*folders: Path | None) -> dict[str, str]:
    """Digests of configs and tokenizers: what a model says depends on them."""
    import xxhash

    found: dict[str, str] = {}
    for folder in dict.fromkeys(folder for folder in folders if folder is not None and folder.is_dir()):
        for kind in ("*config.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json"):
            for file in sorted(folder.glob(kind)):
                if file.is_file():
                    found[file.name] = xxhash.xxh3_128_hexdigest(file.read_bytes())
    return found
