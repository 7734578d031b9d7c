"""Models with other tokens: whose rows the tables of the result have, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.recipe import dump, loads

from ..engine.conftest import write_model

WIDTH = 3
CONFIG = {"model_type": "llama", "num_hidden_layers": 1, "tie_word_embeddings": False, "eos_token_id": 0}


def write_speaker(folder: Path, tokens: list[str], origin: int, *, rows: int = 0, added: tuple[str, ...] = ()) -> None:
    """A model whose embedding of the i-th token is 100 * origin + i, and whose head is the negative of that."""
    rows = rows or len(tokens)
    table = np.repeat(100.0 * origin + np.arange(rows)[:, None], WIDTH, 1).astype(np.float32)
    body = {"layers.0.w": np.full((2, 2), origin, np.float32)}
    tensors = {"embed_tokens.weight": table, **body, "lm_head.weight": -table}
    write_model(folder, tensors, CONFIG | {"vocab_size": rows})
    write_tokenizer(folder, tokens, added)


def write_tokenizer(folder: Path, tokens: list[str], added: tuple[str, ...] = (), kind: str = "WordLevel") -> None:
    vocab = {token: i for i, token in enumerate(tokens) if token not in added}
    data = {
        "version": "1.0",
        "added_tokens": [{"id": tokens.index(one), "content": one, "special": True} for one in added],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": kind, "vocab": vocab, "unk_token": tokens[0]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


@pytest.fixture
def speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`base` knows four tokens; `a` has them in another order and one more; `b` lacks one and has another two."""
    monkeypatch.chdir(tmp_path)
    write_speaker(tmp_path / "base", ["<s>", "one", "two", "three"], 1)
    write_speaker(tmp_path / "a", ["<s>", "two", "one", "three", "four"], 2)
    write_speaker(tmp_path / "b", ["<s>", "one", "two", "five", "<b>", "four"], 3, added=("<b>",))
    return tmp_path


def merged(text: str, out: str = "out") -> dict[str, np.ndarray]:
    run(polyak.plan(loads(text)), out, workers=1)
    with polyak.open(out) as model:
        return {name: model.read(name) for name in model.specs}


def rows(found: dict[str, np.ndarray]) -> list[float]:
    """The first number of every row of the embedding; the head must say the same."""
    np.testing.assert_array_equal(found["lm_head.weight"], -found["embed_tokens.weight"])
    return found["embed_tokens.weight"][:, 0].tolist()


def config(out: str = "out") -> dict:
    return json.loads(Path(out, "config.json").read_text())


def tokens(out: str = "out") -> dict[str, int]:
    data = json.loads(Path(out, "tokenizer.json").read_text())
    return data["model"]["vocab"] | {one["content"]: one["id"] for one in data["added_tokens"]}


def refused(text: str, *parts: str, kind: type[errors.PolyakError] = errors.Mismatch) -> None:
    with pytest.raises(kind) as caught:
        polyak.plan(loads(text))
    for part in parts:
        assert part in str(caught.value)


A_AND_B = "base: ./base\nmodels: [./a, ./b]\nmethod: linear\n"


def only(model: str) -> str:
    """A recipe whose tables are those of one model, aligned."""
    both = ", ".join(f"{{path: ./{name}, weight: {int(name == model)}}}" for name in ("a", "b"))
    return f"base: ./base\nmodels: [{both}]\nmethod: linear\n"


def test_a_nested_merge_is_aligned_like_its_result(speakers):
    inner = {"models": ["./a"], "method": "passthrough", "settings": {"scale": 2}, "dtype": "float32"}
    polyak.merge(inner, "written")
    results = []
    for source in ({"recipe": inner}, {"path": "./written"}):
        outer = {"base": "./base", "models": [{"name": "twice", **source}, "./b"], "method": "linear"}
        results.append(merged(json.dumps({**outer, "vocabulary": "union"})))
        shutil.rmtree("out")
    nested, written = results
    assert len(nested["embed_tokens.weight"]) == 7
    assert all(np.array_equal(nested[name], written[name]) for name in written)


