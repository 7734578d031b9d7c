"""Memory does not grow with the number of models that are learned from."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import save_file

ROWS, COLUMNS = 1024, 2048  # 8 MB a tensor, two tensors a model

SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import nn
from polyak import recipe as recipes
from polyak.learn import learn
import polyak.learn._candidate as candidates
from polyak.tasks import task_of

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 512, bias=False)
        self.wide = nn.Linear({columns}, {rows}, bias=False)
        self.down = nn.Linear({rows}, {columns}, bias=False)

    def forward(self, points):
        hidden = self.up(points).repeat(1, 4)
        return self.down(torch.tanh(self.wide(hidden)))[:, :3]

def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])

folder = Path(sys.argv[1])
described = {{"kind": "image-classification", "data": "points.jsonl", "image": "point", "scale": 1,
             "input": "points", "splits": {{"calibration": 0.5, "test": 0.5}}}}
task = task_of(described, folder, factory=Wide)
torch.set_num_threads(1)
inner = candidates.Candidate._products

def products(self, total):
    peak.append(anonymous())
    found = inner(self, total)
    peak.append(anonymous())
    return found

candidates.Candidate._products = products
for name, settings in (("adamerging", {{"steps": 2}}), ("frank_wolfe", {{"iterations": 1, "examples": 16}})):
    for count in (2, 4, 16):  # the first warms up
        peak = []
        asked = {{"base": "./base", "models": [f"./model-{{i}}" for i in range(count)], "method": "task_arithmetic"}}
        learn(name, recipes.read(asked, folder), [task], settings=settings)
        print(name, count, max(peak))
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    from . import problems

    folder = tmp_path_factory.mktemp("wide")
    problems.write_points(folder / "points.jsonl", *problems.examples(40))
    generator = torch.Generator().manual_seed(0)
    shapes = {"up.weight": (512, 4), "wide.weight": (ROWS, COLUMNS), "down.weight": (COLUMNS, ROWS)}
    for name in ("base", "model-0"):
        (folder / name).mkdir()
        state = {k: 0.02 * torch.randn(*shape, generator=generator) for k, shape in shapes.items()}
        save_file(state, folder / name / "model.safetensors")
    for i in range(1, 16):  # one file under many names: what is held of it would be held many times all the same
        (folder / f"model-{i}").mkdir()
        (folder / f"model-{i}" / "model.safetensors").hardlink_to(folder / "model-0" / "model.safetensors")
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="anonymous memory is read from /proc")
def test_sixteen_models_take_no_more_memory_than_four(wide):
    command = [sys.executable, "-c", SCRIPT.format(rows=ROWS, columns=COLUMNS), str(wide)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kib = {(name, int(count)): int(size) for name, count, size in map(str.split, done.stdout.splitlines())}
    for name in ("adamerging", "frank_wolfe"):
        few, many = kib[name, 4], kib[name, 16]
        assert abs(many - few) < 0.1 * few, kib
