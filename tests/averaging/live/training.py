"""Small modules that train, and every weight that they had on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    return nn.Sequential(*layers).to(dtype)


class Tied(nn.Module):
    """Input and output embeddings share one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens))


def batch(step: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    points = torch.randn(8, 3, generator=generator).to(dtype)
    return points, (points.sum(1) > 0).long()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> Iterator[int]:
    """Train for the steps; yield after each."""
    dtype = next(model.parameters()).dtype
    model.train()
    for step in steps:
        points, labels = batch(step, dtype)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points).float(), labels).backward()
        optimizer.step()
        yield step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


def values(model: nn.Module) -> dict[str, Any]:
    """The parameters in float64."""
    return {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {
        name: tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()
    }


def assert_close(ours: dict[str, torch.Tensor], formula: dict[str, Any], tolerance: float = 2e-6) -> None:
    assert list(ours) == list(formula)
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor.double().numpy(), formula[name], rtol=0, atol=tolerance, err_msg=name)
