"""What the runs say of the paper's claims, with paired intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from polyak.training.transfer.intervals import interval_of_mean

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # by strategy, learning rate and seed: mean of the targets
OTHERS = ("SRC-DEV", "CA of all", "MWA", "EMA", "LAWA", "WSM")


def claims(
    scores: Scores, over_runs: Mapping[str, Mapping[str, float]], own: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The claims on one task.

    Args:
        scores: Of the runs that share a head; learning rates in ascending order.
        over_runs: By learning rate, the score of the mean of the last checkpoints of its runs.
        own: `runs`, by seed, and `average`: the last checkpoints of runs with heads of their own, and their mean.
    """
    tiny, *rates = scores["LAST"]
    middle = rates[len(rates) // 2]
    seeds = list(scores["LAST"][tiny])

    def minus(ours: str, theirs: str, chosen: Sequence[str]) -> list[float]:
        return [fmean(scores[ours][r][s] - scores[theirs][r][s] for r in chosen) for s in seeds]

    def spread(strategy: str, seed: str) -> float:
        return pstdev(scores[strategy][rate][seed] for rate in rates)

    shared = [over_runs[middle]["LAST"] - value for value in scores["LAST"][middle].values()]
    naive = [own["average"] - value for value in own["runs"].values()]
    found = [
        _claim("CA beats LAST on target languages, without the smallest rate", minus("CA", "LAST", rates), 1),
        _claim(
            "the standard deviation over learning rates is smaller with CA (CA less LAST)",
            [spread("CA", seed) - spread("LAST", seed) for seed in seeds], -1,
        ),
        _claim(f"CA of all checkpoints hurts at the smallest rate, {tiny}", minus("CA of all", "LAST", [tiny]), -1),
        _claim("the mean of runs with heads of their own is worse than the runs", naive, -1),
        _claim("the mean of runs that share a frozen head is better than the runs", shared, 1),
        _claim(
            "CA closes some of the gap of LAST to the oracle (LAST's gap less CA's)",
            [a - b for a, b in zip(minus("TRG-DEV", "LAST", rates), minus("TRG-DEV", "CA", rates), strict=True)], 1,
        ),
    ]  # fmt: skip
    return found + [_claim(f"{name} beats LAST", minus(name, "LAST", rates), 1) for name in OTHERS if name in scores]


def _claim(words: str, values: Sequence[float], sign: int) -> dict[str, Any]:
    """A claim that the mean of values, one per seed, has a sign."""
    found = interval_of_mean(values)
    verdict = "undecided"
    if found.excludes(0):
        verdict = "holds" if found.value * sign > 0 else "the opposite holds"
    return {"claim": words, "value": found.value, "low": found.low, "high": found.high, "verdict": verdict}
