"""Merges of whole matrices: what plans say, threads of linear algebra, memory, files, calibration of another merge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import polyak
from polyak import methods
from polyak.checkpoint import open as open_checkpoint
from polyak.engine import run_in_memory
from polyak.planning import peak_nbytes
from polyak.planning import plan as plan_recipe
from polyak.recipe import Model, Recipe, Source

from .conftest import random_family, recipe_text

methods.load_all()
ROOT = Path(__file__).parents[2]
SHAPES = {"embed_tokens.weight": (300, 32), "layers.0.mlp.weight": (96, 64), "layers.0.norm.weight": (64,)}


def planned(method="tsv_m", models=3, shapes=SHAPES, **settings):
    family = random_family(models=models, shapes=shapes)
    recipe = Recipe(method, tuple(Model(f"m{i}", Source(path="x")) for i in range(models)), settings=settings)
    return plan_recipe(recipe, {name: open_checkpoint(one) for name, one in family.items()})


def test_plans_say_that_vectors_and_embeddings_go_to_task_arithmetic():
    by_name = {step.out.name: step for step in planned(scale=0.9).steps}
    assert by_name["layers.0.mlp.weight"].method.name == "tsv_m"
    for name in ("embed_tokens.weight", "layers.0.norm.weight"):
        step = by_name[name]
        assert step.method.name == "task_arithmetic"
        assert step.settings["scale"] == pytest.approx(0.3)
    assert "task_arithmetic(weight=[1, 1, 1], scale=0.3" in planned(scale=0.9).explain()


def test_vectors_that_stay_are_read_from_one_model_at_most():
    steps = {step.out.name: step for step in planned(vector_1d="zero").steps}
    assert len(steps["embed_tokens.weight"].every_read) == 2
    assert len(steps["layers.0.mlp.weight"].every_read) == 4


def test_an_exclude_in_a_recipe_decides_by_name():
    steps = {step.out.name: step.method.name for step in planned(exclude=r"mlp").steps}
    assert steps["layers.0.mlp.weight"] == "task_arithmetic"
    assert steps["embed_tokens.weight"] == "tsv_m"


def test_a_recipe_with_a_bad_pattern_is_refused_with_its_place(family: Path):
    path = family / "bad.yaml"
    path.write_text(recipe_text("tsv_m", extra="settings: {exclude: '('}"))
    with pytest.raises(polyak.PolyakError, match=r"settings\.exclude must be a regular expression"):
        polyak.plan(path)


def test_a_matrix_is_worked_on_by_one_thread(monkeypatch):
    """Sums of BLAS depend on how many threads it has; whatever it had before comes back."""
    seen = []
    monkeypatch.setattr(np.linalg, "eigh", spy(np.linalg.eigh, seen))
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        run_in_memory(planned("aswudi"), workers=2)
        after = threads()
    assert set(before.values()) == {2}
    assert {name: after[name] for name in before} == before
    assert seen
    assert set(seen) == {1}


def threads() -> dict[str, int]:
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def spy(eigh, seen):
    def watched(matrix):
        seen.extend(threads().values())
        return eigh(matrix)

    return watched


THREADS = """
import sys
sys.path.insert(0, {root!r})
from tests.engine.test_matrices import planned
from polyak.engine import run_in_memory
for method in {methods!r}:
    for tensor in run_in_memory(planned(method), workers=3).values():
        sys.stdout.buffer.write(tensor.tobytes())
"""


def test_threads_of_the_environment_do_not_change_a_byte():
    names = ["tsv_m", "aswudi"]
    here = b"".join(t.tobytes() for m in names for t in run_in_memory(planned(m), workers=1).values())
    code = THREADS.format(root=str(ROOT), methods=names)
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout == here


MEMORY = """
import sys, threading, time
sys.path.insert(0, {root!r})
from tests.engine.test_matrices import planned
from polyak.engine import run_in_memory
from polyak.planning import peak_nbytes
from polyak.planning.cost import PROCESS_NBYTES
def held():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
def watch():
    global peak
    while watching:
        peak = max(peak, held())
        time.sleep(0.002)
method, models, rows, columns = {case!r}
run_in_memory(planned(method, 2, {{"w": (8, 8)}}))
plan = planned(method, models, {{"w": (rows, columns)}})
peak, before, watching = 0, held(), True
thread = threading.Thread(target=watch)
thread.start()
run_in_memory(plan)
watching = False
thread.join()
print((peak - before) / (peak_nbytes(plan, 1) - PROCESS_NBYTES))
"""


CASES = [("tsv_m", 2, 512, 512), ("tsv_m", 6, 512, 512), ("aswudi", 2, 256, 1024), ("knots", 4, 512, 512)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("case", CASES)
def test_a_plan_knows_what_a_decomposition_holds(case: tuple[str, int, int, int]):
    # A process for each: what an earlier merge has freed may still be held, and is not asked for again.
    code = MEMORY.format(root=str(ROOT), case=case)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0.3 < float(done.stdout) < 1.1


def test_memory_grows_with_the_matrix_and_the_models_only():
    small = peak_nbytes(planned("tsv_m", shapes={"a": (64, 64)}), 1)
    many = peak_nbytes(planned("tsv_m", shapes={f"a{i}": (64, 64) for i in range(9)}), 1)
    assert small == many
    assert small < peak_nbytes(planned("tsv_m", shapes={"a": (128, 64)}), 1)


def test_memory_counts_the_nested_merge(family: Path):
    (family / "alone.yaml").write_text(recipe_text("tsv_m"))
    (family / "around.yaml").write_text(
        "base: ./base\nmethod: task_arithmetic\nmodels: [{name: inner, recipe: ./alone.yaml}, ./m0]\n"
    )
    alone, around = (polyak.plan(family / name) for name in ("alone.yaml", "around.yaml"))
    assert peak_nbytes(around, 1) > peak_nbytes(alone, 1)


def test_a_merge_by_another_method_is_calibrated_without_being_written(family: Path):
    text = """
base: ./base
method: svc
settings: {alpha: 0.5}
models:
  - name: sum
    recipe: {base: ./base, method: tsv_m, models: [./m0, ./m1, ./m2]}
  - ./m0
  - ./m1
  - ./m2
"""
    (family / "svc.yaml").write_text(text)
    polyak.merge(family / "svc.yaml", family / "out", workers=2)
    found = open_checkpoint(family / "out")
    base, *experts = (tensors(family / name) for name in ("base", "m0", "m1", "m2"))
    for name in ("layers.0.w", "layers.0.b"):
        stack = np.stack([one[name] for one in experts])
        merged = methods.resolve("tsv_m")(stack, base[name], name=name)
        wanted = methods.resolve("svc")(np.stack([merged, *stack]), base[name], name=name, alpha=0.5)
        np.testing.assert_allclose(read(found, name), wanted, rtol=8e-3, atol=1e-4)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    checkpoint = open_checkpoint(folder)
    return {name: read(checkpoint, name) for name in checkpoint.specs}


def read(checkpoint, name: str) -> np.ndarray:
    spec = checkpoint.specs[name]
    out = np.empty(spec.nbytes, np.uint8)
    checkpoint.read_into(name, 0, spec.numel, out)
    return out.view(spec.dtype.numpy).reshape(spec.shape).astype(np.float32)