def test_the_union_has_every_token_and_the_base_keeps_its_numbers(speakers):
    merged(A_AND_B + "vocabulary: union\n")
    assert tokens() == {"<s>": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "<b>": 6}
    assert config()["vocab_size"] == 7


def test_models_get_their_own_rows_then_the_bases_then_the_only_owners_then_the_mean(speakers):
    assert rows(merged(only("a") + "vocabulary: union\n")) == [200, 202, 201, 203, 204, 303, 304]
    assert rows(merged(only("b") + "vocabulary: union\n", "b-out")) == [300, 301, 302, 103, 305, 303, 304]
    # Without a base, `three` is that of its only owner among the models, and `four` is known to both.
    text = only("b").replace("base: ./base\n", "")
    assert rows(merged(text + "vocabulary: union\n", "c")) == [300, 302, 301, 203, 305, 303, 304]


def test_a_token_of_several_owners_but_not_of_the_base_is_their_mean(speakers):
    write_speaker(speakers / "c", ["<s>", "one", "two", "three"], 5)
    text = "base: ./base\nmodels: [{path: ./a, weight: 0}, {path: ./b, weight: 0}, {path: ./c, weight: 1}]\n"
    found = rows(merged(text + "method: linear\nvocabulary: union\n"))
    assert found == [500, 501, 502, 503, (204 + 305) / 2, 303, 304]


def test_the_base_or_a_model_may_give_the_tokens(speakers):
    assert rows(merged(only("a") + "vocabulary: base\n")) == [200, 202, 201, 203]
    assert config()["vocab_size"] == 4
    assert rows(merged(only("a") + "vocabulary: b\n", "by-b")) == [200, 202, 201, 303, 304, 204]
    assert tokens("by-b") == tokens("b")


def test_tokens_may_have_sources_of_their_own(speakers):
    block = """
vocabulary:
  source: base
  tokens:
    three: zero
    five: b
    "<new>": {source: a, token: four}
    <other>: {source: base, token_id: 2}
    one: {source: b, force: true}
"""
    assert rows(merged(only("b") + block)) == [300, 301, 302, 0, 303, 204, 102]
    assert rows(merged(only("a") + block, "a-out")) == [200, 301, 201, 203, 303, 204, 102]
    assert {"five", "<new>", "<other>"} <= tokens().keys()


def test_padding_holds_the_mean_of_the_rows(speakers):
    found = rows(merged(only("a") + "vocabulary: {source: union, pad_to_multiple_of: 8}\n"))
    assert found[7:] == [pytest.approx(np.mean(found[:7]))]
    assert config()["vocab_size"] == 8


def test_aligned_deltas_are_taken_from_aligned_rows(speakers):
    text = A_AND_B.replace("linear", "task_arithmetic").replace("[./a, ./b]", "[./a]")
    assert rows(merged(text + "vocabulary: union\n")) == [200, 202, 201, 203, 204]


def test_rows_by_number_alone(speakers):
    assert rows(merged(only("b") + "vocabulary: intersect\n")) == [300, 301, 302, 303]
    assert config()["vocab_size"] == 4
    assert rows(merged(only("a") + "vocabulary: {rows: pad}\n", "pad")) == [200, 201, 202, 203, 204, 305]
    assert config("pad")["vocab_size"] == 6
    found = merged(only("b") + "vocabulary: skip\n", "skip")
    assert rows(found) == [100, 101, 102, 103]
    assert found["layers.0.w"][0, 0] == 3


def test_tokens_in_another_order_are_noticed(speakers):
    write_speaker(speakers / "turned", ["<s>", "three", "two", "one"], 4)
    text = "base: ./base\nmodels: [./turned]\nmethod: task_arithmetic\n"
    refused(text, "2 tokens have another row in turned than in base", "'three' is 3 and 1", "`vocabulary: union`")
    polyak.plan(loads(text + "skip: embed_tokens|lm_head\n"))
    assert rows(merged(text + "vocabulary: keep\n")) == [400, 401, 402, 403]
    assert rows(merged(text + "vocabulary: base\n", "base-out")) == [400, 403, 402, 401]


