"""A Python function of a checkpoint as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import PolyakError, TaskError
from ._batch import SCORED, Outcome, ScoreRequest
from ._task import Scorer


class FunctionScorer(Scorer):
    """A function from a checkpoint to one score per example.

    A function with a parameter `split` has all three splits: it is called with `calibration`, `validation` or `test`.
    Other functions have test examples only; `Divided` divides them among splits.

    Args of the constructor:
        function: From a checkpoint to scores, in the same order for every checkpoint.
        name: Name in reports (default: the function's name, or that of its class).
        metric: Name of the metric.
        higher_is_better: True if a larger metric is better.
    """

    split_help = (
        "Give the function a parameter `split`, or divide its examples, such as by "
        "`module:function,validation=0.5,test=0.5`."
    )

    def __init__(
        self,
        function: Callable[..., Sequence[float]],
        *,
        name: str = "",
        metric: str = "score",
        higher_is_better: bool = True,
    ) -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.function, self.metric = function, metric
        self._takes_split = "split" in signature_of(function, self.name).parameters
        self.higher_is_better, self.splits = higher_is_better, SCORED if self._takes_split else ("test",)

    def score(self, checkpoint: Checkpoint, request: ScoreRequest) -> Outcome:
        self.check_split(request.split)
        keywords = {"split": request.split} if self._takes_split else {}
        try:
            values = np.asarray(self.function(checkpoint, **keywords), np.float64)
        except PolyakError:
            raise
        except Exception as error:
            raise TaskError(
                f"task {self.name!r}, model {checkpoint.label}: the function fails: {error} ({type(error).__name__})."
            ) from error
        if values.ndim != 1 or not len(values):
            raise TaskError(
                f"task {self.name!r} must give one number per example; it gives an array of shape {values.shape}."
            )
        values = values[: request.limit]
        if request.progress is not None:
            request.progress(len(values))
        return Outcome(tuple(range(len(values))), values, np.ones(len(values)))

    def digest(self, split: str) -> str:
        """Digest of the file that defines the function; data that it reads is not covered."""
        import xxhash

        self.check_split(split)
        try:
            source = inspect.getsource(inspect.getmodule(self.function) or self.function)
        except (OSError, TypeError):  # typed at a prompt
            source = str(getattr(getattr(self.function, "__code__", None), "co_code", self.function))
        about = f"{self.name} {self.metric} {self.higher_is_better}"
        if self._takes_split:
            about = f"{about} {split}"
        return xxhash.xxh3_128_hexdigest(f"{about}\n{source}".encode())


def signature_of(function: Callable[..., object], name: str) -> inspect.Signature:
    """The signature of a function.

    Raises:
        TaskError: Python cannot inspect it, as for some built-in functions.
    """
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        raise TaskError(
            f"{name} has no signature that Python can inspect. Wrap it in a function of your own."
        ) from None
