"""Each public check catches the mistake that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from array_api_compat import array_namespace

from polyak import testing
from polyak.errors import DeclarationError, SettingError
from polyak.methods import (
    Coefficient,
    Delta,
    Deltas,
    FirstPass,
    Fraction,
    Law,
    Masks,
    Merged,
    Method,
    Tensors,
    Uniform,
    load_all,
    method,
    registry,
)
from polyak.methods._passes import Cut, Sum, Top

pytestmark = pytest.mark.slow  # each check runs all of its cases
ALL = frozenset(Law)
BROKEN: list[tuple[str, dict[str, Any], Callable[..., Any], Callable[..., None] | None]] = []


def broken(caught_by: str, kernel: Callable[..., None] | None = None, **claims: Any):
    """Note a wrong method, its wrong kernel, and the check that must see it."""

    def note(fn: Callable[..., Any]) -> Callable[..., Any]:
        BROKEN.append((caught_by, claims, fn, kernel))
        return fn

    return note


def caught(found: Method) -> Iterator[str]:
    for check in testing.checks_for(found):
        try:
            check(found)
        except Exception:
            yield check.name


def registered(fn: Callable[..., Any], kernel: Callable[..., None] | None = None, **claims: Any) -> Method:
    under_test = method("under_test", **({"source": "this file"} | claims))(fn)
    if kernel is not None:
        under_test.kernel(kernel)
    del registry["under_test"]
    return under_test


def failures(fn: Callable[..., Any], kernel: Callable[..., None] | None = None, **claims: Any) -> list[str]:
    return list(caught(registered(fn, kernel, **claims)))


@broken("check_inputs_are_untouched")
def changes_its_input(tensors: Tensors, *, weight: Coefficient) -> Merged:
    """Multiply in place."""
    tensors *= weight
    return array_namespace(tensors).sum(tensors, axis=0)


@broken("check_shape_and_finiteness")
def transposes(tensors: Tensors) -> Merged:
    """Turn matrices over."""
    xp = array_namespace(tensors)
    mean = xp.mean(tensors, axis=0)
    return xp.permute_dims(mean, tuple(range(mean.ndim))[::-1])


@broken("check_shape_and_finiteness")
def divides_by_zero(tensors: Tensors) -> Merged:
    """Divide by a sum that can be zero."""
    total = array_namespace(tensors).sum(tensors, axis=0)
    with np.errstate(all="ignore"):
        return total * (total / total) / tensors.shape[0]


@broken("check_global_generators_are_untouched")
def draws_globally(deltas: Deltas) -> Delta:
    """Drop with NumPy's global generator."""
    mask = array_namespace(deltas).asarray(np.random.rand(*deltas.shape) < 0.5)
    return array_namespace(deltas).sum(deltas * mask, axis=0)


@broken("check_same_seed_same_result")
def draws_anew(deltas: Deltas) -> Delta:
    """Drop with a generator that nobody seeds."""
    xp = array_namespace(deltas)
    mask = xp.asarray(np.random.default_rng().random(deltas.shape) < 0.5)
    return xp.sum(deltas * mask, axis=0)


@broken("check_base_is_fixed")
def moves_the_base(deltas: Deltas) -> Delta:
    """Add a little."""
    return array_namespace(deltas).sum(deltas, axis=0) + 1e-3


@broken("check_base_is_fixed")
def adds_the_base_twice(tensors: Tensors) -> Delta:
    """Return the merged tensor where a delta is due."""
    return array_namespace(tensors).mean(tensors, axis=0)


@broken("check_symmetric", laws=ALL)
def mixes_up_coefficients(tensors: Tensors, *, weight: Coefficient) -> Merged:
    """Give each model another's weight, by its place."""
    xp = array_namespace(tensors)
    place = xp.reshape(xp.arange(tensors.shape[0], dtype=tensors.dtype), weight.shape)
    return xp.sum(weight * (1 + place) * tensors, axis=0) / xp.sum(weight * (1 + place))


@broken("check_idempotent", laws={Law.IDEMPOTENT})
def forgets_to_normalise(tensors: Tensors, *, weight: Coefficient) -> Merged:
    """Add up."""
    return array_namespace(tensors).sum(weight * tensors, axis=0)


