"""Patterns of module names: what `re` says, in bounded time."""

from __future__ import annotations

import random
import re
import time
import warnings

import pytest

from polyak.checkpoint._patterns import Pattern

NAMES = [
    "]a",
    "[a]",
    "{a}",
    "a{",
    "a{2}",
    "a]",
    "model.layers.0.self_attn.q_proj",
    "model.layers.11.mlp.down_proj",
    "layers.1.q",
    "a.b",
    "a",
    "",
    "aaab",
]
PATTERNS = [
    "q_proj", "proj", r"layers\.1\..*", "layers.[0-9]+.mlp.(gate|down)_proj", "^model.layers.0.self_attn.q_proj",
    r"[]a]+", r"[^]\]]+", r"\[a\]", "{a}", "a{", r"a\{2}", "a{,2}b", "a{2,}b", "a{2}b", "a{,}b", "[a-c]{1,2}?b",
    "()a", "(a|)b",
    r".*\.layers\.[0-9]+\.mlp\.down_proj", "[^.]*", r"\w+\.\d+\..*?proj", r"(?:a|aa)+b", "x?a.b", r"a\Z", "^a", "",
]  # fmt: skip


def random_patterns(count: int) -> list[str]:
    draw, found = random.Random(0), []
    pieces = "a b . * + ? ( ) | [ab] [^b] {1,2} \\. ^ $".split()  # noqa: SIM905
    while len(found) < count:
        text = "".join(draw.choice(pieces) for _ in range(draw.randint(1, 8)))
        try:
            re.compile(text)
        except re.error:
            continue
        if not re.search(r"[*+?}]\+", text):  # possessive: refused
            found.append(text)
    return found


@pytest.mark.parametrize("texts", [PATTERNS, random_patterns(300)], ids=["usual", "random"])
def test_what_matches_is_what_peft_matches(texts):
    draw = random.Random(1)
    names = NAMES + ["".join(draw.choice("ab.") for _ in range(draw.randint(0, 7))) for _ in range(20)]
    matches = 0
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = re.compile(rf"(.*\.)?({text})$")
        ours = Pattern(text)
        for name in names:
            assert ours.matches_end(name) is bool(wanted.match(name)), (text, name)
            matches += bool(wanted.match(name))
    assert matches > len(texts)


@pytest.mark.parametrize("text", ["(a+)+b", "((a*)*)*b", "(a|a)*b", ".*.*.*.*.*.*b", "(.*.*x){1000000}", "(a?){300}b"])
def test_no_pattern_hangs(text):
    began = time.perf_counter()
    try:
        assert not Pattern(text).matches_end("a" * 400)
    except ValueError as error:
        assert "steps" in str(error)
    assert time.perf_counter() - began < 2


def test_positions_that_a_repeated_node_visits_again_are_counted():
    with pytest.raises(ValueError, match="more than 100000 steps"):
        Pattern("(.*){400}b").matches_end("a" * 200)


@pytest.mark.parametrize("text", ["(?=a)a", r"(a)\1", "(?i)a", r"\bq", "(", "a" * 501, "(?i:a)", "a*+",
    "a{1,2}+", "(?P<x>a)", r"\x41", r"\n", r"\Bq", "(" * 60 + ")" * 60, "[[a]", "(?#x)a", "(?>a)", "a{2}{3}",
])  # fmt: skip
def test_what_patterns_of_names_do_not_need_is_refused(text):
    with pytest.raises(ValueError, match=r"^its? |not supported in patterns"):
        Pattern(text)
