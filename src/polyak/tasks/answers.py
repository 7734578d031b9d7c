"""Answers as texts: exact match and F1 of words, as SQuAD scores them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """The answer in lower case without ASCII punctuation, English articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, accepted: Sequence[str]) -> float:
    """1 if the normalised answer is one of the accepted ones, else 0."""
    return float(normalised(predicted) in {normalised(answer) for answer in accepted})


def answer_f1(predicted: str, accepted: Sequence[str]) -> float:
    """The largest F1 over the accepted answers of the words that the two have in common, counted with repetitions.

    Words are what white space separates: in languages that do not separate words this is nearly an exact match.

    Source: Rajpurkar et al., 2016. SQuAD. arXiv:1606.05250
    """
    return max(_f1(normalised(predicted).split(), normalised(answer).split()) for answer in accepted)


def _f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))
