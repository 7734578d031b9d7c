"""Tasks by name on the command line: the file of a description, a Python function, or a task of lm-eval."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PolyakError, TaskError, suggestion
from ._task import Scorer
from .description import read_task
from .dividing import Divided
from .function import FunctionScorer, signature_of

if TYPE_CHECKING:
    from torch import nn


def load_task(text: str, *, factory: Callable[[], nn.Module] | None = None) -> Scorer:
    """A task by its name on the command line.

    Args:
        text: A YAML or JSON file; `lm-eval:TASK`, or `lm-eval:TASK@FOLDER` for task files of the user;
            `package.module:name`, which is imported and run: a task, a function that makes one, or a function from a
            checkpoint to one score per example. `,validation=0.5,test=0.5` after the last two divides test examples.
        factory: Makes the modules that run described tasks.

    Raises:
        TaskError: there is no such task, or its description is wrong.
    """
    if Path(text).suffix in (".yaml", ".yml", ".json") or Path(text).exists():
        return read_task(text, factory=factory)
    if ":" not in text:
        raise TaskError(f"unknown task {text!r}: name a YAML file, or a Python function as package.module:function.")
    source, *shares = text.split(",")
    scorer = _of_harness(source) if source.startswith("lm-eval:") else _of_function(source)
    return Divided(scorer, _fractions(shares, text)) if shares else scorer


def _of_harness(text: str) -> Scorer:
    from .harness import HarnessScorer

    name, _, folder = text.removeprefix("lm-eval:").partition("@")
    return HarnessScorer(name, folder=Path(folder) if folder else None)


def _of_function(text: str) -> Scorer:
    value = import_function(text)
    if isinstance(value, Scorer):
        return value
    if any(p.default is p.empty for p in signature_of(value, text).parameters.values()):
        return FunctionScorer(value, name=text.partition(":")[2])
    made = _called(value, text)
    if not isinstance(made, Scorer):
        raise TaskError(
            f"{text} returns an object of type {type(made).__name__}; expected a polyak.tasks.Task or Scorer."
        )
    return made


def _fractions(shares: Sequence[str], text: str) -> dict[str, float]:
    try:
        fractions = {split: float(share) for split, share in (part.split("=") for part in shares)}
    except ValueError:
        raise TaskError(
            f"{text!r}: expected SPLIT=FRACTION after each comma, such as `,validation=0.5,test=0.5`."
        ) from None
    if len(fractions) < len(shares):
        raise TaskError(f"{text!r} names a split twice. Give each split one fraction.")
    return fractions


def import_function(text: str) -> Any:
    """Import the object called `package.module:name`; the current folder is searched too.

    Raises:
        TaskError: there is no such module, or it has no such name.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise TaskError(f"{text!r} must be package.module:name, such as mytasks:score.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        imported = import_module(module)
    except Exception as error:
        raise TaskError(f"the module {module!r} cannot be imported: {error} ({type(error).__name__}).") from error
    if not hasattr(imported, name):
        raise TaskError(f"the module {module!r} has no {name!r}. {suggestion(name, _callables(imported))}")
    value = getattr(imported, name)
    if not callable(value) and not isinstance(value, Scorer):
        raise TaskError(f"{text} is of type {type(value).__name__}; expected a function.")
    return value


def _callables(module: object) -> list[str]:
    """Names of the public callables of a module."""
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _called(function: Callable[[], Any], text: str) -> Any:
    try:
        return function()
    except PolyakError:
        raise
    except Exception as error:
        raise TaskError(f"{text} fails: {error} ({type(error).__name__}).") from error
