"""The same file gives the same model in mergekit 0.1.5 and in polyak."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mergekit", reason="mergekit is not installed; `make parity` does it")
if version("mergekit") != "0.1.5":
    pytest.skip(f"mergekit is {version('mergekit')}, not 0.1.5", allow_module_level=True)

import torch

from .both import tensors, with_polyak
from .compare import Tensors, assert_same_specs, assert_same_tensors, at_a_cut, too_far
from .families import STEPS, write_family
from .recipes import DIALECT, METHODS, WEIGHED

INPUTS = ("base", *STEPS, "stranger")
ROUNDED = {
    "llama": ("float32", "bfloat16", "float16"), "bert": ("bfloat16", "float16"), "gpt2": ("bfloat16", "float16"),
}  # fmt: skip
# Models stored in 16 bits have many equal magnitudes, and which of them survive a cut is left open; and in bfloat16 the
# smallest step moves no norm, where `nuslerp` differs on purpose.
CUT = re.compile(r"merge_method: (ties[^#]*density|breadcrumbs|nuslerp\nbase)|select_topk: 0.3")
UNCUT = {name: text for name, text in METHODS.items() if not CUT.search(text)}
STORED = [("bert", "bfloat16"), ("gpt2", "bfloat16"), ("llama", "float16")]


def in_turn(texts: dict[str, str], first: Any, others: list[Any]) -> list[Any]:
    """Each text with the first, and with one of the others in turn: neighbours are variants of one method."""
    pairs = [(name, one) for i, name in enumerate(texts) for one in (first, others[i % len(others)])]
    return [
        pytest.param(texts[name], one, id="-".join([name, *([one] if isinstance(one, str) else one)]))
        for name, one in pairs
    ]


def assert_parity(run_both, family: Path, text: str, dtypes: str) -> Tensors:
    theirs, ours = (tensors(out) for out in run_both(family, f"{text}\n{dtypes}\n"))
    assert_same_tensors(ours, theirs, [tensors(family / name) for name in INPUTS])
    return ours


@pytest.mark.parametrize(("text", "shape"), in_turn(METHODS, "llama", ["bert", "gpt2"]))
def test_a_method_gives_the_same_tensors(families, run_both, tmp_path, text, shape):
    """mergekit computes in float32 and rounds at the end, so one run of it is the reference for every dtype."""
    family = families(shape, layers=2)
    theirs, ours = (tensors(out) for out in run_both(family, f"{text}\ndtype: float32\n"))
    inputs = [tensors(family / name) for name in INPUTS]
    for dtype in ROUNDED[shape]:
        if dtype != "float32":
            recipe = tmp_path / f"{dtype}.yml"
            recipe.write_text(f"{text}\ndtype: float32\nout_dtype: {dtype}\n")
            ours = tensors(with_polyak(recipe, tmp_path / dtype))
        rounded = {name: tensor.to(getattr(torch, dtype)) for name, tensor in theirs.items()}
        assert_same_tensors(ours, rounded, inputs)


@pytest.mark.parametrize(("text", "stored"), in_turn(UNCUT, ("llama", "bfloat16"), STORED))
def test_a_method_gives_the_same_tensors_of_models_in_16_bits(families, run_both, text, stored):
    shape, dtype = stored
    assert_parity(run_both, families(shape, dtype, layers=2), text, f"dtype: float32\nout_dtype: {dtype}")


@pytest.mark.parametrize(("text", "shape"), in_turn(DIALECT, "llama", ["bert", "gpt2"]))
def test_a_form_of_the_dialect_means_the_same(families, run_both, text, shape):
    assert_parity(run_both, families(shape), text, "dtype: float32")


@pytest.mark.parametrize(
    ("stored", "dtypes", "written"),
    [
        ("float32", "", torch.float32),
        ("float32", "out_dtype: bfloat16", torch.bfloat16),
        ("bfloat16", "out_dtype: bfloat16\ndtype: float32", torch.bfloat16),
        ("bfloat16", "dtype: float32", torch.float32),
        ("bfloat16", "", torch.bfloat16),
        ("bfloat16", "dtype: bfloat16", torch.bfloat16),
        ("bfloat16", "out_dtype: float16\ndtype: float32", torch.float16),
    ],
)
def test_dtype_and_out_dtype_decide_what_is_written(families, run_both, stored, dtypes, written):
    recipe = METHODS["linear"]  # mergekit computes it in float32 whatever the dtype
    family = families("llama", stored)
    ours = assert_parity(run_both, family, recipe, dtypes)
    assert {tensor.dtype for tensor in ours.values()} == {written}


TRIM = {
    "ties": ("density: 0.3", [(0.0, 0.3)]),
    "breadcrumbs": ("density: 0.3, gamma: 0.1", [(0.1, 0.0), (0.1, 0.3)]),
}
ONE = "\nbase_model: ./base\nmodels: [{model: ./expert-3, parameters: {weight: 1}}]\n"


@pytest.mark.parametrize("method", TRIM)
def test_where_magnitudes_are_equal_only_entries_at_the_threshold_differ(families, run_both, method):
    """Deltas of models stored in bfloat16 have few distinct magnitudes, so many equal the threshold."""
    family, (settings, cuts) = families("llama", "bfloat16"), TRIM[method]
    theirs, ours = trimmed(run_both, family, method, settings + WEIGHED)
    base, *experts = (tensors(family / name) for name in ("base", *STEPS))
    assert_same_specs(ours, theirs)
    differing = 0
    for name, found in ours.items():
        apart = too_far(found, theirs[name], [base, *experts], name)
        deltas = torch.stack([model[name].float() - base[name].float() for model in experts])
        counts = [int(gamma * found.numel()) + int(density * found.numel()) for gamma, density in cuts]
        assert not (apart & ~at_a_cut(deltas, counts)).any(), name
        differing += int(apart.sum())
    assert differing > 0


@pytest.mark.parametrize("method", TRIM)
def test_where_magnitudes_are_equal_as_many_entries_survive(families, run_both, method):
    family, (settings, _) = families("llama", "bfloat16"), TRIM[method]
    theirs, ours = trimmed(run_both, family, method, settings + ONE)
    base = tensors(family / "base")
    for name, found in ours.items():
        start = base[name].float()
        assert (found != start).sum() == (theirs[name] != start).sum(), name


def trimmed(run_both, family: Path, method: str, rest: str):
    settings, _, models = rest.partition("\n")
    text = f"merge_method: {method}\nparameters: {{{settings}}}\n{models}dtype: float32\n"
    return (tensors(out) for out in run_both(family, text))


def test_in_bfloat16_the_result_is_nearer_to_the_exact_one(families, run_both):
    """mergekit rounds after every operation when `dtype` is bfloat16; polyak rounds once."""
    family = families("llama", "bfloat16")
    theirs, ours = (tensors(out) for out in run_both(family, METHODS["task_arithmetic"] + "dtype: bfloat16\n"))
    base, *experts = (tensors(family / name) for name in ("base", *STEPS))
    wrong = {"mergekit": 0, "polyak": 0}
    for name, start in base.items():
        tau = zip((0.7, 0.4, 0.3), experts, strict=True)
        exact = start.double() + sum(w * (model[name].double() - start.double()) for w, model in tau)
        wrong["polyak"] += int((ours[name] != exact.bfloat16()).sum())
        wrong["mergekit"] += int((theirs[name] != exact.bfloat16()).sum())
    assert wrong["polyak"] < 0.001 * sum(t.numel() for t in base.values()) < wrong["mergekit"]


@pytest.mark.parametrize(("shape", "stored", "written"), [
    ("llama", "float32", "float32"), ("llama", "bfloat16", "bfloat16"), ("llama", "float16", "float16"),
    ("bert", "float32", "bfloat16"), ("gpt2", "float32", "float16"),
])  # fmt: skip
def test_arcee_fusion_takes_over_the_same_but_for_entries_near_the_threshold(
    families, run_both, shape, stored, written
):
    """mergekit's divergences are in float32, in which those of close models are mostly rounding."""
    family = families(shape, stored)
    text = METHODS["nearswap"].replace("nearswap", "arcee_fusion").replace("parameters: {t: 0.001}", "")
    theirs, ours = (tensors(out) for out in run_both(family, f"{text}\ndtype: float32\nout_dtype: {written}\n"))
    assert_same_specs(ours, theirs)
    base = {name: tensor.to(ours[name].dtype) for name, tensor in tensors(family / "base").items()}
    taken = {name: (ours[name] != base[name]) for name in ours}
    apart = sum(int((taken[name] != (theirs[name] != base[name])).sum()) for name in ours)
    assert 0.02 < sum(int(t.sum()) for t in taken.values()) / sum(t.numel() for t in taken.values()) < 0.3
    assert apart < 0.02 * sum(t.numel() for t in taken.values())


