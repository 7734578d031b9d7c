"""The units that score: the strategies of a run, and those over several runs, on every target language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...averaging import (
    Choice,
    Mixture,
    Opener,
    RunCheckpoint,
    Weighting,
    best_on_source,
    best_on_target,
    checkpoint_average,
    decay_average,
    last_checkpoint,
    recipe_of,
    run_average,
)
from ...checkpoint import Checkpoint
from ...checkpoint import open as open_checkpoint
from ...engine import run as write_merge
from ...errors import SettingError
from ...learn import learn
from ...planning import plan
from ...runs import Desk
from ...tasks import joined, scored, summary
from .._models import live_model
from .._setup import TEST, VALIDATION
from .languages import read_targets
from .options import MODEL, START, Options, Run
from .running import checkpoints_of

if TYPE_CHECKING:
    from ...tasks import Task

_BATCH = 64
SOURCE, DEV = "source", "dev"  # the source language in tables; the metric of checkpoints
RESULT = "RA of CA"


class Judge:
    """One live module that takes the weights of every model, and the tasks on which it is scored.

    Args of the constructor:
        desk: The desk of the unit.
        options: The settings.
    """

    def __init__(self, desk: Desk, options: Options) -> None:
        self.options, self._opener = options, Opener()
        self.source, self.targets = options.setup.task(), read_targets(options)
        with open_checkpoint(desk.folder_of(START) / MODEL) as start:
            self._live = live_model(options.setup, start)

    def score(self, mixture: Mixture, languages: Sequence[str] | None = None) -> dict[str, float]:
        """The metric of a mixture on the test split of the source and of target languages (default: of all)."""
        with self._opener.average(recipe_of(mixture)) as model:
            self._live.load(model)
        tasks: dict[str, Task] = {SOURCE: self.source, **self.targets}
        return {name: self._metric(tasks[name], TEST, mixture.name) for name in languages or tasks}

    def develop(self, checkpoint: Checkpoint, oracle_too: bool) -> dict[str, float]:
        """The metric of a checkpoint on validation data of the source, and of the targets (test data without)."""
        self._live.load(checkpoint)
        found = {DEV: self._metric(self.source, VALIDATION, checkpoint.label)}
        for language, task in self.targets.items() if oracle_too else ():
            split = VALIDATION if VALIDATION in task.splits else TEST
            found[f"{DEV}.{language}"] = self._metric(task, split, checkpoint.label)
        return found

    def _metric(self, task: Task, split: str, label: str) -> float:
        batches = task.batches(split, batch_size=_BATCH)
        who = f"task {task.name!r}, {label}"
        outcome = joined(list(scored(task, self._live.module, batches, self.options.setup.device, who)))
        return summary(task, outcome.values, outcome.weights)


def judge(desk: Desk, given: tuple[Options, str]) -> dict[str, Any]:
    """Score every checkpoint of a run on development data, and every strategy on test data."""
    options, unit = given
    judges, scores = Judge(desk, options), dict[str, list[float]]()
    for checkpoint in checkpoints_of(desk, unit):
        with open_checkpoint(checkpoint.path) as model:
            for name, value in judges.develop(model, oracle_too=True).items():
                scores.setdefault(name, []).append(value)
    run = checkpoints_of(desk, unit, scores)
    higher = judges.source.higher_is_better
    mixtures, notes = strategies(run, options, higher_is_better=higher)
    table = {mixture.name: judges.score(mixture) for mixture in mixtures}
    oracles = {name: best_on_target(run, f"{DEV}.{name}", higher_is_better=higher) for name in judges.targets}
    table["TRG-DEV"] = {name: judges.score(mixture, [name])[name] for name, mixture in oracles.items()}
    for note in notes:
        desk.say(note)
    return {"metrics": means(table), "scores": table, "development": scores, "notes": notes}


def strategies(
    run: Sequence[RunCheckpoint], options: Options, *, higher_is_better: bool
) -> tuple[list[Mixture], list[str]]:
    """Every way to get one model from a run that needs no target data, and notes on what is left out.

    Args:
        run: The checkpoints, with `loss` and the score `dev` on the source.
        options: The settings.
        higher_is_better: Direction of the score.
    """
    good = Choice(dev=DEV, floor=options.floor)
    average = checkpoint_average(run, good, higher_is_better=higher_is_better)
    notes = list(average.notes)
    mixtures = [
        last_checkpoint(run),
        best_on_source(run, DEV, higher_is_better=higher_is_better),
        average,
        checkpoint_average(run, name="CA of all"),
        decay_average(run, options.curve, good, higher_is_better=higher_is_better),
    ]
    for name, (choice, weighting) in _weighted(options, good, len(run)).items():
        try:
            mixtures.append(checkpoint_average(run, choice, weighting, name=name, higher_is_better=higher_is_better))
        except SettingError as error:
            notes.append(f"no {name}: {error}")
    if len(average.members) == 1:
        notes.append("one checkpoint is left to average: averages are that checkpoint")
    return mixtures, notes


def _weighted(options: Options, good: Choice, count: int) -> dict[str, tuple[Choice, Weighting]]:
    return {
        "EMA": (good, Weighting("ema", decay=options.decay)),
        "LAWA": (replace(good, last=min(options.last, count)), Weighting()),
        "MWA": (good, Weighting("loss", penalty=options.penalty, higher_is_better=False)),
    }


def together(desk: Desk, given: tuple[Options, str]) -> dict[str, Any]:
    """Averages over runs and soups of their models, scored; the mean of all checkpoint averages is written."""
    options, prefix = given
    judges, higher = Judge(desk, options), options.setup.task().higher_is_better
    units = {run: f"{prefix}{run.name}" for run in options.runs if f"scores.{prefix}{run.name}" in desk.results}
    lasts: dict[Run, Mixture] = {}
    averages: dict[Run, Mixture] = {}
    for run, unit in units.items():
        found = checkpoints_of(desk, unit, desk.results[f"scores.{unit}"]["development"])
        lasts[run] = last_checkpoint(found)
        choice = Choice(dev=DEV, floor=options.floor)
        averages[run] = checkpoint_average(found, choice, higher_is_better=higher)
    table = {mixture.name: judges.score(mixture) for mixture in _over_runs(lasts, averages)}
    notes: list[str] = []
    if len(units) > 1:
        for name, mixtures in (("LAST", lasts), ("CA", averages)):
            soup = _greedy(f"greedy soup of {name}", list(mixtures.values()), judges)
            table[soup.name] = judges.score(soup)
            notes += soup.notes
    write_merge(plan(recipe_of(run_average(list(averages.values()), RESULT))), desk.folder / MODEL)
    return {"metrics": means(table), "scores": table, "notes": notes, "runs": [run.name for run in units]}


def _over_runs(lasts: Mapping[Run, Mixture], averages: Mapping[Run, Mixture]) -> list[Mixture]:
    """RA of LAST and of CA: over the seeds of each configuration, and over all runs."""
    mixtures = [run_average(list(of_run.values())) for of_run in (lasts, averages)]
    configurations = list(dict.fromkeys(run.configuration for run in lasts))
    for one in configurations if len(configurations) > 1 else ():
        for of_run in (lasts, averages):
            own = [mixture for run, mixture in of_run.items() if run.configuration == one]
            mixtures.append(run_average(own, f"RA of {own[0].name}, {one}"))
    return mixtures


def _greedy(name: str, mixtures: Sequence[Mixture], judges: Judge) -> Mixture:
    """The greedy soup of models on validation data of the source, as `polyak learn greedy_soup` makes it.

    Averages are taken as they come: a soup of checkpoint averages is a mean of means.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="polyak-") as scratch:
        singles: dict[str, Mixture] = {}
        models: list[dict[str, str]] = []
        for i, mixture in enumerate(mixtures):
            model = f"run {i + 1}"
            singles[model] = mixture
            write_merge(plan(recipe_of(mixture)), f"{scratch}/{i}")
            models.append({"name": model, "path": f"{scratch}/{i}"})
        from ...recipe import read

        recipe = read({"method": "linear", "models": models}, scratch)
        _, learned = learn("greedy_soup", recipe, [judges.source], device=judges.options.setup.device)
    taken: list[str] = list(learned.decisions["taken"])
    soup = run_average([singles[model] for model in taken], name)
    return replace(soup, notes=(f"{name}: {', '.join(taken)} of {len(mixtures)}",))


def means(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over target languages, by strategy."""
    return {
        name: sum(value for language, value in row.items() if language != SOURCE) / (len(row) - (SOURCE in row))
        for name, row in table.items()
    }
