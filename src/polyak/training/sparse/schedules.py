"""Learning rates of retraining after pruning, as factors of the peak of the original training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from .._rates import Rate, constant, cosine, linear, stepped, warmed

Original: TypeAlias = Literal["constant", "linear", "cosine", "step"]
Retraining: TypeAlias = Literal["ft", "lrw", "slr", "clr", "llr", "allr"]
WARMUP = 0.1  # share of the steps of SLR, CLR, LLR and ALLR

ORIGINAL: Mapping[str, Callable[[int], Rate]] = MappingProxyType(
    {"constant": constant, "linear": linear, "cosine": cosine, "step": stepped}
)


def retraining(schedule: str, steps: int, original: Rate, original_steps: int, drop: float = 0.0) -> Rate:
    """The learning rate of a retraining.

    FT: the last rate of the original training. LRW: its last `steps` steps again. SLR: all of it, compressed. CLR: a
    cosine from the peak to its last rate. LLR: linear from the peak to 0. ALLR: linear from max(d1, d2) of the peak to
    0, with d1 the drop of the norm by pruning, and d2 = min(steps / original steps, 1). The last four warm up over a
    tenth of their steps.

    Sources: Renda et al., 2020 (LRW), arXiv:2003.02389; Le & Hua, 2021 (SLR, CLR), arXiv:2105.03193; Zimmer et al.,
    2023 (LLR, ALLR), arXiv:2111.00843.

    Args:
        schedule: `ft`, `lrw`, `slr`, `clr`, `llr` or `allr`.
        steps: Steps of the retraining.
        original: Factor of the original training at each of its steps.
        original_steps: Their number.
        drop: d1 = |W - W_pruned| / (|W| sqrt(q)) for the share q of weights that this phase pruned; at most 1.
    """
    last = original(original_steps - 1)
    if schedule == "ft":
        return lambda step: last
    if schedule == "lrw":
        return lambda step: original(max(0, original_steps - steps + step))
    warmup = round(WARMUP * steps)
    left = steps - warmup
    if schedule == "slr":
        return warmed(lambda step: original(step * original_steps / left), warmup)
    if schedule == "clr":
        return warmed(cosine(left, last), warmup)
    peak = 1.0 if schedule == "llr" else max(min(drop, 1.0), min(steps / original_steps, 1.0))
    falling = linear(left)
    return warmed(lambda step: peak * falling(step), warmup)
