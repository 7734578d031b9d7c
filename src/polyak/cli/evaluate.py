"""polyak evaluate"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options
from ._app import DATA, app

if TYPE_CHECKING:
    from ..tasks import Interval, Scores


@app.command(rich_help_panel=DATA)
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Models, or recipes to merge in memory.", show_default=False)],
    task: _options.Tasks,
    split: Annotated[str, typer.Option(help="Split to evaluate: calibration, validation or test.")] = "test",
    limit: _options.Limit = None, batch_size: _options.BatchSize = 32, device: _options.Device = "cpu",
    module: _options.Module = "", cache: _options.Cache = None, html: _options.Html = None,
    as_json: _options.AsJson = False,
    quiet: _options.Quiet = False,
) -> None:  # fmt: skip
    """Score models on tasks, with 95 % intervals over examples."""
    from ..tasks import evaluate as score
    from ._evaluation import evaluating, load_tasks, named, open_model

    paths, tasks = named(models, "MODELS"), load_tasks(task, module)
    results: dict[str, list[tuple[Scores, Interval]]] = {}
    with evaluating(tasks, len(paths), split, limit, quiet=quiet, as_json=as_json) as progress:
        for name, path in paths.items():
            with open_model(path) as model:
                results[name] = [
                    _with_interval(scorer, score(
                        model, scorer, split=split, limit=limit, batch_size=batch_size, device=device, cache=cache,
                        progress=progress.advance,
                    ))
                    for scorer in tasks
                ]  # fmt: skip
    if html is not None:
        from ..report import evaluation_page
        from ..storage import write_whole

        write_whole(html, evaluation_page(results))
    if as_json:
        print(json.dumps([_as_data(name, *pair) for name, pairs in results.items() for pair in pairs]))
    else:
        _show(results)


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
        "majority": scores.majority,
        "interval": [interval.low, interval.high],
        "model": scores.model,
        "model_digest": scores.model_digest,
        "task_digest": scores.task_digest,
        "cached": scores.cached,
        "examples": list(scores.examples),
        "scores": scores.values.tolist(),
        "weights": scores.weights.tolist(),
    }


def _show(results: dict[str, list[tuple[Scores, Interval]]]) -> None:
    from ..display import columns

    rows = [["model", "task", "metric", "score", "95 % interval", "majority", "examples"]]
    for name, scored in results.items():
        for scores, interval in scored:
            majority = "-" if scores.majority is None else f"{scores.majority:.4f}"
            score, examples = f"{interval.value:.4f}", str(len(scores.values))
            rows.append([name, scores.task, scores.metric, score, interval.ends(".4f"), majority, examples])
    print(columns(rows))
