"""Spans of tags and their F1, by numbers that are worked out by hand."""

from __future__ import annotations

import pytest

from polyak.tasks.spans import Span, are_spans, f1_parts, spans_of


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        pytest.param("B-A I-A O B-A", {(0, 2, "A"), (3, 4, "A")}, id="IOB2"),
        pytest.param("B-A B-A I-A", {(0, 1, "A"), (1, 3, "A")}, id="two in a row"),
        pytest.param("I-A I-A O", {(0, 2, "A")}, id="an I without its B"),
        pytest.param("B-A I-B I-B", {(0, 1, "A"), (1, 3, "B")}, id="the type changes"),
        pytest.param("S-A B-A I-A E-A S-B", {(0, 1, "A"), (1, 4, "A"), (4, 5, "B")}, id="IOBES"),
        pytest.param("U-A B-A I-A L-A I-A", {(0, 1, "A"), (1, 4, "A"), (4, 5, "A")}, id="BILOU"),
        pytest.param("E-A E-A O", {(0, 1, "A"), (1, 2, "A")}, id="ends alone"),
        pytest.param("B-PER-X I-PER-X", {(0, 2, "PER-X")}, id="a dash in the type"),
        pytest.param("O O", set(), id="nothing"),
        pytest.param("B I O B B", {(0, 2, ""), (3, 4, ""), (4, 5, "")}, id="no types"),
    ],
)
def test_spans_begin_and_end_as_their_scheme_says(tags, spans):
    assert spans_of(tags.split()) == {Span(*span) for span in spans}


def test_f1_counts_spans_that_agree_in_both_ends_and_type():
    expected = ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    predicted = ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    parts = [f1_parts(p.split(), e.split()) for p, e in zip(predicted, expected, strict=True)]
    assert parts == [(0, 2), (2, 2)]  # precision 1/2, recall 1/2
    assert sum(right for right, _ in parts) / sum(spans for _, spans in parts) == 0.5
    assert f1_parts(["B-A", "O"], ["B-B", "O"]) == (0, 2)
    assert f1_parts(["O"], ["O"]) == (0, 0)


@pytest.mark.parametrize(
    ("expected", "predicted", "f1"),
    [
        (
            "B-b O I-a I-b B-b B-b I-a|B-b I-a I-b B-a I-b B-a I-a|B-a O I-b I-a I-b I-b B-a|I-a O O I-a B-b I-b O",
            "B-b O B-a B-b B-b B-b I-a|O I-a O I-a I-b B-a B-a|B-a O I-b I-a I-b I-b B-a|O O O I-a B-b B-a I-b",
            0.75,
        ),
        (
            "B-a O I-a I-a|B-b B-a O I-b|B-b O I-b O|B-b B-a I-a I-a",
            "B-b I-b I-a O|B-a I-a O I-b|B-a O I-b I-a|B-b I-a I-a B-b",
            0.3157894736842105,
        ),
    ],
)
def test_f1_is_that_of_seqeval(expected, predicted, f1):
    """Numbers of seqeval 1.2.2; 20,000 random sequences of these tags have the same spans in both."""
    pairs = zip(predicted.split("|"), expected.split("|"), strict=True)
    parts = [f1_parts(ours.split(), theirs.split()) for ours, theirs in pairs]
    assert sum(right for right, _ in parts) / sum(spans for _, spans in parts) == pytest.approx(f1, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "are"),
    [("O B-A I-A", True), ("O S-A E-A", True), ("B I O", True), ("D N", False), ("BA O", False), ("", False)],
)
def test_labels_of_spans_are_told_from_other_tags(labels, are):
    assert are_spans(labels.split()) is are
