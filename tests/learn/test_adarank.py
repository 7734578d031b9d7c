"""AdaRank: gradients against autograd, descent against the loop written out, and recipes that rebuild the merge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file

from polyak import api
from polyak import recipe as recipes
from polyak.errors import PolyakError, RecipeError, SettingError, TaskError
from polyak.learn import learn, text_for
from polyak.learn._batches import drawn
from polyak.learn._candidate import Candidate
from polyak.learn._objective import Objective
from polyak.learn._spectra import Spectra
from polyak.methods import load_all, resolve
from polyak.methods._directions import direction_numbers, direction_ranges

from . import problems

load_all()


def states(folder, *names):
    return [load_file(folder / name / "model.safetensors") for name in names]


def decomposed(folder):
    """Base, and U, s, V^T of the experts' deltas of matrices; the deltas of others. All in float64."""
    base, *experts = ({k: v.double() for k, v in one.items()} for one in states(folder, "base", "expert-0", "expert-1"))
    parts = [
        {name: torch.linalg.svd(one[name] - base[name], full_matrices=False) for name in base if base[name].ndim == 2}
        for one in experts
    ]
    return base, [{name: one[name] - base[name] for name in base} for one in experts], parts


def merged(base, deltas, parts, lambdas, masks):
    """theta_0 + sum lambda U diag(s b) V^T, differentiable in lambdas and masks."""
    found = {}
    for name in base:
        found[name] = base[name]
        for i, delta in enumerate(deltas):
            tau = delta[name]
            if name in parts[i]:
                u, s, vt = parts[i][name]
                tau = (u * (s * masks[name][i])) @ vt
            found[name] = found[name] + lambdas[name][i] * tau
    return found


def entropy(merged_weights, batches):
    module, loss = problems.Network().double(), 0.0
    for (batch,) in batches:
        inputs = {k: v.double() for k, v in batch.inputs.items()}
        logs = torch.func.functional_call(module, merged_weights, kwargs=inputs).log_softmax(-1)
        loss = loss - (logs.exp() * logs).sum(-1).mean()
    return loss


def tasks(world):
    return [problems.task(world, number) for number in (0, 1)]


def test_the_gradient_is_that_of_autograd_in_float64(world):
    two, rng = tasks(world), np.random.default_rng(0)
    base, deltas, parts = decomposed(world)
    with Spectra(problems.recipe(world)) as spectra:
        one = Candidate(spectra, two, granularity="layer")
        rows = rng.uniform(0, 1, one.shape)
        rows[:, 2:] = rng.integers(0, 2, rows[:, 2:].shape)
        one.put(rows, np.zeros(one.shape[1]))
        batches = next(drawn(two, "calibration", batch_size=16, seed=0))
        found = one.slope(batches, Objective("entropy"))
        lambdas, masks = {}, {}
        for name, row in zip(one.rows, rows, strict=True):
            lambdas[name] = torch.tensor(row[:2], requires_grad=True)
            each = [torch.tensor(mask, requires_grad=True) for mask in spectra.masks(name, row)]
            masks[name] = each
        loss = entropy(merged(base, deltas, parts, lambdas, masks), batches)
        loss.backward()
        assert found.loss == pytest.approx(float(loss.detach()), rel=1e-6)
        for name, slope in zip(one.rows, found.gradient, strict=True):
            np.testing.assert_allclose(slope[:2], lambdas[name].grad, rtol=1e-4, atol=1e-6, err_msg=name)
            for mask, ours in zip(masks[name], spectra.masks(name, slope), strict=True):
                np.testing.assert_allclose(ours, mask.grad, rtol=1e-4, atol=1e-6, err_msg=name)


def test_some_steps_are_those_of_the_loop_written_out(world):
    settings = {"steps": 12, "lr": 0.05, "rank": 0.5}
    _, learned = learn("adarank", problems.recipe(world), tasks(world), settings=settings)
    base, deltas, parts = decomposed(world)
    lambdas = {name: torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True) for name in base}
    raw = {}
    for name in parts[0]:
        count, r = len(parts[0][name][1]), min(base[name].shape)
        marks = torch.where(torch.arange(count) < int(0.5 * r), 0.1, -0.1).double()
        raw[name] = [marks.clone().requires_grad_() for _ in deltas]
    adam = torch.optim.Adam([*lambdas.values(), *(one for each in raw.values() for one in each)], lr=0.05)
    stream = drawn(tasks(world), "calibration", batch_size=16, seed=0)
    for _ in range(12):
        soft = {name: [torch.sigmoid(one / 10) for one in each] for name, each in raw.items()}
        hard = {name: [(p > 0.5).double() + p - p.detach() for p in each] for name, each in soft.items()}
        adam.zero_grad()
        entropy(merged(base, deltas, parts, lambdas, hard), next(stream)).backward()
        adam.step()
    for name, row in zip(learned.names, learned.coefficients, strict=True):
        np.testing.assert_allclose(row, lambdas[name].detach(), atol=2e-4, err_msg=name)
    for i, model in enumerate(learned.recipe.models):
        keeps = {rule.match: rule.settings["keep"] for rule in model.source.recipe.rules}
        for name, each in raw.items():
            wanted = direction_ranges((each[i] > 0).tolist())
            assert keeps.get(f"^{name.replace('.', chr(92) + '.')}$", "all") == wanted


