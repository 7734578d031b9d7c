"""The target languages: their tasks by a pattern of files, and checks that they fit the source's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from glob import escape, glob
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import RecipeError, TaskError
from ...tasks import ExampleTask, Task
from .._setup import TEST, TRAIN, Setup
from .options import Options

LANGUAGE = "{language}"


def targets_of(targets: Any, languages: Sequence[str], folder: Path) -> dict[str, Any]:
    """The source of the task of each target language.

    Args:
        targets: A path with `{language}`, or a mapping from languages to tasks.
        languages: The languages; all that are there if empty.
        folder: Folder to which the path is relative.

    Raises:
        RecipeError: languages have no data, which the message names, or there is none.
    """
    there = dict(targets) if isinstance(targets, Mapping) else _files(str(targets), folder)
    wanted = list(languages) or sorted(there)
    if absent := [language for language in wanted if language not in there]:
        known = ", ".join(sorted(there)) or "none"
        raise RecipeError(f"no data for the languages {', '.join(absent)}. {targets!s:.200} has: {known}.")
    if not wanted:
        raise RecipeError(f"no language has data: no file matches {targets!s:.200}.")
    if twice := sorted({language for language in wanted if wanted.count(language) > 1}):
        raise RecipeError(f"`languages` has {twice[0]!r} twice.")
    return {language: there[language] for language in wanted}


def _files(pattern: str, folder: Path) -> dict[str, str]:
    whole = str((folder / Path(pattern).expanduser()).absolute())
    if whole.count(LANGUAGE) != 1:
        raise RecipeError(f"`targets` must have {LANGUAGE} once, in place of the language; got {pattern!r}.")
    before, after = whole.split(LANGUAGE)
    name = re.compile(f"{re.escape(before)}([^/\\\\]+){re.escape(after)}")
    paths = sorted(glob(f"{escape(before)}*{escape(after)}"))  # noqa: PTH207 - an absolute pattern
    return {match[1]: path for path in paths if (match := name.fullmatch(path))}


def read_targets(options: Options) -> dict[str, Task]:
    """The task of each target language.

    Raises:
        TaskError: one does not fit; the message names its language.
    """
    return {language: _task(options.setup, source, language) for language, source in options.targets.items()}


def _task(setup: Setup, source: Any, language: str) -> Task:
    try:
        task = replace(setup, task_source=source).task()
    except TaskError as error:
        raise TaskError(f"language {language!r}: {error}") from error
    return task


def check_targets(source: Task, targets: Mapping[str, Task], options: Options) -> tuple[str, ...]:
    """Check that the targets can be scored with a model of the source; notes on what is unusual.

    Raises:
        TaskError: a split is missing, labels are in another order, or labels are unseen in training.
    """
    notes: list[str] = []
    seen = _labels(source, TRAIN)
    for language, task in targets.items():
        _check_splits(task, language, options)
        if _names(task) != _names(source):
            raise TaskError(
                f"language {language!r}: its labels are {_names(task)}, those of the source {_names(source)}; the head "
                "needs the same, in the same order."
            )
        if unseen := sorted(_labels(task, TEST) - seen):
            said = f"{language}: labels {', '.join(unseen)} of the test split are unseen in training"
            if options.unseen == "refuse":
                raise TaskError(f"{said}. Remove these examples, or say `unseen_labels: count` to count them as wrong.")
            notes.append(f"{said}; they count as wrong")
    return tuple(notes)


def _check_splits(task: Task, language: str, options: Options) -> None:
    for split in [TEST, *([TRAIN] if options.few_shot != "none" else [])]:
        try:
            task.check_split(split)
        except TaskError as error:
            raise TaskError(f"language {language!r}: {error}") from error


def _names(task: Task) -> list[str]:
    return list(getattr(task, "labels", ()))


def _labels(task: Task, split: str) -> set[str]:
    """The labels of the examples of a split, by name where they have names; none for tasks without labels."""
    if not isinstance(task, ExampleTask):
        return set()
    rows, names = task.data[split], _names(task)
    found: Iterable[Any] = rows.columns.get("label", ())
    if "tags" in rows.columns:
        found = chain.from_iterable(rows.columns["tags"])
    return {names[label] if isinstance(label, int) and label < len(names) else str(label) for label in set(found)}
