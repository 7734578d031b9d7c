"""Spans of tagged words, as chunking and named-entity recognition score them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_PREFIXES = frozenset("BIESLU")
_ENDS = {"L": "E", "U": "S"}  # BILOU's letters for those of IOBES


class Span(NamedTuple):
    """Words [start, stop) of one type."""

    start: int
    stop: int
    kind: str


def spans_of(tags: Sequence[str]) -> set[Span]:
    """The spans of a sequence of tags in IOB2, IOBES or BILOU: `B-PER`, `I-PER`, ..., `O`; types may be absent.

    A span begins at B or S (U), after E, S or O, and where the type changes; it ends at E (L) or S (U), and before O or
    the beginning of another. So an I without its B begins a span, as in the CoNLL-2000 evaluation (Tjong Kim Sang and
    Buchholz, 2000, W00-0726).
    """
    spans, start, open_kind = set[Span](), 0, ""
    is_open = False
    for i, (mark, kind) in enumerate([*map(_split, tags), ("O", "")]):
        if is_open and (mark in "OBS" or kind != open_kind):
            spans.add(Span(start, i, open_kind))
            is_open = False
        if mark != "O" and not is_open:
            start, open_kind, is_open = i, kind, True
        if mark in "ES" and is_open:
            spans.add(Span(start, i + 1, open_kind))
            is_open = False
    return spans


def _split(tag: str) -> tuple[str, str]:
    """The letter of a tag, in IOBES, and its type."""
    mark, _, kind = tag.partition("-")
    return _ENDS.get(mark, mark), kind


def are_spans(labels: Sequence[str]) -> bool:
    """Test for the tags of a span scheme: each is `O`, or a letter alone or followed by a dash and a type."""
    return bool(labels) and all(tag == "O" or tag.partition("-")[0] in _PREFIXES for tag in labels)


def f1_parts(predicted: Sequence[str], expected: Sequence[str]) -> tuple[int, int]:
    """Twice the spans that are right, and the spans of both: sums of the two over a corpus divide to its micro F1."""
    ours, theirs = spans_of(predicted), spans_of(expected)
    return 2 * len(ours & theirs), len(ours) + len(theirs)