def test_other_tokens_in_the_same_rows_are_told(speakers):
    write_speaker(speakers / "other", ["<s>", "one", "two", "drei"], 4)
    plan = polyak.plan(loads("base: ./base\nmodels: [./other]\nmethod: task_arithmetic\n"))
    assert any("other has 1 tokens that base lacks" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("model", "settings", "part"),
    [
        ({"type": "Unigram", "vocab": [["<s>", "0"]]}, {}, "expected a model with a vocab"),
        ({"type": "BPE", "vocab": {"<s>": 0}, "merges": [1]}, {}, "merges must be a list of pairs"),
        ({"type": "BPE", "vocab": {"<s>": 0}, "merges": {"a": "b"}}, {}, "merges must be a list of pairs"),
        ({"type": "WordLevel", "vocab": {"<s>": 0}}, {"added_tokens_decoder": 3}, "added_tokens_decoder must be"),
    ],
)
def test_a_damaged_tokenizer_is_refused(speakers, model, settings, part):
    (speakers / "b" / "tokenizer.json").write_text(json.dumps({"model": model}))
    (speakers / "b" / "tokenizer_config.json").write_text(json.dumps(settings))
    refused(A_AND_B + "vocabulary: union", part, kind=errors.CheckpointError)


def test_another_number_of_rows_is_refused_with_the_remedy(speakers):
    refused(A_AND_B, "[4, 3] in base but F32 [5, 3] in a", "vocabulary: union")


def test_tokenizers_that_do_not_go_together_are_refused(speakers):
    write_tokenizer(speakers / "b", [f"x{i}" for i in range(6)])
    refused(A_AND_B + "vocabulary: union", "base and b have no token in common", "`vocabulary: skip`")
    write_tokenizer(speakers / "b", ["<s>"], kind="WordPiece")
    refused(A_AND_B + "vocabulary: union", "b is of kind WordPiece, that of base of kind WordLevel")


def test_damaged_and_missing_tokenizers_are_refused_by_name(speakers):
    (speakers / "b" / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": [1]}}')
    refused(A_AND_B + "vocabulary: union", "tokenizer.json: expected a model", kind=errors.CheckpointError)
    (speakers / "b" / "tokenizer.json").write_text('{"model": {"type": "Magic"}}')
    refused(A_AND_B + "vocabulary: union", "its model is of kind 'Magic'", kind=errors.UnsupportedFormat)
    (speakers / "b" / "tokenizer.json").unlink()
    refused(A_AND_B + "vocabulary: union", "b has no tokenizer.json", "save_pretrained", kind=errors.UnsupportedFormat)


def test_tokens_without_a_row_are_refused(speakers):
    write_speaker(speakers / "b", ["<s>", "one", "two", "three"], 3, rows=3)
    refused(A_AND_B + "vocabulary: union", "the tokenizer of b has 'three' with id 3", "have 3 rows")


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ("{tokens: {x: {source: b, token: nothing}}, source: base}", "b, which does not have the token 'nothing'"),
        ("{tokens: {x: {source: b, token_id: 6}}, source: base}", "b, which does not have a row 6; it has 6"),
        ("{tokens: {x: a}, source: base}", "a, which does not have the token 'x'"),
    ],
)
def test_a_source_that_does_not_have_the_token_is_refused(speakers, block, part):
    refused(A_AND_B + f"vocabulary: {block}", part, kind=errors.RecipeError)


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ("unoin", "vocabulary.source is 'unoin', which is not a model of this recipe. Did you mean 'union'?"),
        ("{}", "vocabulary must be given either `source:` or `rows:`"),
        ("{source: union, rows: pad}", "vocabulary must be given either"),
        ("{rows: cut}", "vocabulary.rows must be one of intersect, pad, skip, keep"),
        ("{rows: pad, tokens: {x: zero}}", "tokens has no effect together with rows"),
        ("{source: union, pad_to_multiple_of: 0}", "from 1 to 2^20"),
        ("{source: union, tokens: {x: c}}", "vocabulary.tokens.x.source is 'c', which is not a model"),
        ("{source: union, tokens: {x: {source: a, token: y, token_id: 1}}}", "both `token` and `token_id`"),
        ("{source: union, tokens: {x: {source: zero, token: y}}}", "is zero, which has no tokens"),
        ("{source: union, tokens: {x: {source: a, force: 1}}}", "force must be true or false"),
    ],
)
def test_what_a_vocabulary_cannot_say_is_refused(block, part):
    with pytest.raises(errors.RecipeError) as caught:
        loads(A_AND_B + f"vocabulary: {block}")
    assert part in str(caught.value)


