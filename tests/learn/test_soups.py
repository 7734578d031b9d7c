"""Soups: what is taken in, learned, or weighed by losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file

from polyak import api
from polyak.errors import TaskError
from polyak.learn import greedy_soup as module
from polyak.learn import learn
from polyak.tasks import evaluate

from . import problems

POOL = ("noise", "expert-1", "expert-0")


def test_a_greedy_soup_takes_in_what_helps_and_says_why(world, tmp_path):
    task = problems.task(world)
    found, learned = learn("greedy_soup", problems.recipe(world, POOL), [task])
    said = learned.decisions
    assert said["steps"][0]["model"] == max(said["scores"], key=said["scores"].get) == "expert-0"
    best = said["steps"][0]["score"]
    for step in said["steps"][1:]:
        assert step["taken"] is (step["score"] > best)
        best = max(best, step["score"]) if step["taken"] else best
    api.merge(found, tmp_path / "soup")
    assert evaluate(tmp_path / "soup", task, split="validation").metric_value == said["score"] == best
    assert {m.name for m in found.models if m.settings["weight"]} == set(said["taken"])


@pytest.mark.parametrize(("accept", "taken"), [("better", ["a"]), ("not_worse", ["a", "b", "c"])])
def test_the_two_rules_differ_on_equal_scores_and_ties_go_by_name(world, accept, taken, monkeypatch):
    monkeypatch.setattr(module._Soups, "score", lambda self, members: 0.5)
    asked = problems.recipe(world, POOL)
    names = dict(zip(POOL, "cba", strict=True))
    asked = replace(asked, models=tuple(replace(m, name=names[m.name]) for m in asked.models))
    _, learned = learn("greedy_soup", asked, [problems.task(world)], settings={"accept": accept})
    assert learned.decisions["taken"] == taken


@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_a_learned_soup_is_that_of_autograd_through_the_softmax(world, granularity):
    task = problems.task(world)
    settings = {"granularity": granularity, "epochs": 3, "batch_size": 1000}
    _, learned = learn("learned_soup", problems.recipe(world, POOL), [task], settings=settings)
    states = [load_file(world / name / "model.safetensors") for name in POOL]
    names, batch = list(states[0]), next(iter(task.batches("calibration", batch_size=1000, seed=0)))
    raw = torch.zeros(len(names) if granularity == "layer" else 1, 3, requires_grad=True)
    optimiser = torch.optim.AdamW([raw], lr=0.05, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3)
    for _ in range(3):
        a = raw.softmax(1)
        merged = {
            n: sum(w * s[n] for w, s in zip(a[i if granularity == "layer" else 0], states, strict=True))
            for i, n in enumerate(names)
        }
        logits = torch.func.functional_call(problems.Network(), merged, kwargs=dict(batch.inputs))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, batch.targets).backward()
        optimiser.step()
        schedule.step()
    rows = dict(zip(names, raw.softmax(1).detach().numpy(), strict=granularity == "layer"))
    wanted = [rows[n] for n in learned.names] if granularity == "layer" else [rows[names[0]]]
    np.testing.assert_allclose(learned.coefficients, wanted, atol=1e-5)
    assert np.abs(learned.coefficients - 1 / 3).max() > 0.01


def test_a_cocktail_weighs_by_the_losses_of_the_models(world):
    task = problems.task(world)
    found, learned = learn("lm_cocktail", problems.recipe(world, POOL), [task], settings={"examples": 40})
    batch = next(iter(task.batches("calibration", limit=40, batch_size=40, seed=0)))
    losses = []
    for name in POOL:
        network = problems.Network()
        network.load_state_dict(load_file(world / name / "model.safetensors"))
        losses.append(float(task.losses(network, batch).mean().detach()))
    wanted = np.exp(-np.array(losses) / 5)
    weights = [model.settings["weight"] for model in found.models]
    np.testing.assert_allclose(weights, wanted / wanted.sum(), rtol=1e-5)
    assert found.method == "linear" and learned.decisions["losses"] == pytest.approx(
        dict(zip(POOL, losses, strict=True))
    )


@pytest.mark.parametrize("name", ["greedy_soup", "learned_soup", "lm_cocktail"])
def test_the_test_split_is_not_learned_from(world, name):
    with pytest.raises(TaskError, match="would bias"):
        learn(name, problems.recipe(world), [problems.task(world)], settings={"split": "test"})
