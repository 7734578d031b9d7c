"""Any Python function of a checkpoint as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import PolyakError, TaskError
from ._api import Asked, Outcome, Scorer


class FunctionScorer(Scorer):
    """What a function says of a checkpoint: one number an example, all of them test examples.

    Args of the constructor:
        function: From a checkpoint to the numbers, in the same order for every checkpoint.
        name: What reports call it; the function's name if it has no other.
        metric: What the numbers are.
        higher_is_better: Whether more is better.
    """

    def __init__(
        self,
        function: Callable[[Checkpoint], Sequence[float]],
        *,
        name: str = "",
        metric: str = "score",
        higher_is_better: bool = True,
    ) -> None:
        self.function, self.name, self.metric = function, name or function.__name__, metric
        self.higher_is_better, self.splits = higher_is_better, ("test",)

    def score(self, checkpoint: Checkpoint, asked: Asked) -> Outcome:
        self.check_split(asked.split)
        try:
            values = np.asarray(self.function(checkpoint), np.float64)
        except PolyakError:
            raise
        except Exception as error:
            raise TaskError(
                f"task {self.name!r}, model {checkpoint.label}: the function fails: {error} ({type(error).__name__})."
            ) from error
        if values.ndim != 1 or not len(values):
            raise TaskError(f"task {self.name!r} must give one number an example; it gives {values.shape}.")
        values = values[: asked.limit]
        if asked.progress is not None:
            asked.progress(len(values))
        return Outcome(tuple(range(len(values))), values, np.ones(len(values)))

    def digest(self, split: str) -> str:
        """Digest of the file that the function stands in; data that it reads is not known here."""
        import xxhash

        self.check_split(split)
        try:
            source = inspect.getsource(inspect.getmodule(self.function) or self.function)
        except (OSError, TypeError):  # typed at a prompt
            source = str(getattr(getattr(self.function, "__code__", None), "co_code", self.function))
        return xxhash.xxh3_128_hexdigest(f"{self.name} {self.metric} {self.higher_is_better}\n{source}".encode())
