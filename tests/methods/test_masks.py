"""EMR, TALL masks, consensus and PCB: published numbers, references in float64, and what is special about each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyak import merge_state_dicts
from polyak.errors import SettingError
from polyak.methods import load_all, resolve
from polyak.methods._apply import settings_as_arrays
from polyak.methods._passes import answer, call

from .test_golden import BIASES, DELTAS, EVERYTHING, assert_weights_and_bias, delta_of

load_all()


def masks_of(method: str, deltas: np.ndarray, **settings: Any) -> Any:
    """The masks and scales of a stack of deltas."""
    found = resolve(method)
    bound = found.bind(settings, len(deltas))
    supply = settings_as_arrays(found, bound, deltas) | {"deltas": deltas}
    for name, kind in found.passes.items():
        request = call(kind.ask, bound)
        supply[name] = None if request is None else answer(request, supply)
    assert found.masks is not None
    return call(found.masks, supply)


def test_tall_masks_agree_with_the_authors():
    wanted = [
        [[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]],
        [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1]],
        [[0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 1, 0]],
    ]
    np.testing.assert_array_equal(masks_of("tall_masks", DELTAS, tall_lambda=0.4).keep, np.array(wanted, bool))
    np.testing.assert_array_equal(delta_of("tall_masks", DELTAS), DELTAS.sum(axis=0))


def test_consensus_of_two_agrees_with_the_authors():
    found = delta_of("consensus", DELTAS, tall_lambda=0.4, agreement=2)
    np.testing.assert_array_equal(found, [[5, 0, 0], [3, -1, 0], [0, -1, 0], [0, 0, -1]])


def test_an_agreement_of_none_is_the_sum():
    np.testing.assert_array_equal(delta_of("consensus", DELTAS, agreement=0), DELTAS.sum(axis=0))


def test_an_agreement_of_all_keeps_what_every_model_needs():
    keep = masks_of("tall_masks", DELTAS, tall_lambda=0.2).keep.all(axis=0)
    found = delta_of("consensus", DELTAS, tall_lambda=0.2, agreement=3, scale=0.5)
    np.testing.assert_array_equal(found, 0.5 * np.where(keep, DELTAS.sum(axis=0), 0))
    assert keep.any()


def test_consensus_ties_masks_the_sum_of_ties_by_untrimmed_deltas():
    ties = delta_of("ties", EVERYTHING, density=0.2, function="sum", zero_sum="majority")
    keep = np.abs(EVERYTHING) > 0.4 * np.abs(ties - EVERYTHING)
    found = delta_of("consensus", EVERYTHING, of="ties", zero_sum="majority", tall_lambda=0.4)
    np.testing.assert_array_equal(found, np.where(keep.sum(axis=0) >= 2, ties, 0))
    assert np.count_nonzero(found) > 0


def test_an_agreement_of_more_models_than_there_are_is_refused():
    with pytest.raises(SettingError, match="`agreement: 4` of 3 models can never be reached"):
        delta_of("consensus", DELTAS, agreement=4)


def test_emr_unifies_as_the_authors():
    found = delta_of("emr", EVERYTHING)
    assert_weights_and_bias(found, [[4, -1, 3], [2, -4, -1], [-3, -2, 5], [1, 3, -2]], [2, -1, -1, -2])


def test_emr_rescales_by_the_ratio_of_magnitudes():
    unified = delta_of("emr", EVERYTHING)
    masks = masks_of("emr", EVERYTHING)
    np.testing.assert_array_equal(masks.keep, EVERYTHING * unified > 0)
    wanted = np.abs(EVERYTHING).sum(axis=1) / np.abs(masks.keep * unified).sum(axis=1)
    np.testing.assert_allclose(masks.scale, wanted)
    assert masks.scale.max() > 1


def test_the_official_rescaler_of_one_tensor_is_the_papers():
    paper, official = (masks_of("emr", DELTAS, rescale=word).scale for word in ("paper", "official"))
    np.testing.assert_allclose(official, paper)


def test_emr_gives_one_model_back():
    masks = masks_of("emr", DELTAS[:1])
    np.testing.assert_array_equal(masks.apply(delta_of("emr", DELTAS[:1]))[0], DELTAS[0])


def test_a_model_that_is_the_base_has_an_empty_mask():
    deltas = np.stack([DELTAS[0], np.zeros_like(DELTAS[0])])
    masks = masks_of("emr", deltas)
    assert not masks.keep[1].any()
    np.testing.assert_array_equal(masks.scale, [1, 1])


def reference_pcb(x: np.ndarray, ratio: float, scale: float, variant: str, clip: float) -> np.ndarray:
    """PCB of flattened models by sorting, in float64."""
    k, d = x.shape

    def between(rows: np.ndarray, low: int, high: int) -> np.ndarray:
        ordered = np.sort(rows, axis=1)
        return np.clip(rows, ordered[:, low : low + 1], ordered[:, high : high + 1])

    def unit(rows: np.ndarray) -> np.ndarray:
        low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
        return (rows - low) / np.where(high > low, high - low, 1)

    size = between(np.abs(x), int(d * clip), int(d * (1 - clip) - 1))
    normal = np.sign(x) * unit(size)
    agreement = {
        "official": np.tanh(x * x.sum(axis=0)),
        "normalised": np.tanh(x * normal.sum(axis=0)),
        "pairwise": np.tanh(normal[:, None] * normal[None]).sum(axis=1),
    }[variant]
    score = np.exp(k * unit(size) ** 2) * agreement
    share = unit(between(score, int(d * (1 - ratio)), d - 1))
    return scale * (share * np.sign(x) * size).sum(axis=0) / np.maximum(share.sum(axis=0), 1e-12)


def test_pcb_agrees_with_the_authors():
    bias_first = np.concatenate([BIASES, DELTAS.reshape(3, 12)], axis=1)
    found = delta_of("pcb", bias_first, ratio=0.5, scale=1.0)
    wanted = [1.73203, 0, 0, 0, 2.84104, 0, 3, 1.7319, -3, 0, 0, -2, 2.73939, 1, 2.87014, -2]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("variant", ["official", "normalised", "pairwise"])
@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.9])
def test_pcb_is_its_formula(variant: str, ratio: float):
    deltas = np.random.default_rng(1).standard_normal((4, 700))
    found = delta_of("pcb", deltas, ratio=ratio, variant=variant, clip=0.01)
    np.testing.assert_allclose(found, reference_pcb(deltas, ratio, 1.2, variant, 0.01), atol=1e-12)


@pytest.mark.parametrize("granularity", ["model", "tensor"])
@pytest.mark.parametrize("ratio", [0.1, 0.97])
def test_streamed_pcb_ranks_over_the_model_or_each_tensor(granularity: str, ratio: float):
    """A ratio of 0.97 puts the winners' beginning among negative scores."""
    rng = np.random.default_rng(2)
    base = {"a": np.zeros((40, 30)), "b": np.zeros(900), "c": np.zeros(())}
    models = [{name: rng.standard_normal(b.shape) for name, b in base.items()} for _ in range(3)]
    found = merge_state_dicts(models, method="pcb", base=base, ratio=ratio, granularity=granularity, clip=0.01)
    flat = [np.stack([np.ravel(m[name]) for m in models]) for name in base]
    if granularity == "model":
        wanted = reference_pcb(np.concatenate(flat, axis=1), ratio, 1.2, "official", 0.01)
    else:
        wanted = np.concatenate([reference_pcb(one, ratio, 1.2, "official", 0.01) for one in flat[:2]])
    merged = np.concatenate([np.ravel(found[name]) for name in base])
    np.testing.assert_allclose(merged[: len(wanted)], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["pcb", "emr", "consensus", "tall_masks"])
