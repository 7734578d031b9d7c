"""The strict reader of YAML and JSON."""

import errno
import importlib.util
import math
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from polyak.errors import RecipeError
from polyak.reading import scalars, write_yaml
from polyak.reading import yaml as _yaml


def assert_refused(text, *parts):
    with pytest.raises(RecipeError) as caught:
        _yaml.parse_yaml(text, "r.yaml")
    message = str(caught.value)
    assert message.count("r.yaml") == 1
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("7.", 7.0),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        ("on", "on"),
        ("Yes", "Yes"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("2024-01-31", "2024-01-31"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("! 12", "12"),
        ("!!str 12", "12"),
        ("!!float 1", 1.0),
        ("!!int '3'", 3),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("|\n a\n b\n", "a\nb\n"),
        ("", None),
        ("[1, [2], {a: b}]", [1, [2], {"a": "b"}]),
    ],
)
def test_values_follow_the_core_schema_of_yaml_1_2(text, value):
    read = _yaml.parse_yaml(text)
    assert read == value
    assert type(read) is type(value)


def test_keys_are_text_however_they_look():
    assert _yaml.parse_yaml("{on: 1, 2024: 2, null: 3, ~: 4, 1e5: 5}") == {
        "on": 1,
        "2024": 2,
        "null": 3,
        "~": 4,
        "1e5": 5,
    }


def test_a_key_that_stands_twice_is_refused_with_its_line():
    assert_refused("a: 1\nb: 2\na: 3\n", "line 3, column 1", "'a' is given twice")
    assert_refused("x:\n  - {p: 1, p: 2}\n", "line 2, column 12", "'p' is given twice")


@pytest.mark.parametrize("value", ["!!python/object/apply:os.system [id]", "!custom {}", "!!set {a}", "!!binary YQ=="])
def test_tags_are_refused_by_name(value):
    assert_refused(f"a: {value}", "line 1, column 4", "the tag", "is refused")


def test_tags_on_keys_and_on_the_wrong_kind_are_refused():
    assert_refused("!!python/name:os.system a: 1", "the tag")
    assert_refused("a: !!map [1]", "the tag")
    assert_refused("a: !!int x", "not of the type of its tag")


def test_aliases_stand_for_what_they_name():
    assert _yaml.parse_yaml("a: &x [1, 2]\nb: *x\nc: &y z\nd: *y") == {"a": [1, 2], "b": [1, 2], "c": "z", "d": "z"}


def test_an_anchor_may_be_defined_again():
    assert _yaml.parse_yaml("a: &x 1\nb: *x\nc: &x [2]\nd: *x") == {"a": 1, "b": 1, "c": [2], "d": [2]}
    assert_refused("a: &x 1\nb: &x [*x]", "is inside the value that it refers to")


def test_repeated_values_are_counted_across_aliases():
    text = f"a: &a [{', '.join('x' * 999)}]\nb: &b [{', '.join(['*a'] * 90)}]\nc: *b"
    assert_refused(text, "aliases repeat more than 100,000 values", "line 3")
    assert len(_yaml.parse_yaml(text.removesuffix("\nc: *b"))["b"]) == 90


def test_merge_keys_give_what_is_not_given():
    text = "a: &x {p: 1, q: 2}\nb: &y {q: 3, r: 4}\nc: {<<: [*x, *y], p: 9}\n"
    assert _yaml.parse_yaml(text)["c"] == yaml.safe_load(text)["c"] == {"p": 9, "q": 2, "r": 4}
    assert_refused("a: {<<: 3}", "'<<' takes a mapping")


def test_an_alias_bomb_is_refused():
    lines = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 12)]
    assert_refused("\n".join(lines), "aliases repeat more than 100,000 values", "line 5")


def test_an_alias_inside_itself_is_refused():
    assert_refused("a: &x [1, *x]", "is inside the value that it refers to", "column 11")


def test_an_alias_of_nothing_is_refused():
    assert_refused("a: *x", "refers to no earlier anchor")
    assert_refused("*x : 1", "a key must be written out")


def test_endless_nesting_is_refused():
    assert_refused("[" * 20_000)  # by the parser or by the reader, whichever counts to its limit first
    assert_refused("[" * 101 + "]" * 101, "nested more than 100 levels")
    assert_refused("\n".join(" " * i + "a:" for i in range(200)), "nested more than 100 levels")


def test_a_limit_of_the_parser_itself_is_told_in_our_words():
    for text in ("[" * 20_000, "- - " * 60 + "{a: [" * 3000, "x: [" + "{" * 2000):
        assert_refused(text, "nested more than 100 levels")
    with pytest.raises(RecipeError, match=r"line 1, column 92: (?!nested)"):
        _yaml.parse_yaml("[" * 90 + "]}")


