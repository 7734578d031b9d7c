"""The declared set of kernel variants; `conftest.py` fails a test that asks for one that is not declared."""

from __future__ import annotations

from polyak.kernels.convert import decoders, encoders
from polyak.kernels.one_sweep import MOST
from polyak.kernels.variants import variants
from polyak.kernels.weighted_sums import combine
from polyak.native import symbol_of


def test_no_two_variants_have_the_same_symbol():
    symbols = [symbol_of(kernel.identity, key) for kernel, key in variants()]
    assert len(set(symbols)) == len(symbols)


def test_a_step_is_filled_in_for_every_pair_of_dtypes():
    merging = [kernel for kernel, _ in variants() if kernel.__name__ == "_merge" and kernel.parts["_step"] is combine]
    assert len(merging) == len(decoders()) * len(encoders()) == 16


def test_a_sweep_is_filled_in_for_every_number_of_models():
    numbers = {kernel.parts["_MODELS"] for kernel, _ in variants() if kernel.__name__ == "_elect"}
    assert numbers == set(range(1, MOST + 1))
