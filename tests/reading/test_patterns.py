"""Untrusted regular expressions: what `re` says, in bounded time."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest

from polyak.errors import SettingError
from polyak.reading import Pattern, problem_with_pattern, search

NAMES = [
    "]a", "[a]", "{a}", "a{", "a{2}", "a]", "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj",
    "layers.1.q", "a.b", "a", "", "aaab", "A_b", "a\nb", "a\n", "\n", "é1",
]  # fmt: skip
PATTERNS = [
    "q_proj", r"layers\.1\..*", "layers.[0-9]+.mlp.(gate|down)_proj", "^model.layers.0", r"[]a]+", r"[^]\]]+", r"\[a\]",
    "{a}", "a{", r"a\{2}", "a{,2}b", "a{2,}b", "a{2}b", "a{,}b", "[a-c]{1,2}?b", "()a", "(a|)b", "[^.]*",
    r"\w+\.\d+\..*?p",
    "(?:a|aa)+b", "x?a.b", r"a\Z", "^a", "", r"^(?!.*norm).*proj$", r"(?<=layers\.)\d+(?=\.)", r"(?<!l)ayers", r"\bq\B",
    "(?i)A_B", "(?i:a)_b", "(?s)a.b", "(?m)^b", "(?m)a$", "a$", "(?P<x>a)b", r"\x61\n", "(?#note)a", r"\u00e9\d",
    r"\141",
    r"(?:(?!mlp).)*$", r"(?=(?!a)\w)b",
]  # fmt: skip
PIECES = [
    "a", "b", ".", "*", "+", "?", "(", ")", "|", "[ab]", "[^b]", "{1,2}", "{2}", "\\.", "^", "$", "(?:", "(?=",
    "(?!", "(?<=a)",
    "(?<!b)", "\\b", "\\B", "\\A", "\\Z", "(?i:", "\\w", "\\d", "*?", "A", "B", "1",
]  # fmt: skip


def random_patterns(count: int) -> list[str]:
    draw, drawn = random.Random(0), []
    while len(drawn) < count:
        text = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 9)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(text)
        except (re.error, Warning):
            continue
        if not re.search(r"[*+?}]\+", text):  # possessive: refused
            drawn.append(text)
    return drawn


@pytest.mark.parametrize("texts", [PATTERNS, random_patterns(300)], ids=["usual", "random"])
def test_what_matches_is_what_re_finds(texts):
    draw = random.Random(1)
    names = NAMES + ["".join(draw.choice("abA.B1_\n") for _ in range(draw.randint(0, 7))) for _ in range(20)]
    matches = 0
    for text in texts:
        ours, theirs = Pattern(text), re.compile(text)
        for name in names:
            assert ours.search(name) is bool(theirs.search(name)), (text, name)
            matches += bool(theirs.search(name))
    assert matches > len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+b",
        "((a*)*)*b",
        "(a|a)*b",
        ".*.*.*.*.*.*b",
        "(a?){300}b",
        "(.*){400}b",
        "(?=(a+)+b)a",
        "(a{9}){99}b",
        "(.|a)+b",
    ],
)
def test_no_pattern_hangs(text):
    began = time.process_time()
    assert not Pattern(text).search("a" * 1000)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("(.*.*x){1000000}", "states"), ("a{20000}", "states"), ("(" * 60 + ")" * 60, "deep"),
        ("(" * 249 + ")" * 249, "deep"),
        ("(" * 5000 + ")" * 5000, "deep"), ("a" * 20_001, "characters"), ("(", "valid"), ("[[a]", "valid"),
        (r"(a)\1", "not supported"), ("a*+", "not supported"), ("(?>a)", "not supported"), ("(a)(?(1)b|c)",
        "not supported"),
        ("(?x)a b", "not supported"), ("a{2}{3}", "valid"),
    ],
)  # fmt: skip
def test_what_takes_too_much_or_needs_backtracking_is_refused(text, word):
    problem = problem_with_pattern(text)
    assert problem is not None and word in problem


def test_the_work_of_a_pattern_is_limited_over_all_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("polyak.reading._automaton.STEPS", 1_000_000)
    pattern, draw = Pattern("a[ab]{200}c"), random.Random(2)
    with pytest.raises(SettingError, match="takes more than"):
        for _ in range(100):
            pattern.search("".join(draw.choice("ab") for _ in range(900)))


def test_twenty_thousand_names_take_about_a_second():
    names = [f"model.layers.{i // 14}.mlp.experts.{i % 64}.w{i % 3}.weight" for i in range(20_000)]
    began = time.process_time()
    found = sum(search(r"layers\.(1|2|3)\.mlp\..*w1", name) for name in names)
    assert found == sum(bool(re.search(r"layers\.(1|2|3)\.mlp\..*w1", name)) for name in names) > 10
    assert time.process_time() - began < 4