@broken("check_elementwise", laws={Law.ELEMENTWISE})
def looks_at_the_whole(deltas: Deltas) -> Delta:
    """Divide by the largest entry of what it is given."""
    xp = array_namespace(deltas)
    return xp.sum(deltas, axis=0) / (1 + xp.max(xp.abs(deltas)))


@broken("check_rows", laws={Law.ROWS})
def looks_at_every_row(deltas: Deltas) -> Delta:
    """Divide by the largest entry of each column."""
    xp = array_namespace(deltas)
    return xp.sum(deltas, axis=0) / (1 + xp.max(xp.abs(deltas), axis=1)[0])


@broken("check_homogeneous", laws={Law.HOMOGENEOUS})
def squares(deltas: Deltas) -> Delta:
    """Add up the squares."""
    return array_namespace(deltas).sum(deltas**2, axis=0)


@broken("check_linear", laws={Law.LINEAR})
def takes_the_larger(tensors: Tensors) -> Merged:
    """Take the largest of each entry."""
    return array_namespace(tensors).max(tensors, axis=0)


@broken("check_zero_is_absent", laws={Law.ZERO_IS_ABSENT})
def counts_the_silent(deltas: Deltas, *, weight: Coefficient) -> Delta:
    """Divide by the number of models, silent ones included."""
    return array_namespace(deltas).mean(weight * deltas, axis=0)


@broken("check_numpy_equals_torch")
def knows_numpy_only(tensors: Tensors) -> Merged:
    """Use a function that torch tensors do not have."""
    return np.average(np.asarray(tensors), axis=0)


def _without_weights(out: Any, tensors: Any, *, weight: Any) -> None:
    out[:] = tensors.mean(axis=0)


def _first_block_only(out: Any, tensors: Any, *, weight: Any) -> None:
    out[:1024] = (weight[:, None] * tensors).sum(axis=0)[:1024]


@broken("check_kernel_equals_definition", _first_block_only)
@broken("check_kernel_equals_definition", _without_weights)
def weighs(tensors: Tensors, *, weight: Coefficient) -> Merged:
    """Add up; the kernel does not."""
    return array_namespace(tensors).sum(weight * tensors, axis=0)


def _draws_from_the_beginning(out: Any, deltas: Any, chance: Any) -> None:
    from polyak.kernels.philox import Stream

    out[:] = (deltas * (Stream(chance.keys, 0).numbers(out.size) < 0.5)).sum(axis=0)


@broken("check_kernel_equals_definition", _draws_from_the_beginning)
def drops(deltas: Deltas, chance: Uniform) -> Delta:
    """Drop half; the kernel draws the first numbers for every tile."""
    xp = array_namespace(deltas)
    return xp.sum(xp.where(chance < 0.5, deltas, xp.zeros_like(deltas)), axis=0)


