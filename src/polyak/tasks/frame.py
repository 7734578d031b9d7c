"""The declaration of a kind of task, and the keys that descriptions of all kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..declare import Key, Registry, keys_of, summary_of
from ..errors import TaskError, suggestion
from ..modules import Build, from_factory
from ..reading import Place
from ._task import Task
from .examples import Body
from .rows import Rows
from .splits import Splits

if TYPE_CHECKING:
    from torch import nn

Make: TypeAlias = Callable[..., Task]  # (frame, *, keys) -> the task


@dataclass(frozen=True)
class Frame:
    """The keys that descriptions of all kinds have.

    Attributes:
        name: Name of the task in reports (default: the name of its file).
        splits: The files of the examples.
        model: Folder with the config of the models' architecture, and their tokenizer; None if a function makes it.
        tokenizer: Folder with the tokenizer; that of `model` unless given.
        heads: Regular expression for the tensors that stay with the task.
        head: The model whose head is used.
        unused: Regular expression for tensors that the module does not use.
        factory: Makes the module instead of transformers; only from Python or the command line.
        folder: Folder to which relative paths are relative.
        place: The description's file, for messages.
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

    def body(self, transformers: Callable[[Path], Build] | None = None) -> Body:
        """The module that runs the task: of the factory, or of transformers for a folder with a config.

        Args:
            transformers: From such a folder to a function that builds the module; None if the kind needs a factory.

        Raises:
            TaskError: there is neither a factory nor a config.
        """
        if self.factory is not None:
            return Body(from_factory(self.factory), self.heads, self.head, self.unused)
        if transformers is None:
            raise TaskError(
                f"{self.place.file}: this kind of task needs a function that makes the module: "
                "--module package.module:function, or `factory=` in Python."
            )
        own = self.head is not None and (self.head / "config.json").is_file()
        build = transformers(self.head if self.head is not None and own else self.config)
        return Body(build, self.heads, self.head, self.unused)

    @property
    def config(self) -> Path:
        """The folder with the architecture's config."""
        if self.model is None:
            raise TaskError(
                f"{self.place.file} names no model to run the task: name a folder with config.json as `model:`, or a "
                "function that makes the module as --module package.module:function."
            )
        return self.model

    def read(self, columns: Mapping[str, str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
        """The rows of each split, and notes on them."""
        return self.splits.read(columns)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings in the digest of a task, in addition to its examples and head."""
        return {"heads": self.heads, "unused": self.unused, "files": _small_files(self.model, self.tokenizer)}


@dataclass(frozen=True)
class TaskKind:
    """A declared kind of task.

    Attributes:
        name: The value of `kind:` in descriptions.
        fn: From a frame and the kind's own keys to the task.
        keys: The kind's own keys, by name.
    """

    name: str
    fn: Make
    keys: Mapping[str, Key]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return summary_of(self.fn)


def _unknown(name: str, names: Iterable[str]) -> TaskError:
    return TaskError(f"unknown kind of task {name!r}. {suggestion(name, names)}")


registry: Registry[TaskKind] = Registry(
    "task kind", package=f"{__package__}.kinds", group="polyak.tasks", unknown=_unknown
)


def task_kind(name: str) -> Callable[[Make], Make]:
    """Register the decorated function as the kind of task called `name`.

    It takes a `Frame`, and the keys of its descriptions as keyword-only parameters; it returns the task.

    Args:
        name: The value of `kind:` in descriptions, with dashes.

    Raises:
        DeclarationError: the name is taken, there is no docstring, or a key is not annotated.
    """

    def register(fn: Make) -> Make:
        registry.declare(name, fn, lambda owner: TaskKind(name, fn, keys_of(owner, fn)))
        return fn

    return register


def _small_files(*folders: Path | None) -> dict[str, str]:
    """Digests of configs and tokenizers, on which outputs depend."""
    import xxhash

    digests: dict[str, str] = {}
    for folder in dict.fromkeys(folder for folder in folders if folder is not None and folder.is_dir()):
        for kind in ("*config.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json"):
            for file in sorted(folder.glob(kind)):
                if file.is_file():
                    digests[file.name] = xxhash.xxh3_128_hexdigest(file.read_bytes())
    return digests
