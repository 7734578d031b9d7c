"""Reports of evaluations and comparisons: tables, and dots with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..display import table
from ..tasks import Comparison, Interval, Result, Scores, TaskComparison
from .html import document, figure
from .plots import Dot, Row, rows_plot


def evaluation_page(results: Mapping[str, Sequence[tuple[Scores, Interval]]]) -> str:
    """The scores of models on tasks.

    Args:
        results: By model, its scores on each task and the confidence interval of their mean.
    """
    scored = [(name, scores, interval) for name, pairs in results.items() for scores, interval in pairs]
    rows = [
        [name, s.task, s.metric, s.split, *_interval(interval), _majority(s), str(len(s.values))]
        for name, s, interval in scored
    ]
    head = ["model", "task", "metric", "split", "score", "95 % interval", "majority", "examples"]
    parts = ["<h1>Evaluation</h1>", table(head, rows, "Scores")]
    for task, metric in dict.fromkeys((scores.task, scores.metric) for _, scores, _ in scored):
        means = [_row(name, interval) for name, scores, interval in scored if scores.task == task]
        plot = rows_plot(means, metric, name=f"{metric} of each model on {task}")
        parts.append(figure(task, plot, f"{metric}, with 95 % intervals over the examples"))
    digests = [[name, scores.task, scores.model_digest, scores.task_digest] for name, scores, _ in scored]
    parts.append(table(["model", "task", "digest of the model", "digest of the task"], digests, "Digests"))
    return document("Evaluation", "".join(parts))


def comparison_page(comparison: Comparison) -> str:
    """Paired differences from the first model, and shares of the experts' scores."""
    first = comparison.models[0]
    title = f"{', '.join(comparison.models[1:])} against {first}"
    words = (
        f"Paired differences from {first} on the {comparison.split} split, with {comparison.level:.0%} confidence "
        f"intervals from {comparison.resamples:,} bootstrap resamples of the examples. A difference whose interval "
        "excludes 0 is unlikely to be due to the choice of examples."
    )
    parts = [f"<h1>{escape(title)}</h1><p>{escape(words)}</p>"]
    differences = [
        _row(f"{task.task}: {name}", result.difference, comparison.models.index(name))
        for task in comparison.tasks
        for name, result in task.results.items()
        if result.difference is not None
    ]
    plot = rows_plot(differences, f"score minus that of {first}", name="Differences", reference=0.0)
    parts.append(figure(f"Differences from {first}", plot))
    parts += [_task(task) for task in comparison.tasks]
    for group, results in comparison.groups.items():
        reference = "the task's expert" if group == "held-in" else "the base"
        shares = [_row(name, interval, comparison.models.index(name)) for name, interval in results.items()]
        plot = rows_plot(shares, f"score over that of {reference}", name=f"Normalised scores, {group}", reference=1.0)
        parts.append(figure(f"Normalised scores, {group}", plot, f"score over that of {reference}, mean over tasks"))
    parts += [f"<p>Note: {escape(note)}.</p>" for note in comparison.notes]
    return document(title, "".join(parts))


def _task(task: TaskComparison) -> str:
    marks = [f"{task.examples} examples", "higher is better" if task.higher_is_better else "lower is better"]
    marks += [
        f"{name} {value:.4f}"
        for name, value in (("expert", task.expert), ("base", task.base), ("majority", task.majority))
        if value is not None
    ]
    head = ["model", task.metric, "interval", "difference", "interval", "wins", "losses", "p (sign test)"]
    head += ["normalised", "recovered"]
    rows = [_cells(name, result) for name, result in task.results.items()]
    return f"<h2>{escape(task.task)}</h2>{table(head, rows, ', '.join(marks))}"


def _cells(name: str, result: Result) -> list[str]:
    difference = result.difference
    changed = [""] * 5
    if difference is not None and result.sign_test is not None:
        counts = [str(result.wins), str(result.losses), f"{result.sign_test:.3g}"]
        changed = [f"{difference.value:+.4f}", difference.ends("+.4f", absent=""), *counts]
    shares = [_share(result.normalised), _share(result.recovered)]
    return [name, *_interval(result.score), *changed, *shares]


def _interval(score: Interval) -> tuple[str, str]:
    return f"{score.value:.4f}", score.ends(".4f", absent="")


def _share(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:.1%}"


def _row(label: str, interval: Interval, colour: int = 0) -> Row:
    ends = interval.ends(".4g", absent="")
    words = f"{label}: {interval.value:.4g}" + (f" ({ends})" if ends else "")
    return Row(label, [Dot(interval.value, interval.low, interval.high, colour, words)])


def _majority(scores: Scores) -> str:
    return "-" if scores.majority is None else f"{scores.majority:.4f}"
