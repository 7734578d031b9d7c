"""DARE and DELLA drop other entries than mergekit does, but as many, and rescale them alike."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("mergekit", reason="mergekit is not installed; `make parity` does it")
if version("mergekit") != "0.1.5":
    pytest.skip(f"mergekit is {version('mergekit')}, not 0.1.5", allow_module_level=True)

import torch

from .both import tensors
from .compare import Tensors
from .recipes import EXPERTS

SIGMAS = 5  # exceeded by chance once in two million
DENSITY = 0.3
SEEDS = 8
STUDENT = 8.0  # with the 14 degrees of freedom of two such samples, exceeded by chance once in a million
ONE = "base_model: ./base\nmodels: [{model: ./expert-3, parameters: {weight: 1, density: 0.3}}]\ndtype: float32\n"


def deltas(folder: Path, base: Path) -> Tensors:
    """What a model has learned, in float64."""
    start = tensors(base)
    return {name: tensor.double() - start[name].double() for name, tensor in tensors(folder).items()}


def assert_kept_by_chance(found: Tensors, whole: Tensors) -> None:
    """Check that each tensor keeps DENSITY of its entries, as far as chance allows."""
    for name, delta in whole.items():
        kept, entries = int((found[name] != 0).sum()), delta.numel()
        allowed = SIGMAS * math.sqrt(entries * DENSITY * (1 - DENSITY))
        assert abs(kept - DENSITY * entries) <= allowed, f"{name}: {kept} of {entries}"


@pytest.mark.parametrize("shape", ["llama", "bert", "gpt2"])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "della"])
def test_as_many_entries_survive(families, run_both, method, shape):
    family = families(shape, layers=1)
    whole = deltas(family / "expert-3", family / "base")
    for out in run_both(family, f"merge_method: {method}\n{ONE}"):
        assert_kept_by_chance(deltas(out, family / "base"), whole)


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_survivors_are_multiplied_so_that_the_sum_of_magnitudes_is_as_before(families, run_both, method):
    family = families("llama", layers=1)
    whole = deltas(family / "expert-3", family / "base")
    for out in run_both(family, f"merge_method: {method}\n{ONE}"):
        for name, found in deltas(out, family / "base").items():
            kept = found != 0
            factor = whole[name].abs().sum() / whole[name][kept].abs().sum()
            # The sums are of float32 weights: a unit in the last place of the weight is much of a small delta.
            torch.testing.assert_close(found[kept], factor * whole[name][kept], rtol=1e-5, atol=2e-7)


def test_without_rescaling_survivors_are_as_they_were(families, run_both):
    family = families("llama", layers=1)
    expert, base = (tensors(family / name) for name in ("expert-3", "base"))
    for out in run_both(family, f"merge_method: dare_linear\nparameters: {{rescale: false}}\n{ONE}"):
        for name, found in tensors(out).items():
            kept = found != base[name]
            torch.testing.assert_close(found[kept], expert[name][kept], rtol=0, atol=1.2e-7)


def test_the_same_seed_drops_the_same_and_another_drops_other_entries(families, run_both, tmp_path):
    from .both import with_polyak

    family = families("llama", layers=1)
    _, first = run_both(family, f"merge_method: dare_linear\n{ONE}", seed=1)
    again = with_polyak(tmp_path / "recipe.yml", tmp_path / "again", seed=1)
    other = with_polyak(tmp_path / "recipe.yml", tmp_path / "other", seed=2)
    one, same, differs = (tensors(folder) for folder in (first, again, other))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not any(torch.equal(tensor, differs[name]) for name, tensor in one.items())


@pytest.mark.parametrize("epsilon", [0.05, 0.25])
def test_della_keeps_larger_entries_more_often_within_the_same_window(families, run_both, epsilon):
    """The share of survivors among the larger half of each row, over all matrices of one width."""
    family = families("llama", layers=1)
    whole = deltas(family / "expert-3", family / "base")
    shares = []
    for out in run_both(family, f"merge_method: della\nparameters: {{epsilon: {epsilon}}}\n{ONE}"):
        kept, entries = 0, 0
        for name, found in deltas(out, family / "base").items():
            if found.ndim == 2 and found.shape[1] == 32:
                larger = whole[name].abs() > whole[name].abs().median(dim=1, keepdim=True).values
                kept, entries = kept + int((found[larger] != 0).sum()), entries + int(larger.sum())
        shares.append(kept / entries)
    wanted = DENSITY + epsilon * 16 / 31  # ranks 16 to 31 of 0 to 31
    assert all(abs(share - wanted) <= SIGMAS * math.sqrt(wanted * (1 - wanted) / entries) for share in shares), shares


@pytest.mark.parametrize("parameters", ["{lambda: 0.8}", "{normalize: true}", "{rescale: false}"])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "della"])
def test_moments_over_seeds_agree(families, run_both, method, parameters):
    """The mean of the merged deltas along what the experts learned, and their mean square, tensor by tensor."""
    family = families("llama", layers=1)
    text = f"merge_method: {method}\nparameters: {parameters}\n{EXPERTS}\ndtype: float32\n"
    learned = [deltas(family / f"expert-{i}", family / "base") for i in (1, 2, 3)]
    theirs, ours = {}, {}
    for seed in range(SEEDS):
        for moments, out in zip((theirs, ours), run_both(family, text, seed=seed), strict=True):
            for name, found in deltas(out, family / "base").items():
                moments.setdefault(name, []).append(_moments(found, [delta[name] for delta in learned]))
    for name, wanted in theirs.items():
        assert_equal_in_mean(torch.stack(ours[name]), torch.stack(wanted), name)


def _moments(found: torch.Tensor, learned: list[torch.Tensor]) -> torch.Tensor:
    along = [(found * delta).sum() / (delta * delta).sum() for delta in learned]
    return torch.stack([*along, found.square().mean(), (found == 0).double().mean()])


def assert_equal_in_mean(ours: torch.Tensor, theirs: torch.Tensor, name: str) -> None:
    """Check that two samples (seeds, moments) have the same means, as far as their own spread allows."""
    spread = torch.cat([ours - ours.mean(0), theirs - theirs.mean(0)]).square().sum(0) / (2 * SEEDS - 2)
    t = (ours.mean(0) - theirs.mean(0)).abs() / (spread * 2 / SEEDS).sqrt().clamp(min=1e-12)
    assert (t < STUDENT).all(), f"{name}: {t.tolist()}"
