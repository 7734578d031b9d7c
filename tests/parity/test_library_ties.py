"""The shipped table of ties is that of the installed transformers, as far as both know a class or a type."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("transformers")

from building.library_ties import OUT, library_ties


def test_the_shipped_table_agrees_with_the_library():
    shipped, theirs = json.loads(OUT.read_text()), library_ties()
    shared = shipped["classes"].keys() & theirs["classes"].keys()
    assert len(shared) > 300
    for name in shared:
        assert shipped["pairs"][shipped["classes"][name]] == theirs["pairs"][theirs["classes"][name]], name
    types = shipped["tied_by_default"].keys() & theirs["tied_by_default"].keys()
    assert len(types) > 300
    assert {t: shipped["tied_by_default"][t] for t in types} == {t: theirs["tied_by_default"][t] for t in types}
