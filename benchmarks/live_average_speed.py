"""Time of one update of live averages, relative to torch's `AveragedModel` with foreach kernels, in one process.

The model is a transformer of 22 million parameters in the shape of MiniLM. Runs of both alternate; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from polyak.averaging import live

DECAYS = (0.9, 0.99, 0.995, 0.999, 0.9999)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="timed updates of each")
    runs = parser.parse_args().runs
    model = minilm()
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, {torch.get_num_threads()} threads"
    )
    theirs = [AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) for decay in DECAYS]
    averages = [live.ema(decay).named(str(decay)) for decay in DECAYS]
    checked, unchecked = (live.Averager(model, averages[0], not_finite=policy) for policy in ("raise", "unchecked"))
    thinned, five = live.Averager(model, averages[0], every=10), live.Averager(model, *averages)
    rows = {
        "one EMA": (lambda: theirs[0].update_parameters(model), checked.step, 1),
        "one EMA, unchecked": (lambda: theirs[0].update_parameters(model), unchecked.step, 1),
        "one EMA, every=10": (lambda: theirs[0].update_parameters(model), thinned.step, 10),
        "five EMAs": (lambda: [average.update_parameters(model) for average in theirs], five.step, 1),
    }
    for work, (reference, ours, steps) in rows.items():
        times = medians(reference, lambda ours=ours, steps=steps: [ours() for _ in range(steps)], runs)
        mine = times[1] / steps
        both = f"AveragedModel {times[0] * 1e3:7.1f} ms, polyak {mine * 1e3:7.1f} ms per step"
        print(f"{work:20} {both}, ratio {mine / times[0]:.2f}")


def minilm() -> nn.Module:
    layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
    return nn.Sequential(nn.Embedding(30522, 384), nn.TransformerEncoder(layer, 6, enable_nested_tensor=False))


def medians(reference: Callable[[], object], ours: Callable[[], object], runs: int) -> list[float]:
    functions = (reference, ours)
    times: list[list[float]] = [[] for _ in functions]
    for run in range(runs + 1):  # the first makes the copies
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if run:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


if __name__ == "__main__":
    main()
