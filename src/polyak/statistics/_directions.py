"""Directions in output space whose pulled-back squares sum to the Fisher information.

The outputs of an example are first transformed to a space in which the log-probability of a target is simple: log
probabilities of classes, or means of Gaussians. A direction in that space, pulled back through the module, is the
gradient of log p(y | x) times the square root of the probability of y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import TaskError
from ..tasks import IGNORED, Likelihood, check_labels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Example:
    """The parts of an example on which directions depend; arrays may be batched by vmap.

    Attributes:
        outputs: Its outputs in the space of the likelihood, detached.
        target: Its target; None without targets.
        draw: Random numbers for the draws, (*positions, samples).
        samples: Number of draws.
        per: Sum log-probabilities of positions (`example`), or average them (`position`).
    """

    outputs: Tensor
    target: Tensor | None
    draw: Tensor | None
    samples: int
    per: str


def directions(likelihood: Likelihood | None, estimator: str, example: Example) -> Iterator[Tensor]:
    """Directions whose pulled-back squares add up to the estimate for one example."""
    log_space = space(likelihood)
    match estimator:
        case "exact":
            yield from log_space.exact(example)
        case "sampled":
            for sample in range(example.samples):
                yield log_space.sampled(example, sample) / example.samples**0.5
        case _:
            yield log_space.empirical(example)


def space(likelihood: Likelihood | None) -> Space:
    """The space in which log-probabilities of a likelihood are simple."""
    return {"regression": Gaussian(), None: Given()}.get(likelihood, Categorical(likelihood))


class Space(ABC):
    """Conversion of outputs of a likelihood into log-probabilities."""

    @abstractmethod
    def check(self, outputs: Tensor, targets: Tensor | None) -> None:
        """Refuse outputs and targets of the wrong shape or range.

        Raises:
            TaskError: the message gives both shapes.
        """

    @abstractmethod
    def differentiated(self, outputs: Tensor) -> Tensor:
        """Bring one example's outputs into this space."""

    def noise(self, seed: int, identity: bytes, positions: Sequence[int], samples: int) -> NDArray[np.float32]:
        """Random numbers for the draws of an example; those of a sequence begin with those of any shorter one."""
        import xxhash

        key = xxhash.xxh3_128_intdigest(seed.to_bytes(16, "little") + identity)
        return self._draw(np.random.Generator(np.random.Philox(key=key)), (*positions, samples))

    def _draw(self, generator: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float32]:
        return generator.random(tuple(shape), dtype=np.float32)

    @abstractmethod
    def exact(self, example: Example) -> Iterator[Tensor]:
        """Directions for the expectation over y."""

    @abstractmethod
    def sampled(self, example: Example, sample: int) -> Tensor:
        """The direction of one draw."""

    @abstractmethod
    def empirical(self, example: Example) -> Tensor:
        """The direction of the target."""


class Categorical(Space):
    """Log-probabilities of classes, (classes,) or (positions, classes)."""

    def __init__(self, likelihood: Likelihood | None) -> None:
        self._ndim = 2 if likelihood == "classification" else 3
        self._likelihood = likelihood

    def check(self, outputs: Tensor, targets: Tensor | None) -> None:
        if outputs.ndim != self._ndim:
            shape = "(n, classes)" if self._ndim == 2 else "(n, positions, classes)"
            raise TaskError(f"outputs of {self._likelihood} must be {shape}; got {tuple(outputs.shape)}.")
        if outputs.shape[-1] < 2:
            raise TaskError(
                "the outputs have one class, so the probability of every prediction is 1: there is nothing to measure."
            )
        if targets is None:
            return
        if targets.shape != outputs.shape[:-1]:
            raise TaskError(
                f"outputs have shape {tuple(outputs.shape)}, targets {tuple(targets.shape)}; expected "
                f"{tuple(outputs.shape[:-1])}."
            )
        check_labels(targets, outputs.shape[-1])

    def differentiated(self, outputs: Tensor) -> Tensor:
        return outputs.log_softmax(-1)

    def _draw(self, generator: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float32]:
        return super()._draw(generator, (*shape[:-2], shape[-1]))  # one number per position, not one per class

    def exact(self, example: Example) -> Iterator[Tensor]:
        import torch

        roots = example.outputs.exp().sqrt() * self._counted(example)
        for index in product(*map(range, roots.shape)):
            basis = torch.zeros(roots.shape, dtype=roots.dtype, device=roots.device)
            basis[index] = 1
            yield basis * roots

    def sampled(self, example: Example, sample: int) -> Tensor:
        assert example.draw is not None
        # In float32 the cumulative sum may end below 1: draws above it fall into the last class.
        below = example.outputs.exp().cumsum(-1)[..., :-1] <= example.draw[..., sample, None].to(example.outputs)
        return self._of_labels(below.sum(-1), example)

    def empirical(self, example: Example) -> Tensor:
        assert example.target is not None
        return self._of_labels(example.target.clamp(min=0), example)

    def _of_labels(self, labels: Tensor, example: Example) -> Tensor:
        import torch

        classes = torch.arange(example.outputs.shape[-1], device=example.outputs.device)
        return (labels[..., None] == classes).to(example.outputs) * self._counted(example)

    def _counted(self, example: Example) -> Tensor:
        """1 at positions with a target, 0 elsewhere; divided by their number if log-probabilities are averaged."""
        import torch

        if example.target is None:
            counts = torch.ones_like(example.outputs[..., :1])
        else:
            counts = (example.target != IGNORED).to(example.outputs)[..., None]
        return counts / counts.sum().clamp(min=1) if example.per == "position" else counts


class Gaussian(Space):
    """Means of Gaussians of unit variance, (k,)."""

    def check(self, outputs: Tensor, targets: Tensor | None) -> None:
        if outputs.ndim != 2:
            raise TaskError(f"outputs of regression must be (n, k); got {tuple(outputs.shape)}.")
        if targets is not None and targets.shape != outputs.shape:
            raise TaskError(f"the outputs are {tuple(outputs.shape)}, the targets {tuple(targets.shape)}.")

    def differentiated(self, outputs: Tensor) -> Tensor:
        return outputs

    def _draw(self, generator: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float32]:
        return generator.standard_normal(tuple(shape), dtype=np.float32)

    def exact(self, example: Example) -> Iterator[Tensor]:
        import torch

        for k in range(example.outputs.shape[0]):
            basis = torch.zeros(example.outputs.shape, dtype=example.outputs.dtype, device=example.outputs.device)
            basis[k] = 1
            yield basis

    def sampled(self, example: Example, sample: int) -> Tensor:
        assert example.draw is not None
        return example.draw[..., sample].to(example.outputs)

    def empirical(self, example: Example) -> Tensor:
        assert example.target is not None
        return example.target.to(example.outputs) - example.outputs


class Given(Space):
    """The log-probability of the targets, one number per example, from a function of the caller."""

    def check(self, outputs: Tensor, targets: Tensor | None) -> None:
        if outputs.ndim != 1:
            raise TaskError(f"a log-likelihood must be one number per example, (n,); got {tuple(outputs.shape)}.")

    def differentiated(self, outputs: Tensor) -> Tensor:
        return outputs

    def exact(self, example: Example) -> Iterator[Tensor]:
        yield self.empirical(example)

    def sampled(self, example: Example, sample: int) -> Tensor:
        return self.empirical(example)

    def empirical(self, example: Example) -> Tensor:
        import torch

        return torch.ones_like(example.outputs)
