"""Ways to compute updates: by compiled kernels, several steps together, on another thread; results are the same."""

from __future__ import annotations

import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.optim import optimizer as optimizers  # noqa: E402

from polyak.averaging import live  # noqa: E402
from polyak.averaging.live import _arithmetic, _fused  # noqa: E402
from polyak.errors import NotFinite, SettingError  # noqa: E402

from .test_state import AVERAGES, result  # noqa: E402
from .training import assert_close, bits, network, sgd, train, values  # noqa: E402

STEADY = tuple(average for average in AVERAGES if average.kind != "switch_ema")
LARGE = 3000  # entries: several blocks of the kernel, and a rest


def run(*averages, steps=9, **options):
    model = network()
    averager = live.Averager(model, *averages, **options)
    for step in train(model, sgd(model), range(steps)):
        averager.step(samples=step + 1)
    return averager


@pytest.mark.parametrize("together", [2, 3, 7])
def test_updates_that_are_folded_together_give_the_same_bits(together):
    assert result(run(*AVERAGES, together=together)) == result(run(*AVERAGES))


def test_reading_in_between_changes_nothing():
    model = network()
    averager = live.Averager(model, *AVERAGES, together=4)
    for step in train(model, sgd(model), range(9)):
        averager.step(samples=step + 1)
        assert averager.weights("ema")
    assert result(averager) == result(run(*AVERAGES))


@pytest.mark.parametrize("together", [1, 3])
def test_updates_on_another_thread_give_the_same_bits(together):
    assert result(run(*STEADY, threaded=True, together=together)) == result(run(*STEADY))


def test_an_optimizer_waits_for_the_update_before_it_changes_the_weights():
    model = network()
    averager = live.Averager(model, live.ema(0.9), threaded=True)
    optimizer = sgd(model)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(averager.averages._overlap.is_running))  # after the global
    for _ in train(model, optimizer, range(3)):
        averager.step()
    assert averager.averages._overlap.is_running
    optimizer.step()
    assert not averager.averages._overlap.is_running
    assert averager.updates("ema") == 3


def test_the_hook_on_optimizers_goes_away_with_the_averager():
    before = len(optimizers._global_optimizer_pre_hooks)
    averager = live.Averager(network(), live.ema(), threaded=True)
    assert len(optimizers._global_optimizer_pre_hooks) == before + 1
    del averager
    gc.collect()
    assert len(optimizers._global_optimizer_pre_hooks) == before


def test_nan_on_another_thread_is_told_at_the_next_step_of_the_optimizer():
    averager = run(live.ema(0.9), threaded=True)
    before, model = bits(averager.weights("ema")), averager.model
    with torch.no_grad():
        model[0].weight[:] = float("nan")
    averager.step()
    with pytest.raises(NotFinite, match=r"'0.weight' holds NaN or infinity at step 10"):
        sgd(model).step()
    assert bits(averager.weights("ema")) == before


@pytest.mark.parametrize("together", [1, 2, 4])
@pytest.mark.parametrize("at", [0, 1500, LARGE - 1])
def test_an_update_that_meets_nan_is_taken_back(at, together):
    model = torch.nn.Sequential(torch.nn.Linear(1, LARGE), torch.nn.Linear(LARGE, 1))
    averager = live.Averager(model, live.ema(0.99), live.ema(0.7).named("fast"), not_finite="skip", together=together)
    rng = np.random.default_rng(0)

    def walk():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.from_numpy(rng.normal(size=parameter.shape).astype(np.float32)))

    for _ in range(together + 2):
        walk()
        averager.step()
    before = {name: {n: t.double().numpy() for n, t in averager.weights(name).items()} for name in averager.names}
    with torch.no_grad():
        walk()
        model[1].weight[0, at] = float("inf")
    for _ in range(together):
        with pytest.warns(UserWarning, match=r"'1.weight' is not finite"):
            averager.step()
    for name in averager.names:
        assert_close(averager.weights(name), before[name], 2e-6)
    assert averager.skipped == together


def test_the_kernel_and_torch_agree():
    rng = np.random.default_rng(0)
    shapes = [(LARGE,), (7, 5), (0,), (64, 65)]
    weights, copies, others = (
        [torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in shapes] for _ in range(3)
    )
    wanted = [[copy.clone() for copy in each] for each in (copies, others)]
    amounts = np.array([[0.25, 1.0]], np.float32)
    assert _fused.fold_all([weights], [copies, others], amounts, checks=True) is None
    for each, amount in zip(wanted, amounts[0], strict=True):
        _arithmetic.fold(weights, [(each, float(amount))])
    for ours, theirs in zip([*copies, *others], [*wanted[0], *wanted[1]], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_threads_share_an_update_without_changing_it(monkeypatch):
    alone = result(run(*STEADY))
    monkeypatch.setattr(_fused, "_ALONE", 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert result(run(*STEADY, together=2)) == alone


def test_an_averager_holds_one_copy_of_the_weights_for_each_average_and_snapshots_while_steps_wait():
    model = network()
    size = sum(p.numel() for p in model.parameters()) * 4

    def kept():
        """Bytes of all tensors that the averager reaches and the model does not."""
        own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
        seen = {}
        for thing in _reachable(averager):
            storage = thing.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
        return sum(seen.values())

    for together in (1, 3):
        averager = live.Averager(model, live.ema(), live.uniform(), together=together)
        for _ in range(6):
            averager.step()
        assert kept() == (2 + together - 1) * size


def _reachable(root):
    seen, todo = set(), [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | type(gc)):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            yield thing
        elif isinstance(thing, list | tuple | dict) or type(thing).__module__.startswith("polyak"):
            todo += gc.get_referents(thing)


def test_sixteen_bits_are_folded_by_torch_and_together_too():
    model = network(dtype=torch.bfloat16)
    averager, history = live.Averager(model, live.uniform(), together=3), []
    for _ in train(model, sgd(model), range(5)):
        history.append(values(model))
        averager.step()
    assert_close(averager.weights("uniform"), {n: np.mean([h[n] for h in history], axis=0) for n in history[0]})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"together": 0}, "`together` of an averager is a number of updates"),
        ({"threaded": True}, "'switch_ema' replaces the weights of the model"),
    ],
)
def test_timing_that_does_not_fit_is_refused(options, says):
    with pytest.raises(SettingError, match=says):
        live.Averager(network(), live.switch_ema(switch_every=3), **options)
