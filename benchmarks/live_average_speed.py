"""Time of one update of live averages, relative to the fastest of other libraries, in one process and one thread.

References are torch's `AveragedModel` with foreach kernels, which Lightning's `EMAWeightAveraging` also calls, and,
where they are installed, timm's `ModelEmaV3` and ema-pytorch. The models have the shapes of MiniLM (22 million
parameters) and of SmolLM2-135M. Runs alternate. Times are CPU times of the calling thread, which other processes on the
machine disturb least; the smallest of several is taken, and the median of the ratios of neighbouring runs tells how
stable it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from polyak.averaging import live

DECAYS = (0.9, 0.99, 0.995, 0.999, 0.9999)
Update = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="timed updates of each")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.model or MODELS:
        model = MODELS[name]()
        count = sum(p.numel() for p in model.parameters())
        print(f"{name}: {count / 1e6:.1f} million parameters in {len(list(model.parameters()))} tensors")
        rivals = references(model)
        best = fastest(rivals, arguments.runs)
        for work, steps, ours in one_average(model):
            report(f"one EMA{work}", rivals[best], ours, steps, arguments.runs, best)
        theirs = together([average_of(best, model, decay) for decay in DECAYS])
        for work, steps, ours in five_averages(model):
            report(f"five EMAs{work}", theirs, ours, steps, arguments.runs, best)


def together(updates: Sequence[Update]) -> Update:
    return lambda: [update() for update in updates]


def one_average(model: nn.Module) -> list[tuple[str, int, Update]]:
    average = live.ema(0.999)
    threaded = live.Averager(model, average, threaded=True)
    return [
        ("", 1, live.Averager(model, average).step),
        (", unchecked", 1, live.Averager(model, average, not_finite="unchecked").step),
        (", every=10", 10, live.Averager(model, average, every=10).step),
        (", threaded: this thread", 1, threaded.step),
    ]


def five_averages(model: nn.Module) -> list[tuple[str, int, Update]]:
    averages = [live.ema(decay).named(str(decay)) for decay in DECAYS]
    return [
        ("", 1, live.Averager(model, *averages).step),
        (", together=2", 2, live.Averager(model, *averages, together=2).step),
        (", together=4", 4, live.Averager(model, *averages, together=4).step),
    ]


def references(model: nn.Module) -> dict[str, Update]:
    """One update of each library that is installed."""
    names = ["AveragedModel", *(name for name in ("timm", "ema_pytorch") if importlib.util.find_spec(name))]
    return {name: average_of(name, model, 0.999) for name in names}


def average_of(library: str, model: nn.Module, decay: float) -> Update:
    if library == "timm":
        averaged = _timm().ModelEmaV3(model, decay=decay, foreach=True)
        return lambda: averaged.update(model)
    if library == "ema_pytorch":
        from ema_pytorch import EMA  # pyright: ignore[reportMissingImports]

        return EMA(model, beta=decay, update_after_step=0, update_every=1, use_foreach=True).update
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    return lambda: averaged.update_parameters(model)


def _timm() -> Any:
    """The module with timm's averages alone: timm itself needs torchvision."""
    place = Path(importlib.util.find_spec("timm").submodule_search_locations[0])  # pyright: ignore
    spec = importlib.util.spec_from_file_location("model_ema", place / "utils" / "model_ema.py")
    module = importlib.util.module_from_spec(spec)  # pyright: ignore
    spec.loader.exec_module(module)  # pyright: ignore
    return module


def fastest(rivals: dict[str, Update], runs: int) -> str:
    times = alternating(list(rivals.values()), [1] * len(rivals), runs)
    for name, seconds in zip(rivals, times, strict=True):
        print(f"  {name:30} {min(seconds) * 1e3:7.1f} ms")
    return min(rivals, key=lambda name: min(times[list(rivals).index(name)]))


def report(work: str, theirs: Update, ours: Update, steps: int, runs: int, name: str) -> None:
    reference, mine = alternating([theirs, ours], [1, steps], runs)
    median = statistics.median(b / a for a, b in zip(reference, mine, strict=True))
    print(
        f"  {work:30} {min(mine) * 1e3:7.1f} ms per step, {name} {min(reference) * 1e3:7.1f} ms: "
        f"ratio {min(mine) / min(reference):.2f} (median of pairs {median:.2f})"
    )


def alternating(functions: Sequence[Update], steps: Sequence[int], runs: int) -> list[list[float]]:
    """Seconds per step of each function and run; the first run, which makes the copies, is left out."""
    times: list[list[float]] = [[] for _ in functions]
    for run in range(runs + 1):
        for function, count, seconds in zip(functions, steps, times, strict=True):
            start = time.thread_time()
            for _ in range(count):
                function()
            if run:
                seconds.append((time.thread_time() - start) / count)
    return times


def minilm() -> nn.Module:
    layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
    return nn.Sequential(nn.Embedding(30522, 384), nn.TransformerEncoder(layer, 6, enable_nested_tensor=False))


def smollm2() -> nn.Module:
    """The tensors of SmolLM2-135M: 30 layers of 576 with 9 heads of queries, 3 of keys, and 1536 gated units."""
    shapes = ((576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576))
    layers = [
        nn.ModuleList([*(nn.Linear(*shape, bias=False) for shape in shapes), nn.RMSNorm(576), nn.RMSNorm(576)])
        for _ in range(30)
    ]
    return nn.ModuleList([nn.Embedding(49152, 576), *layers, nn.RMSNorm(576)])


MODELS = {"MiniLM": minilm, "SmolLM2-135M": smollm2}

if __name__ == "__main__":
    main()
