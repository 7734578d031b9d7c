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
from ._app import app

if TYPE_CHECKING:
    from ..averaging import Opener, RunCheckpoint, Strategies
    from ..checkpoint import Checkpoint
    from ..recipe import Recipe
    from ..tasks import Result, Scorer, Scores
    from ._progress import Bar

_BY = "Also averages weighted by ema; step; or a logged metric such as loss or eval_accuracy."
_DEV = "Or a logged metric on development data; averages go without checkpoints that are bad by it."
_FORM = "From metrics to weights: shift, power, minmax, softmax or rank (default: each of them)."


@app.command()
def select(
    run: _options.Run, task: _options.Tasks,
    source: Annotated[str, typer.Option(help="The task that was trained for: its validation split chooses one.")] = "",
    dev: Annotated[
        str, typer.Option(help="Or a logged metric on development data. Averages go without bad ones.")
    ] = "",
    floor: _options.Floor = 0.9,
    by: Annotated[str, typer.Option(help=_BY)] = "",
    form: Annotated[str, typer.Option(help=_FORM)] = "",
    penalty: _options.Penalty = 0.7, decay: _options.Decay = 0.9, higher_is_better: _options.Better = None,
    last: _options.Last = None, stride: _options.Stride = 1, after: _options.After = 0.0,
    table: _options.Table = None,
    base: Annotated[str, typer.Option(help="Base of adapters (default: as their configuration names it).")] = "",
    space: _options.Space = "product", rank: _options.Rank = None, key: _options.Key = "",
    strip_prefix: _options.Prefix = "", limit: _options.Limit = None, batch_size: _options.BatchSize = 32,
    device: _options.Device = "cpu", module: _options.Module = "", cache: _options.Cache = None,
    against: Annotated[str, typer.Option(help="The strategy that the others are compared with.")] = "last",
    seed: Annotated[int, typer.Option(help="Of the resamples behind intervals.", min=0)] = 0,
    html: _options.Html = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Compare ways to get one model from a run: the last, the best in development, averages; and the oracle."""
    from .. import averaging
    from ..averaging import Choice, Opener, Weighting
    from .average import form_of, space_of

    found = averaging.read_run(run, table)
    choice = Choice(after, last, stride, dev or None, floor)
    kept, notes = averaging.chosen(found, choice, higher_is_better=higher_is_better)
    asked = Weighting(by or "uniform", form_of(form or "shift"), penalty, decay, higher_is_better)
    weightings, unfit = averaging.weightings(kept, asked, every_form=not form)
    where = {"key": key or None, "strip_prefix": strip_prefix or None}
    averages = {
        name: averaging.averaged(kept, one, space=space_of(space), rank=rank, **where)
        for name, one in weightings.items()
    }
    scoring = _Scoring(Opener(base or None, **where), module, limit, batch_size, device, cache, quiet or as_json)
    best = averaging.best_by(found, dev, higher_is_better=higher_is_better) if dev else None
    best = scoring.best(found, source) if source else best
    result = scoring.compared(found, averages, task, best, against, seed)
    if html is not None:
        _write_page(html, result)
    said = [*notes, *unfit, *result.comparison.notes]
    if as_json:
        print(json.dumps(asdict(result) | {"notes": said}))
        return
    for note in () if quiet else said:
        print(f"note: {note}", file=sys.stderr)
    _show(result)


@dataclass(frozen=True)
class _Scoring:
    """How models are opened and scored."""

    opener: Opener
    module: str
    limit: int | None
    batch_size: int
    device: str
    cache: Path | None
    quiet: bool

    def best(self, run: list[RunCheckpoint], source: str) -> RunCheckpoint:
        """The checkpoint that is best on the validation split of a task."""
        from .. import averaging
        from ._evaluation import load_tasks, watched

        (task,) = load_tasks([source], self.module)
        with watched([task], len(run), "validation", self.limit, quiet=self.quiet) as bar:
            return averaging.best_on(run, task, self.opener, self._score("validation", bar))

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
        from ._evaluation import load_tasks, watched

        loaded = load_tasks(tasks, self.module)
        with watched(loaded, len(run) + len(averages), "test", self.limit, quiet=self.quiet) as bar:
            return averaging.compare_strategies(
                run, averages, loaded, opener=self.opener, score=self._score("test", bar), best=best, against=against,
                bootstrap=Bootstrap(seed=seed),
            )  # fmt: skip

    def _score(self, split: str, bar: Bar) -> Callable[[Checkpoint, Scorer], Scores]:
        from ..tasks import evaluate

        def score(model: Checkpoint, task: Scorer) -> Scores:
            return evaluate(
                model, task, split=split, limit=self.limit, batch_size=self.batch_size, device=self.device,
                cache=self.cache, progress=bar.advance,
            )  # fmt: skip

        return score


def _write_page(html: Path, result: Strategies) -> None:
    from ..report.evaluation import comparison_page
    from ..storage import write_whole

    write_whole(html, comparison_page(result.comparison))


def _show(result: Strategies) -> None:
    from ._evaluation import table

    found = result.comparison
    print(f"{found.split} split; differences from {found.models[0]}, with {found.level:.0%} intervals")
    for task in found.tasks:
        rows = [["strategy", "which", "score", "difference", "interval", "wins", "losses"]]
        rows += [[name, result.chosen[task.task][name], *_numbers(one)] for name, one in task.results.items()]
        print(f"\n{task.task} ({task.metric}), {task.examples} examples\n{table(rows)}")
    print("\nThe oracle is chosen by these very examples: a bound, not a strategy.")


def _numbers(one: Result) -> list[str]:
    moved = one.difference
    if moved is None:
        return [f"{one.score.value:.4f}", "", "", "", ""]
    ends = "-" if moved.low is None or moved.high is None else f"{moved.low:+.4f} to {moved.high:+.4f}"
    return [f"{one.score.value:.4f}", f"{moved.value:+.4f}", ends, str(one.wins), str(one.losses)]
