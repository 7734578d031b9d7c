"""AdaMerging: gradients, golden numbers, FusionBench's loop, and recipes that rebuild what was learned."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file

from polyak import api
from polyak import recipe as recipes
from polyak.errors import PolyakError, TaskError
from polyak.learn import learn, text_for
from polyak.learn._batches import drawn, fixed
from polyak.learn._candidate import Candidate
from polyak.learn._objective import Objective
from polyak.learn._pool import Pool

from . import problems


def candidate(folder, tasks, granularity="layer", **kwargs):
    return Candidate(Pool(problems.recipe(folder, **kwargs)), tasks, granularity=granularity)


def states(folder, *names):
    return [load_file(folder / name / "model.safetensors") for name in names]


def combined(base, experts, name, row):
    return base[name] + sum(w * (expert[name] - base[name]) for w, expert in zip(row, experts, strict=True))


def test_the_gradient_is_the_published_one(golden):
    folder, task = golden
    one = candidate(folder, [task], models=("expert-0", "expert-1", "expert-2"))
    one.put(np.full(one.shape, 0.3), np.zeros(3))
    found = one.slope(fixed([task], "calibration", examples=None, batch_size=3, seed=0), Objective("entropy"))
    assert found.loss == pytest.approx(0.797418, abs=1e-6)
    rows = dict(zip(one.rows, found.gradient, strict=True))
    assert rows["layer.weight"] == pytest.approx([-0.76035, -0.06311, -0.99086], abs=1e-5)
    assert rows["layer.bias"] == pytest.approx([-0.43388, 0.53909, -0.12339], abs=1e-5)


@pytest.mark.parametrize("objective", ["entropy", "loss"])
@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_the_gradient_is_that_of_autograd_through_the_merge(world, granularity, objective):
    tasks = [problems.task(world, number) for number in (0, 1)]
    one = candidate(world, tasks, granularity)
    coefficients = np.random.default_rng(0).uniform(0, 1, one.shape)
    one.put(coefficients, np.zeros(2))
    batches = next(drawn(tasks, "calibration", batch_size=16, seed=0))
    found = one.slope(batches, Objective(objective))

    base, *experts = states(world, "base", "expert-0", "expert-1")
    rows = torch.tensor(coefficients, dtype=torch.float32, requires_grad=True)
    merged = {
        name: combined(base, experts, name, rows[i if granularity == "layer" else 0]) for i, name in enumerate(one.rows)
    }
    module = problems.Network()
    loss = 0.0
    for batch in (batches[0][0], batches[1][0]):
        logits = torch.func.functional_call(module, merged, kwargs=dict(batch.inputs))
        logs = logits.log_softmax(-1)
        picked = torch.nn.functional.cross_entropy(logits, batch.targets)
        loss = loss + (-(logs.exp() * logs).sum(-1).mean() if objective == "entropy" else picked)
    loss.backward()
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    np.testing.assert_allclose(found.gradient, rows.grad.numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_twenty_steps_are_those_of_fusionbench(world, granularity):
    tasks = [problems.task(world, number) for number in (0, 1)]
    settings = {"granularity": granularity, "steps": 20, "clamp": False, "epsilon": 1e-8, "lr": 0.05}
    _, learned = learn("adamerging", problems.recipe(world), tasks, settings=settings)

    base, *experts = states(world, "base", "expert-0", "expert-1")
    names = list(base)
    raw = torch.full((len(names) if granularity == "layer" else 1, 2), 0.3, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.05)
    stream = drawn(tasks, "calibration", batch_size=16, seed=0)
    module = problems.Network()
    for _ in range(20):
        merged = {
            name: combined(base, experts, name, raw[i if granularity == "layer" else 0]) for i, name in enumerate(names)
        }
        loss = 0.0
        for batches in next(stream):
            logits = torch.func.functional_call(module, merged, kwargs=dict(batches[0].inputs))
            probabilities = logits.softmax(-1)
            loss = loss - (probabilities * torch.log(probabilities + 1e-8)).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    rows = dict(zip(names, raw.detach().numpy(), strict=granularity == "layer"))
    wanted = [rows[name] for name in learned.names] if granularity == "layer" else raw.detach().numpy()
    assert np.abs(np.asarray(wanted) - 0.3).max() > 0.1
    np.testing.assert_allclose(learned.coefficients, wanted, atol=1e-5)


@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_the_learned_recipe_rebuilds_the_weights_that_were_learned(world, granularity, tmp_path):
    tasks = [problems.task(world, number) for number in (0, 1)]
    settings = {"granularity": granularity, "steps": 3, "lr": 0.05}
    found, learned = learn("adamerging", problems.recipe(world), tasks, settings=settings)
    one = candidate(world, tasks, granularity)
    one.put(learned.coefficients, np.zeros(2))
    (tmp_path / "learned.yaml").write_text(text_for(found, tmp_path / "learned.yaml"))
    read = recipes.load(tmp_path / "learned.yaml")
    assert read.provenance == found.provenance
    api.merge(tmp_path / "learned.yaml", tmp_path / "out")
    live = one._lives[0].read()
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        np.testing.assert_array_equal(tensor.numpy(), live[name], err_msg=name)
    here = tmp_path / "again.yaml"
    here.write_text(text_for(read, here))
    assert recipes.digest(recipes.load(here)) == recipes.digest(read)


def test_entropy_falls_and_the_same_seed_learns_the_same(world):
    tasks, log = [problems.task(world, number) for number in (0, 1)], []
    settings = {"steps": 30, "lr": 0.02, "batch_size": 200}
    first, learned = learn("adamerging", problems.recipe(world), tasks, settings=settings, log=log.append)
    assert log[-1]["loss"] < log[0]["loss"] and len(log) == 30
    again, _ = learn("adamerging", problems.recipe(world), tasks, settings=settings)
    assert recipes.digest(first) == recipes.digest(again)
    assert learned.coefficients.min() >= 0 and learned.coefficients.max() <= 1 + 1e-9


def test_provenance_says_what_was_learned_from_and_the_test_split_is_called_transductive(world):
    task = problems.task(world)
    for split in ("calibration", "test"):
        found, learned = learn("adamerging", problems.recipe(world), [task], settings={"steps": 1, "split": split})
        said = found.provenance
        assert said["tasks"] == [{"name": "task-0", "examples": task.count(split), "digest": task.digest(split)}]
        assert said["transductive"] is (split == "test") is bool(learned.notes)
    with pytest.raises(TaskError, match="labels of the test split"):
        learn("adamerging", problems.recipe(world), [task], settings={"split": "test", "objective": "loss"})


def test_a_collapse_stops_and_leaves_the_coefficients_of_before(world):
    stubborn = states(world, "base")[0]
    stubborn["head.bias"] = stubborn["head.bias"] + torch.tensor([20.0, 0, 0])
    problems.write(world, "stubborn", stubborn)
    tasks = [problems.task(world)]
    settings = {"steps": 300, "lr": 0.05, "clamp": False, "granularity": "task", "init": 0.04}
    asked = problems.recipe(world, models=("expert-0", "stubborn"))
    found, learned = learn("adamerging", asked, tasks, settings=settings)
    assert learned.decisions["stopped"] == "collapse" and "collapsed" in learned.notes[0]
    assert found.provenance["decisions"]["steps"] < 300


def test_adamerging_plus_plus_learns_what_ties_leaves_of_each_model(world, tmp_path):
    """Global top 20 %, signs elected by the sum: against the same in NumPy, and through autograd."""
    tasks = [problems.task(world, number) for number in (0, 1)]
    settings = {"trim": True, "steps": 5, "lr": 0.05, "clamp": False}
    found, learned = learn("adamerging", problems.recipe(world), tasks, settings=settings)
    base, *experts = states(world, "base", "expert-0", "expert-1")
    deltas = [{n: (e[n] - base[n]).numpy() for n in base} for e in experts]
    flat = [np.concatenate([np.abs(d[n]).ravel() for n in base]) for d in deltas]
    keep = [np.sort(f)[len(f) - int(0.2 * len(f)) - 1] for f in flat]
    left = [{n: np.where(np.abs(d[n]) >= k, d[n], 0) for n in base} for d, k in zip(deltas, keep, strict=True)]
    signs = {n: np.sign(left[0][n] + left[1][n]) for n in base}
    parts = [{n: torch.tensor(np.where(one[n] * signs[n] > 0, one[n], 0)) for n in base} for one in left]
    assert 0.05 < np.mean(np.concatenate([p.numpy().ravel() != 0 for p in parts[0].values()])) < 0.21

    raw = torch.full((len(base), 2), 0.3, requires_grad=True)
    optimiser, stream = torch.optim.Adam([raw], lr=0.05), drawn(tasks, "calibration", batch_size=16, seed=0)
    for _ in range(5):
        merged = {n: base[n] + raw[i, 0] * parts[0][n] + raw[i, 1] * parts[1][n] for i, n in enumerate(base)}
        loss = 0.0
        for batches in next(stream):
            logs = torch.func.functional_call(problems.Network(), merged, kwargs=dict(batches[0].inputs)).log_softmax(
                -1
            )
            loss = loss - (logs.exp() * logs).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    rows = dict(zip(base, raw.detach().numpy(), strict=True))
    np.testing.assert_allclose(learned.coefficients, [rows[n] for n in learned.names], atol=1e-5)
    (tmp_path / "learned.yaml").write_text(text_for(found, tmp_path / "learned.yaml"))
    api.merge(tmp_path / "learned.yaml", tmp_path / "out")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        wanted = base[name] + sum(w * part[name] for w, part in zip(rows[name], parts, strict=True))
        torch.testing.assert_close(tensor, wanted, atol=1e-5, rtol=1e-5)


def test_a_broken_model_or_another_body_is_refused_by_name(world):
    broken = states(world, "base")[0]
    problems.write(world, "broken", {**broken, "head.bias": torch.full((3,), float("nan"))})
    with pytest.raises(PolyakError, match=r"head\.bias.*broken"):
        learn("adamerging", problems.recipe(world, models=("expert-0", "broken")), [problems.task(world)])

    class Headless(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = problems.Network().body

        def forward(self, points):
            return self.body(points)

    headless = problems.task(world, 1, factory=Headless, unused="head")
    with pytest.raises(PolyakError, match=r"do not have the same body.*Heads stay"):
        learn("adamerging", problems.recipe(world), [problems.task(world), headless])


class Unlucky(problems.Network):
    def forward(self, points):
        raise LookupError("out of luck")


class Detached(problems.Network):
    def forward(self, points):
        return super().forward(points).detach()


class OneWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points):
        return points.clone()

    @staticmethod
    def backward(ctx, slope):
        raise LookupError("no way back")


class Stuck(problems.Network):
    def forward(self, points):
        return OneWay.apply(super().forward(points))


FAILING = {
    Unlucky: r"the model fails: out of luck \(LookupError\)",
    Detached: "its loss does not depend on the merged weights",
    Stuck: r"the model has no gradient: .*no way back.* \(LookupError\)",
}


@pytest.mark.parametrize("network", FAILING, ids=lambda network: network.__name__)
@pytest.mark.parametrize("learner", ["adamerging", "frank_wolfe"])
def test_a_module_that_fails_is_named_with_its_task(world, learner, network):
    task = problems.task(world, factory=network)
    with pytest.raises(PolyakError, match=f"task '{task.name}': {FAILING[network]}"):
        learn(learner, problems.recipe(world), [task])


WRONG = [
    ({"models": ("expert-0",)}, {}, "two models or more"),
    ({}, {"split": "calibrated"}, "'split' of learner 'adamerging' must be one of"),
    ({}, {"steps": 0}, "'steps' of learner 'adamerging' must be at least 1; got 0"),
    ({}, {"stepps": 3}, "no setting 'stepps'. Did you mean 'steps'?"),
]


@pytest.mark.parametrize(("models", "settings", "said"), WRONG)
def test_what_is_wrong_is_refused_by_name(world, models, settings, said):
    with pytest.raises(PolyakError, match=said):
        learn("adamerging", problems.recipe(world, **models), [problems.task(world)], settings=settings)


def test_adamerging_plus_plus_leaves_no_files_behind(world, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    settings = {"trim": True, "steps": 1}
    watch = lambda entry: seen.extend(tmp_path.rglob("*.safetensors"))  # noqa: E731
    learn("adamerging", problems.recipe(world), [problems.task(world, 0)], settings=settings, log=watch)
    assert len(seen) == 2
    assert not list(tmp_path.iterdir())
