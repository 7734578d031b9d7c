"""Units, stages, and what identifies a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import DeclarationError

if TYPE_CHECKING:
    from ._desk import Desk

Result: TypeAlias = Mapping[str, Any]  # plain data
Results: TypeAlias = Mapping[str, Result]  # by the name of the unit
Work: TypeAlias = "Callable[[Desk, Any], Result]"  # a function of a module, so that other processes can import it

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Unit:
    """A part of a run that is done once.

    Attributes:
        name: Its name, which is also that of its folder: letters, digits, `.`, `_` and `-`.
        work: Does it: takes a `Desk` and `task`, and returns a result of plain data. A function of a module.
        task: The argument that distinguishes it from other units; can be pickled.
        steps: Amount of work, in the unit in which progress is counted.
        nbytes: About how many bytes it leaves on the disk.
        continues: An attempt continues from what a killed one has left in the unit's folder; otherwise that is removed.
        shown: The entry of its result, a mapping from names to numbers, that is shown when it is done.
    """

    name: str
    work: Work
    task: Any = None
    steps: int = 0
    nbytes: int = 0
    continues: bool = False
    shown: str = "metrics"


@dataclass(frozen=True)
class Stage:
    """Units that do not need each other, and may run at the same time.

    Attributes:
        units: The units.
        needs: Continue without units that failed, as long as this many are done; None needs all of them.
        removes: Units of this and earlier stages whose folders are removed once the stage is done.
    """

    units: Sequence[Unit]
    needs: int | None = None
    removes: Sequence[str] = ()


@dataclass(frozen=True)
class About:
    """The identity of a run: resumed is only what has the same.

    Attributes:
        recipe: Name of the recipe.
        settings: All settings, defaults too, as plain data.
        inputs: Digests of data and models, by name.
        versions: Versions of libraries; another version is told, not refused.
    """

    recipe: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


def check_stages(stages: Sequence[Stage]) -> None:
    """Refuse stages that could not be told apart on the disk.

    Raises:
        DeclarationError: two units have one name, or a name is not fit for a folder.
    """
    names = Counter(unit.name for stage in stages for unit in stage.units)
    for name, times in names.items():
        if times > 1 or not _NAME.fullmatch(name):
            problem = "is the name of two units" if times > 1 else "is not fit for the folder of a unit"
            raise DeclarationError(f"{name!r} {problem}. Name each unit with letters, digits, '.', '_' and '-'.")
