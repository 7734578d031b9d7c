"""Tasks as the command line names them: a description's file, a Python function, or a task of lm-eval."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PolyakError, TaskError, suggestion
from ._api import Scorer
from .description import read_task
from .function import FunctionScorer

if TYPE_CHECKING:
    from torch import nn


def load_task(text: str, *, factory: Callable[[], nn.Module] | None = None) -> Scorer:
    """A task by what a user types.

    Args:
        text: A YAML or JSON file; `lm-eval:TASK`, or `lm-eval:TASK@FOLDER` for task files of the user's;
            `package.module:name`, which is imported and run: a task, a function that makes one, or a function from a
            checkpoint to one number an example.
        factory: Makes the modules that run described tasks.

    Raises:
        TaskError: there is no such task, or it is described wrongly.
    """
    if Path(text).suffix in (".yaml", ".yml", ".json") or Path(text).exists():
        return read_task(text, factory=factory)
    if text.startswith("lm-eval:"):
        from .harness import HarnessScorer

        name, _, folder = text.removeprefix("lm-eval:").partition("@")
        return HarnessScorer(name, folder=Path(folder) if folder else None)
    if ":" not in text:
        raise TaskError(f"{text} is no task: name a YAML file, or a Python function as package.module:function.")
    found = import_function(text)
    if isinstance(found, Scorer):
        return found
    takes = [p for p in inspect.signature(found).parameters.values() if p.default is inspect.Parameter.empty]
    if takes:
        return FunctionScorer(found)
    made = _called(found, text)
    if not isinstance(made, Scorer):
        raise TaskError(f"{text} returns a {type(made).__name__}; expected a polyak.tasks.Task or Scorer.")
    return made


def import_function(text: str) -> Any:
    """What `package.module:name` names; the current folder is searched too.

    Raises:
        TaskError: there is no such module, or nothing of that name in it.
    """
    module, _, name = text.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = import_module(module)
    except Exception as error:
        raise TaskError(f"the module {module!r} cannot be imported: {error} ({type(error).__name__}).") from error
    if not hasattr(found, name):
        raise TaskError(f"the module {module!r} has no {name!r}. {suggestion(name, _callables(found))}")
    value = getattr(found, name)
    if not callable(value) and not isinstance(value, Scorer):
        raise TaskError(f"{text} is a {type(value).__name__}; expected a function.")
    return value


def _callables(module: object) -> list[str]:
    """What the module has that could be meant."""
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _called(function: Callable[[], Any], text: str) -> Any:
    try:
        return function()
    except PolyakError:
        raise
    except Exception as error:
        raise TaskError(f"{text} fails: {error} ({type(error).__name__}).") from error
