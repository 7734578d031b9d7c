"""Unions of tokenizers of every kind, as the library that runs them cuts text with the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.recipe import loads

from ..engine.conftest import write_model

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

CAT, DOG = ["cat", "cats", "the"], ["dog", "dogs", "the"]


def wordpiece(words: list[str]) -> Any:
    pieces = ["[UNK]", *words, "##s", "##ly"]
    model = tokenizers.models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    found = tokenizers.Tokenizer(model)
    found.pre_tokenizer, found.decoder = tokenizers.pre_tokenizers.Whitespace(), tokenizers.decoders.WordPiece()
    return found


def unigram(words: list[str]) -> Any:
    letters = sorted(set("".join(words)) | {"▁"})
    pieces = [("<unk>", 0.0), *((f"▁{word}", -2.0 - i) for i, word in enumerate(words)), *((c, -9.0) for c in letters)]
    found = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
    found.pre_tokenizer, found.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    return found


def write(folder: Path, tokenizer: Any, origin: int) -> None:
    """A model whose embedding of token i is 100 * origin + i."""
    size = tokenizer.get_vocab_size()
    table = np.repeat(100.0 * origin + np.arange(size)[:, None], 2, 1).astype(np.float32)
    write_model(folder, {"embed_tokens.weight": table}, {"model_type": "test", "vocab_size": size})
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merged(source: str = "union") -> tuple[Any, dict[str, float]]:
    """The tokenizer of the merge of `a` alone beside `base`, and the row of each of its tokens."""
    text = f"base: ./base\nmodels: [./a]\nmethod: task_arithmetic\nvocabulary: {source}\n"
    run(polyak.plan(loads(text)), "out")
    with polyak.open("out") as model:
        table = model.read("embed_tokens.weight")[:, 0]
    found = tokenizers.Tokenizer.from_file("out/tokenizer.json")
    assert sorted(found.get_vocab().values()) == list(range(len(table)))
    return found, {token: float(table[i]) for token, i in found.get_vocab().items()}


def cut(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.encode(text).tokens


@pytest.mark.parametrize("kind", [wordpiece, unigram])
def test_a_union_cuts_what_either_knew_as_it_was_cut_before(place, kind):
    base, a = kind(CAT), kind(DOG)
    write(place / "base", base, 1)
    write(place / "a", a, 2)
    found, rows = merged()
    assert found.get_vocab().keys() == base.get_vocab().keys() | a.get_vocab().keys()
    assert {token: i for token, i in found.get_vocab().items() if i < base.get_vocab_size()} == base.get_vocab()
    assert cut(found, "the cats") == cut(base, "the cats")
    assert cut(found, "the dogs") == cut(a, "the dogs")
    assert found.decode(found.encode("the cats the dogs").ids) == "the cats the dogs"
    own = {token: 200.0 + i for token, i in a.get_vocab().items()}
    assert rows == {token: 100.0 + i for token, i in base.get_vocab().items()} | own


@pytest.mark.parametrize("kind", [wordpiece, unigram])
def test_added_tokens_stay_whole_and_keep_their_rows(place, kind):
    base, a = kind(CAT), kind(DOG)
    base.add_special_tokens(["<pad>"])
    a.add_special_tokens(["<tool>"])
    a.add_tokens(["later"])
    write(place / "base", base, 1)
    write(place / "a", a, 2)
    found, rows = merged()
    assert "<tool>" in cut(found, "the <tool>dogs")
    assert (rows["<tool>"], rows["<pad>"]) == (200.0 + a.token_to_id("<tool>"), 100.0 + base.token_to_id("<pad>"))
    assert found.token_to_id("<pad>") == base.token_to_id("<pad>")
    assert found.decode(found.encode("the <tool> dogs").ids).split() == ["the", "dogs"]


@pytest.mark.parametrize("kind", [wordpiece, unigram])
def test_the_bases_tokenizer_is_copied_and_the_rows_are_brought_into_its_order(place, kind):
    base, a = kind(CAT), kind([*DOG, "cats"])
    write(place / "base", base, 1)
    write(place / "a", a, 2)
    found, rows = merged("base")
    assert found.to_str() == base.to_str()
    assert rows["[UNK]" if kind is wordpiece else "<unk>"] == 200
    assert rows["cats" if kind is wordpiece else "▁cats"] == 204


def test_kinds_that_cut_differently_are_refused_by_name(place):
    write(place / "base", wordpiece(CAT), 1)
    write(place / "a", unigram(DOG), 2)
    with pytest.raises(errors.Mismatch, match="of a is of kind Unigram, that of base of kind WordPiece"):
        merged()