@pytest.fixture
def two_labels(tmp_path: Path) -> Path:
    """A family with a tensor of two entries, `classifier.bias`."""
    return write_family(tmp_path / "two-labels", "bert", num_labels=2)


def assert_only_the_bias_differs(run_both, family: Path, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bias of mergekit and of polyak, as far as they are from the base."""
    theirs, ours = (tensors(out) for out in run_both(family, f"{text}\ndtype: float32\n"))
    their_bias, our_bias = theirs.pop("classifier.bias"), ours.pop("classifier.bias")
    assert_same_tensors(ours, theirs, [tensors(family / name) for name in INPUTS])
    base = tensors(family / "base")["classifier.bias"]
    return their_bias - base, our_bias - base


def test_breadcrumbs_keeps_an_entry_where_mergekit_keeps_none(two_labels, run_both):
    text = METHODS["breadcrumbs"].replace("0.6", "0.2").replace("0.35", "0.2")
    theirs, ours = assert_only_the_bias_differs(run_both, two_labels, text)
    assert not theirs.any()
    assert ours.any()


def test_model_stock_does_not_draw_a_tiny_delta_to_the_base_as_mergekit_does(two_labels, run_both):
    theirs, ours = assert_only_the_bias_differs(run_both, two_labels, METHODS["model_stock, of two"])
    base, first, second = (
        tensors(two_labels / n)["classifier.bias"].double() for n in ("base", "expert-1", "expert-2")
    )
    cosine = torch.cosine_similarity(first - base, second - base, dim=0)
    exact = 2 * cosine / (1 + cosine) * ((first + second) / 2 - base)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-8)
    assert (theirs - exact).abs().max() > 100 * (ours - exact).abs().max()
