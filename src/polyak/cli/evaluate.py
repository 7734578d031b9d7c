"""polyak evaluate"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import app

if TYPE_CHECKING:
    from ..tasks import Interval, Scores


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Models, or recipes to merge in memory.", show_default=False)],
    task: _options.Tasks,
    split: Annotated[str, typer.Option(help="calibration, validation or test.")] = "test",
    limit: _options.Limit = None, batch_size: _options.BatchSize = 32, device: _options.Device = "cpu",
    module: _options.Module = "", cache: _options.Cache = None, html: _options.Html = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every example's score, as JSON.")] = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Score models on tasks, with 95 % intervals over examples."""
    from ..tasks import evaluate as score
    from ._evaluation import load_tasks, named, open_model, watched

    paths, tasks = named(models, "MODELS"), load_tasks(task, module)
    found: dict[str, list[tuple[Scores, Interval]]] = {}
    with watched(tasks, len(paths), split, limit, quiet=quiet or as_json) as bar:
        for name, path in paths.items():
            with open_model(path) as model:
                found[name] = [
                    _with_interval(one, score(
                        model, one, split=split, limit=limit, batch_size=batch_size, device=device, cache=cache,
                        progress=bar.advance,
                    ))
                    for one in tasks
                ]  # fmt: skip
    if html is not None:
        from ..report.evaluation import evaluation_page
        from ..storage import write_whole

        write_whole(html, evaluation_page(found))
    if as_json:
        print(json.dumps([_as_data(name, *one) for name, ones in found.items() for one in ones]))
    else:
        _show(found)


def _with_interval(task: Any, scores: Scores) -> tuple[Scores, Interval]:
    from ..tasks import score_interval

    return scores, score_interval(task, scores)


def _as_data(name: str, scores: Scores, interval: Interval) -> dict[str, Any]:
    return {
        "name": name,
        "task": scores.task,
        "metric": scores.metric,
        "split": scores.split,
        "value": scores.metric_value,
        "interval": [interval.low, interval.high],
        "model": scores.model,
        "model_digest": scores.model_digest,
        "task_digest": scores.task_digest,
        "cached": scores.cached,
        "examples": list(scores.examples),
        "scores": scores.values.tolist(),
        "weights": scores.weights.tolist(),
    }


def _show(found: dict[str, list[tuple[Scores, Interval]]]) -> None:
    from ._evaluation import table

    rows = [["model", "task", "metric", "score", "95 % interval", "examples"]]
    for name, ones in found.items():
        for scores, interval in ones:
            ends = "-" if interval.low is None else f"{interval.low:.4f} to {interval.high:.4f}"
            rows.append([name, scores.task, scores.metric, f"{interval.value:.4f}", ends, str(len(scores.values))])
    print(table(rows))
