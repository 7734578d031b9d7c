"""How far from the Fisher information is what is measured of it?  `python benchmarks/fisher_accuracy.py`

A linear softmax classifier, whose Fisher information is known in closed form, and a small network, whose reference is
one backward pass for each example and class. Compared at several batch sizes: polyak's measurement, and the square of
one gradient of sum_n sum_c sqrt(p_c) log p_c over a batch, divided by the batch size, which is what published ports of
Fisher merging compute. Results go to `fisher_accuracy.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from polyak.statistics import Fisher, measure

RESULTS = Path(__file__).with_suffix(".json")
EXAMPLES, FEATURES, CLASSES = 64, 20, 5
SIZES = (1, 8, 32, 64)


def main() -> None:
    """Measure, print and keep."""
    torch.manual_seed(0)
    inputs = torch.randn(EXAMPLES, FEATURES, dtype=torch.float64)
    linear = nn.Linear(FEATURES, CLASSES).double()
    network = nn.Sequential(nn.Linear(FEATURES, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, CLASSES)).double()
    cases: dict[str, tuple[nn.Module, Tensor]] = {
        "linear softmax": (linear, closed_form(linear, inputs)),
        "network of two layers": (network, by_definition(network, inputs)),
    }
    rows = [row for name, (module, exact) in cases.items() for row in compared(name, module, exact, inputs)]
    machine = {"torch": torch.__version__, "dtype": "float64", "examples": EXAMPLES, "classes": CLASSES}
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(" ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{value}" for key, value in row.items()))


def compared(name: str, module: nn.Module, exact: Tensor, inputs: Tensor) -> Iterable[dict[str, object]]:
    for size in SIZES:
        ours = flat(measure(Fisher(module, likelihood="classification"), inputs.split(size)).tensors[n] for n, _ in
                    module.named_parameters())  # fmt: skip
        squared = batch_squared(module, inputs.split(size))
        yield {
            "model": name,
            "batch": size,
            "error": float((ours - exact).norm() / exact.norm()),
            "squared_error": float((squared - exact).norm() / exact.norm()),
            "squared_ratio": float(squared.sum() / exact.sum()),
            "squared_cosine": float(squared @ exact / squared.norm() / exact.norm()),
        }


def closed_form(module: nn.Linear, inputs: Tensor) -> Tensor:
    """mean_n p_c (1 - p_c) x_j^2 for the matrix, mean_n p_c (1 - p_c) for the bias."""
    p = module(inputs).softmax(-1).detach()
    spread = p * (1 - p)
    return torch.cat([(spread.T @ inputs**2 / len(inputs)).flatten(), spread.mean(0)])


def by_definition(module: nn.Module, inputs: Tensor) -> Tensor:
    def term(x: Tensor, c: int) -> Tensor:
        logp = module(x[None])[0].log_softmax(-1)
        return logp[c].detach().exp() * gradient(module, logp[c]) ** 2

    return sum((term(x, c) for x in inputs for c in range(CLASSES)), torch.zeros(())) / len(inputs)


def batch_squared(module: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Both sums before the square, as in the ports."""

    def of(batch: Tensor) -> Tensor:
        logp = module(batch).log_softmax(-1)
        return gradient(module, (logp * logp.detach().exp().sqrt()).sum()) ** 2 / len(batch)

    found = [of(batch) for batch in batches]
    return sum(found, torch.zeros(())) / len(found)


def gradient(module: nn.Module, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(module.parameters()))])


def flat(arrays: Iterable[object]) -> Tensor:
    make: Callable[..., Tensor] = torch.as_tensor
    return torch.cat([make(array, dtype=torch.float64).flatten() for array in arrays])


if __name__ == "__main__":
    main()
