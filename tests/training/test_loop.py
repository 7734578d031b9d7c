"""The loop trains like a plain one, is deterministic, masks, and resumes bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polyak import checkpoint, training
from polyak.errors import Mismatch
from polyak.events import UnitAdvanced
from polyak.runs import Desk
from polyak.training import Fit, UnitFailed, fit, linear, live_model
from polyak.training._declaration import placed
from polyak.training._setup import common

from . import problem


def setup_of(folder: Path, **more: Any) -> training.Setup:
    return placed(common(**problem.keys(folder, **more)), folder)


class Killed(BaseException):
    """Leaves everything like a kill does."""


class Kill:
    """Ends the training at a step, wherever a Trainer calls back."""

    def __init__(self, step: int) -> None:
        from transformers import TrainerCallback

        class Callback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == step:
                    raise Killed

        self.callback = Callback()


def trained(folder: Path, setup: training.Setup, how: Fit, name: str = "unit") -> dict[str, Any]:
    (folder / name).mkdir(exist_ok=True)
    with setup.start() as source:
        live = live_model(setup, source)
        fit(Desk(name, folder / name, folder), setup, live, source, how)
    return live.read()


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name


def assert_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert any(array.tobytes() != second[name].tobytes() for name, array in first.items())


def test_the_steps_are_those_of_a_plain_loop(points):
    setup = setup_of(points, module="tests.training.problem:Plain", weight_decay=0.01)
    with setup.start() as source:
        live = live_model(setup, source)
        plain = live_model(setup, source)
    task, drawn = setup.task(), []
    batch = task.batch

    def recorded(split: str, examples: Any) -> Any:
        drawn.append(list(examples))
        return batch(split, examples)

    task.batch = recorded
    try:
        (points / "unit").mkdir()
        fit(Desk("unit", points / "unit", points), setup, live, source, Fit(12, 3, linear(12)))
    finally:
        del task.batch
    assert sorted(itertools.chain(*drawn[:9])) == list(range(144))  # an epoch has each example once
    groups = [
        {"params": [p for p in plain.module.parameters() if (p.ndim > 1) is decays], "weight_decay": 0.01 * decays}
        for decays in (True, False)
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    for step, examples in enumerate(drawn[:12]):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 12)
        plain.module.train()
        optimizer.zero_grad()
        task.losses(plain.module, batch("train", examples)).mean().backward()
        optimizer.step()
    assert_same(live.read(), plain.read())


def test_a_seed_decides_everything_and_the_callers_random_states_are_kept(points):
    setup = setup_of(points)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = trained(points, setup, Fit(10, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_same(first, trained(points, setup, Fit(10, 1)))
    assert_differ(first, trained(points, setup, Fit(10, 2)))


@pytest.mark.parametrize(
    ("killed", "optimizer"),
    [(7, "sgd"), (8, "adamw"), (12, "sgd")],  # after a checkpoint; at one; in the next epoch
)
def test_a_killed_training_continues_bit_for_bit(points, killed, optimizer):
    setup = setup_of(points, checkpoint_every=4, optimizer=optimizer, learning_rate=0.01)
    whole = trained(points, setup, Fit(20, 1, linear(20)))
    with pytest.raises(Killed):
        trained(points, setup, Fit(20, 1, linear(20), callbacks=[Kill(killed).callback]), "killed")
    resumed = trained(points, setup, Fit(20, 1, linear(20)), "killed")
    assert_same(whole, resumed)
    assert (points / "unit/metrics.jsonl").read_text() == (points / "killed/metrics.jsonl").read_text()
    assert sorted(path.name for path in (points / "killed").iterdir()) == ["metrics.jsonl"]


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_used(points):
    setup = setup_of(points, checkpoint_every=4)
    whole = trained(points, setup, Fit(12, 1))
    with pytest.raises(Killed):
        trained(points, setup, Fit(12, 1, callbacks=[Kill(10).callback]), "killed")
    (marker,) = (points / "killed/training").glob("checkpoint-*/complete")
    marker.unlink()
    (marker.parent / "model.safetensors").write_bytes(b"half")
    assert_same(whole, trained(points, setup, Fit(12, 1), "killed"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_masked_weights_stay_zero_with_momentum_decay_and_after_a_reload(points, optimizer):
    setup = setup_of(points, checkpoint_every=4, optimizer=optimizer, weight_decay=0.1, clip=1.0)
    generator = torch.Generator().manual_seed(0)
    masks = {"layers.0.weight": (torch.rand(24, 8, generator=generator) < 0.3).float()}
    whole = trained(points, setup, Fit(12, 1, masks=masks))
    with pytest.raises(Killed):
        trained(points, setup, Fit(12, 1, masks=masks, callbacks=[Kill(9).callback]), "killed")
    state = torch.load(points / "killed/training/checkpoint-8/optimizer.pt")["state"]
    moments = [value for entry in state.values() for value in entry.values() if getattr(value, "shape", ()) == (24, 8)]
    assert moments
    for moment in moments:
        assert not moment[masks["layers.0.weight"] == 0].any()
        assert moment.any()
    resumed = trained(points, setup, Fit(12, 1, masks=masks), "killed")
    assert_same(whole, resumed)
    weight = torch.from_numpy(whole["layers.0.weight"])
    assert not weight[masks["layers.0.weight"] == 0].any()
    assert (weight != 0).sum() == masks["layers.0.weight"].sum()


def test_a_mask_that_fits_nothing_is_refused(points):
    with pytest.raises(Mismatch, match=r"there is a mask of \[2\] for 'layers\.0\.weight'"):
        trained(points, setup_of(points), Fit(2, 1, masks={"layers.0.weight": torch.ones(2)}))


def test_snapshots_are_a_run_that_average_reads(points):
    from polyak.averaging import read_run

    setup = setup_of(points)
    trained(points, setup, Fit(9, 1, snapshots=[3, 9]))
    assert [saved.step for saved in read_run(points / "unit")] == [3, 9]
    with checkpoint.open(points / "unit/checkpoint-9") as last:
        assert last.read("head.weight").shape == (3, 16)


def test_live_averages_ride_along(points):
    from polyak.averaging import live as averages

    setup = setup_of(points)
    with setup.start() as source:
        model = live_model(setup, source)
        averager = averages.Averager(model.module, averages.uniform())
        (points / "unit").mkdir()
        fit(
            Desk("unit", points / "unit", points), setup, model, source,
            Fit(6, 1, callbacks=[averager.for_transformers()]),
        )  # fmt: skip
    assert averager.updates("uniform") == 6


def test_a_training_that_diverges_fails_by_name(points):
    setup = setup_of(points, module="tests.training.problem:Broken", learning_rate=1e6)
    with pytest.raises(UnitFailed, match=r"it diverged: its loss is (nan|inf) at step 5 of 10"):
        trained(points, setup, Fit(10, 1))


def test_progress_counts_every_step_once(points):
    told: list[Any] = []
    setup = setup_of(points)
    (points / "unit").mkdir()
    with setup.start() as source:
        live = live_model(setup, source)
        fit(Desk("unit", points / "unit", points, watcher=told.append), setup, live, source, Fit(7, 1))
    assert sum(event.count for event in told if isinstance(event, UnitAdvanced)) == 7


def test_accumulated_batches_are_one_step(points):
    halves = trained(
        points, setup_of(points, batch_size=8, accumulate=2, module="tests.training.problem:Plain"), Fit(6, 1)
    )
    whole = trained(points, setup_of(points, batch_size=16, module="tests.training.problem:Plain"), Fit(6, 1), "other")
    for name, array in halves.items():
        torch.testing.assert_close(torch.from_numpy(array), torch.from_numpy(whole[name]), msg=name)


def test_a_heads_own_parameters_are_frozen(points):
    text = (points / "points.yaml").read_text()
    (points / "points.yaml").write_text(f"{text}heads: ^head\n")
    setup = setup_of(points)
    with setup.start() as source:
        live = live_model(setup, source)
        before = {name: p.clone() for name, p in live.module.named_parameters() if name.startswith("head")}
        (points / "unit").mkdir()
        fit(Desk("unit", points / "unit", points), setup, live, source, Fit(4, 1))
    assert before
    for name, parameter in before.items():
        assert torch.equal(parameter, live.module.get_parameter(name))


def test_the_module_may_be_any(points):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.head = nn.Linear(8, 3)

        def forward(self, points: Any) -> Any:
            return {"logits": self.head(self.second(self.first(points).relu()).relu())}

    setup = setup_of(points, module=Tied, checkpoint_every=2)
    assert "second.weight" not in trained(points, setup, Fit(4, 1))
