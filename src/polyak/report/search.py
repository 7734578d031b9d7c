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


def search_page(found: Found, tested: Mapping[str, float] | None = None) -> str:
    """The report as HTML.

    Args:
        found: The result of `search`.
        tested: Scores of the best candidate on the test split, by task.
    """
    parts = ["<h1>Search</h1>", _summary(found, tested or {})]
    parts += [_history(found, i) for i in range(len(found.objectives))]
    if len(found.objectives) > 1:
        parts.append(_front(found))
    if found.importance:
        parts.append(_importance(found.importance))
    parts.append(_candidates(found))
    about = json.dumps(dict(found.about), indent=2, ensure_ascii=False)
    parts.append(f"<h2>Provenance</h2><pre>{escape(about)}</pre>")
    return document("Search", "".join(parts))


def _summary(found: Found, tested: Mapping[str, float]) -> str:
    baselines = [one for one in found.tried if one.baseline and one.objectives]
    rows = [[one.baseline, *map(_number, one.objectives)] for one in baselines]
    rows.append([f"best: candidate {found.best.number}", *map(_number, found.best.objectives)])
    text = table(["candidate", *found.objectives], rows, "Best candidate and baselines")
    values = [[place, _text(value)] for place, value in found.best.values.items()]
    text += table(["hyperparameter", "value"], values, "Best values")
    if tested:
        scores = [[name, _number(value)] for name, value in tested.items()]
        text += table(["task", "score"], scores, "Best candidate on the test split")
    return text


def _history(found: Found, index: int) -> str:
    name, direction = found.objectives[index], found.directions[index]
    scored = [one for one in found.tried if one.objectives]
    points = [Point(one.number, one.objectives[index], _COLOURS[one.state], _words(one)) for one in scored]
    better = max if direction == "maximize" else min
    steps: list[tuple[float, float]] = []
    for one in scored:
        if one.state == "complete":
            value = one.objectives[index]
            steps.append((one.number, better(steps[-1][1], value) if steps else value))
    has_pruned = any(one.state == "pruned" for one in scored)
    legend = _LEGEND | ({"pruned candidate": _COLOURS["pruned"]} if has_pruned else {})
    plot = points_plot(points, ("candidate", name), name=f"{name} of each candidate", steps=steps, legend=legend)
    return figure(f"History of {name}", plot, "higher is better" if direction == "maximize" else "lower is better")


def _front(found: Found) -> str:
    """The first two objectives against each other; with more, the table has the rest."""
    on_front = {one.number for one in found.front}
    points = [
        Point(one.objectives[0], one.objectives[1], int(one.number in on_front), _words(one))
        for one in found.tried
        if one.state == "complete"
    ]
    first, second = found.objectives[:2]
    plot = points_plot(points, (first, second), name="Pareto front", legend={"dominated": 0, "on the front": 1})
    rows = [[str(one.number), *map(_number, one.objectives)] for one in found.front]
    return figure("Pareto front", plot, f"{second} against {first}") + table(
        ["candidate", *found.objectives], rows, "Candidates on the Pareto front"
    )


def _importance(shares: Mapping[str, float]) -> str:
    rows = "".join(
        f"<tr><td>{escape(place)}</td><td class=part style='--share: {share:.1%}'>{share:.1%}</td></tr>"
        for place, share in shares.items()
    )
    head = "<thead><tr><th scope=col>hyperparameter</th><th scope=col>importance</th></tr></thead>"
    caption = "<caption>Importance of the hyperparameters</caption>"
    return f"<div class=wide><table>{caption}{head}<tbody>{rows}</tbody></table></div>"


def _candidates(found: Found) -> str:
    places = list(found.best.values)
    head = ["candidate", "state", *found.objectives, *places, "merging", "scoring", "error"]
    rows = [
        [
            f"{one.number} ({one.baseline})" if one.baseline else str(one.number),
            one.state,
            *(map(_number, one.objectives) if one.objectives else [""] * len(found.objectives)),
            *(_text(one.values.get(place, "")) for place in places),
            f"{one.merging:.3g} s",
            f"{one.scoring:.3g} s",
            one.error,
        ]
        for one in found.tried
    ]
    return table(head, rows, "Candidates")


def _words(one: Tried) -> str:
    values = ", ".join(f"{place} {_text(value)}" for place, value in one.values.items())
    return f"candidate {one.number}: {', '.join(map(_number, one.objectives))} ({values})"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
