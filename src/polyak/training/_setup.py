"""The keys that all training recipes share: task, model, optimiser, and how a run is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

from ..errors import RecipeError
from ..reading import Place, integer, is_mapping, number, positive, text
from ..tasks import Task, import_function, load_task, task_of

if TYPE_CHECKING:
    from torch import nn

    from ..checkpoint import Checkpoint

Optimizer: TypeAlias = Literal["sgd", "adamw"]
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class Optimisation:
    """The optimiser, and the batches that it sees.

    Attributes:
        optimizer: `sgd` or `adamw`.
        learning_rate: Peak learning rate.
        weight_decay: Decay of matrices and filters; biases and norms (one axis) do not decay.
        momentum: Momentum of SGD.
        batch_size: Examples per batch.
        accumulate: Batches per step.
        clip: Maximum norm of the gradient; 0 does not clip.
        precision: Precision of the forward pass; weights and optimiser stay in float32.
    """

    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    momentum: float
    batch_size: int
    accumulate: int
    clip: float
    precision: Precision

    def steps_per_epoch(self, examples: int) -> int:
        """Steps per epoch; the last batch may be smaller."""
        return max(1, math.ceil(math.ceil(examples / self.batch_size) / self.accumulate))


@dataclass(frozen=True)
class Setup:
    """The keys that all recipes have in common; plain data, unless Python passes objects.

    Attributes:
        task_source: A task file, `package.module:function`, a description as a mapping, or a task.
        module: `package.module:function` that makes the module, or such a function; None leaves it to transformers.
        model: Folder or file of the model to begin with; None begins with what `module` makes.
        seed: Seed of initial weights, order of examples and dropout.
        device: Device, as torch names it.
        epochs: Epochs of the (original) training.
        how: The optimiser.
        log_every: Steps between two lines of metrics.
        checkpoint_every: Steps between two checkpoints from which a killed unit continues; 0 begins it again.
        folder: Folder to which relative paths in a description are relative.
    """

    task_source: Any
    module: Any
    model: Path | None
    seed: int
    device: str
    epochs: float
    how: Optimisation
    log_every: int
    checkpoint_every: int
    folder: Path

    @property
    def continues(self) -> bool:
        """True if a killed unit continues from a checkpoint: the `continues` of units that use `fit`."""
        return self.checkpoint_every > 0

    @property
    def factory(self) -> Callable[[], nn.Module] | None:
        """The function that makes the module."""
        return import_function(self.module) if isinstance(self.module, str) else self.module

    def task(self) -> Task:
        """The task; it is read once per process.

        Raises:
            TaskError: its description or data is wrong, or it exposes no module.
        """
        if isinstance(self.task_source, str) and (self.module is None or isinstance(self.module, str)):
            return _task_of_file(self.task_source, self.module)
        if is_mapping(self.task_source):
            return task_of(self.task_source, self.folder, factory=self.factory)
        return _trainable(load_task(self.task_source, factory=self.factory) if _is_text(self) else self.task_source)

    def checked_task(self) -> Task:
        """The task, which has what training needs.

        Raises:
            TaskError: a split is missing, or the task gives no examples by position.
        """
        task = self.task()
        for split in (TRAIN, VALIDATION, TEST):
            task.check_split(split)
        task.batch(TRAIN, [0])
        return task

    def start(self) -> Checkpoint:
        """The model to begin with: that of `model`, or what `module` makes with this seed.

        Raises:
            CheckpointError: it cannot be read.
            RecipeError: there is neither a model nor a module.
        """
        from .. import checkpoint

        if self.model is not None:
            return checkpoint.open(self.model)
        if (factory := self.factory) is None:
            raise RecipeError(
                "the recipe has no model. Name a folder as `model:`, or what makes a module as `module:`."
            )
        return checkpoint.MemoryCheckpoint(_initial(factory, self.seed), label="the initial weights")

    def steps(self, epochs: float, examples: int) -> int:
        """Number of steps of a training of some epochs."""
        return max(1, round(epochs * self.how.steps_per_epoch(examples)))


def _is_text(setup: Setup) -> bool:
    return isinstance(setup.task_source, str)


@lru_cache(maxsize=2)
def _task_of_file(source: str, module: str | None) -> Task:
    return _trainable(load_task(source, factory=None if module is None else import_function(module)))


def forget_tasks() -> None:
    """Read tasks again the next time: their files may have changed."""
    _task_of_file.cache_clear()


def _trainable(task: object) -> Task:
    if not isinstance(task, Task):
        name = getattr(task, "name", task)
        raise RecipeError(f"task {name!r} scores whole models and exposes no module, so nothing can be trained on it.")
    return task


def _initial(factory: Callable[[], nn.Module], seed: int) -> dict[str, Any]:
    import torch

    from ..modules import entries

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: entry.detach() for name, entry in entries(factory().float()).items()}


def _task(value: object, place: Place) -> Any:
    return text(value, place) if isinstance(value, str) else _object_or_mapping(value, place)


def _object_or_mapping(value: object, place: Place) -> Any:
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, Task) and not is_mapping(value):
        raise place.expected("a task file, package.module:function, or the keys of a task", value)
    return cast("Any", value)


def _module(value: object, place: Place) -> Any:
    if not isinstance(value, str) and not callable(value):
        raise place.expected("package.module:function", value)
    return value


def _model(value: object, place: Place) -> Any:
    return Path(text(str(value) if isinstance(value, Path) else value, place)).expanduser()


def _above_zero(value: object, place: Place) -> float:
    if (read := number(value, place)) <= 0:
        raise place.expected("above 0", value)
    return read


def _not_negative(value: object, place: Place) -> float:
    if (read := number(value, place)) < 0:
        raise place.expected("at least 0", value)
    return read


def _below_one(value: object, place: Place) -> float:
    if not 0 <= (read := number(value, place)) < 1:
        raise place.expected("at least 0 and below 1", value)
    return read


def common(
    *,
    task: Annotated[Any, _task],
    module: Annotated[Any, _module] = None,
    model: Annotated[Any, _model] = None,
    seed: Annotated[int, integer] = 0,
    device: str = "cpu",
    epochs: Annotated[float, _above_zero] = 3.0,
    optimizer: Optimizer = "adamw",
    learning_rate: Annotated[float, _above_zero] = 1e-3,
    weight_decay: Annotated[float, _not_negative] = 0.0,
    momentum: Annotated[float, _below_one] = 0.9,
    batch_size: Annotated[int, positive] = 32,
    accumulate: Annotated[int, positive] = 1,
    clip: Annotated[float, _not_negative] = 0.0,
    precision: Precision = "float32",
    log_every: Annotated[int, positive] = 50,
    checkpoint_every: Annotated[int, integer] = 0,
) -> Setup:
    """The keys that all recipes share.

    Args:
        task: A task file, `package.module:function`, or the keys of a task file.
        module: `package.module:function` that makes the torch module (default: transformers, by the task's `model`).
        model: Folder or file of the model to begin with (default: what `module` makes).
        seed: Seed of initial weights, order of examples and dropout.
        device: Device, as torch names it.
        epochs: Epochs of the training.
        optimizer: `sgd` or `adamw`.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay of matrices and filters.
        momentum: Momentum of SGD.
        batch_size: Examples per batch.
        accumulate: Batches per step.
        clip: Maximum norm of the gradient; 0 does not clip.
        precision: Precision of the forward pass.
        log_every: Steps between two lines of metrics.
        checkpoint_every: Steps between two checkpoints from which a killed unit continues; 0 begins it again.
    """
    how = Optimisation(
        optimizer, learning_rate, weight_decay, momentum, batch_size, accumulate, clip, precision
    )  # fmt: skip
    return Setup(task, module, model, seed, device, epochs, how, log_every, checkpoint_every, Path())


def placed(setup: Setup, folder: Path) -> Setup:
    """The setup with paths that are relative to a folder made absolute."""
    from dataclasses import replace

    source = setup.task_source
    if isinstance(source, str) and ":" not in source:
        source = str((folder / Path(source).expanduser()).absolute())
    model = None if setup.model is None else (folder / setup.model).absolute()
    return replace(setup, task_source=source, model=model, folder=folder.absolute())


def as_data(setup: Setup) -> Mapping[str, Any]:
    """The setup as plain data, by its keys; objects of Python by their names."""
    from dataclasses import asdict

    module = setup.module if setup.module is None or isinstance(setup.module, str) else _name_of(setup.module)
    source = setup.task_source
    named = source if isinstance(source, str) or is_mapping(source) else source.name
    return {
        "task": named,
        **({} if module is None else {"module": module}),
        **({} if setup.model is None else {"model": str(setup.model)}),
        "seed": setup.seed,
        "device": setup.device,
        "epochs": setup.epochs,
        **asdict(setup.how),
        "log_every": setup.log_every,
        "checkpoint_every": setup.checkpoint_every,
    }


def _name_of(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}"
