"""Modules brought to life from checkpoints: names found by numbers, weights exchanged and restored."""

from __future__ import annotations

import numpy as np
import pytest

from polyak import checkpoint
from polyak.errors import Mismatch, NotFinite, TaskError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from polyak.tasks import LiveModel, bring_to_life, from_factory  # noqa: E402


class Net(nn.Module):
    def __init__(self, classes: int = 3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.head = nn.Linear(5, classes)

    def forward(self, x):
        return self.head(self.body(x))


class Renaming(Net):
    """A library that knows `stem.*` as `body.*`."""

    def __init__(self, change=lambda value: value):
        super().__init__()
        self._change = change

    def load_state_dict(self, state, strict=True):
        renamed = {name.replace("stem.", "body."): self._change(value) for name, value in state.items()}
        return super().load_state_dict(renamed, strict=strict)


def state(seed=0, classes=3, prefix="body."):
    torch.manual_seed(seed)
    return {name.replace("body.", prefix): value for name, value in Net(classes).state_dict().items()}


def test_tensors_are_found_by_their_numbers_whatever_the_library_calls_them():
    stored = state(prefix="stem.")
    live = bring_to_life(from_factory(Renaming), checkpoint.open(stored))
    assert live.names["body.0.weight"] == "stem.0.weight"
    assert len(live.names) == len(stored)
    assert all(np.array_equal(value, stored[name].numpy()) for name, value in live.read().items())
    assert not live.module.training


def test_equal_values_in_a_checkpoint_do_not_confuse_names():
    stored = {name: torch.zeros_like(value) for name, value in state(prefix="stem.").items()}
    live = bring_to_life(from_factory(Renaming), checkpoint.open(stored))
    assert live.names["body.0.bias"] == "stem.0.bias"
    assert live.names["body.1.running_mean"] == "stem.1.running_mean"


def test_a_transformed_tensor_is_an_error():
    def doubled():
        return Renaming(lambda value: 2 * value)

    with pytest.raises(TaskError, match=r"'body\.0\.weight' of the module is filled by no tensor"):
        bring_to_life(from_factory(doubled), checkpoint.open(state(prefix="stem.")))


def test_a_missing_tensor_is_an_error():
    stored = state()
    del stored["body.0.bias"]
    with pytest.raises(TaskError, match=r"'body\.0\.bias'.*missing"):
        bring_to_life(from_factory(Net), checkpoint.open(stored))


def test_a_tensor_without_a_place_is_an_error_unless_it_is_said_to_be_unused():
    stored = state() | {"pooler.weight": torch.ones(2, 2)}
    with pytest.raises(TaskError, match=r"no parameters for 1 tensors .*pooler\.weight.*unused"):
        bring_to_life(from_factory(Net), checkpoint.open(stored))
    assert "pooler.weight" in bring_to_life(from_factory(Net), checkpoint.open(stored), unused="^pooler").unused


def test_heads_stay_with_their_task():
    body, expert = state(1), state(2)
    del body["head.weight"], body["head.bias"]
    live = bring_to_life(from_factory(Net), checkpoint.open(body), heads="^head", head=checkpoint.open(expert))
    assert torch.equal(live.module.head.weight, expert["head.weight"])
    assert torch.equal(live.module.body[0].weight, body["body.0.weight"])
    assert live.heads == {"head.weight", "head.bias"}
    other = state(3)
    live.load(other)
    assert torch.equal(live.module.head.weight, expert["head.weight"])
    assert torch.equal(live.module.body[0].weight, other["body.0.weight"])


def test_a_head_of_another_size_is_refused_with_the_remedy():
    with pytest.raises(TaskError, match=r"size mismatch for head\.weight.*heads:"):
        bring_to_life(from_factory(lambda: Net(7)), checkpoint.open(state()))


def test_a_head_that_is_nowhere_is_refused():
    with pytest.raises(TaskError, match=r"no tensor's name matches 'classifier'"):
        bring_to_life(from_factory(Net), checkpoint.open(state()), heads="classifier")


def test_swapped_weights_come_back_after_any_exception():
    live = bring_to_life(from_factory(Net), checkpoint.open(state(0)))
    before = live.read()
    with live.swapped(state(1)) as module:
        assert torch.equal(module.body[0].weight, state(1)["body.0.weight"])
    with pytest.raises(ZeroDivisionError), live.swapped(state(1)):
        raise ZeroDivisionError
    broken = state(1)
    broken["head.bias"][0] = torch.nan
    with pytest.raises(NotFinite, match=r"head\.bias"), live.swapped(broken):
        pytest.fail("not reached")
    assert all(np.array_equal(value, before[name]) for name, value in live.read().items())


def test_loading_refuses_unknown_missing_and_misshapen_tensors_before_it_changes_any():
    live = LiveModel.of(Net())
    before = live.read()
    wrong = state(5)
    with pytest.raises(Mismatch, match=r"no tensor 'head\.wieght'. Did you mean 'head\.weight'"):
        live.load(wrong | {"head.wieght": wrong["head.weight"]})
    del wrong["head.bias"]
    with pytest.raises(Mismatch, match=r"1 tensors are missing.*head\.bias"):
        live.load(wrong)
    with pytest.raises(Mismatch, match=r"'head\.bias' is \(7,\), but the model needs \(3,\)"):
        live.load(wrong | {"head.bias": torch.zeros(7)})
    assert all(np.array_equal(value, before[name]) for name, value in live.read().items())
    live.load(wrong, partial=True)
    assert torch.equal(live.module.head.weight, wrong["head.weight"])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, x):
        return self.output(self.embedding(x))


class Untied(Tied):
    def __init__(self):
        super().__init__()
        self.output.weight = nn.Parameter(self.embedding.weight.detach().clone())


def test_tied_parameters_are_one_tensor_and_stay_tied():
    opened = checkpoint.open(Tied().state_dict())
    live = bring_to_life(from_factory(Tied), opened)
    assert live.names == {"embedding.weight": "embedding.weight"}
    live.load({"embedding.weight": np.ones((6, 4), np.float32)})
    assert live.module.output.weight is live.module.embedding.weight
    with pytest.raises(TaskError, match=r"two parameters of the module hold 'embedding\.weight'"):
        bring_to_life(from_factory(Untied), opened)


def test_bfloat16_and_float64_weights_are_loaded_as_float32():
    weights = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in state().items()
    }
    live = bring_to_life(from_factory(Net), checkpoint.open(weights))
    assert torch.equal(live.module.head.weight, weights["head.weight"].float())
    live.load({name: np.asarray(value.float(), np.float64) for name, value in weights.items()})
    assert torch.equal(live.module.head.weight, weights["head.weight"].float())


def test_two_tasks_can_share_one_body():
    first, second = (bring_to_life(from_factory(Net), checkpoint.open(state(i)), heads="^head") for i in (1, 2))
    second.share(first)
    first.load(state(3))
    assert torch.equal(second.module.body[0].weight, state(3)["body.0.weight"])
    assert torch.equal(second.module.head.weight, state(2)["head.weight"])


def test_gradients_arrive_under_the_tensors_names():
    live = bring_to_life(from_factory(Renaming), checkpoint.open(state(prefix="stem.")))
    live.module(torch.ones(2, 4)).sum().backward()
    assert live.parameters["stem.0.weight"].grad is not None
    assert "stem.1.running_mean" in live.tensors.keys() - live.parameters.keys()