def test_directions_come_and_go_and_the_recipe_rebuilds_the_merge(world, tmp_path):
    settings = {"steps": 40, "lr": 0.05, "rank": 0.5}
    found, learned = learn("adarank", problems.recipe(world), tasks(world), settings=settings)
    assert learned.decisions["last_loss"] < learned.decisions["first_loss"]
    shares = learned.decisions["kept"]
    assert set(shares) == {"expert-0", "expert-1"}
    assert any(share != pytest.approx(0.5, abs=0.02) for share in shares.values())

    (tmp_path / "learned.yaml").write_text(text_for(found, tmp_path / "learned.yaml"))
    api.merge(recipes.load(tmp_path / "learned.yaml"), tmp_path / "merged")
    base, deltas, parts = decomposed(world)
    masks = {}
    for name in parts[0]:
        masks[name] = []
        for i, model in enumerate(learned.recipe.models):
            keeps = {rule.match: rule.settings["keep"] for rule in model.source.recipe.rules}
            keep = keeps.get(f"^{name.replace('.', chr(92) + '.')}$", "all")
            flags = torch.ones(len(parts[i][name][1]), dtype=torch.float64)
            if keep != "all":
                flags = torch.tensor([float(k in set(direction_numbers(keep))) for k in range(len(flags))])
            masks[name].append(flags)
    lambdas = dict(zip(learned.names, learned.coefficients, strict=True))
    wanted = merged(base, deltas, parts, lambdas, masks)
    for name, one in load_file(tmp_path / "merged" / "model.safetensors").items():
        np.testing.assert_allclose(one, wanted[name], atol=1e-5, err_msg=name)


def test_the_same_seed_gives_the_same_recipe(world):
    settings = {"steps": 5}
    one, other = (learn("adarank", problems.recipe(world), tasks(world), settings=settings)[0] for _ in range(2))
    assert recipes.digest(one) == recipes.digest(other)


def test_a_base_is_needed(world):
    with pytest.raises(RecipeError, match="adarank prunes differences from a base"):
        learn("adarank", problems.recipe(world, base=None), tasks(world))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 2}, r"'rank' of learner 'adarank' must be between 0 and 1; got 2"),
        ({"rang": 1}, r"no setting 'rang'\. Did you mean 'rank'"),
        ({"split": "test", "objective": "loss"}, r"the labels of the test split"),
        ({"split": "development"}, r"'split' of learner 'adarank' must be"),
    ],
)
def test_wrong_settings_are_refused_by_name(world, settings, said):
    with pytest.raises(PolyakError, match=said):
        learn("adarank", problems.recipe(world), tasks(world), settings=settings)


def test_labels_out_of_range_and_one_task_twice_are_refused_by_name(world):
    points, labels = problems.examples(9)
    problems.write_points(world / "far.jsonl", points, labels + 7)
    far = problems.task(world, splits={"calibration": "far.jsonl"})
    with pytest.raises(TaskError, match=r"task 'task-0': label \d is out of range: the model has 3 outputs"):
        learn("adarank", problems.recipe(world), [far], settings={"steps": 1, "objective": "loss"})
    with pytest.raises(TaskError, match="two tasks are called 'task-0'"):
        learn("adarank", problems.recipe(world), [problems.task(world)] * 2, settings={"steps": 1})


def test_heads_are_left_to_the_tasks(world):
    asked = replace(problems.recipe(world), heads=r"^head\.")
    with pytest.raises(RecipeError, match="adarank cannot leave heads with their models: `skip:` them"):
        learn("adarank", asked, tasks(world))


DELTA = np.random.default_rng(3).standard_normal((1, 6, 4))


def part(keep: str, delta: np.ndarray = DELTA, name: str = "w") -> np.ndarray:
    return resolve("singular_part")(delta, np.zeros(delta.shape[1:]), name=name, keep=keep)


def test_what_is_kept_and_what_is_not_add_up_to_the_delta():
    np.testing.assert_allclose(part("0,2") + part("1,3"), DELTA[0], atol=1e-12)
    np.testing.assert_allclose(part("none"), 0, atol=1e-12)
    np.testing.assert_array_equal(part("all"), DELTA[0])
    u, s, vt = np.linalg.svd(DELTA[0], full_matrices=False)
    np.testing.assert_allclose(part("0-1"), (u[:, :2] * s[:2]) @ vt[:2], atol=1e-12)


def test_embeddings_and_vectors_stay_as_they_are():
    np.testing.assert_array_equal(part("none", name="embed_tokens.weight"), DELTA[0])
    np.testing.assert_array_equal(part("none", DELTA[:, 0]), DELTA[0, 0])


@pytest.mark.parametrize("keep", ["", "0-", "3-1x", "first", "0,,2"])
def test_what_is_no_range_is_refused(keep: str):
    with pytest.raises(SettingError, match="ranges of numbers such as 0-3,7"):
        part(keep)


@pytest.mark.parametrize(
    ("flags", "text"), [([1, 1, 0, 1], "0-1,3"), ([0, 0], "none"), ([1, 1], "all"), ([0, 1, 1, 1, 0], "1-3")]
)
def test_choices_are_written_as_ranges_and_read_back(flags: list[int], text: str):
    assert direction_ranges(flags) == text
    if text != "all":
        assert [int(i in set(direction_numbers(text))) for i in range(len(flags))] == flags
