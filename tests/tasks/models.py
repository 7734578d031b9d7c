"""A small network, its data, and folders of it, for tests of tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

CLASSES, FEATURES = 3, 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))


class Network(nn.Module):
    """Called by keyword, as tasks call modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, pixel_values):
        return self.layers(pixel_values)


def write_model(folder: Path, noise: float = 0.0, seed: int = 0, epochs: int = 60) -> Path:
    module, (points, labels) = Network(), data(200, seed=1)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(epochs):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(points)), torch.tensor(labels)).backward()
        optimiser.step()
    generator = torch.Generator().manual_seed(seed)
    state = {n: t + noise * torch.randn(t.shape, generator=generator) for n, t in module.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def data(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    points = rng.standard_normal((count, FEATURES)) + 1.5 * np.eye(CLASSES, FEATURES)[labels]
    return points.astype(np.float32), labels


def write_data(path: Path, count: int = 120, seed: int = 0) -> Path:
    points, labels = data(count, seed)
    rows = [{"image": p.tolist(), "label": int(y)} for p, y in zip(points, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TASK = "kind: image-classification\ndata: points.jsonl\nscale: 1\n"
