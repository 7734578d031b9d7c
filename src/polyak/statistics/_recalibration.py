"""Recompute BatchNorm statistics, which are not the average of the models' statistics after a merge."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import PolyakError, TaskError
from ._statistic import Outputs, evaluating

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


def recalibrate(
    module: nn.Module,
    batches: Iterable[Any],
    run: Outputs | None = None,
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, NDArray[np.generic]]:
    """Measure the running means and variances of every BatchNorm of a module again, in place.

    The cumulative average over the batches, weighted by their sizes: mean = sum_b n_b mean_b / sum_b n_b, likewise for
    variances. Other layers are in evaluation mode; each BatchNorm normalises by the batch while it is measured.

    Source: Izmailov et al., 2018, arXiv:1803.05407, section 3.2; there batches are of one size.

    Args:
        module: Any torch module.
        batches: Calibration data, as `Statistic.observe` takes them. Larger batches give better variances.
        run: (module, batch) -> anything; default: the module, called with the batch.
        advance: Called after each batch with the number of examples seen so far.

    Returns:
        The buffers that changed, by name.

    Raises:
        TaskError: the module has no BatchNorm that keeps statistics, or there are no batches, or a batch is too small.
    """
    import torch

    from ._tree import flatten

    norms = _norms(module)
    seen = 0
    with evaluating(module), _measuring(norms.values()), torch.no_grad():
        for batch in batches:
            size = len(batch.examples) if hasattr(batch, "examples") else len(flatten(batch)[0][0])
            seen += size
            for norm in norms.values():
                norm.momentum = size / seen
            _forward(module, batch, size, run)
            advance(seen)
        if not seen:
            raise TaskError("the data has no examples to recalibrate on.")
        buffers = _buffers(norms)
    return {name: buffer.cpu().numpy().copy() for name, buffer in buffers.items()}


def recalibrated_together(
    measured: Sequence[tuple[Mapping[str, NDArray[np.generic]], int]],
) -> dict[str, NDArray[np.generic]]:
    """Running statistics over several sets of data, from those over each.

    With n_t examples of task t and n in all: mean = sum_t n_t mean_t / n, and the variance of the mixture,
    variance = sum_t n_t (variance_t + (mean_t - mean)^2) / n. Counts of batches are summed.

    Args:
        measured: For each set, the tensors that `recalibrate` returned, by name, and its number of examples.

    Raises:
        TaskError: two sets have other tensors, since their modules have other BatchNorms.
    """
    import numpy as np

    names = measured[0][0].keys()
    if any(tensors.keys() != names for tensors, _ in measured):
        raise TaskError("the tasks run modules with different BatchNorms; recalibrate on one task at a time.")
    if len(measured) == 1:
        return dict(measured[0][0])
    shares = np.array([count for _, count in measured], np.float64)
    shares /= shares.sum()
    means = {name: _mixed([tensors[name] for tensors, _ in measured], shares) for name in names if _is_mean(name)}
    return {name: _together(name, [tensors for tensors, _ in measured], shares, means) for name in names}


def _is_mean(name: str) -> bool:
    return name.rpartition(".")[2] == "running_mean"


def _together(
    name: str, parts: Sequence[Mapping[str, Any]], shares: NDArray[np.float64], means: Mapping[str, Any]
) -> NDArray[np.generic]:
    import numpy as np

    values, prefix = [part[name] for part in parts], name.removesuffix("running_var")
    if _is_mean(name):
        return means[name].astype(values[0].dtype)
    if name == prefix:
        return np.sum(values, axis=0, dtype=values[0].dtype)
    mean = f"{prefix}running_mean"
    spread = [
        value + (part[mean].astype(shares.dtype) - means[mean]) ** 2 for value, part in zip(values, parts, strict=True)
    ]
    return _mixed(spread, shares).astype(values[0].dtype)


def _mixed(values: Sequence[Any], shares: NDArray[np.float64]) -> Any:
    return sum(share * value for share, value in zip(shares, values, strict=True))


def _buffers(norms: Mapping[str, Any]) -> dict[str, Tensor]:
    buffers = {
        f"{name}.{key}".lstrip("."): buffer for name, norm in norms.items() for key, buffer in norm.named_buffers()
    }
    for name, buffer in buffers.items():
        if not bool(buffer.isfinite().all()):
            raise TaskError(f"{name!r} is not finite after recalibration: look for NaN in the data.")
    return buffers


def _norms(module: nn.Module) -> Mapping[str, Any]:
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = {n: part for n, part in module.named_modules() if isinstance(part, _BatchNorm) and part.track_running_stats}
    if not norms:
        raise TaskError("the module has no BatchNorm that keeps statistics: there is nothing to recalibrate.")
    return norms


@contextmanager
def _measuring(norms: Iterable[Any]) -> Generator[None]:
    """Reset BatchNorm statistics, accumulate, and restore the momentum; on failure, restore the statistics too."""
    before = [(norm, norm.momentum, {k: b.clone() for k, b in norm.named_buffers()}) for norm in norms]
    try:
        for norm, _, _ in before:
            norm.reset_running_stats()
            norm.train()
        yield
    except BaseException:
        for norm, _, buffers in before:
            for key, buffer in norm.named_buffers():
                buffer.copy_(buffers[key])
        raise
    finally:
        for norm, momentum, _ in before:
            norm.momentum = momentum


def _forward(module: nn.Module, batch: Any, size: int, run: Outputs | None) -> None:
    try:
        run(module, batch) if run else module(batch)
    except PolyakError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        small = " Use larger batches." if size == 1 else ""
        raise TaskError(f"the module fails on a batch: {type(error).__name__}: {error}.{small}") from error
