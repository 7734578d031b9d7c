"""Frank-Wolfe merging: golden numbers, the simplex, line search, and models that are of no use."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.torch import load_file

from polyak import api
from polyak.errors import SettingError, TaskError
from polyak.learn import learn
from polyak.learn._batches import fixed
from polyak.learn._candidate import Candidate
from polyak.learn._hull import Vertex, best, cosines, mixed, pairwise_step, vertices
from polyak.learn._objective import Objective
from polyak.learn._pool import Pool
from polyak.learn._simplex import capped, projected

from . import problems


def test_projection_on_the_simplex_is_the_published_one_and_the_nearest_point():
    assert projected(np.array([[0.5, 0.8, -0.2]]))[0] == pytest.approx([0.35, 0.65, 0])
    rng = np.random.default_rng(0)
    rows, others = rng.normal(size=(50, 4)), rng.dirichlet(np.ones(4), 2000)
    found = projected(rows)
    np.testing.assert_allclose(found.sum(1), 1)
    assert found.min() >= 0
    nearest = ((rows[:, None] - others) ** 2).sum(2).min(1)
    assert (((rows - found) ** 2).sum(1) <= nearest + 1e-12).all()
    assert capped(np.array([[0.2, -1.0, 0.3]]))[0] == pytest.approx([0.2, 0, 0.3])
    assert capped(np.array([[0.5, 0.8, -0.2]]))[0] == pytest.approx([0.35, 0.65, 0])


def test_the_linear_minimisation_is_the_published_one(golden):
    folder, task = golden
    asked = problems.recipe(folder, models=("expert-0", "expert-1", "expert-2"))
    one = Candidate(Pool(asked), [task], granularity="layer")
    at = np.full(one.shape, 0.3)
    one.put(at, np.zeros(3))
    slope = one.slope(fixed([task], "calibration", examples=None, batch_size=3, seed=0), Objective("entropy"))
    row = one.rows.index("layer.weight")
    corners = vertices(one, with_base=False)
    choice = best(corners, at, slope.gradient)
    scores = slope.tensors[row, 0] + slope.tensors[row, 1:]
    assert scores == pytest.approx([-0.86983, -0.17259, -1.10035], abs=1e-5)
    assert choice.names[row] == "expert-2"
    # Published for theta - s with theta_0 + .3 sum tau_i: <g, theta_l> - min <g, theta_i>.
    assert choice.gap[row] == pytest.approx(0.446568, abs=1e-5)
    grams = np.stack([one.pool.gram(name) for name in one.rows])
    found = cosines(corners, slope.tensors, slope.norms, grams)
    assert found[row] == pytest.approx([-0.26499, -0.05813, -0.27969], abs=1e-5)


@pytest.mark.parametrize("variant", ["hard", "soft"])
@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_the_loss_never_rises_and_coefficients_stay_on_the_simplex(world, granularity, variant):
    tasks = [problems.task(world, number) for number in (0, 1)]
    settings = {"granularity": granularity, "variant": variant, "iterations": 4, "inner_steps": 4}
    found, learned = learn("frank_wolfe", problems.recipe(world), tasks, settings=settings)
    losses = learned.decisions["losses"]
    assert all(b <= a for a, b in pairwise(losses)) and losses[-1] < losses[0]
    assert all(entry["gap"] >= 0 for entry in learned.decisions["iterations"])
    np.testing.assert_allclose(learned.coefficients.sum(1), learned.decisions["stretch"], atol=1e-9)
    assert learned.coefficients.min() >= -1e-12
    api.plan(found)


def test_an_irrelevant_vertex_leaves_the_choice_as_it_is():
    gradient, at = np.array([[0.3, -0.2, 0.5], [0.1, 0.4, 0.9]]), np.full((2, 3), 1 / 3)
    corners = [Vertex(str(i), np.tile(np.eye(3)[i], (2, 1))) for i in range(3)]
    few, all_three = best(corners[:2], at, gradient), best(corners, at, gradient)
    assert few.names == all_three.names == ("1", "0")
    np.testing.assert_array_equal(few.gap, all_three.gap)


def test_a_model_that_is_noise_loses_its_weight(world):
    tasks = [problems.task(world, number) for number in (0, 1)]
    asked = problems.recipe(world, models=("expert-0", "expert-1", "noise"))
    _, learned = learn("frank_wolfe", asked, tasks, settings={"granularity": "task", "iterations": 20})
    losses = learned.decisions["losses"]
    assert losses[-1] < 0.8 * losses[0] and learned.coefficients[0, 2] < 0.1


@pytest.mark.parametrize("follow", ["paper", "official"])
@pytest.mark.parametrize("variant", ["hard", "soft"])
def test_the_papers_and_the_authors_rules_walk_too(world, variant, follow):
    tasks = [problems.task(world, number) for number in (0, 1)]
    settings = {"follow": follow, "variant": variant, "iterations": 2, "inner_steps": 3, "granularity": "task"}
    _, learned = learn("frank_wolfe", problems.recipe(world), tasks, settings=settings)
    assert learned.coefficients.shape == (1, 2) and len(learned.decisions["iterations"]) == 2
    if variant == "hard":
        first = learned.decisions["iterations"][0]["step"]
        assert first == pytest.approx(2 / 3 if follow == "paper" else 0.3)


def test_what_is_wrong_is_refused_by_name(world):
    without = problems.recipe(world, base=None)
    with pytest.raises(SettingError, match="needs a base"):
        learn("frank_wolfe", without, [problems.task(world)], settings={"follow": "paper"})
    problems.write_points(world / "bare.jsonl", problems.examples(9)[0])
    with pytest.raises(TaskError, match="task-0"):
        learn("frank_wolfe", without, [problems.task(world, splits={"validation": "task-0.jsonl"})])


class Bowl:
    """|A x - b|^2 / 2 of weights x on the simplex, in float64: strongly convex, its least inside a face."""

    def __init__(self, seed=0, count=6):
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(8, count))
        inside = np.array([0.5, 0.3, 0.2, *np.zeros(count - 3)])
        self.b = self.a @ inside + 0.01 * rng.normal(size=8)
        self.corners = [Vertex(str(i), np.eye(count)[i : i + 1]) for i in range(count)]

    def loss(self, at):
        return float(((self.a @ at[0] - self.b) ** 2).sum() / 2)

    def gradient(self, at):
        return (self.a.T @ (self.a @ at[0] - self.b))[None]

    def least(self):
        """By projected gradient, which is another way."""
        x = np.full((1, len(self.corners)), 1 / len(self.corners))
        length = 1 / np.linalg.norm(self.a, 2) ** 2
        for _ in range(20_000):
            before, x = x, projected(x - length * self.gradient(x))
            if np.abs(x - before).max() < 1e-15:
                break
        return x


def walked(bowl, steps):
    """Losses above the least, and gaps, of pairwise steps from the average."""
    least = bowl.loss(bowl.least())
    weights = np.full((1, len(bowl.corners)), 1 / len(bowl.corners))
    above, gaps = [], []
    for _ in range(steps):
        at = mixed(bowl.corners, weights)
        gaps.append(float(best(bowl.corners, at, bowl.gradient(at)).gap[0]))
        above.append(bowl.loss(at) - least)
        weights, _, _ = pairwise_step(bowl.loss, bowl.corners, weights, bowl.gradient(at), bowl.loss(at))
    return np.array(above), np.array(gaps), weights


@pytest.mark.parametrize("seed", range(3))
def test_pairwise_steps_reach_the_least_of_the_simplex_and_the_gap_bounds_how_far_it_is(seed):
    bowl = Bowl(seed)
    above, gaps, weights = walked(bowl, 400)
    assert (above <= gaps + 1e-12).all() and gaps[-1] < 1e-6 * gaps[0]
    np.testing.assert_allclose(weights, bowl.least(), atol=1e-4)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)


def test_pairwise_steps_converge_linearly_and_steps_towards_a_vertex_do_not():
    bowl = Bowl()
    above, _, _ = walked(bowl, 200)
    halved = [int(np.argmax(above < above[0] * 10.0**-k)) for k in (2, 4, 6, 8)]
    assert 0 < halved[0] < halved[1] < halved[2] < halved[3] < 200  # so many steps for every two digits
    assert halved[3] - halved[2] < 4 * max(halved[1] - halved[0], 5)
    at, least = np.full((1, 6), 1 / 6), bowl.loss(bowl.least())
    for _ in range(halved[3]):
        gradient = bowl.gradient(at)
        to = best(bowl.corners, at, gradient).point
        along = bowl.a @ (to - at)[0]
        step = float(np.clip(((at - to) * gradient).sum() / (along @ along), 0, 1))  # the best there is
        at = at + step * (to - at)
    assert bowl.loss(at) - least > 100 * above[halved[3]]


def test_the_hull_is_stretched_as_far_as_that_helps_and_the_loss_does_not_end_above_where_it_began(world):
    """Of models that lie a third of their way from the base."""
    base = load_file(world / "base" / "model.safetensors")
    for i in (0, 1):
        expert = load_file(world / f"expert-{i}" / "model.safetensors")
        state = {name: base[name] + (one - base[name]) / 3 for name, one in expert.items()}
        problems.write(world, f"short-{i}", state)
    tasks, names = [problems.task(world, number) for number in (0, 1)], ("short-0", "short-1")
    settings = {"granularity": "task", "iterations": 5}
    asked = problems.recipe(world, models=names)
    _, plain = learn("frank_wolfe", asked, tasks, settings=settings | {"hull": "models"})
    _, learned = learn("frank_wolfe", asked, tasks, settings=settings)
    r = learned.decisions["stretch"]
    assert plain.decisions["stretch"] == 1
    assert r == 1.5
    assert learned.coefficients.sum() == pytest.approx(r)
    assert learned.coefficients.min() >= 0
    assert learned.decisions["losses"][-1] <= learned.decisions["losses"][0] < plain.decisions["losses"][0]
    _, without = learn("frank_wolfe", problems.recipe(world, names, base=None), tasks, settings=settings)
    assert without.decisions["stretch"] == 1
    assert without.coefficients.sum() == pytest.approx(1)
