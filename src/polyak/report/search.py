"""The report of a search: history, Pareto front, importance and candidates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from ..display import table
from ..search import Found, Tried
from .html import document, figure
from .plots import Point, points_plot

_COLOURS = {"complete": 0, "pruned": 4}
_LEGEND = {"candidate": 0, "best so far": 1}


def search_page(result: Found, tested: Mapping[str, float] | None = None) -> str:
    """The report as HTML.

    Args:
        result: The result of `search`.
        tested: Scores of the best candidate on the test split, by task.
    """
    parts = ["<h1>Search</h1>", _summary(result, tested or {})]
    parts += [_history(result, i) for i in range(len(result.objectives))]
    if len(result.objectives) > 1:
        parts.append(_front(result))
    if result.importance:
        parts.append(_importance(result.importance))
    parts.append(_candidates(result))
    about = json.dumps(dict(result.about), indent=2, ensure_ascii=False)
    parts.append(f"<h2>Provenance</h2><pre>{escape(about)}</pre>")
    return document("Search", "".join(parts))


def _summary(result: Found, tested: Mapping[str, float]) -> str:
    baselines = [candidate for candidate in result.tried if candidate.baseline and candidate.objectives]
    rows = [[candidate.baseline, *map(_number, candidate.objectives)] for candidate in baselines]
    rows.append([f"best: candidate {result.best.number}", *map(_number, result.best.objectives)])
    text = table(["candidate", *result.objectives], rows, "Best candidate and baselines")
    values = [[name, _text(value)] for name, value in result.best.values.items()]
    text += table(["hyperparameter", "value"], values, "Best values")
    if tested:
        scores = [[name, _number(value)] for name, value in tested.items()]
        text += table(["task", "score"], scores, "Best candidate on the test split")
    return text


def _history(result: Found, index: int) -> str:
    name, direction = result.objectives[index], result.directions[index]
    scored = [candidate for candidate in result.tried if candidate.objectives]
    points = [Point(c.number, c.objectives[index], _COLOURS[c.state], _label(c)) for c in scored]
    better = max if direction == "maximize" else min
    steps: list[tuple[float, float]] = []
    for candidate in scored:
        if candidate.state == "complete":
            value = candidate.objectives[index]
            steps.append((candidate.number, better(steps[-1][1], value) if steps else value))
    has_pruned = any(candidate.state == "pruned" for candidate in scored)
    legend = _LEGEND | ({"pruned candidate": _COLOURS["pruned"]} if has_pruned else {})
    plot = points_plot(points, ("candidate", name), name=f"{name} of each candidate", steps=steps, legend=legend)
    return figure(f"History of {name}", plot, "higher is better" if direction == "maximize" else "lower is better")


def _front(result: Found) -> str:
    """The first two objectives against each other; with more, the table has the rest."""
    on_front = {candidate.number for candidate in result.front}
    points = [
        Point(candidate.objectives[0], candidate.objectives[1], int(candidate.number in on_front), _label(candidate))
        for candidate in result.tried
        if candidate.state == "complete"
    ]
    first, second = result.objectives[:2]
    plot = points_plot(points, (first, second), name="Pareto front", legend={"dominated": 0, "on the front": 1})
    rows = [[str(candidate.number), *map(_number, candidate.objectives)] for candidate in result.front]
    return figure("Pareto front", plot, f"{second} against {first}") + table(
        ["candidate", *result.objectives], rows, "Candidates on the Pareto front"
    )


def _importance(shares: Mapping[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class=part style='--share: {share:.1%}'>{share:.1%}</td></tr>"
        for name, share in shares.items()
    )
    head = "<thead><tr><th scope=col>hyperparameter</th><th scope=col>importance</th></tr></thead>"
    caption = "<caption>Importance of the hyperparameters</caption>"
    return f"<div class=wide><table>{caption}{head}<tbody>{rows}</tbody></table></div>"


def _candidates(result: Found) -> str:
    names = list(result.best.values)
    head = ["candidate", "state", *result.objectives, *names, "merging", "scoring", "error"]
    rows = [
        [
            f"{candidate.number} ({candidate.baseline})" if candidate.baseline else str(candidate.number),
            candidate.state,
            *(map(_number, candidate.objectives) if candidate.objectives else [""] * len(result.objectives)),
            *(_text(candidate.values.get(name, "")) for name in names),
            f"{candidate.merging:.3g} s",
            f"{candidate.scoring:.3g} s",
            candidate.error,
        ]
        for candidate in result.tried
    ]
    return table(head, rows, "Candidates")


def _label(candidate: Tried) -> str:
    values = ", ".join(f"{name} {_text(value)}" for name, value in candidate.values.items())
    return f"candidate {candidate.number}: {', '.join(map(_number, candidate.objectives))} ({values})"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
