"""A small problem that trains in a second: points of three classes, and networks of a few hundred weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Network(nn.Module):
    """With BatchNorm and dropout, so that random states and buffers matter."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 16), nn.ReLU()
        )
        self.head = nn.Linear(16, 3)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(points))


class Plain(nn.Module):
    """Without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 24), nn.LayerNorm(24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(points))


class Images(nn.Module):
    """Convolutions on the same numbers as a small image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(64, 3)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(points.view(-1, 1, 2, 4)).flatten(1))


class Broken(Plain):
    """Whose weights explode."""

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return super().forward(points) * 1e30


def write(folder: Path, rows: int = 240, splits: str = "{train: 0.6, validation: 0.2, test: 0.2}") -> Path:
    """Write points of three classes, and the file of a task of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=rows)
    points = rng.normal(size=(rows, 8)).round(3) + 1.2 * np.eye(3, 8)[labels]
    pairs = zip(points.tolist(), labels.tolist(), strict=True)
    (folder / "points.jsonl").write_text("\n".join(json.dumps({"point": p, "label": y}) for p, y in pairs))
    task = folder / "points.yaml"
    task.write_text(
        f"kind: image-classification\ndata: points.jsonl\nsplits: {splits}\nimage: point\nscale: 1\ninput: points\n"
        "classes: 3\n"
    )
    return task


def keys(folder: Path, **more: Any) -> dict[str, Any]:
    """The common keys of a recipe on this problem, with modules as other processes can import them."""
    own = {"task": str(folder / "points.yaml"), "module": "tests.training.problem:Network", "epochs": 2.0}
    return {**own, "batch_size": 16, "log_every": 5, "learning_rate": 0.05, "optimizer": "sgd", **more}
