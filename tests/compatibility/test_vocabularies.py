"""Public reports of models with different tokens: added, padded, in another order, or without a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors

from .reported import reported
from .small_models import assert_same, config_of, llama, merged, refused, write, write_tokenizer

TOKENS = ["<unk>", "one", "two", "three"]
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
SLERP = "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./a}, {model: ./b}]\nparameters: {t: 0.5}\n"
LINEAR = "merge_method: linear\nbase_model: ./a\nparameters: {weight: 1}\nmodels: [{model: ./a}, {model: ./b}]\n"


def speaker(folder: Path, seed: int, tokens: list[str], special: tuple[str, ...] = (), rows: int = 0):
    """A model with one row per token, or with the given number of rows."""
    tensors = write(folder, llama(seed, rows=rows or len(tokens)), vocab_size=rows or len(tokens))
    write_tokenizer(folder, tokens, special)
    return tensors


@reported(
    "arcee-ai/mergekit#139",
    what="One model has special tokens that the other lacks (32,007 against 32,000 rows); SLERP dropped their rows, "
    "and tokenizer_source ended in a TypeError.",
    versions="files only",
    result="Refused without a tokenizer_source; with `base` or `union` all tokens keep their ids, shared rows are "
    "merged, and a special token has the only row there is.",
)
@pytest.mark.parametrize("source", ["base", "union"])
def test_special_tokens_of_one_model(tmp_path, source):
    a = speaker(tmp_path / "a", 0, [*TOKENS, "<s1>", "<s2>"], ("<s1>", "<s2>"))
    b = speaker(tmp_path / "b", 1, TOKENS)
    refused(tmp_path, SLERP, "[6, 4] in base but F32 [4, 4] in b", "union", kind=errors.Mismatch)
    found = merged(tmp_path, f"{SLERP}tokenizer_source: {source}\n")
    assert config_of(tmp_path / "out")["vocab_size"] == 6
    for name in TABLES:
        full = np.concatenate([b[name], a[name][4:]])  # b takes the rows of a where it has none
        angle = np.arccos((a[name] * full).sum() / np.linalg.norm(a[name]) / np.linalg.norm(full))
        np.testing.assert_allclose(found[name], (a[name] + full) * np.sin(angle / 2) / np.sin(angle), atol=1e-5)


@reported(
    "allenai/open-instruct#124",
    what="Averaging stops at tables of 32,000 and 32,002 rows, because one model had padding tokens added.",
    versions="files only",
    result="Refused with two remedies, which both work: `union` keeps the added rows, `intersect` cuts them off.",
)
def test_added_padding_tokens(tmp_path):
    a = speaker(tmp_path / "a", 0, TOKENS)
    b = speaker(tmp_path / "b", 1, [*TOKENS, "[PAD]"], ("[PAD]",))
    own = "method: linear\nmodels: [./a, ./b]\n"
    refused(tmp_path, own, "[4, 4] in a but F32 [5, 4] in b", kind=errors.Mismatch)
    union = merged(tmp_path, f"{own}vocabulary: union\n", "union")
    cut = merged(tmp_path, f"{own}vocabulary: intersect\n", "cut")
    for name in TABLES:
        mean = (a[name] + b[name][:4]) / 2
        np.testing.assert_allclose(union[name], np.concatenate([mean, b[name][4:]]), atol=1e-6)
        np.testing.assert_allclose(cut[name], mean, atol=1e-6)


@reported(
    "tanganke/fusion_bench#215",
    what="Models of one suite have tables of 128,256 and 128,320 rows, the longer one padded; the shorter model's "
    "loader gave the longer one random embeddings.",
    versions="files only",
    result="By their tokenizers the models have the same tokens: `vocabulary: base` merges the rows of the tokens, "
    "and the padding, which no token has, is left out.",
)
def test_rows_that_are_padding(tmp_path):
    a, b = speaker(tmp_path / "a", 0, TOKENS), speaker(tmp_path / "b", 1, TOKENS, rows=8)
    own = "method: linear\nbase: ./a\nmodels: [./a, ./b]\n"
    refused(tmp_path, own, "but F32 [8, 4] in b", kind=errors.Mismatch)
    found = merged(tmp_path, f"{own}vocabulary: base\n")
    assert_same({name: found[name] for name in TABLES}, {name: (a[name] + b[name][:4]) / 2 for name in TABLES})


@reported(
    "arcee-ai/mergekit#425",
    what="A merge with `tokenizer_source: base` cut Qwen 2.5's tables from 152,064 rows to the 151,665 tokens.",
    versions="files only",
    result="Without a tokenizer_source the padding stays and is merged; with one, pad_to_multiple_of gives the rows "
    "back, and the config says how many there are.",
)
def test_padding_that_is_cut_off(tmp_path):
    a, b = (speaker(tmp_path / name, seed, TOKENS, rows=8) for seed, name in enumerate("ab"))
    kept = merged(tmp_path, LINEAR, "kept")
    padded = merged(tmp_path, f"{LINEAR}tokenizer: {{source: base, pad_to_multiple_of: 8}}\n", "padded")
    assert_same(kept, {name: (values + b[name]) / 2 for name, values in a.items()})
    for name in TABLES:
        np.testing.assert_allclose(padded[name][:4], ((a[name] + b[name]) / 2)[:4], atol=1e-6)
        assert padded[name].shape == (8, 4)
        assert np.isfinite(padded[name]).all()
    assert config_of(tmp_path / "kept")["vocab_size"] == config_of(tmp_path / "padded")["vocab_size"] == 8


@reported(
    "arcee-ai/mergekit#342",
    what="CodeLlama's tokenizer has tokens behind the last row of its tables (index 32003 > 31999), and the merge of "
    "tokenizers fails on them.",
    versions="files only",
    result="Refused with the token, its id and the number of rows; after the tokens are removed, as the message "
    "says, the union is merged.",
)
def test_tokens_behind_the_last_row(tmp_path):
    a, b = speaker(tmp_path / "a", 0, TOKENS), speaker(tmp_path / "b", 1, [*TOKENS, "<MID>"], ("<MID>",), rows=4)
    text = f"{LINEAR}tokenizer_source: union\n"
    refused(tmp_path, text, "'<MID>' with id 4", "4 rows", "Remove such tokens", kind=errors.Mismatch)
    path = tmp_path / "b" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens": []}))
    assert_same(merged(tmp_path, text), {name: (values + b[name]) / 2 for name, values in a.items()})


@reported(
    "arcee-ai/mergekit#73",
    what="Rows of tokens that no tokenizer names came out as NaN in the embedding and head of a union.",
    versions="files only",
    result="A union has rows for the tokens alone, all finite and with the values of the models that have the token.",
)
def test_rows_without_a_token(tmp_path):
    a = speaker(tmp_path / "a", 0, TOKENS, rows=6)
    b = speaker(tmp_path / "b", 1, ["<unk>", "two", "four"], rows=5)
    found = merged(tmp_path, f"{LINEAR}tokenizer_source: union\n")
    ids = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["vocab"]
    for name in TABLES:
        assert found[name].shape == (5, 4)
        rows = {
            "<unk>": (a[name][0] + b[name][0]) / 2, "one": a[name][1], "two": (a[name][2] + b[name][1]) / 2,
            "three": a[name][3], "four": b[name][2],
        }  # fmt: skip
        for token, row in rows.items():
            np.testing.assert_allclose(found[name][ids[token]], row, atol=1e-6)


@reported(
    "arcee-ai/mergekit#169",
    what="One model has tokenizer.json and the other only tokenizer.model: the merge ended without an error and "
    "answered nonsense, or froze.",
    versions="files only",
    result="Refused, with the call of transformers that writes a tokenizer.json.",
)
def test_a_tokenizer_in_another_form(tmp_path):
    speaker(tmp_path / "a", 0, TOKENS)
    write(tmp_path / "b", llama(1, rows=4), vocab_size=4)
    (tmp_path / "b" / "tokenizer.model").write_bytes(b"\n\x0b\n\x05<unk>\x15")
    parts = ("b has no tokenizer.json", "save_pretrained")
    refused(tmp_path, f"{LINEAR}tokenizer_source: base\n", *parts, kind=errors.UnsupportedFormat)
    write_tokenizer(tmp_path / "b", TOKENS)
    merged(tmp_path, f"{LINEAR}tokenizer_source: base\n")


@reported(
    "arcee-ai/mergekit#47",
    what="Merging a model with an expanded vocabulary by tokenizer_source union gave garbled text, and without it an "
    "error.",
    versions="files only",
    result="Tables of the same height are refused where a token has another row; `union` brings the rows together by "
    "token.",
)
def test_the_same_tokens_in_another_order(tmp_path):
    a, b = speaker(tmp_path / "a", 0, TOKENS), speaker(tmp_path / "b", 1, ["<unk>", "two", "one", "three"])
    refused(tmp_path, LINEAR, "union", kind=errors.Mismatch)
    found = merged(tmp_path, f"{LINEAR}tokenizer_source: union\n")
    for name in TABLES:
        np.testing.assert_allclose(found[name], (a[name] + b[name][[0, 2, 1, 3]]) / 2, atol=1e-6)


@reported(
    "arcee-ai/mergekit#469",
    what="Tokenizers of merged models were twice as large as their parents' and some programs could not read them: "
    "newer versions of tokenizers write merges as pairs instead of text.",
    versions="tokenizers 0.23.3; the other form by hand",
    result="Both forms are read, and a union has the form of the base; the library cuts text as the base did.",
)
@pytest.mark.parametrize("spelled", ["text", "pairs"])
def test_two_spellings_of_merges(tmp_path, spelled):
    tokenizers = pytest.importorskip("tokenizers")
    pairs = [["o", "n"], ["on", "e"]]
    tokens = ["<unk>", "o", "n", "e", "on", "one"]
    for seed, (name, merges) in enumerate((("a", [" ".join(pair) for pair in pairs]), ("b", pairs))):
        write(tmp_path / name, llama(seed, rows=6), vocab_size=6)
        model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges, "unk_token": "<unk>"}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    text = LINEAR if spelled == "text" else LINEAR.replace("base_model: ./a", "base_model: ./b")
    merged(tmp_path, f"{text}tokenizer_source: union\n")
    merges = json.loads((tmp_path / "out/tokenizer.json").read_text())["model"]["merges"]
    assert merges == (pairs if spelled == "pairs" else [" ".join(pair) for pair in pairs])
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).encode("one").tokens == ["one"]


@reported(
    "arcee-ai/mergekit#473",
    what="NuSLERP needed a mending of its own before it could be used together with a union of tokenizers.",
    versions="files only",
    result="The rows are brought into the result's order first, and NuSLERP merges the tables like all other tensors.",
)
def test_nuslerp_with_a_union(tmp_path):
    a, b = speaker(tmp_path / "a", 0, TOKENS), speaker(tmp_path / "b", 1, ["<unk>", "two", "one", "three"])
    head = "merge_method: nuslerp\nparameters: {weight: 1}\nmodels: [{model: ./a}, {model: ./b}]\n"
    found = merged(tmp_path, f"{head}tokenizer_source: union\n")
    write(tmp_path / "b", b | {name: b[name][[0, 2, 1, 3]] for name in TABLES}, vocab_size=4)
    write_tokenizer(tmp_path / "b", TOKENS)
    assert_same(found, merged(tmp_path, head, "aligned"))
    assert a.keys() == found.keys()
    assert polyak.open(tmp_path / "out").specs.keys() == a.keys()
