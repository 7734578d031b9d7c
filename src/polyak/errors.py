"""Every exception that polyak raises on purpose.

PolyakError                 (exit code)
├── RecipeError             3   the recipe asks for something that cannot be
│   ├── SettingError        3   a setting is missing, unknown, of the wrong kind or out of range
│   └── UnknownMethod       3   no merge method has this name
├── CheckpointError         4   an input is not what it says it is, or cannot be read
│   ├── UnsupportedFormat   4   a format that polyak knows and refuses, by name
│   ├── Mismatch            4   the models of a merge do not fit together
│   ├── NotFinite           4   a tensor holds NaN or infinity
│   └── InputChanged        4   an input changed while it was being read
├── OutputError             5   the result cannot be written where it was asked for
│   ├── OutputExists        5   something is there already
│   ├── OutputBusy          5   another merge is writing there
│   └── CannotResume        5   the partial work there belongs to another plan
├── BudgetError             5   the work does not fit into the memory that was allowed
├── VerificationFailed      6   a merged model is not what its provenance says
├── KernelUnavailable       1   a kernel is neither in this installation's library nor can it be compiled here
├── TaskError               7   a task's description or data is wrong, or a model cannot do the task
└── DeclarationError        -   an extension is declared wrongly (raised at import, for its author)

Each message names the culprit, what was wanted, what was found, and the remedy where there is one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from difflib import get_close_matches

from .remedies import Door, Remedy, worded


class PolyakError(Exception):
    """Base class: catch this to catch everything that polyak raises on purpose.

    Args:
        problem: The culprit, what was wanted and what was found; with a remedy that is the same everywhere.
        remedies: Remedies whose words depend on the file or command at hand.

    Attributes:
        at: The door through which the user came; None until it is told, and then the words are a recipe's.
    """

    exit_code = 1
    remedies: tuple[Remedy, ...]
    at: Door | None

    def __init__(self, problem: str = "", *more: object, remedies: Iterable[Remedy] = ()) -> None:
        super().__init__(problem, *more)
        self.remedies, self.at = tuple(remedies), None

    def __str__(self) -> str:
        problem, words = super().__str__(), worded(self.remedies, self.at or "recipe")
        between = "\n  " if "\n" in problem else " "
        return f"{problem}{between}{words}" if words else problem


@contextmanager
def told_at(door: Door) -> Generator[None]:
    """Word the remedies of errors that leave the `with` for a door, unless an inner door has worded them."""
    try:
        yield
    except PolyakError as error:
        error.at = error.at or door
        raise


class RecipeError(PolyakError, ValueError):
    """The recipe asks for something that cannot be."""

    exit_code = 3


class SettingError(RecipeError):
    """A setting is missing, unknown, of the wrong kind or out of range."""


class UnknownMethod(RecipeError):
    """No merge method has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no merge method is called {name!r}. {suggestion(name, known)}")


class CheckpointError(PolyakError):
    """An input is not what it says it is, or cannot be read."""

    exit_code = 4


class UnsupportedFormat(CheckpointError):
    """A format that polyak knows and refuses, by name."""


class Mismatch(CheckpointError):
    """The models of a merge do not fit together."""


class NotFinite(CheckpointError):
    """A tensor holds NaN or infinity."""


class InputChanged(CheckpointError):
    """An input changed while it was being read."""


class OutputError(PolyakError):
    """The result cannot be written where it was asked for."""

    exit_code = 5


class OutputExists(OutputError):
    """Something is there already."""


class OutputBusy(OutputError):
    """Another merge is writing there."""


class CannotResume(OutputError):
    """The partial work there belongs to another plan."""


class BudgetError(PolyakError):
    """The work does not fit into the memory that was allowed."""

    exit_code = 5


class VerificationFailed(PolyakError):
    """A merged model is not what its provenance says."""

    exit_code = 6


class KernelUnavailable(PolyakError):
    """A kernel is neither in this installation's library nor can it be compiled here."""


class TaskError(PolyakError):
    """A task's description or data is wrong, or a model cannot do the task."""

    exit_code = 7


class DeclarationError(PolyakError, TypeError):
    """An extension is declared wrongly; raised when its module is imported."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Suggest the name in `known` that is most similar to `name`, or list them all."""
    names = sorted(known)
    if close := get_close_matches(name, names, n=1):
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}." if names else "There are none."
