"""Singular value decompositions of task vectors, for learners that select singular directions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import RecipeError
from ..linalg import Components, components, one_thread
from ..methods import NOT_MATRICES, is_matrix
from ..recipe import Recipe
from ._api import Numbers
from ._pool import Pool


class Spectra(Pool):
    """Base and experts, whose rows of coefficients also select singular directions.

    A row has one coefficient per model, followed by `most` factors of singular values per model; factors beyond the
    number of directions are ignored.

    Attributes:
        most: Maximum number of directions of a matrix.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.base is None:
            raise RecipeError("adarank prunes differences from a base: give the recipe a `base:`.")
        if recipe.heads is not None:
            raise RecipeError("adarank cannot leave heads with their models: `skip:` them, and give each task its own.")
        super().__init__(recipe)
        self._folder = TemporaryDirectory(prefix="polyak-spectra-")
        self._parts: dict[str, list[Components]] = {}
        self._now: dict[str, Numbers] = {}  # the row that each tensor was last merged with
        self.most = 0

    def __enter__(self) -> Self:
        try:
            with one_thread():
                for name, step in self.steps.items():
                    if is_matrix(name, step.out.shape, NOT_MATRICES, "vector"):
                        self._parts[name] = self._decomposed(name)
        except BaseException:
            self._folder.cleanup()
            raise
        self.most = max([0, *(len(part.s) for parts in self._parts.values() for part in parts)])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    @property
    def width(self) -> int:
        """Length of a row."""
        return len(self) * (1 + self.most)

    def counts(self, name: str) -> list[int]:
        """Number of directions of each model; 0 if the tensor is not a matrix."""
        return [len(part.s) for part in self._parts[name]] if name in self._parts else [0] * len(self)

    def smaller(self, name: str) -> int:
        """The smaller dimension of a matrix."""
        return min(self.steps[name].out.shape, default=0)

    def masks(self, name: str, row: Numbers) -> list[Numbers]:
        """The factors of each model's singular values in a row; empty if the tensor is not a matrix."""
        if name not in self._parts:
            return []
        each = row[len(self) :].reshape(len(self), self.most)
        return [mask[: len(part.s)] for mask, part in zip(each, self._parts[name], strict=True)]

    def merged(self, name: str, weights: Numbers) -> Iterator[tuple[int, Any]]:
        """Yield the merged tensor for a row of coefficients, in one tile."""
        self._now[name] = weights
        lambdas = weights[: len(self)]
        if name not in self._parts:
            yield from super().merged(name, lambdas)
            return
        total = self._base(name)
        for weight, mask, part in zip(lambdas, self.masks(name, weights), self._parts[name], strict=True):
            kept = mask != 0
            total += (part.u[:, kept] * (weight * part.s * mask)[kept]) @ part.v[:, kept].T
        yield 0, np.ascontiguousarray(total, np.float32).reshape(-1)

    def products(self, name: str, gradient: Any) -> Numbers:
        """<gradient, theta_0> and the gradient in the row of coefficients that was last merged, (1 + width,)."""
        models, derivatives = len(self), np.zeros(1 + self.width)
        if name not in self._parts:
            derivatives[: 1 + models] = super().products(name, gradient)
            return derivatives
        g = gradient.double().cpu().numpy().reshape(self.steps[name].out.shape)
        derivatives[0] = float(np.sum(g * self._base(name)))
        row = self._now[name]
        slopes = derivatives[1 + models :].reshape(models, self.most)
        for i, (mask, part) in enumerate(zip(self.masks(name, row), self._parts[name], strict=True)):
            along = part.s * np.sum(part.u * (g @ part.v), axis=0)  # <gradient, s_k u_k v_k^T>
            derivatives[1 + i] = mask @ along
            slopes[i, : len(along)] = row[i] * along
        return derivatives

    def _base(self, name: str) -> Numbers:
        shape = self.steps[name].out.shape
        flat = np.concatenate([np.asarray(loaded.base, np.float64) for _, loaded in self._tiles(name)])
        return flat.reshape(shape)

    def _decomposed(self, name: str) -> list[Components]:
        shape = self.steps[name].out.shape
        return [self._kept(self._delta(name, i).reshape(shape), f"{len(self._parts)}-{i}") for i in range(len(self))]

    def _delta(self, name: str, i: int) -> Numbers:
        rows = [np.array(loaded.deltas[i], np.float64) for _, loaded in self._tiles(name) if loaded.deltas is not None]
        return np.concatenate(rows)

    def _kept(self, delta: Numbers, called: str) -> Components:
        """Write a decomposition to memory-mapped files, which the system may evict from memory."""
        arrays: list[Any] = []
        for part, array in zip("usv", components(delta), strict=True):
            path = Path(self._folder.name) / f"{called}-{part}.npy"
            np.save(path, np.asarray(array, np.float64))
            arrays.append(np.load(path, mmap_mode="r"))
        return Components(*arrays)