def test_without_libyaml_the_same_is_read_and_refused(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader")
    spec = importlib.util.spec_from_file_location("polyak.reading._without_libyaml", _yaml.__file__)
    assert spec and spec.loader
    slow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slow)
    text = "a: &x {p: 1, q: [1e-5, ! 2]}\nb: {<<: *x, r: on}\nc: |\n  x\n"
    assert repr(slow.parse_yaml(text)) == repr(_yaml.parse_yaml(text))
    for broken in ("[" * 20_000, "a: 1\na: 2", "a: *x", "a: !custom {}", "a: 1\n---\nb: 2\n"):
        with pytest.raises(RecipeError) as caught:
            _yaml.parse_yaml(broken)
        with pytest.raises(RecipeError) as slowly:
            slow.parse_yaml(broken)
        assert str(slowly.value).split(": ", 1)[1] == str(caught.value).split(": ", 1)[1]


def test_a_second_document_is_refused():
    assert_refused("a: 1\n---\nb: 2\n", "line 2", "a second document")


def test_keys_that_are_no_text_are_refused():
    assert_refused("? [1]\n: 2", "a key must be text")


@pytest.mark.parametrize("text", ["a: [1", "a: 'x", "a: 1\n b: 2", "\tx: 1", "%YAML 9.9\n---\na", "a: \x07", "}"])
def test_broken_yaml_is_refused_with_its_line(text):
    assert_refused(text, "line ")


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 1000, "0x" + "f" * 5000, "0o" + "7" * 6000])
def test_integers_of_thousands_of_digits_are_refused(number):
    assert_refused(f"a: {number}", "line 1, column 4: an integer of more than 1,000 digits; write text in quotes")
    with pytest.raises(RecipeError, match=r"^r\.json: an integer of more than 1,000 digits"):
        _yaml.parse_json('{"a": ' + "9" * 5000 + "}", "r.json")
    assert _yaml.parse_yaml(f"a: '{number}'") == {"a": number}
    assert _yaml.parse_yaml("a: " + "9" * 1000) == {"a": int("9" * 1000)}


def test_files_are_refused_that_are_missing_large_or_not_utf_8(tmp_path):
    path = tmp_path / "r.yaml"
    with pytest.raises(RecipeError, match=rf"r\.yaml cannot be read: {os.strerror(errno.ENOENT)}"):
        _yaml.read_file(path)
    with pytest.raises(RecipeError, match="cannot be read: it is a folder"):
        _yaml.read_file(tmp_path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RecipeError, match="line 2, column 4: not UTF-8"):
        _yaml.read_file(path)
    path.write_bytes(b"#" * 10_000_001)
    with pytest.raises(RecipeError, match="larger than 10,000,000 bytes"):
        _yaml.read_file(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert _yaml.read_file(path) == {"a": 1}


def test_json_is_read_and_its_errors_are_placed(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"a": "\\ud83d\\ude00", "b": 1e-5}')
    assert _yaml.read_file(path) == {"a": "\N{GRINNING FACE}", "b": 1e-5}
    for text, problem in [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a":\n x}', "line 2, column 2"),
        ("[" * 100_000, "nested more than"),
        ('{"a": ' + "9" * 5000 + "}", "r.json"),
    ]:
        path.write_text(text)
        with pytest.raises(RecipeError, match=problem):
            _yaml.read_file(path)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(plain)
def test_what_is_written_reads_the_same(data):
    read = _yaml.parse_yaml(write_yaml(data))
    assert read == data
    assert repr(read) == repr(data)


@pytest.mark.parametrize("text", ["9" * 5000, "+" + "9" * 5000, "0x" + "f" * 5000, "0o" + "7" * 6000])
def test_text_of_thousands_of_digits_is_written_as_text(text):
    assert _yaml.parse_yaml(write_yaml([text])) == yaml.safe_load(write_yaml([text])) == [text]


def test_small_numbers_are_numbers_for_every_reader():
    written = write_yaml([1e-05, 1e22, 1.5e-7])
    assert yaml.safe_load(written) == [1e-05, 1e22, 1.5e-7]
    assert "!!" not in written


@pytest.mark.slow
@given(st.text(st.characters(codec="utf-8")) | st.from_regex(scalars._FLOAT) | st.from_regex(scalars._INTEGER))
def test_text_stays_text_for_every_reader(text):
    written = write_yaml([text])
    assert _yaml.parse_yaml(written) == [text]
    assert yaml.safe_load(written) == [text]


@given(st.text() | st.text("{}[]:,-&*!|>'\"%@`#? \n\tab1<."))
def test_any_text_is_read_or_refused(text):
    try:
        _yaml.parse_yaml(text)
    except RecipeError as error:
        assert "the text" in str(error)
