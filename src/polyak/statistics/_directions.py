"""Along which directions of a module's outputs the gradient is taken, so that the squares add up to what is wanted.

An example's outputs are first brought into a space where the log-probability of targets is simple: logarithms of
probabilities, or the means of Gaussians. A direction there, pulled back through the module, is a gradient of
log p(y | x), times the root of its probability.
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
    """One example, as far as directions depend on it; every array may be one of many that are worked on at once.

    Attributes:
        said: Its outputs, brought into the likelihood's space, without a gradient.
        target: Its target, if there are any.
        draw: Numbers for draws: (*places, samples).
        samples: Number of draws.
        per: Sum log-probabilities of positions (`example`), or average them (`position`).
    """

    said: Tensor
    target: Tensor | None
    draw: Tensor | None
    samples: int
    per: str


def directions(likelihood: Likelihood | None, estimator: str, example: Example) -> Iterator[Tensor]:
    """Directions whose pulled-back squares add up to the estimate for one example."""
    found = space(likelihood)
    match estimator:
        case "exact":
            yield from found.exact(example)
        case "sampled":
            for sample in range(example.samples):
                yield found.sampled(example, sample) / example.samples**0.5
        case _:
            yield found.empirical(example)


def space(likelihood: Likelihood | None) -> Space:
    """The space in which log-probabilities of a likelihood are simple."""
    return {"regression": Gaussian(), None: Given()}.get(likelihood, Categorical(likelihood))


class Space(ABC):
    """Conversion of outputs of a likelihood into log-probabilities."""

    @abstractmethod
    def check(self, outputs: Tensor, targets: Tensor | None) -> None:
        """Refuse outputs and targets that do not fit.

        Raises:
            TaskError: saying how.
        """

    @abstractmethod
    def differentiated(self, outputs: Tensor) -> Tensor:
        """Bring one example's outputs into this space."""

    def noise(self, seed: int, identity: bytes, places: Sequence[int], samples: int) -> NDArray[np.float32]:
        """Numbers for the draws of an example: longer sequences have those of shorter ones first."""
        import xxhash

        key = xxhash.xxh3_128_intdigest(seed.to_bytes(16, "little") + identity)
        return self._draw(np.random.Generator(np.random.Philox(key=key)), (*places, samples))

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
            wanted = "(n, classes)" if self._ndim == 2 else "(n, positions, classes)"
            raise TaskError(f"outputs of {self._likelihood} must be {wanted}; got {tuple(outputs.shape)}.")
        if outputs.shape[-1] < 2:
            raise TaskError("the outputs have one class, of which every model is certain: there is nothing to measure.")
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

        roots = example.said.exp().sqrt() * self._counted(example)
        for place in product(*map(range, roots.shape)):
            basis = torch.zeros(roots.shape, dtype=roots.dtype, device=roots.device)
            basis[place] = 1
            yield basis * roots

    def sampled(self, example: Example, sample: int) -> Tensor:
        assert example.draw is not None
        # Under float32 the last sum may miss 1: the last class takes what is above.
        below = example.said.exp().cumsum(-1)[..., :-1] <= example.draw[..., sample, None].to(example.said)
        return self._chosen(below.sum(-1), example)

    def empirical(self, example: Example) -> Tensor:
        assert example.target is not None
        return self._chosen(example.target.clamp(min=0), example)

    def _chosen(self, labels: Tensor, example: Example) -> Tensor:
        import torch

        classes = torch.arange(example.said.shape[-1], device=example.said.device)
        return (labels[..., None] == classes).to(example.said) * self._counted(example)

    def _counted(self, example: Example) -> Tensor:
        """1 at positions that count, 0 at others; divided by their number where log-probabilities are averaged."""
        import torch

        if example.target is None:
            counts = torch.ones_like(example.said[..., :1])
        else:
            counts = (example.target != IGNORED).to(example.said)[..., None]
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

        for k in range(example.said.shape[0]):
            basis = torch.zeros(example.said.shape, dtype=example.said.dtype, device=example.said.device)
            basis[k] = 1
            yield basis

    def sampled(self, example: Example, sample: int) -> Tensor:
        assert example.draw is not None
        return example.draw[..., sample].to(example.said)

    def empirical(self, example: Example) -> Tensor:
        assert example.target is not None
        return example.target.to(example.said) - example.said


class Given(Space):
    """The log-probability of the targets, a number, from a function of the caller's."""

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

        return torch.ones_like(example.said)