def test_a_recipe_with_a_vocabulary_reads_back_as_it_was_written():
    block = "{source: union, pad_to_multiple_of: 64, tokens: {x: zero, y: {source: a, token_id: 0, force: true}}}"
    for text in (f"vocabulary: {block}\n", "vocabulary: pad\nchat_template: auto\n"):
        recipe = loads(A_AND_B + text)
        assert loads(dump(recipe)) == recipe


def test_slices_and_vocabularies_go_together(speakers):
    text = """
method: passthrough
base: ./base
slices: [{models: [{path: ./a, layers: [0, 1]}]}, {models: [{path: ./b, layers: [0, 1]}]}]
vocabulary: union
"""
    run(polyak.plan(loads(text)), "out")
    with polyak.open("out") as model:
        assert model.read("embed_tokens.weight")[:, 0].tolist() == [200, 202, 201, 203, 204, 303, 304]
        assert model.read("lm_head.weight")[:, 0].tolist() == [-300, -301, -302, -103, -305, -303, -304]
    assert config()["num_hidden_layers"] == 2


def test_a_tied_head_stays_tied(speakers):
    for name in ("base", "a", "b"):
        with polyak.open(speakers / name) as model:
            kept = {n: model.read(n) for n in model.specs if n != "lm_head.weight"}
        write_model(
            speakers / name,
            kept,
            CONFIG | {"tie_word_embeddings": True, "vocab_size": len(kept["embed_tokens.weight"])},
        )
    found = merged(only("a") + "vocabulary: union\n")
    assert "lm_head.weight" not in found
    assert found["embed_tokens.weight"][:, 0].tolist() == [200, 202, 201, 203, 204, 303, 304]


def test_large_tables_are_gathered_the_same_however_they_are_read(speakers):
    count, rng = 3000, np.random.default_rng(0)
    words = [f"w{i}" for i in range(count)]
    for name, order in {"base": np.arange(count), "a": rng.permutation(count)}.items():
        table = rng.standard_normal((count, 600), dtype=np.float32)
        write_model(speakers / name, {"embed_tokens.weight": table}, CONFIG | {"vocab_size": count})
        write_tokenizer(speakers / name, [words[i] for i in order])
    plan = polyak.plan(loads("base: ./base\nmodels: [./a]\nmethod: task_arithmetic\nvocabulary: base\n"))
    read = plan.steps[0].reads[0]
    wanted = polyak.open(speakers / "a").read("embed_tokens.weight")[np.argsort(order)]
    np.testing.assert_array_equal(read.checkpoint.read(read.spec.name), wanted)
    part = np.empty(4 * 901, np.uint8)
    read.checkpoint.read_into(read.spec.name, 12345, 12345 + 901, part)
    np.testing.assert_array_equal(part.view(np.float32), wanted.reshape(-1)[12345 : 12345 + 901])
    assert run(plan, "one", workers=1).digest == run(plan, "two", workers=2, tile=1000).digest
