"""Annotations for the signature of a method: its arrays, its settings and its laws."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from ..declare import PerModel
from ._passes import Array, Request


class Role(enum.Enum):
    """Content of a positional parameter, or of the result."""

    TENSORS = "the models' tensors, stacked: (k, *shape)"
    DELTAS = "the models' tensors minus the base's, stacked: (k, *shape)"
    BASE = "the base's tensor: (*shape)"
    NAME = "the tensor's name: text"
    UNIFORM = "a number in [0, 1) for each model and entry, the same whatever the slabs: (k, *shape)"
    MERGED = "the merged tensor: (*shape)"
    DELTA = "what to add to the base: (*shape)"


@dataclass(frozen=True)
class FirstPass:
    """A quantity of the whole tensor or model that must be known first.

    Attributes:
        ask: From settings, by name, to the request; None when these settings need no such pass
            (the method is then given None).
    """

    ask: Callable[..., Request | None]


Tensors: TypeAlias = Annotated[Array, Role.TENSORS]
Deltas: TypeAlias = Annotated[Array, Role.DELTAS]
Base: TypeAlias = Annotated[Array, Role.BASE]
Name: TypeAlias = Annotated[str, Role.NAME]
Uniform: TypeAlias = Annotated[Array, Role.UNIFORM]
Merged: TypeAlias = Annotated[Array, Role.MERGED]
Delta: TypeAlias = Annotated[Array, Role.DELTA]
Coefficient: TypeAlias = Annotated[Array, PerModel(1.0)]


class Law(enum.Enum):
    """A property that a method may claim; the contract tests check every claim, the engine uses it."""

    SYMMETRIC = "reordering the models and their settings changes nothing"
    IDEMPOTENT = "merging copies of one model gives that model"
    ELEMENTWISE = "once its first passes are known, merging a slice gives that slice of the merge"
    ROWS = "merging some of a matrix' rows gives those rows of the merge"
    HOMOGENEOUS = "scaling every delta scales the result's delta"
    LINEAR = "the result is a sum of the models and the base, each times a number that the settings alone decide"
    ZERO_IS_ABSENT = "a model whose weight is zero might as well not be there"
