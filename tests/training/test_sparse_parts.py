"""Selectors, schedules and measures against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.errors import RecipeError
from polyak.training._rates import cosine, linear, stepped
from polyak.training.sparse.measures import calibration_error, distances, worst_class
from polyak.training.sparse.schedules import ORIGINAL, retraining
from polyak.training.sparse.selectors import check_selector, select, sparsity_at

RNG = np.random.default_rng(0)
WEIGHTS = {"a": RNG.normal(size=(12, 8)), "b": 3 * RNG.normal(size=(5, 16)), "c": RNG.normal(size=(4, 8, 3, 3))}
ONES = {name: np.ones(weight.shape, bool) for name, weight in WEIGHTS.items()}
TOTAL = sum(weight.size for weight in WEIGHTS.values())


def phases(selector, goal, count, weights=WEIGHTS):
    masks, each = ONES, []
    for phase in range(1, count + 1):
        masks = select(selector, weights, masks, goal=goal, phase=phase, phases=count, seed=3)
        each.append(masks)
    return each


def test_the_share_of_what_is_left_is_the_same_in_each_phase():
    left = [1 - sparsity_at(0.9, phase, 3) for phase in range(4)]
    assert left[3] == pytest.approx(0.1, abs=1e-15)
    assert np.allclose(np.divide(left[1:], left[:-1]), 0.1 ** (1 / 3))


@pytest.mark.parametrize("selector", ["global", "random"])
@pytest.mark.parametrize("goal", [0.0, 0.5, 0.98])
def test_numbers_are_exact_and_masks_nested(selector, goal):
    before = ONES
    for phase, masks in enumerate(phases(selector, goal, 3), 1):
        assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity_at(goal, phase, 3) * TOTAL)
        assert all((before[name] | ~mask).all() for name, mask in masks.items())
        before = masks


def test_global_keeps_the_largest_magnitudes_of_all():
    (masks,) = phases("global", 0.7, 1)
    magnitudes = np.concatenate([abs(weight).ravel() for weight in WEIGHTS.values()])
    kept = np.concatenate([mask.ravel() for mask in masks.values()])
    assert magnitudes[kept].min() > magnitudes[~kept].max()


def test_uniform_is_exact_per_layer():
    (masks,) = phases("uniform", 0.7, 1)
    for name, mask in masks.items():
        assert int((~mask).sum()) == round(0.7 * mask.size)
        assert abs(WEIGHTS[name][mask]).min() > abs(WEIGHTS[name][~mask]).max()


def test_equal_magnitudes_go_in_order():
    weights = {"a": np.ones((2, 3)), "b": np.ones((1, 2))}
    ones = {name: np.ones(weight.shape, bool) for name, weight in weights.items()}
    masks = select("global", weights, ones, goal=0.5, phase=1, phases=1, seed=0)
    assert masks["a"].tolist() == [[False] * 3, [False, True, True]]  # round(2.5) = 2, to even
    assert masks["b"].all()


def test_random_depends_on_the_seed_alone():
    again = {name: weight * 0 + 1 for name, weight in WEIGHTS.items()}
    (first,), (second,) = phases("random", 0.5, 1), phases("random", 0.5, 1, again)
    assert all((first[name] == second[name]).all() for name in first)


def test_groups_keep_the_largest_inputs():
    (masks,) = phases("2:4", 0.5, 1)
    for name, mask in masks.items():
        groups = np.moveaxis(mask, 1, -1).reshape(-1, 4)
        values = np.moveaxis(abs(WEIGHTS[name]), 1, -1).reshape(-1, 4)
        assert (groups.sum(1) == 2).all()
        assert (np.where(groups, values, np.inf).min(1) > np.where(groups, -np.inf, values).max(1)).all()
    kept = [np.moveaxis(masks["a"], 1, -1).reshape(-1, 8).sum(1)[0] for masks in phases("2:8", 0.75, 3)]
    assert kept == [6, 4, 2]


@pytest.mark.parametrize(
    ("selector", "sparsity", "message"),
    [
        ("globl", 0.5, "unknown selector 'globl'. Did you mean 'global'?"),
        ("4:4", 0.0, "keeps 4 of 4 weights"),
        ("2:4", 0.9, "has a sparsity of 0.5; got 0.9"),
        ("2:3", 1 / 3, "'a' has 8 inputs, which are no multiple of 3"),
    ],
)
def test_selectors_that_do_not_fit_are_refused(selector, sparsity, message):
    with pytest.raises(RecipeError, match=message):
        check_selector(selector, sparsity, {"a": (3, 8)})


def test_schedules_follow_their_definitions():
    steps, original_steps = 100, 400
    for name, make in ORIGINAL.items():
        original = make(original_steps)
        ft, lrw = (retraining(kind, steps, original, original_steps) for kind in ("ft", "lrw"))
        assert {ft(step) for step in range(steps)} == {original(399)}, name
        assert [lrw(step) for step in range(steps)] == [original(300 + step) for step in range(steps)]
        slr = retraining("slr", steps, original, original_steps)
        assert slr(10 + 45) == pytest.approx(original(200))  # halfway after a warm-up of 10 steps
        clr = retraining("clr", steps, original, original_steps)
        assert clr(10) == 1
        assert clr(99) >= original(399) - 1e-9
    llr = retraining("llr", steps, linear(original_steps), original_steps)
    assert [llr(step) for step in (0, 9, 10, 55, 99)] == pytest.approx([1 / 11, 10 / 11, 1, 0.5, 1 / 90])
    allr = retraining("allr", steps, linear(original_steps), original_steps, drop=0.6)
    assert [allr(step) / llr(step) for step in range(steps)] == pytest.approx([0.6] * steps)
    short = retraining("allr", steps, linear(original_steps), original_steps, drop=0.1)
    assert short(10) == pytest.approx(0.25)  # the share of the budget counts more
    assert cosine(10)(5) == pytest.approx(0.5)
    assert [stepped(8)(step) for step in (3, 4, 6)] == pytest.approx([1, 0.1, 0.01])


def test_the_calibration_error_is_that_of_its_definition():
    logits = RNG.normal(size=(500, 4)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = RNG.integers(4, size=500)
    expected = 0.0
    for i in range(15):
        confidence = probabilities.max(1)
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            right = (probabilities.argmax(1) == labels)[inside].mean()
            expected += inside.mean() * abs(right - confidence[inside].mean())
    assert calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)
    assert worst_class(probabilities, labels) == min(
        (probabilities[labels == k].argmax(1) == k).mean() for k in range(4)
    )


def test_distances_are_from_the_mean():
    from polyak.checkpoint import MemoryCheckpoint

    models = [MemoryCheckpoint({"w": np.array([1.0, 0.0])}), MemoryCheckpoint({"w": np.array([0.0, 1.0])})]
    for apart in distances(models, ["w"]):
        assert apart == pytest.approx({"distance": 0.5**0.5, "angle": 45.0})
