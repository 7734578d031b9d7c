"""Views of checkpoints: other names, fewer tensors, and ties that stay right."""

from __future__ import annotations

import re

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint import renamed, stripped, subset
from polyak.errors import CheckpointError, SettingError

SHARED = np.arange(4, dtype=np.float32)


@pytest.fixture
def inner() -> checkpoint.Checkpoint:
    """Three names of one tensor, and another tensor."""
    return checkpoint.open({"embed": SHARED, "other": np.ones(2, np.float16), "head": SHARED, "again": SHARED})


def assert_values(view: checkpoint.Checkpoint, want: dict[str, np.ndarray]) -> None:
    assert {*view.specs, *view.ties} == set(want)
    for name, values in want.items():
        np.testing.assert_array_equal(view.read(name), values)
        assert view.specs[view.ties.get(name, name)].name == view.ties.get(name, name)


def test_a_mapping_renames_what_it_lists(inner):
    view = renamed(inner, {"other": "new"})
    assert_values(view, {"embed": SHARED, "new": np.ones(2, np.float16), "head": SHARED, "again": SHARED})
    assert view.ties == {"head": "embed", "again": "embed"}


def test_a_function_renames_everything_ties_included(inner):
    view = renamed(inner, lambda name: f"model.{name}")
    assert view.ties == {"model.head": "model.embed", "model.again": "model.embed"}
    np.testing.assert_array_equal(view.read("model.head"), SHARED)


def test_names_can_be_swapped(inner):
    view = renamed(inner, {"embed": "other", "other": "embed"})
    assert_values(view, {"other": SHARED, "embed": np.ones(2, np.float16), "head": SHARED, "again": SHARED})


def test_a_name_to_change_must_exist(inner):
    with pytest.raises(CheckpointError, match=r"no tensor 'othr'.*Did you mean 'other'"):
        renamed(inner, {"othr": "new"})


def test_two_tensors_cannot_get_one_name(inner):
    with pytest.raises(CheckpointError, match="'embed' and 'other' would both be called 'x'"):
        renamed(inner, {"embed": "x", "other": "x"})


def test_a_subset_keeps_what_is_named_in_that_order(inner):
    assert list(subset(inner, ["other", "embed"]).specs) == ["other", "embed"]


def test_a_subset_keeps_what_a_pattern_finds(inner):
    assert_values(subset(inner, "^e|th"), {"embed": SHARED, "other": np.ones(2, np.float16)})
    assert_values(subset(inner, re.compile("^o")), {"other": np.ones(2, np.float16)})


def test_an_alias_without_its_holder_holds_the_values_itself(inner):
    view = subset(inner, ["head", "again"])
    assert_values(view, {"head": SHARED, "again": SHARED})
    assert view.ties == {"again": "head"}


def test_an_alias_that_comes_before_its_holder_is_still_the_alias(inner):
    assert subset(inner, ["head", "embed"]).ties == {"head": "embed"}


def test_a_subset_of_a_missing_name_is_refused(inner):
    with pytest.raises(CheckpointError, match="no tensor 'nothing'"):
        subset(inner, ["nothing"])


def test_a_pattern_that_is_none_is_refused(inner):
    with pytest.raises(SettingError, match="not a regular expression"):
        subset(inner, "(")


def test_a_prefix_is_stripped_where_it_is():
    view = stripped(checkpoint.open({"module.a": SHARED, "b": SHARED + 1}), "module.")
    assert_values(view, {"a": SHARED, "b": SHARED + 1})


def test_a_prefix_that_no_name_has_is_refused(inner):
    with pytest.raises(CheckpointError, match=r"'module\.'.*'embed'"):
        stripped(inner, "module.")


def test_stripping_cannot_make_two_tensors_one():
    with pytest.raises(CheckpointError, match="would both be called 'a'"):
        stripped(checkpoint.open({"module.a": SHARED, "a": SHARED + 1}), "module.")


def test_views_of_views_read_through(inner):
    view = stripped(renamed(subset(inner, ["head", "other"]), lambda name: f"m.{name}"), "m.")
    assert_values(view, {"head": SHARED, "other": np.ones(2, np.float16)})
