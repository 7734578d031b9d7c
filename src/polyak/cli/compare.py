"""polyak compare"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options
from ._app import DATA, app

if TYPE_CHECKING:
    from ..tasks import Comparison


@app.command(rich_help_panel=DATA)
def compare(
    models: Annotated[
        list[str], typer.Argument(help="Two or more models or recipes; the first is the reference.", show_default=False)
    ],
    task: _options.Tasks,
    experts: Annotated[list[str], typer.Option(help="TASK=MODEL: the expert of a task.", show_default=False)] = [],  # noqa: B006
    base: Annotated[str, typer.Option(help="The base model of the others.")] = "",
    split: Annotated[str, typer.Option(help="Split to evaluate: calibration, validation or test.")] = "test",
    limit: _options.Limit = None, batch_size: _options.BatchSize = 32, device: _options.Device = "cpu",
    module: _options.Module = "", cache: _options.Cache = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples per interval.", min=100)] = 10_000,
    level: Annotated[float, typer.Option(help="Confidence level of the intervals.", min=0.5, max=0.999)] = 0.95,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.", min=0)] = 0,
    html: _options.Html = None,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Compare models with the first model on the same examples: paired differences with confidence intervals."""
    from ..tasks import Bootstrap
    from ..tasks import compare as paired
    from ._evaluation import evaluating, load_tasks, named, open_model, opened

    compared, expert_models = opened(named(models, "MODELS")), opened(named(experts, "--experts"))
    root, tasks = open_model(base) if base else None, load_tasks(task, module)
    runs = len(compared) + bool(base)
    with evaluating(tasks, runs, split, limit, quiet=quiet, as_json=as_json) as progress:
        comparison = paired(
            compared, tasks, experts=expert_models, base=root, split=split, limit=limit, batch_size=batch_size,
            device=device, cache=cache, bootstrap=Bootstrap(resamples, level, seed), progress=progress.advance,
        )  # fmt: skip
    if html is not None:
        from ..report import comparison_page
        from ..storage import write_whole

        write_whole(html, comparison_page(comparison))
    if as_json:
        print(json.dumps(asdict(comparison)))
    else:
        _show(comparison)


def _show(comparison: Comparison) -> None:
    from ..display import columns

    first = comparison.models[0]
    print(f"{comparison.split} split; differences from {first}, with {comparison.level:.0%} intervals\n")
    rows = [["task", "model", "score", "difference", "interval", "wins", "losses", "normalised"]]
    for task in comparison.tasks:
        for name, result in task.results.items():
            moved = result.difference
            changed = ["", "", "", ""]
            if moved is not None:
                changed = [f"{moved.value:+.4f}", moved.ends("+.4f"), str(result.wins), str(result.losses)]
            share = "" if result.normalised is None else f"{result.normalised.value:.1%}"
            rows.append([f"{task.task} ({task.metric})", name, f"{result.score.value:.4f}", *changed, share])
        if task.majority is not None:
            rows.append([f"{task.task} ({task.metric})", "(majority)", f"{task.majority:.4f}", *[""] * 5])
    print(columns(rows))
    if comparison.groups:
        means = [["average normalised", "model", "mean", "interval"]]
        for group, results in comparison.groups.items():
            means += [[group, name, f"{mean.value:.1%}", mean.ends(".1%")] for name, mean in results.items()]
        print(f"\n{columns(means)}")
    for note in comparison.notes:
        print(f"note: {note}")
