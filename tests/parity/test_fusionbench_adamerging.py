"""AdaMerging against FusionBench's own classes: the same experts, examples and steps give the same coefficients."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fusion_bench", reason="FusionBench is not installed; `make parity` does it")
torch = pytest.importorskip("torch")

from polyak import checkpoint  # noqa: E402
from polyak.learn import learn  # noqa: E402
from polyak.learn._batches import drawn  # noqa: E402
from tests.learn import problems  # noqa: E402

STEPS, RATE, BATCH = 20, 0.01, 16
EXPERTS = ("expert-0", "expert-1")
CONFIG = {
    "weights": None, "init_values": 0.3, "clamp_weights": False, "tie_weights": False, "strict": True,
    "optimizer": "adam", "lr": RATE, "max_steps": STEPS, "devices": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("adamerging")
    problems.write_world(found)
    return found


def tasks(folder) -> list[Any]:
    return [problems.task(folder, number) for number in range(2)]


def network(folder, name: str) -> Any:
    module = problems.Network()
    opened = checkpoint.open(folder / name)
    module.load_state_dict({key: torch.from_numpy(opened.read(key)) for key in module.state_dict()})
    return module


def algorithm(granularity: str, folder) -> Any:
    """FusionBench's class, fed with the very examples that polyak draws."""
    import lightning
    from fusion_bench.method.adamerging.layer_wise_adamerging import LayerWiseAdaMergingAlgorithm
    from fusion_bench.method.adamerging.task_wise_adamerging import TaskWiseAdaMergingAlgorithm
    from omegaconf import DictConfig

    batches = drawn(tasks(folder), "calibration", batch_size=BATCH, seed=0)
    waiting: dict[str, list[Any]] = {name: [] for name in EXPERTS}

    def after(task: str) -> Any:
        if not waiting[task]:
            for name, (batch,) in zip(EXPERTS, next(batches), strict=True):
                waiting[name].append(batch.inputs["points"])
        return waiting[task].pop(0)

    class Fed:
        def get_shuffled_test_loader_iter(self, task: str) -> Any:
            while True:
                yield (after(task),)

        def compute_logits(self, module: Any, batch: Any, task: str) -> Any:
            return module(batch if isinstance(batch, torch.Tensor) else batch[0])

        def test_time_adaptation(self, module: Any) -> Any:
            self.adapted = super().test_time_adaptation(module)  # type: ignore[misc]
            self.learned = module.merge_weight.detach().numpy().copy()
            return self.adapted

    kind = LayerWiseAdaMergingAlgorithm if granularity == "layer" else TaskWiseAdaMergingAlgorithm
    made = type("Ours", (Fed, kind), {"log_hyperparams": lambda *_, **__: None})(DictConfig(CONFIG))
    made._fabric = lightning.Fabric(accelerator="cpu", devices=1)
    return made


def with_fusionbench(granularity: str, folder) -> np.ndarray:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from fusion_bench import BaseModelPool

        made = algorithm(granularity, folder)
        pool = {"_pretrained_": network(folder, "base")} | {name: network(folder, name) for name in EXPERTS}
        made.run(BaseModelPool(pool))
    return made.learned.T if granularity == "layer" else made.learned[None]


@pytest.mark.parametrize("granularity", ["layer", "task"])
def test_twenty_steps_give_the_coefficients_of_fusionbench(folder, granularity):
    wanted = with_fusionbench(granularity, folder)
    settings = {
        "granularity": granularity, "steps": STEPS, "batch_size": BATCH, "lr": RATE, "clamp": False, "epsilon": 1e-8,
    }  # fmt: skip
    _, learned = learn("adamerging", problems.recipe(folder), tasks(folder), settings=settings)
    found = learned.coefficients
    if granularity == "layer":
        order = [name for name, _ in problems.Network().named_parameters()]
        found = found[[learned.names.index(name) for name in order]]
    assert found.shape == wanted.shape
    assert np.abs(wanted - 0.3).max() > 0.1  # something was learned
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
