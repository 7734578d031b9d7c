"""polyak measure and polyak recalibrate, from a task's file to a merge."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import polyak as api  # noqa: E402
from polyak.cli import main  # noqa: E402
from polyak.statistics import Fisher, load, measure  # noqa: E402

from ..engine.conftest import write_model as write_arrays  # noqa: E402
from ..tasks.models import TASK, Network, write_data, write_model  # noqa: E402

ROOT = Path(__file__).parents[2]
NETS = """
from torch import nn
from tests.tasks.models import Network
from tests.statistics.test_commands import Normed


class Unlucky(Network):
    def forward(self, pixel_values):
        raise LookupError("out of luck")


def no_module():
    return {}
"""


class Normed(nn.Module):
    """Called by keyword, as tasks call modules."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, pixel_values):
        return self.head(self.norm(self.body(pixel_values)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    write_data(folder / "points.jsonl")
    (folder / "points.yaml").write_text(TASK + "splits: {calibration: 0.5, test: 0.5}\n")
    (folder / "nets.py").write_text(NETS)
    for i in range(2):
        write_model(folder / f"m{i}", noise=0.1 * i, epochs=20)
    return folder


@pytest.fixture
def polyak(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(ROOT)

    def run(*arguments, code=0, net="Network"):
        given = [*map(str, arguments)]
        if "--task" in given:
            given += ["--module", f"nets:{net}"]
        monkeypatch.setattr(sys, "argv", ["polyak", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        if code == 0:
            return said.out if "--json" in given else said.out + said.err
        return said.err

    return run


@pytest.mark.parametrize(("kind", "method"), [("fisher", "fisher"), ("gram", "regmean")])
def test_from_a_task_to_a_merge(place, polyak, tmp_path, kind, method):
    for i in range(2):
        out = tmp_path / f"{i}.safetensors"
        said = polyak("measure", kind, f"m{i}", "--task", "points.yaml", "-o", out, "--examples", 20)
        assert f"{kind} of " in said
        assert "20 examples, " in said  # the cost
    models = "".join(
        f"  - {{path: {place}/m{i}, statistics: {{{kind}: {tmp_path}/{i}.safetensors}}}}\n" for i in (0, 1)
    )
    (tmp_path / "recipe.yaml").write_text(f"models:\n{models}method: {method}\n")
    assert "merged" not in polyak("plan", tmp_path / "recipe.yaml")
    polyak("merge", tmp_path / "recipe.yaml", tmp_path / "out", "-q")
    merged = api.open(tmp_path / "out")
    assert not np.allclose(merged.read("layers.0.weight"), api.open(place / "m0").read("layers.0.weight"))


def test_a_task_gives_the_fisher_information_that_the_module_alone_gives(place, polyak, tmp_path):
    out = tmp_path / "f.safetensors"
    found = json.loads(
        polyak("measure", "fisher", "m0", "--task", "points.yaml", "-o", out, "--json", "--batch-size", 7)
    )
    assert found["estimator"] == "exact"
    module = Network()
    module.load_state_dict({k: torch.from_numpy(api.open(place / "m0").read(k)) for k in module.state_dict()})
    rows = [json.loads(line)["image"] for line in (place / "points.jsonl").read_text().splitlines()]
    from polyak.tasks import read_task

    task = read_task(place / "points.yaml", factory=Network)
    x = torch.cat([batch.inputs["pixel_values"] for batch in task.batches("calibration")])
    assert len(x) == found["examples"] < len(rows)
    wanted = measure(Fisher(module, lambda m, b: m(pixel_values=b), likelihood="classification"), [x])
    for name, tensor in wanted.tensors.items():
        np.testing.assert_allclose(load(out).tensors[name], tensor, rtol=1e-5, atol=1e-9)


def test_shards_are_put_together_by_the_command(polyak, tmp_path):
    parts = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for part, seed in zip(parts, (1, 2), strict=True):
        polyak("measure", "gram", "m0", "--task", "points.yaml", "-o", part, "--examples", 9, "--seed", seed, "-q")
    polyak("measure", "merge", *parts, "-o", tmp_path / "whole.safetensors")
    assert load(tmp_path / "whole.safetensors").examples == 18
    assert "same examples" in polyak("measure", "merge", parts[0], parts[0], "-o", tmp_path / "x", code=4)


def test_wrong_commands_end_with_a_message_and_a_code(polyak, tmp_path):
    fisher = ("measure", "fisher", "m0", "--task", "points.yaml", "-o")
    polyak(*fisher, tmp_path / "f", "--examples", 4)
    assert "--force" in polyak(*fisher, tmp_path / "f", code=5)
    assert "no split 'trainin'" in polyak(*fisher, tmp_path / "g", "--split", "trainin", code=7)
    assert "does not exist" in polyak("measure", "gram", "none", "--task", "points.yaml", "-o", tmp_path / "g", code=4)
    assert "no BatchNorm" in polyak("recalibrate", "m0", "--task", "points.yaml", "-o", tmp_path / "r", code=7)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", ["fisher", "gram"])
def test_what_a_module_raises_and_where_it_cannot_run_are_said(polyak, tmp_path, kind):
    command = ("measure", kind, "m0", "--task", "points.yaml", "-o", tmp_path / "f")
    assert "out of luck (LookupError)" in polyak(*command, code=7, net="Unlucky")
    assert "the model cannot run on 'moon'" in polyak(*command, "--device", "moon", code=7)
    assert "returns an object of type dict, not a torch module" in polyak(*command, code=7, net="no_module")
    assert "has no 'zzz'. Known: Network, Normed, Unlucky, no_module." in polyak(*command, code=7, net="zzz")
    assert list(tmp_path.iterdir()) == []


def test_a_merged_model_is_recalibrated_into_a_new_folder(place, polyak, tmp_path):
    torch.manual_seed(0)
    weights = {name: value.numpy() for name, value in Normed().state_dict().items()}
    write_arrays(tmp_path / "merged", weights)
    command = ("recalibrate", tmp_path / "merged", "--task", "points.yaml", "-o", tmp_path / "out")
    polyak(*command, net="Normed")
    found = api.open(tmp_path / "out")
    assert found.read("norm.num_batches_tracked") > 0
    assert not np.allclose(found.read("norm.running_mean"), 0)
    assert np.array_equal(found.read("body.weight"), weights["body.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "test"
    assert "BatchNorm statistics, over" in (tmp_path / "out" / "recipe.yaml").read_text()
    taken = polyak(
        "recalibrate", tmp_path / "merged", "--task", "points.yaml", "-o", tmp_path / "out", net="Normed", code=5
    )
    assert "--force" in taken


def test_several_tasks_recalibrate_one_model_by_the_statistics_of_their_mixture(place, polyak, tmp_path):
    torch.manual_seed(0)
    net = Normed()
    write_arrays(tmp_path / "merged", {name: value.numpy() for name, value in net.state_dict().items()})
    lines = (place / "points.jsonl").read_text().splitlines()
    for name, rows in (("low", lines[:40]), ("high", lines[40:100])):
        (place / f"{name}.jsonl").write_text("\n".join(rows))
        (place / f"{name}.yaml").write_text(
            TASK.replace("points.jsonl", f"{name}.jsonl") + f"name: {name}\nsplits: {{calibration: 1.0}}\n"
        )
    told = polyak(
        "recalibrate", tmp_path / "merged", "--task", "low.yaml", "--task", "high.yaml", "-o", tmp_path / "out",
        net="Normed",
    )  # fmt: skip
    assert "on 100 examples (40 of low, 60 of high), shuffled with seed 0" in told
    points = torch.tensor([json.loads(line)["image"] for line in lines[:100]])
    with torch.no_grad():
        hidden = net.body(points)
    found = api.open(tmp_path / "out")
    assert found.read("norm.running_mean") == pytest.approx(hidden.mean(0).numpy(), abs=1e-5)
    assert found.read("norm.running_var") == pytest.approx(hidden.var(0).numpy(), rel=0.03)  # n - 1 in each part
    assert found.read("norm.num_batches_tracked") == 2


def test_an_option_of_one_value_is_not_given_twice(place, polyak, tmp_path):
    told = polyak(
        "measure", "fisher", "m0", "--task", "points.yaml", "--task", "other.yaml", "-o", tmp_path / "f", code=2
    )
    assert "--task is given 2 times" in told
    assert "polyak measure merge" in told
    told = polyak(
        "recalibrate", "m0", "--task", "points.yaml", "--split", "test", "--split", "calibration", "-o", "x", code=2
    )
    assert "--split is given 2 times" in told