def _half() -> Top:
    return Top(lambda entries: [entries // 2] * 3, scope="row")


def _cut_of_the_first_row(out: Any, deltas: Any, kept: Cut) -> None:
    out[:] = (deltas * (np.abs(deltas) >= kept.value[:, :1])).sum(axis=0)


@broken("check_kernel_equals_definition", _cut_of_the_first_row, models=(3, 3))
def trims(deltas: Deltas, kept: Annotated[Cut, FirstPass(_half)]) -> Delta:
    """Keep half of each row; the kernel has one threshold for all rows."""
    xp = array_namespace(deltas)
    return xp.sum(xp.where(kept.keeps(deltas), deltas, xp.zeros_like(deltas)), axis=0)


def _deaf_to_words(out: Any, deltas: Any, *, function: str) -> None:
    out[:] = deltas.sum(axis=0)


@broken("check_kernel_equals_definition", _deaf_to_words)
def listens(deltas: Deltas, *, function: Literal["sum", "max"] = "sum") -> Delta:
    """Sum or take the largest; the kernel only sums."""
    xp = array_namespace(deltas)
    return xp.sum(deltas, axis=0) if function == "sum" else xp.max(deltas, axis=0)


def _magnitudes(deltas: Any) -> Any:
    return abs(deltas)


def _total() -> Sum:
    return Sum(_magnitudes, kernel=lambda deltas: deltas.sum(axis=1, dtype=np.float64))


def _mean(out: Any, deltas: Any, norms: Any) -> None:
    out[:] = deltas.sum(axis=0) * np.float32(norms.sum() > 0)


@broken("check_kernel_equals_definition", _mean)
def sums_wrongly(deltas: Deltas, norms: Annotated[Any, FirstPass(_total)]) -> Delta:
    """The kernel's sum forgets the absolute value."""
    return array_namespace(deltas).sum(deltas, axis=0) * float(sum(norms) > 0)


BROKEN_CASES = [pytest.param(*case, id=case[2].__name__ + (case[3].__name__ if case[3] else "")) for case in BROKEN]


@pytest.mark.parametrize(("check", "claims", "fn", "kernel"), BROKEN_CASES)
def test_a_wrong_method_is_caught_by_the_check_for_it(check: str, claims: dict[str, Any], fn: Any, kernel: Any):
    assert check in failures(fn, kernel, **claims)


def shrinks(tensors: Tensors, *, t: Fraction = 0.5) -> Merged:
    """Multiply by t."""
    return t * tensors[0]


def test_a_refusal_that_names_nothing_is_caught(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Method, given: Any, k: int) -> Any:
        raise SettingError("something is wrong")

    monkeypatch.setattr(Method, "bind", refuse)
    assert "check_bad_settings_are_named" in failures(shrinks)


def test_a_bad_value_that_is_accepted_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Method, "bind", lambda self, given, k: {"t": 0.5})
    assert "check_bad_settings_are_named" in failures(shrinks)


def average(tensors: Tensors, *, weight: Coefficient) -> Merged:
    """Average.

    Departures:
        None known.

    Args:
        tensors: (k, *shape).
        weight: Weight of each model.
    """
    xp = array_namespace(tensors)
    return xp.sum(weight * tensors, axis=0) / xp.sum(weight)


def _average(out: Any, tensors: Any, *, weight: Any) -> None:
    out[:] = (weight[:, None] * tensors).sum(axis=0) / weight.sum()


def test_a_right_method_passes_every_check():
    right = registered(average, _average, laws=ALL)
    right.requires(lambda weight: None if sum(weight) else "the weights sum to zero")
    testing.check_method(right)
    testing.check_method(right, seed=1)


def test_a_failure_names_the_method_the_case_the_remedy_and_how_to_reproduce_it():
    def wrong(out: Any, tensors: Any, *, weight: Any) -> None:
        _average(out, tensors, weight=abs(weight))

    broken = registered(average, wrong, laws=ALL)
    with pytest.raises(AssertionError) as failure:
        testing.check_method(broken, seed=5)
    for part in (
        "method 'under_test' fails check_kernel_equals_definition, "
        "case 'negative weights' with settings {'weight': [-0.",
        "the kernel differs from the definition on entries",
        "Remedy: fix the kernel",
        "polyak.testing.check_method(under_test, seed=5, only='check_kernel_equals_definition')",
    ):
        assert part in str(failure.value)
    with pytest.raises(AssertionError, match="negative weights"):
        testing.check_method(broken, seed=5, only="check_kernel_equals_definition")
    of_kernels = ["check_kernel_equals_definition", "check_infinities_in_excluded_places"]
    testing.check_method(registered(average, wrong), seed=5, skip=of_kernels)


def test_a_failure_of_a_law_names_the_law():
    with pytest.raises(
        AssertionError, match=r"(?s)\(law LINEAR: .*Remedy: mend the definition, or drop LINEAR from `laws`"
    ):
        testing.check_method(registered(takes_the_larger, laws={Law.LINEAR}), only="check_linear")


def test_a_check_of_another_name_is_refused():
    with pytest.raises(SettingError, match="has no check 'check_symetric'"):
        testing.check_method(registered(average, laws=ALL), only="check_symetric")


@pytest.mark.parametrize(
    ("docstring", "claims", "check", "remedy"),
    [
        (average.__doc__, {"source": " "}, "check_source_is_named", "pass `source=`"),
        ("Average.", {}, "check_departures_are_told", "add a section `Departures:`"),
        ("Average.\n\nDepartures:\n\nArgs:\n    tensors: All.", {}, "check_departures_are_told", "Departures:"),
        ("Average.\n\nArgs:\n    tensors: All.", {}, "check_parameters_are_explained", "under `Args:`"),
        (average.__doc__, {"laws": {Law.ELEMENTWISE}}, "check_elementwise_has_a_kernel", "register a kernel"),
    ],
)
def test_what_a_method_leaves_unsaid_is_demanded(docstring: str, claims: Any, check: str, remedy: str):
    def unsaid(tensors: Tensors, *, weight: Coefficient) -> Merged:
        return average(tensors, weight=weight)

    unsaid.__doc__ = docstring
    with pytest.raises(AssertionError, match=f"(?s){check}.*Remedy: .*{remedy}"):
        testing.check_method(registered(unsaid, **claims), only=check)


def test_a_kernel_that_multiplies_by_zero_where_the_definition_chooses_is_caught():
    def choose(deltas: Deltas) -> Delta:
        """Add up what is small."""
        xp = array_namespace(deltas)
        return xp.sum(xp.where(abs(deltas) < 100, deltas, xp.zeros_like(deltas)), axis=0)

    def multiply(out: Any, deltas: Any) -> None:
        with np.errstate(invalid="ignore"):
            out[:] = (deltas * (abs(deltas) < 100)).sum(axis=0)

    assert "check_infinities_in_excluded_places" in failures(choose, multiply)


def test_every_check_of_every_method_is_a_test():
    load_all()

    @testing.parametrize_with_checks([registry["ties"], registry["linear"]], skip=["check_symmetric"])
    def test(check: Callable[[], None]): ...

    (mark,) = vars(test)["pytestmark"]
    names = [case.id for case in mark.args[1]]
    assert len(names) == len(set(names))
    assert "linear-check_elementwise" in names
    assert not any("check_symmetric" in name for name in names)


def test_uneven_settings_lie_in_their_ranges():
    load_all()
    found = registry["breadcrumbs"]
    settings = testing.uneven(found, 4)
    assert len(set(settings["density"])) == 4
    assert found.bind(settings, 4)


def test_problems_are_exact_and_the_same_for_the_same_seed():
    problem, again = testing.sample(registry["ties"], seed=3), testing.sample(registry["ties"], seed=3)
    np.testing.assert_array_equal(problem.tensors, again.tensors)
    deltas = problem.tensors - problem.base
    np.testing.assert_array_equal((problem.base + 2 * deltas) - problem.base, 2 * deltas)
    assert problem.tensors.dtype == np.float32


@pytest.mark.parametrize(
    ("masks", "packs", "right"),
    [
        (
            lambda deltas: Masks(deltas > 0, _ones(deltas)),
            lambda packed, deltas: _packed(packed, deltas > 0),
            True,
        ),
        (
            lambda deltas: Masks(deltas > 0, _ones(deltas)),
            lambda packed, deltas: _packed(packed, deltas >= -0.1),
            False,
        ),
        (
            lambda deltas: Masks(deltas > 0, _ones(deltas)),
            lambda packed, deltas: _packed(packed, deltas > 0) * 2,
            False,
        ),
        (lambda deltas: Masks(deltas > deltas.mean(), _ones(deltas)), None, False),
        (lambda deltas: Masks(deltas, _ones(deltas)), None, False),
    ],
)
def test_masks_that_cannot_be_cut_or_are_packed_wrongly_are_caught(
    masks: Callable[..., Any], packs: Callable[..., Any] | None, right: bool
):
    def adds(deltas: Deltas, *, masks: bool = True) -> Delta:
        """Add the deltas up.

        Departures:
            None known.

        Args:
            deltas: (k, *shape).
            masks: Write masks.
        """
        return array_namespace(deltas).sum(deltas, axis=0)

    found = method("under_test", source="this file")(adds)
    found.masking(masks)
    if packs is not None:
        found.pack_masks(packs)
    del registry["under_test"]
    assert list(caught(found)) == ([] if right else ["check_masks_can_be_cut_and_packed"])


def _ones(deltas: Any) -> Any:
    return np.ones(len(deltas))


def _packed(packed: Any, keep: Any) -> Any:
    packed[:] = np.packbits(keep, axis=1, bitorder="little")
    return np.ones(len(keep), np.float32)


def test_masks_need_a_setting_that_switches_them():
    def adds(deltas: Deltas) -> Delta:
        """Add the deltas up."""
        return array_namespace(deltas).sum(deltas, axis=0)

    found = method("under_test", source="this file")(adds)
    del registry["under_test"]
    with pytest.raises(DeclarationError, match="needs a setting `masks: bool`"):
        found.masking(lambda deltas: Masks(deltas > 0, _ones(deltas)))
