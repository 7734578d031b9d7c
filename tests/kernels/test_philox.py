"""Philox against Random123's known answers, and streams that do not depend on where they start."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.kernels.philox import Stream, stream, uniform, words


def reference(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 with a counter of 128 bits, in plain Python."""
    (c0, c1, c2, c3), (k0, k1), low = counter, key, 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & low, (p0 >> 32) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return [c0, c1, c2, c3]


ONES = 0xFFFFFFFF
KNOWN = [  # Random123's kat_vectors
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "wanted"), KNOWN)
def test_the_reference_gives_the_known_answers(counter: list[int], key: list[int], wanted: list[int]):
    assert reference(counter, key) == wanted


@pytest.mark.parametrize("counter", [0, 1, 2**31, 2**32 - 2, 2**32 + 5, 2**45 + 7])
@pytest.mark.parametrize("key", [[0, 0], [ONES, ONES], [0xA4093822, 0x299F31D0]])
def test_words_are_those_of_the_reference(counter: int, key: list[int]):
    out = np.empty((4, 9), np.uint32)
    words(counter, np.array(key, np.uint32), out)
    wanted = [reference([(counter + i) & ONES, (counter + i) >> 32, 0, 0], key) for i in range(9)]
    assert out.T.tolist() == wanted


def test_the_words_of_counter_zero_are_the_known_answer():
    out = np.empty((4, 1), np.uint32)
    words(0, np.zeros(2, np.uint32), out)
    assert out[:, 0].tolist() == KNOWN[0][2]


def test_a_number_is_the_upper_24_bits_of_its_word():
    out = np.empty(4, np.float32)
    uniform(out, np.zeros(2, np.uint32), 0)
    assert (out * 2**24).tolist() == [word >> 8 for word in KNOWN[0][2]]


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 1023, 1024, 1030, 4099])
@pytest.mark.parametrize("n", [1, 3, 1024, 2500])
def test_a_number_depends_on_its_index_alone(start: int, n: int):
    key = np.array([7, 9], np.uint32)
    whole, part = np.empty(start + n, np.float32), np.empty(n, np.float32)
    uniform(whole, key, 0)
    uniform(part, key, start)
    np.testing.assert_array_equal(part, whole[start:])


def test_indices_beyond_32_bits_have_numbers_of_their_own():
    key, far, near = np.array([7, 9], np.uint32), np.empty(8, np.float32), np.empty(8, np.float32)
    uniform(far, key, 4 * 2**32)
    uniform(near, key, 0)
    assert not np.isin(far, near).any()


def test_numbers_are_uniform_on_the_unit_interval():
    numbers = stream(0, ("model",), "tensor").numbers(200_000)[0]
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi_square < 43.8  # the 0.999 quantile for 19 degrees of freedom
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01


def test_models_tensors_and_seeds_have_streams_of_their_own_and_order_does_not_matter():
    both = stream(1, ("a", "b"), "t").numbers(64)
    np.testing.assert_array_equal(both[::-1], stream(1, ("b", "a"), "t").numbers(64))
    others = [stream(2, ("a",), "t"), stream(1, ("a",), "u"), stream(1, ("b",), "t")]
    for other in others:
        assert not np.array_equal(both[0], other.numbers(64)[0])


def test_a_stream_starts_where_it_is_told():
    drawn = stream(0, ("a", "b"), "t", start=3)
    np.testing.assert_array_equal(drawn.numbers(10), Stream(drawn.keys, 0).numbers(13)[:, 3:])
