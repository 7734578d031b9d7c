"""Strategies as weights of checkpoints: against float64 means, and the bytes that the commands write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import polyak as package
from polyak import averaging
from polyak.averaging import Choice, Mixture, RunCheckpoint, Weighting
from polyak.checkpoint import open as open_checkpoint
from polyak.errors import SettingError

from ..docs.models import write_tensors
from .test_runs import polyak, read

DEV, TARGET = [0.2, 0.8, 0.9, 0.88], [0.6, 0.5, 0.3, 0.4]


def a_run(place: Path, seed: int) -> list[RunCheckpoint]:
    rng = np.random.default_rng(seed)
    run: list[RunCheckpoint] = []
    for i, (dev, target) in enumerate(zip(DEV, TARGET, strict=True)):
        folder = place / f"run-{seed}" / f"checkpoint-{10 * (i + 1)}"
        tensors = {"w": rng.standard_normal((5, 7)).astype(np.float32), "n": np.array([i], np.int64)}
        write_tensors(folder / "model.safetensors", tensors)
        metrics = {"loss": 3.0 - i, "dev_accuracy": dev, "target_accuracy": target}
        run.append(RunCheckpoint(folder.name, folder, 10 * (i + 1), metrics))
    return run


def mean(members: list[tuple[RunCheckpoint, float]]) -> np.ndarray:
    return sum(weight * read(one.path)["w"].astype(np.float64) for one, weight in members)


def merged(mixture: Mixture, out: Path) -> Path:
    package.merge(averaging.recipe_of(mixture), out)
    return out


def test_single_checkpoints_are_chosen_by_place_source_and_target(tmp_path: Path):
    run = a_run(tmp_path, 1)
    last, source = averaging.last_checkpoint(run), averaging.best_on_source(run, "dev_accuracy")
    target = averaging.best_on_target(run, "target_accuracy")
    assert [mixture.members[0][0].step for mixture in (last, source, target)] == [40, 30, 10]
    assert [mixture.name for mixture in (last, source, target)] == ["LAST", "SRC-DEV", "TRG-DEV"]
    assert [mixture.is_oracle for mixture in (last, source, target)] == [False, False, True]
    alone = merged(source, tmp_path / "alone")
    assert read(alone)["w"].tobytes() == read(run[2].path)["w"].tobytes()


def test_weak_checkpoints_are_left_out_of_an_average_by_name(tmp_path: Path):
    run = a_run(tmp_path, 1)
    every = averaging.checkpoint_average(run)
    assert [weight for _, weight in every.members] == [0.25] * 4
    good = averaging.checkpoint_average(run, Choice(dev="dev_accuracy", floor=0.85))
    assert [one.step for one, _ in good.members] == [20, 30, 40]
    assert good.notes == ("left out: checkpoint-10, whose dev_accuracy of 0.2 is too far from the best, 0.9",)
    assert np.allclose(read(merged(good, tmp_path / "ca"))["w"], mean([(one, 1 / 3) for one in run[1:]]), atol=1e-7)


@pytest.mark.parametrize(
    ("mixture", "wanted"),
    [
        (lambda run: averaging.checkpoint_average(run, Choice(last=2), name="LAWA"), [0, 0, 0.5, 0.5]),
        (lambda run: averaging.checkpoint_average(run, None, Weighting("ema", decay=0.5)), np.array([1, 2, 4, 8]) / 15),
        (lambda run: averaging.checkpoint_average(run, None, Weighting("step", "power", 1.0)), [0.1, 0.2, 0.3, 0.4]),
        (lambda run: averaging.decay_average(run, "1-sqrt"), np.diff(np.sqrt([0, 1 / 4, 1 / 2, 3 / 4, 1]))),
        (lambda run: averaging.decay_average(run, "linear", Choice(last=2)), [0, 0, 0.5, 0.5]),
    ],
    ids=["LAWA", "EMA", "MWA", "WSM", "WSM of the last two"],
)  # fmt: skip
def test_weighted_averages_are_those_of_the_formulas(tmp_path: Path, mixture, wanted):
    run = a_run(tmp_path, 1)
    made = mixture(run)
    found = dict.fromkeys([one.step for one in run], 0.0) | {one.step: weight for one, weight in made.members}
    assert list(found.values()) == pytest.approx(list(wanted), rel=1e-12)
    reference = mean(list(zip(run, wanted, strict=True)))
    assert np.allclose(read(merged(made, tmp_path / "out"))["w"], reference, atol=1e-7)


def test_an_average_over_runs_is_the_mean_of_their_averages(tmp_path: Path):
    runs = [a_run(tmp_path, seed) for seed in (1, 2, 3)]
    averages = [averaging.checkpoint_average(run, Choice(last=2)) for run in runs]
    both = averaging.run_average(averages)
    assert both.name == "RA of CA"
    assert len(both.members) == 6
    reference = np.mean([mean([(one, 0.5) for one in run[-2:]]) for run in runs], axis=0)
    assert np.allclose(read(merged(both, tmp_path / "ra"))["w"], reference, atol=1e-7)
    oracles = averaging.run_average([averaging.best_on_target(run, "target_accuracy") for run in runs])
    assert oracles.is_oracle
    assert averaging.run_average([averages[0]]).members == averages[0].members


def test_the_bytes_are_those_that_the_commands_write(tmp_path: Path):
    run = a_run(tmp_path, 1)
    table = tmp_path / "table.csv"
    table.write_text("path,step\n" + "".join(f"{one.path},{one.step}\n" for one in run))
    for name, weighting, options in [("mean", None, ()), ("ema", Weighting("ema"), ("--by", "ema"))]:
        ours = merged(averaging.checkpoint_average(run, None, weighting), tmp_path / name)
        polyak("average", tmp_path, tmp_path / f"{name}-command", "--table", table, *options)
        files = [folder / "model.safetensors" for folder in (ours, tmp_path / f"{name}-command")]
        with open_checkpoint(files[0]) as first, open_checkpoint(files[1]) as second:
            assert all(first.read(n).tobytes() == second.read(n).tobytes() for n in first.specs)
    lasts = averaging.run_average([averaging.last_checkpoint(a_run(tmp_path, seed)) for seed in (1, 2)])
    models = [{"name": f"run {i}", "path": str(one.path), "weight": 0.5} for i, (one, _) in enumerate(lasts.members)]
    merge = {"method": "linear", "models": models}
    (tmp_path / "merge.json").write_text(json.dumps(merge | {"buffers": "last"}))
    polyak("merge", tmp_path / "merge.json", tmp_path / "by-hand")
    ours = merged(lasts, tmp_path / "ra")
    assert read(ours)["w"].tobytes() == read(tmp_path / "by-hand")["w"].tobytes()


def test_no_checkpoints_runs_or_whole_weights_are_refused(tmp_path: Path):
    with pytest.raises(SettingError, match="the run has no checkpoints"):
        averaging.last_checkpoint([])
    with pytest.raises(SettingError, match="needs at least one run"):
        averaging.run_average([])
    run = a_run(tmp_path, 1)
    with pytest.raises(SettingError, match=r"the weights of 'half' sum to 0\.5; they must sum to 1"):
        averaging.recipe_of(Mixture("half", ((run[0], 0.5),)))
