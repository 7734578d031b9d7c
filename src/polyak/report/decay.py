"""The report of an average of checkpoints: its weights, and the decay of the learning rate that they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .html import document, figure
from .plots import Point, points_plot


def decay_page(names: Sequence[str], steps: Sequence[int], weights: Sequence[float], scales: Sequence[float]) -> str:
    """A page with a plot of the implied learning rate and a table.

    Args:
        names: Names of the checkpoints, oldest first.
        steps: Their training steps.
        weights: Their weights, which sum to 1.
        scales: Learning rate between each checkpoint and the next, relative to the one of training.
    """
    corners = [point for i, scale in enumerate(scales) for point in ((steps[i], scale), (steps[i + 1], scale))]
    points = [
        Point(steps[i + 1], scale, words=f"{names[i + 1]}: learning rate {scale:.4g}") for i, scale in enumerate(scales)
    ]
    plot = points_plot(points, ("training step", "relative learning rate"), name="implied decay", steps=corners)
    note = "The average is where the run would have ended, had its updates been scaled like this."
    body = f"<h1>Average of {len(names)} checkpoints</h1>{figure('Implied decay of the learning rate', plot, note)}"
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{step}</td><td>{weight:.4f}</td><td>{scale}</td></tr>"
        for name, step, weight, scale in zip(names, steps, weights, ["–", *(f"{s:.4f}" for s in scales)], strict=True)
    )
    head = "<tr><th>checkpoint</th><th>step</th><th>weight</th><th>learning rate since the one before</th></tr>"
    return document("Implied decay of the learning rate", f"{body}<table>{head}{rows}</table>")
