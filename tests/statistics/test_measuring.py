"""Measurements end, are interrupted, go on, are put together and read by a merge."""

from __future__ import annotations

import fcntl

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import polyak  # noqa: E402
from polyak import errors  # noqa: E402
from polyak.statistics import Fisher, Gram, load, measure, measure_to, merged, recalibrate  # noqa: E402

from ..engine.conftest import write_model  # noqa: E402

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))


def module(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))


def fisher(seed: int = 0, **options) -> Fisher:
    return Fisher(module(seed), **{"likelihood": "classification", "estimator": "sampled", **options})


STATISTICS = {"fisher": fisher, "gram": lambda seed=0: Gram(module(seed))}


def interrupted(at: int):
    for i, batch in enumerate(X.split(4)):
        if i == at:
            raise KeyboardInterrupt
        yield batch


@pytest.mark.parametrize("make", STATISTICS.values(), ids=STATISTICS)
def test_a_resumed_measurement_has_the_bytes_of_one_that_was_not_interrupted(make, tmp_path):
    measure_to(tmp_path / "whole", make(), lambda: X.split(4), data="d")
    for at in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            measure_to(tmp_path / "part", make(), lambda at=at: interrupted(at), data="d", resume=True)
        assert not (tmp_path / "part").exists()
    seen = []
    measure_to(tmp_path / "part", make(), lambda: X.split(4), data="d", resume=True, advance=seen.append)
    assert seen == [24]
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part", "whole"]


def test_an_interruption_inside_a_batch_leaves_no_half_of_it(tmp_path):
    class Stops(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = module(), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 30:
                raise KeyboardInterrupt
            return self.inner(x)

    def run(stopping):
        whole = Stops() if stopping else Stops().inner
        names = {f"inner.{n}" if stopping else n: n for n, _ in module().named_parameters()}
        return Fisher(whole, likelihood="classification", together=1, names=names)

    measure_to(tmp_path / "whole", run(False), lambda: X.split(4))
    with pytest.raises(KeyboardInterrupt):
        measure_to(tmp_path / "part", run(True), lambda: X.split(4))
    measure_to(tmp_path / "part", run(False), lambda: X.split(4), resume=True)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def test_unfinished_work_is_neither_lost_nor_mixed(tmp_path):
    place = tmp_path / "f"
    with pytest.raises(KeyboardInterrupt):
        measure_to(place, fisher(), lambda: interrupted(3), data="d")
    with pytest.raises(errors.OutputExists, match="--resume"):
        measure_to(place, fisher(), lambda: X.split(4), data="d")
    others = [(fisher(1), "d"), (fisher(), "e"), (fisher(seed=0, samples=2), "d"), (Gram(module()), "d")]
    for other, data in others:
        with pytest.raises(errors.CannotResume, match="other weights, data or settings"):
            measure_to(place, other, lambda: X.split(4), data=data, resume=True)
    (tmp_path / ".f.state").write_bytes(b"not a state")
    with pytest.raises(errors.CannotResume, match="damaged"):
        measure_to(place, fisher(), lambda: X.split(4), data="d", resume=True)
    measure_to(place, fisher(), lambda: X.split(4), data="d", force=True)
    with pytest.raises(errors.OutputExists, match="--force"):
        measure_to(place, fisher(), lambda: X.split(4), data="d")
    with pytest.raises(errors.OutputExists, match="is a folder"):
        measure_to(tmp_path, fisher(), lambda: X.split(4), force=True)


def test_a_measurement_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(errors.TaskError, match="fails on a batch"):
        measure_to(tmp_path / "part", fisher(), lambda: [X[:, :2]])
    assert list(tmp_path.iterdir()) == []


def test_two_measurements_do_not_write_to_one_place(tmp_path):
    with (tmp_path / ".f.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(errors.OutputBusy):
            measure_to(tmp_path / "f", fisher(), lambda: X.split(4))


@pytest.mark.parametrize("make", STATISTICS.values(), ids=STATISTICS)
def test_shards_put_together_are_the_whole(make, tmp_path):
    whole = measure(make(), X.split(4))
    parts = [measure(make(), part.split(4)) for part in (X[:4], X[4:])]
    read = [load(part.save(tmp_path / f"{i}.safetensors")) for i, part in enumerate(parts)]
    together = merged(read)
    assert together.examples == 24
    assert together.rows == dict(whole.rows)
    for name, tensor in whole.tensors.items():
        np.testing.assert_allclose(together.tensors[name], tensor, rtol=1e-5, atol=1e-9)


def test_measurements_that_do_not_belong_together_are_refused(tmp_path):
    a = measure(fisher(), [X[:4]])
    for other, message in [
        (measure(fisher(), [X[:4]]), "same examples"),
        (measure(fisher(1), [X[4:]]), "different model"),
        (measure(fisher(samples=3), [X[4:]]), "different facts"),
        (measure(Gram(module()), [X[4:]]), "different kind"),
    ]:
        with pytest.raises(errors.Mismatch, match=message):
            merged([a, other])
    with pytest.raises(errors.CheckpointError, match="is no measurement"):
        load(write_model(tmp_path / "m", {"w": np.ones(3, np.float32)}) / "model.safetensors")


def test_a_merge_takes_a_measurement_of_its_own_model_and_no_other(tmp_path):
    for i in range(2):
        weights = {name: p.detach().numpy() for name, p in module(i).named_parameters()}
        write_model(tmp_path / f"m{i}", weights)
        measure(fisher(i), [X]).save(tmp_path / f"f{i}.safetensors")
    models = [{"path": str(tmp_path / f"m{i}"), "statistics": {"fisher": str(tmp_path / f"f{i}.safetensors")}}
              for i in range(2)]  # fmt: skip
    found = polyak.plan({"models": models, "method": "fisher"})
    assert not found.notes
    models[0]["statistics"], models[1]["statistics"] = models[1]["statistics"], models[0]["statistics"]
    with pytest.raises(errors.Mismatch, match="measured on another model"):
        polyak.plan({"models": models, "method": "fisher"})


def normed() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()


def test_recalibration_measures_what_batchnorm_sees_now():
    net = normed()
    seen = []
    found = recalibrate(net, X.split(10), advance=seen.append)
    hidden = net[0](X).detach()
    np.testing.assert_allclose(found["1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-6)
    parts = hidden.split(10)
    variance = sum(len(p) * p.var(0) for p in parts) / len(hidden)
    np.testing.assert_allclose(found["1.running_var"], variance, rtol=1e-4)
    assert seen == [10, 20, 24]
    assert net[1].momentum == 0.1
    assert not any(part.training for part in net.modules())


def test_recalibration_that_fails_changes_nothing():
    net = normed()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    for batches, message in [
        ([], "no examples"),
        ([X, X[:1]], "Use larger batches"),
        ([X[:, :2]], "fails on a batch"),
        ([X * float("nan")], "not finite"),
    ]:
        with pytest.raises(errors.TaskError, match=message):
            recalibrate(net, batches)
        assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    with pytest.raises(errors.TaskError, match="no BatchNorm"):
        recalibrate(nn.Linear(3, 3), [X])
