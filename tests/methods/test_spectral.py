"""The spectral methods against plain formulas in float64, and on problems whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyak
from polyak.errors import SettingError
from polyak.linalg.spectral import components, polar
from polyak.methods import load_all, resolve
from polyak.methods._matrices import NOT_MATRICES, is_matrix

load_all()

DATA_FREE = ["tsv_m", "iso_c", "iso_cts", "cart", "dc_merge", "wudi", "swudi", "aswudi", "knots"]
SHAPES = [(12, 8), (8, 12), (9, 9), (1, 5), (5, 1), (1, 1), (2, 2)]


def merge(method: str, deltas: Any, name: str = "w", **settings: Any) -> np.ndarray:
    stack = np.asarray(deltas, np.float64)
    return resolve(method)(stack, np.zeros_like(stack[0]), name=name, **settings)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def orthogonal_tasks(tasks: int = 3, rank: int = 2, shape: tuple[int, int] = (12, 9)) -> np.ndarray:
    """Deltas of low rank with mutually orthogonal row and column spaces."""
    u = np.linalg.qr(random(shape[0], tasks * rank))[0]
    v = np.linalg.qr(random(shape[1], tasks * rank))[0]
    s = 1 + np.abs(random(tasks, rank))
    cut = [slice(t * rank, (t + 1) * rank) for t in range(tasks)]
    return np.stack([u[:, part] * s[t] @ v[:, part].T for t, part in enumerate(cut)])


def svd_cut(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :k], s[:k], vt[:k].T


def polar_by_svd(matrix: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (9, 9)])
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_tsv_m_is_its_formula(shape: tuple[int, int], tasks: int):
    deltas = random(tasks, *shape)
    cut = [svd_cut(delta, min(shape) // tasks) for delta in deltas]
    u, s, v = (np.concatenate(part, axis=-1) for part in zip(*cut, strict=True))
    wanted = polar_by_svd(u) * s @ polar_by_svd(v).T
    np.testing.assert_allclose(merge("tsv_m", deltas), wanted, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_tsv_m_of_one_model_is_that_model(shape: tuple[int, int]):
    delta = random(*shape)
    np.testing.assert_allclose(merge("tsv_m", [delta]), delta, atol=1e-12)


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (9, 9)])
def test_iso_c_has_equal_singular_values_and_the_directions_of_the_sum(shape: tuple[int, int]):
    deltas = random(3, *shape)
    u, s, vt = np.linalg.svd(deltas.sum(axis=0), full_matrices=False)
    found = merge("iso_c", deltas)
    np.testing.assert_allclose(np.linalg.svd(found)[1], s.mean(), rtol=1e-10)
    np.testing.assert_allclose(found, s.mean() * u @ vt, atol=1e-10)


@pytest.mark.parametrize(("common", "tasks"), [(0.8, 2), (0.5, 3), (0, 3), (0.3, 4)])
def test_iso_cts_is_its_formula(common: float, tasks: int):
    deltas = random(tasks, 14, 10)
    own = round((10 - int(10 * common)) / tasks)
    u, s, v = svd_cut(deltas.sum(axis=0), shared := 10 - own * tasks)
    cut = [*(svd_cut(delta - u @ u.T @ delta, own) for delta in deltas), (u, s, v)]
    u, s, v = (np.concatenate(part, axis=-1) for part in zip(*cut, strict=True))
    wanted = s.mean() * polar_by_svd(u) @ polar_by_svd(v).T
    assert 0 <= shared < 10
    np.testing.assert_allclose(merge("iso_cts", deltas, common=common), wanted, atol=1e-9)


@pytest.mark.parametrize(("common", "tasks"), [(1, 2), (0.8, 12), (0.9, 3)])
def test_iso_cts_without_room_for_own_directions_is_iso_c(common: float, tasks: int):
    deltas = random(tasks, 10, 10)
    np.testing.assert_allclose(merge("iso_cts", deltas, common=common), merge("iso_c", deltas), atol=1e-12)


def test_cart_is_its_formula_and_the_average_for_vectors():
    deltas = random(3, 10, 7)
    mean = deltas.mean(axis=0)
    cuts = [svd_cut(delta - mean, 3) for delta in deltas]
    wanted = mean + 2.3 * sum(u * s @ v.T for u, s, v in cuts)
    np.testing.assert_allclose(merge("cart", deltas, rank=0.5, scale=2.3), wanted, atol=1e-10)
    np.testing.assert_allclose(merge("cart", deltas[:, 0], scale=2.3), mean[0])


def test_dc_merge_is_its_formula():
    tasks, shape = 3, (10, 9)
    deltas = random(tasks, *shape)
    cuts = [svd_cut(delta, 3) for delta in deltas]
    u, v = (polar_by_svd(np.concatenate([cut[i] for cut in cuts], axis=1)) for i in (0, 2))
    parts = [u.T @ (a * s @ b.T) @ v for a, s, b in cuts]
    for part in parts:
        part[np.abs(part) < np.sort(np.abs(part), axis=None)[-int(0.3 * 81)]] = 0
    sign = np.sign(sum(parts))
    agreeing = [np.where(np.sign(part) == sign, part, 0) for part in parts]
    count = sum((one != 0).astype(int) for one in agreeing)
    blocks = np.kron(np.eye(3), np.ones((3, 3)))
    wanted = u @ (sum(agreeing) / np.maximum(count, 1) * blocks) @ v.T
    np.testing.assert_allclose(merge("dc_merge", deltas, density=0.3), wanted, atol=1e-10)


def test_wudi_descends_as_adam_does():
    torch = pytest.importorskip("torch")
    deltas = torch.from_numpy(random(3, 6, 5))
    found = torch.nn.Parameter(deltas.sum(dim=0))
    optimizer = torch.optim.Adam([found], lr=1e-3)
    for _ in range(40):
        products = (found - deltas) @ deltas.transpose(1, 2)
        loss = (products.square().sum(dim=(1, 2)) / deltas.square().sum(dim=(1, 2))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ours = merge("wudi", deltas.numpy(), iterations=40, learning_rate=1e-3)
    np.testing.assert_allclose(ours, found.detach().numpy(), atol=1e-10)


def test_wudi_without_steps_is_the_sum():
    deltas = random(3, 6, 5)
    np.testing.assert_allclose(merge("wudi", deltas, iterations=0), deltas.sum(axis=0))


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_closed_wudi_minimises_the_interference(shape: tuple[int, int]):
    deltas = random(3, *shape)
    found = merge("wudi", deltas, solver="closed")
    gradient = sum((found - d) @ d.T @ d / np.sum(d**2) for d in deltas)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_swudi_approaches_the_minimum_with_time():
    deltas = random(3, 8, 6)
    found = merge("swudi", deltas, rank=1, time=1e6)
    np.testing.assert_allclose(found, merge("wudi", deltas, solver="closed"), atol=1e-8)
    np.testing.assert_allclose(merge("swudi", deltas, rank=1, time=0), deltas.sum(axis=0))
    np.testing.assert_allclose(merge("swudi", deltas, rank=0), deltas.sum(axis=0))


def test_aswudi_goes_along_as_many_eigenvectors_as_the_spectrum_says():
    deltas = random(2, 9, 7) * np.array([8.0, 4, 2, 1, 0.5, 0.2, 0.1])
    norms = np.sum(deltas**2, axis=(1, 2))[:, None, None]
    c = np.sum(deltas.transpose(0, 2, 1) @ deltas / norms, axis=0)
    d = np.sum(deltas @ deltas.transpose(0, 2, 1) @ deltas / norms, axis=0)
    values, vectors = np.linalg.eigh(c)
    values = np.maximum(values, 1e-8)
    count = int(np.ceil(np.sqrt(values).sum() ** 2 / values.sum()))
    assert 1 < count < 7
    top, v = values[-count:], vectors[:, -count:]
    total = deltas.sum(axis=0)
    np.testing.assert_allclose(merge("aswudi", deltas), total - total @ v @ v.T + d @ v / top @ v.T, atol=1e-10)


def test_knots_merges_like_ties_in_the_common_basis():
    deltas = random(3, 6, 8)
    u, s, vt = np.linalg.svd(np.concatenate(deltas, axis=1), full_matrices=False)
    stack = np.stack([s[:, None] * part for part in np.split(vt, 3, axis=1)])
    wanted = u @ resolve("ties")(stack, np.zeros_like(stack[0]), density=0.4)
    np.testing.assert_allclose(merge("knots", deltas, density=0.4, scale=1.0), wanted, atol=1e-10)


@pytest.mark.parametrize("workers", [1, 2])
def test_knots_trims_the_representations_of_all_layers_as_one_vector(workers):
    rng = np.random.default_rng(0)
    shapes = {"a": (6, 8), "b": (5, 3), "in_proj_weight": (18, 6), "c": (300, 400)}
    sizes = dict(zip(shapes, (1.0, 20.0, 3.0, 0.5), strict=True))
    base = {n: np.zeros(s, np.float32) for n, s in shapes.items()}
    models = [{n: (sizes[n] * rng.standard_normal(s)).astype(np.float32) for n, s in shapes.items()} for _ in range(3)]
    settings = {"density": 0.3, "scale": 1.0, "qkv": "split", "granularity": "model"}
    found = polyak.merge_state_dicts(models, method="knots", base=base, workers=workers, **settings)
    parts = {n: np.split(stack, 3, axis=1) if n == "in_proj_weight" else [stack] for n, stack in stacked(models)}
    spaces = {n: [in_one_basis(part) for part in each] for n, each in parts.items()}
    everything = [np.concatenate([r[t].ravel() for each in spaces.values() for _, r in each]) for t in range(3)]
    bounds = np.array([np.sort(np.abs(one))[-int(0.3 * one.size) - 1] for one in everything])[:, None, None]
    for name, each in spaces.items():
        kept = [(u, np.where(np.abs(r) >= bounds * (1 - 1e-6), r, 0)) for u, r in each]
        signs = [np.sign(r.sum(axis=0)) for _, r in kept]
        agree = [r * (r * sign > 0) for (_, r), sign in zip(kept, signs, strict=True)]
        means = [r.sum(axis=0) / np.maximum((r != 0).sum(axis=0), 1) for r in agree]
        wanted = np.concatenate([u @ mean for (u, _), mean in zip(kept, means, strict=True)])
        np.testing.assert_allclose(found[name], wanted, atol=2e-4 * np.abs(wanted).max())


def stacked(models):
    return [(name, np.stack([model[name].astype(np.float64) for model in models])) for name in models[0]]


def in_one_basis(deltas):
    u, s, vt = np.linalg.svd(np.concatenate(deltas, axis=1), full_matrices=False)
    return u, np.stack([s[:, None] * part for part in np.split(vt, len(deltas), axis=1)])


def test_knots_over_the_model_keeps_all_equals_of_the_boundary():
    with pytest.raises(SettingError, match="it goes with `topk: official`"):
        resolve("knots").bind({"granularity": "model", "topk": "exact"}, 2)


def test_knots_without_a_trim_by_sums_is_the_sum():
    deltas = orthogonal_tasks()
    found = merge("knots", deltas, merge="linear", scale=1.0)
    np.testing.assert_allclose(found, deltas.sum(axis=0), atol=1e-10)


def test_knots_dare_is_right_in_expectation_and_exact_without_drops():
    deltas = orthogonal_tasks()
    whole = merge("knots_dare", deltas, density=1, scale=1.0)
    np.testing.assert_allclose(whole, deltas.sum(axis=0), atol=1e-10)
    drawn = [merge("knots_dare", deltas, density=0.5, scale=1.0, seed=seed) for seed in range(400)]
    error = np.mean(drawn, axis=0) - whole
    assert np.abs(drawn[0] - whole).max() > 0.1
    assert np.abs(error).max() < 0.2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("tsv_m", {}),
        ("swudi", {"rank": 0.3}),
        ("swudi", {"rank": 1.0, "time": 3.0}),
        ("aswudi", {}),
        ("wudi", {"solver": "closed"}),
        ("cart", {"rank": 1.0, "scale": 1.0}),
    ],
)
def test_orthogonal_tasks_add_up(method: str, settings: dict[str, Any]):
    deltas = orthogonal_tasks()
    wanted = deltas.mean(axis=0) if method == "cart" else deltas.sum(axis=0)
    np.testing.assert_allclose(merge(method, deltas, **settings), wanted, atol=1e-9)


def test_tsv_m_is_not_led_astray_by_null_directions():
    """Three directions fit each model, but only two mean something: a polar factor of noise would mix them."""
    deltas = orthogonal_tasks(tasks=3, rank=2, shape=(12, 12))
    np.testing.assert_allclose(merge("tsv_m", deltas), deltas.sum(axis=0), atol=1e-12)


@pytest.mark.parametrize("method", [m for m in DATA_FREE if m != "wudi"])
@pytest.mark.parametrize("factor", [7.0, 1e-6, -1.0])
def test_deltas_times_a_number_give_the_result_times_it(method: str, factor: float):
    deltas = random(3, 7, 9)
    once = merge(method, deltas)
    np.testing.assert_allclose(merge(method, factor * deltas), factor * once, rtol=1e-6, atol=abs(factor) * 1e-9)


@pytest.mark.parametrize("method", DATA_FREE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tasks", [1, 2, 30])
def test_any_matrix_of_any_number_of_models_merges(method: str, shape: tuple[int, int], tasks: int):
    few = {"iterations": 5} if method == "wudi" else {}
    deltas = random(tasks, *shape)
    found = merge(method, deltas, **few)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0
    assert np.linalg.norm(found, 2) <= 3 * sum(np.linalg.norm(delta, 2) for delta in deltas)


@pytest.mark.parametrize("method", [*DATA_FREE, "svc"])
def test_models_that_equal_the_base_leave_it(method: str):
    base = random(6, 5)
    np.testing.assert_array_equal(resolve(method)(np.stack([base] * 3), base), base)


@pytest.mark.parametrize("method", DATA_FREE)
def test_an_unmoved_model_among_others_is_no_error(method: str):
    deltas = random(3, 6, 5) * np.array([1.0, 0, 2])[:, None, None]
    assert np.isfinite(merge(method, deltas)).all()


@pytest.mark.parametrize("method", DATA_FREE)
def test_copies_of_one_model_are_merged_the_same_way_by_numpy_and_torch(method: str):
    """Repeated directions leave polar factors open, unless what is open is dropped."""
    torch = pytest.importorskip("torch")
    copies = np.stack([random(6, 5)] * 3)
    # Of copies, all entries that dc_merge trims are equal: rounding decides which survive, unless all do.
    settings = {"density": 1.0} if method == "dc_merge" else {}
    theirs = resolve(method)(torch.from_numpy(copies), torch.zeros(6, 5, dtype=torch.float64), **settings)
    np.testing.assert_allclose(merge(method, copies, **settings), theirs.numpy(), atol=1e-8)


@pytest.mark.parametrize("method", DATA_FREE)
def test_weights_multiply_deltas_first_of_all(method: str):
    deltas = random(3, 6, 5)
    weight = [0.5, 2.0, -1.0]
    weighted = deltas * np.array(weight)[:, None, None]
    np.testing.assert_allclose(merge(method, deltas, weight=weight), merge(method, weighted), atol=1e-12)


def test_svc_undoes_a_factor_that_the_merge_had():
    deltas = orthogonal_tasks()
    stack = np.concatenate([deltas.sum(axis=0, keepdims=True), deltas])
    calibrated = merge("svc", stack, alpha=1e-6)
    assert np.linalg.norm(calibrated) > np.linalg.norm(stack[0])  # each direction is one model's: gamma = T / 1
    np.testing.assert_allclose(calibrated, 3 * stack[0], atol=1e-3)


def test_svc_keeps_the_vectors_of_the_merge():
    stack = random(4, 9)
    np.testing.assert_allclose(merge("svc", stack), stack[0])


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight", "lm_head.weight", "text_projection", "transformer.wte.weight", "shared.weight",
        "embeddings.word_embeddings.weight", "visual.positional_embedding",
    ],
)  # fmt: skip
def test_embeddings_and_heads_are_vectors_unless_the_recipe_says_otherwise(name: str):
    deltas = random(3, 6, 5)
    np.testing.assert_allclose(merge("tsv_m", deltas, name=name), deltas.mean(axis=0))
    assert not np.allclose(merge("tsv_m", deltas, name=name, exclude=""), deltas.mean(axis=0))


@pytest.mark.parametrize("name", ["layers.3.mlp.up_proj.weight", "h.0.attn.c_proj.weight", "visual.proj", ""])
def test_other_names_are_matrices(name: str):
    assert is_matrix(name, (4, 4), NOT_MATRICES, "vector")


def test_an_exclude_that_is_no_regular_expression_is_refused_by_name():
    with pytest.raises(SettingError, match=r"'exclude' of method 'tsv_m' must be a regular expression .*; got '\('"):
        merge("tsv_m", random(2, 3, 3), exclude="(")


@pytest.mark.parametrize("method", DATA_FREE)
def test_vectors_take_the_mean_or_nothing(method: str):
    deltas = random(3, 7)
    factor = 1.0 if method == "cart" else 0.5
    found = merge(method, deltas, vector_1d="mean", scale=0.5)
    np.testing.assert_allclose(found, factor * deltas.mean(axis=0))
    np.testing.assert_array_equal(merge(method, deltas, vector_1d="zero"), 0)


def test_convolutions_are_vectors_or_matrices():
    deltas = random(3, 6, 2, 3, 3)
    np.testing.assert_allclose(merge("tsv_m", deltas), deltas.mean(axis=0))
    flat = merge("tsv_m", deltas.reshape(3, 6, 18))
    np.testing.assert_allclose(merge("tsv_m", deltas, conv="matrix"), flat.reshape(6, 2, 3, 3))


@pytest.mark.parametrize(
    ("name", "axis"), [("attn.in_proj_weight", 0), ("blocks.0.attn.qkv.weight", 0), ("c_attn.weight", 1)]
)
def test_stacked_queries_keys_and_values_are_merged_apart_on_demand(name: str, axis: int):
    parts = [random(3, 6, 6, seed=i) for i in range(3)]
    stacked = np.concatenate(parts, axis=axis + 1)
    apart = np.concatenate([merge("tsv_m", part) for part in parts], axis=axis)
    np.testing.assert_allclose(merge("tsv_m", stacked, name=name, qkv="split"), apart, atol=1e-12)
    assert not np.allclose(merge("tsv_m", stacked, name=name), apart)


@pytest.mark.parametrize(("name", "shape"), [("mlp.up_proj.weight", (18, 6)), ("attn.qkv_proj.weight", (10, 6))])
def test_what_is_not_three_squares_stays_whole(name: str, shape: tuple[int, int]):
    deltas = random(3, *shape)
    np.testing.assert_array_equal(merge("tsv_m", deltas, name=name, qkv="split"), merge("tsv_m", deltas))


@pytest.mark.parametrize("smallest", [1e-3, 3e-5, 3e-6, 1e-9])
def test_decompositions_hold_for_singular_values_of_any_size(smallest: float):
    """Through the Gram matrix, by decomposition where that does not suffice, or dropped."""
    u, v = np.linalg.qr(random(9, 6))[0], np.linalg.qr(random(6, 6))[0]
    s = np.geomspace(1, smallest, 6)
    matrix = u * s @ v.T
    found = components(matrix)
    kept = int(np.sum(s > 1e-6))
    assert found.s.shape == (kept,)
    np.testing.assert_allclose(found.s, s[:kept], rtol=1e-5)
    np.testing.assert_allclose(found.u.T @ found.u, np.eye(kept), atol=1e-5)
    np.testing.assert_allclose(found.u * found.s @ found.v.T, matrix, atol=1.1e-6)
    np.testing.assert_allclose(polar(matrix)[0], u[:, :kept] @ v[:, :kept].T, atol=1e-5)
