"""polyak select"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options
from ._app import RUNS, app

if TYPE_CHECKING:
    from ..averaging import Opener, RunCheckpoint, Strategies
    from ..checkpoint import Checkpoint
    from ..events import Reporter
    from ..recipe import Recipe
    from ..tasks import Result, Scorer, Scores

_BY = "Also average weighted by ema, step, or a logged metric such as loss or eval_accuracy."
_DEV = "Logged metric that selects the best checkpoint; averages leave out checkpoints that are far below it."
_FORM = "Weighting function of the metric: shift, power, minmax, softmax or rank (default: all)."


@app.command(rich_help_panel=RUNS)
def select(
    run: _options.Run, task: _options.Tasks,
    source: Annotated[str, typer.Option(help="Task whose validation split selects the best checkpoint.")] = "",
    dev: Annotated[str, typer.Option(help=_DEV)] = "",
    floor: _options.Floor = 0.9,
    by: Annotated[str, typer.Option(help=_BY)] = "",
    form: Annotated[str, typer.Option(help=_FORM)] = "",
    penalty: _options.Penalty = 0.7, decay: _options.Decay = 0.9, higher_is_better: _options.Better = None,
    last: _options.Last = None, stride: _options.Stride = 1, after: _options.After = 0.0,
    table: _options.Table = None,
    base: Annotated[str, typer.Option(help="Base of adapters (default: the one named by their configuration).")] = "",
    space: _options.Space = "product", rank: _options.Rank = None, key: _options.Key = "",
    strip_prefix: _options.Prefix = "", limit: _options.Limit = None, batch_size: _options.BatchSize = 32,
    device: _options.Device = "cpu", module: _options.Module = "", cache: _options.Cache = None,
    against: Annotated[str, typer.Option(help="Reference strategy.")] = "last",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap resamples.", min=0)] = 0,
    html: _options.Html = None,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Compare strategies that turn a run into one model: last or best checkpoint, averages, and the oracle."""
    from .. import averaging
    from ..averaging import Choice, Opener, Weighting
    from .average import form_of, space_of

    checkpoints = averaging.read_run(run, table)
    choice = Choice(after, last, stride, dev or None, floor)
    kept, notes = averaging.chosen(checkpoints, choice, higher_is_better=higher_is_better)
    weighting = Weighting(by or "uniform", form_of(form or "shift"), penalty, decay, higher_is_better)
    weightings, unfit = averaging.weightings(kept, weighting, every_form=not form)
    where = {"key": key or None, "strip_prefix": strip_prefix or None}
    averages = {
        name: averaging.averaged(kept, weighting, space=space_of(space), rank=rank, **where)
        for name, weighting in weightings.items()
    }
    scoring = _Scoring(Opener(base or None, **where), module, limit, batch_size, device, cache, quiet, as_json)
    best = averaging.best_by(checkpoints, dev, higher_is_better=higher_is_better) if dev else None
    best = scoring.best(checkpoints, source) if source else best
    result = scoring.compared(checkpoints, averages, task, best, against, seed)
    if html is not None:
        _write_page(html, result)
    notes = [*notes, *unfit, *result.comparison.notes]
    if as_json:
        print(json.dumps(asdict(result) | {"notes": notes}))
        return
    for note in () if quiet else notes:
        print(f"note: {note}", file=sys.stderr)
    _show(result)


@dataclass(frozen=True)
class _Scoring:
    """Opens and scores the models of one command."""

    opener: Opener
    module: str
    limit: int | None
    batch_size: int
    device: str
    cache: Path | None
    quiet: bool
    as_json: bool

    def best(self, run: list[RunCheckpoint], source: str) -> RunCheckpoint:
        """The checkpoint with the best score on the validation split of a task."""
        from .. import averaging
        from ._evaluation import evaluating, load_tasks

        (task,) = load_tasks([source], self.module)
        with evaluating([task], len(run), "validation", self.limit, **self._shown) as progress:
            return averaging.best_on(run, task, self.opener, self._score("validation", progress))

    def compared(
        self,
        run: list[RunCheckpoint],
        averages: dict[str, Recipe],
        tasks: list[str],
        best: RunCheckpoint | None,
        against: str,
        seed: int,
    ) -> Strategies:
        """All strategies on the test split of tasks."""
        from .. import averaging
        from ..tasks import Bootstrap
        from ._evaluation import evaluating, load_tasks

        loaded = load_tasks(tasks, self.module)
        with evaluating(loaded, len(run) + len(averages), "test", self.limit, **self._shown) as progress:
            return averaging.compare_strategies(
                run, averages, loaded, opener=self.opener, score=self._score("test", progress), best=best,
                against=against, bootstrap=Bootstrap(seed=seed),
            )  # fmt: skip

    @property
    def _shown(self) -> dict[str, bool]:
        return {"quiet": self.quiet, "as_json": self.as_json}

    def _score(self, split: str, progress: Reporter) -> Callable[[Checkpoint, Scorer], Scores]:
        from ..tasks import evaluate

        def score(model: Checkpoint, task: Scorer) -> Scores:
            return evaluate(
                model, task, split=split, limit=self.limit, batch_size=self.batch_size, device=self.device,
                cache=self.cache, progress=progress.advance,
            )  # fmt: skip

        return score


def _write_page(html: Path, result: Strategies) -> None:
    from ..report import comparison_page
    from ..storage import write_whole

    write_whole(html, comparison_page(result.comparison))


def _show(result: Strategies) -> None:
    from ..display import columns

    comparison = result.comparison
    print(f"{comparison.split} split; differences from {comparison.models[0]}, with {comparison.level:.0%} intervals")
    for task in comparison.tasks:
        rows = [["strategy", "which", "score", "difference", "interval", "wins", "losses"]]
        rows += [[name, result.chosen[task.task][name], *_numbers(scored)] for name, scored in task.results.items()]
        print(f"\n{task.task} ({task.metric}), {task.examples} examples\n{columns(rows)}")
    print("\nThe oracle is selected on these same examples: an upper bound, not a strategy.")


def _numbers(result: Result) -> list[str]:
    moved = result.difference
    if moved is None:
        return [f"{result.score.value:.4f}", "", "", "", ""]
    counts = [str(result.wins), str(result.losses)]
    return [f"{result.score.value:.4f}", f"{moved.value:+.4f}", moved.ends("+.4f"), *counts]
