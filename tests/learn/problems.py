"""Small networks, experts of different classes, and tasks on them, in files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from polyak import recipe as recipes
from polyak.tasks import task_of

CLASSES, FEATURES = 3, 4


class Network(nn.Module):
    """Two layers and a head, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, points):
        return self.head(self.body(points))


class Linear(nn.Module):
    """The one layer of the golden vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, points):
        return self.layer(points)


def examples(count: int, classes=(0, 1, 2), seed: int = 0, turn: float = 0.0):
    """Clusters of points; `turn` moves them, so that tasks differ."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count)
    centres = 1.5 * np.roll(np.eye(CLASSES, FEATURES), 1 if turn else 0, axis=1)
    return (rng.standard_normal((count, FEATURES)) + centres[labels] + turn).astype(np.float32), labels


def trained(start, points, labels, steps: int):
    module = Network()
    module.load_state_dict(start)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(points)), torch.tensor(labels)).backward()
        optimiser.step()
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def write(folder: Path, name: str, state) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / name / "model.safetensors")


def write_points(path: Path, points, labels=None) -> None:
    rows = [{"point": p.tolist()} for p in points]
    if labels is not None:
        rows = [row | {"label": int(y)} for row, y in zip(rows, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_world(folder: Path) -> None:
    """A base, two experts (one a task), one that is noise, and the data of both tasks."""
    torch.manual_seed(0)
    start = Network().state_dict()
    base = trained(start, *examples(60), steps=5)
    write(folder, "base", base)
    for number, turn in enumerate((0.0, 1.0)):
        write(folder, f"expert-{number}", trained(base, *examples(240, seed=number, turn=turn), steps=40))
        write_points(folder / f"task-{number}.jsonl", *examples(150, seed=10 + number, turn=turn))
    noise = torch.Generator().manual_seed(1)
    write(folder, "noise", {k: v + torch.randn(v.shape, generator=noise) for k, v in base.items()})


def task(folder: Path, number: int = 0, factory=Network, **changes):
    described = {
        "name": f"task-{number}", "kind": "image-classification", "data": f"task-{number}.jsonl",
        "image": "point", "scale": 1, "input": "points",
        "splits": {"calibration": 0.4, "validation": 0.3, "test": 0.3},
    }  # fmt: skip
    if "splits" in changes:
        del described["data"]
    return task_of(described | changes, folder, factory=factory)


def recipe(folder: Path, models=("expert-0", "expert-1"), base="base"):
    asked = {"models": [f"./{one}" for one in models], "method": "task_arithmetic" if base else "linear"}
    return recipes.read(asked | ({"base": f"./{base}"} if base else {}), folder)


W0 = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
DELTAS = np.array(
    [
        [[4, -1, 0], [0, 2, 1], [-3, 0, 1], [0, 1, -2]],
        [[2, 1, 0], [1, -4, 0], [3, 1, 2], [0, 0, 1]],
        [[-1, 0, 3], [2, 1, -1], [0, -2, 5], [1, 3, 0]],
    ],
    np.float32,
)
BIASES = np.array([[1, 0, -1, 2], [0, 1, 1, -2], [2, -1, 0, 0]], np.float32)
POINTS = np.array([[1, 0, 1], [0, 1, 0], [1, 2, -1]], np.float32)


def write_golden(folder: Path) -> None:
    write(folder, "base", {"layer.weight": torch.tensor(W0), "layer.bias": torch.zeros(4)})
    for i, (delta, bias) in enumerate(zip(DELTAS, BIASES, strict=True)):
        write(folder, f"expert-{i}", {"layer.weight": torch.tensor(W0 + delta), "layer.bias": torch.tensor(bias)})
    write_points(folder / "task-0.jsonl", np.concatenate([POINTS, POINTS + 9, POINTS - 9]), [0, 1, 2] * 3)
