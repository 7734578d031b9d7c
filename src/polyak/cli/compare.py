"""polyak compare"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options
from ._app import app

if TYPE_CHECKING:
    from ..tasks import Comparison, Interval


@app.command()
def compare(
    models: Annotated[
        list[str], typer.Argument(help="Two or more; the first is compared with. Also recipes.", show_default=False)
    ],
    task: _options.Tasks,
    experts: Annotated[list[str], typer.Option(help="TASK=MODEL: the expert of a task.", show_default=False)] = [],  # noqa: B006
    base: Annotated[str, typer.Option(help="What the models come from.")] = "",
    split: Annotated[str, typer.Option(help="calibration, validation or test.")] = "test",
    limit: _options.Limit = None, batch_size: _options.BatchSize = 32, device: _options.Device = "cpu",
    module: _options.Module = "", cache: _options.Cache = None,
    resamples: Annotated[int, typer.Option(help="Behind each interval.", min=100)] = 10_000,
    level: Annotated[float, typer.Option(help="Of the intervals.", min=0.5, max=0.999)] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the resamples.", min=0)] = 0,
    html: _options.Html = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Compare models with the first on the same examples: differences with intervals, and shares of the experts."""
    from ..tasks import Bootstrap
    from ..tasks import compare as paired
    from ._evaluation import load_tasks, named, open_model, opened, watched

    given, yardsticks = opened(named(models, "MODELS")), opened(named(experts, "--experts"))
    root, tasks = open_model(base) if base else None, load_tasks(task, module)
    runs = len(given) + bool(base)
    with watched(tasks, runs, split, limit, quiet=quiet or as_json) as bar:
        found = paired(
            given, tasks, experts=yardsticks, base=root, split=split, limit=limit, batch_size=batch_size,
            device=device, cache=cache, bootstrap=Bootstrap(resamples, level, seed), progress=bar.advance,
        )  # fmt: skip
    if html is not None:
        from ..report.evaluation import comparison_page
        from ..storage import write_whole

        write_whole(html, comparison_page(found))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        _show(found)


def _show(found: Comparison) -> None:
    from ._evaluation import table

    first = found.models[0]
    print(f"{found.split} split; differences from {first}, with {found.level:.0%} intervals\n")
    rows = [["task", "model", "score", "difference", "interval", "wins", "losses", "normalised"]]
    for task in found.tasks:
        for name, result in task.results.items():
            moved = result.difference
            changed = ["", "", "", ""]
            if moved is not None:
                changed = [f"{moved.value:+.4f}", _ends(moved, "+.4f"), str(result.wins), str(result.losses)]
            share = "" if result.normalised is None else f"{result.normalised.value:.1%}"
            rows.append([f"{task.task} ({task.metric})", name, f"{result.score.value:.4f}", *changed, share])
    print(table(rows))
    if found.groups:
        means = [["average normalised", "model", "mean", "interval"]]
        for group, results in found.groups.items():
            means += [[group, name, f"{one.value:.1%}", _ends(one, ".1%")] for name, one in results.items()]
        print(f"\n{table(means)}")
    for note in found.notes:
        print(f"note: {note}")


def _ends(interval: Interval, form: str) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{interval.low:{form}} to {interval.high:{form}}"
