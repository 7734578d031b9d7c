"""Sharded parameters: two processes average their shards, agree about NaN, and write one model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

import polyak
from polyak.averaging import live

from .training import bits, network

WORKER = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, sys.argv[1])
from training import network

from polyak.averaging import live
from polyak.errors import CannotResume, NotFinite

folder, rank = Path(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
mesh = dist.init_device_mesh("cpu", (2,))
model = network()
fully_shard(model, mesh=mesh)
assert sum(p.to_local().numel() for p in model.parameters()) < sum(p.numel() for p in model.parameters())
averager = live.Averager(model, live.ema(0.5), live.lawa(2), live.zscl(2), not_finite="skip")
for step in range(5):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.to_local().add_(0.1 * (step + 1))
    averager.step()
local = [parameter.to_local() for parameter in model.parameters()]
copies = averager.state_dict()["tensors"]
assert [c.shape for n, c in copies.items() if n.startswith("ema/")] == [p.shape for p in local]
before = [p.clone() for p in local]
averager.save("ema", folder / "ema")
averager.save("lawa", folder / "lawa")
assert all(torch.equal(a, b) for a, b in zip(before, local))
averager.save_state(folder / "averages.safetensors")
other = live.Averager(model, live.ema(0.5), live.lawa(2), live.zscl(2), not_finite="skip")
other.load_state(folder / "averages.safetensors")
assert all(torch.equal(tensor, other.state_dict()["tensors"][name]) for name, tensor in copies.items())
if rank == 1:  # the other process must leave the step out as well
    local[0].detach().view(-1)[0] = float("nan")
import warnings
warnings.simplefilter("ignore")
averager.step()
assert averager.skipped == 1 and averager.updates("ema") == 5
dist.barrier()
dist.destroy_process_group()
print("done")
"""


def test_two_processes_average_their_shards(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "ignore", "-c", WORKER, here, str(tmp_path)]
    workers = [
        subprocess.Popen(
            [*command, str(rank)], env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        told = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    for worker, (out, problems) in zip(workers, told, strict=True):
        assert (worker.returncode, out.strip()) == (0, "done"), problems
    assert {path.name for path in tmp_path.glob("averages*")} == {f"averages-{i}-of-2.safetensors" for i in range(2)}

    model = network()
    averager = live.Averager(model, live.ema(0.5), live.lawa(2))
    for step in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * (step + 1))
        averager.step()
    for name in ("ema", "lawa"):
        with polyak.open(tmp_path / name) as written:
            theirs = {key: torch.from_numpy(written.read(key)) for key in averager.weights(name)}
        assert bits(theirs) == bits(averager.weights(name))