def test_models_that_equal_the_base_merge_to_it(method: str):
    base = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}
    found = merge_state_dicts([dict(base)] * 3, method=method, base=base)
    np.testing.assert_array_equal(found["w"], base["w"])


def test_pcb_of_a_model_whose_magnitudes_are_all_equal_ranks_it_by_agreement_alone():
    deltas = np.stack([np.full(50, 2.0), np.random.default_rng(3).standard_normal(50)])
    found = delta_of("pcb", deltas)
    np.testing.assert_allclose(found, reference_pcb(deltas, 0.1, 1.2, "official", 1e-4), atol=1e-12)
    assert found.any()


@pytest.mark.parametrize("method", ["pcb", "emr", "consensus", "tall_masks"])
def test_thirty_models_merge_to_finite_numbers(method: str):
    rng = np.random.default_rng(4)
    base = {"w": rng.standard_normal((16, 64)).astype(np.float32)}
    models = [{"w": base["w"] + 0.1 * rng.standard_normal((16, 64)).astype(np.float32)} for _ in range(30)]
    found = merge_state_dicts(models, method=method, base=base)["w"]
    assert np.isfinite(found).all()
    assert not np.array_equal(found, base["w"])


def test_pcb_of_a_hundred_models_does_not_overflow():
    rng = np.random.default_rng(5)
    models = [{"w": rng.standard_normal(64).astype(np.float32)} for _ in range(100)]
    found = merge_state_dicts(models, method="pcb", base={"w": np.zeros(64, np.float32)})["w"]
    assert np.isfinite(found).all()
    assert found.any()
