"""Tokenizers as described by `tokenizer.json`: their tokens, and the embedding row of each."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

from ...errors import CheckpointError, Mismatch, Remedy, UnsupportedFormat
from .._api import Stamp
from ..carried import TOKENIZER_FILE, TOKENIZER_SETTINGS
from ..contents import inside, optional_json, read_json

Json: TypeAlias = dict[str, Any]
KINDS = ("BPE", "WordPiece", "WordLevel", "Unigram")
UNLIKELY = 10.0  # log-probability of a placeholder, below that of the least likely piece


@dataclass(frozen=True)
class Tokenizer:
    """One tokenizer.

    Attributes:
        label: Name of its model in messages.
        data: tokenizer.json.
        settings: tokenizer_config.json.
        stamps: The files, as they were when they were read.
    """

    label: str
    data: Json
    settings: Json
    stamps: tuple[Stamp, ...] = ()

    @property
    def kind(self) -> str:
        return self.data["model"]["type"]

    @cached_property
    def pieces(self) -> dict[str, int]:
        """The tokens that text is split into, without added tokens."""
        vocab: Any = self.data["model"]["vocab"]
        if isinstance(vocab, list):
            return {piece[0]: i for i, piece in enumerate(cast("list[list[Any]]", vocab))}
        return cast("dict[str, int]", vocab)

    @cached_property
    def tokens(self) -> dict[str, int]:
        """All tokens, including added tokens."""
        return {**self.pieces, **{entry["content"]: entry["id"] for entry in self.added}}

    @property
    def added(self) -> Sequence[Json]:
        return self.data.get("added_tokens") or []

    @property
    def size(self) -> int:
        """Number of rows that its tokens need."""
        return max(self.tokens.values(), default=-1) + 1


def read_tokenizer(folder: Path | None, label: str) -> Tokenizer:
    """Read the tokenizer in the folder of a checkpoint.

    Raises:
        UnsupportedFormat: there is no tokenizer.json, or its model is of an unknown kind.
        CheckpointError: it is damaged.
    """
    if folder is None or not (folder / TOKENIZER_FILE).is_file():
        raise UnsupportedFormat(
            f"{label} has no {TOKENIZER_FILE}. If it has a tokenizer in another form, write one with transformers: "
            "`AutoTokenizer.from_pretrained(MODEL).save_pretrained(MODEL)`."
        )
    path = inside(folder, TOKENIZER_FILE)
    data = read_json(path)
    _check(data, path)
    return Tokenizer(label, data, _read_settings(folder), (Stamp.of_contents(path),))


def _read_settings(folder: Path) -> Json:
    settings = optional_json(folder, TOKENIZER_SETTINGS)
    if not isinstance(settings.get("added_tokens_decoder", {}), dict):
        raise CheckpointError(f"{folder / TOKENIZER_SETTINGS}: added_tokens_decoder must be an object.")
    return settings


def _check(data: Json, path: Path) -> None:
    model: Any = data.get("model")
    if isinstance(model, dict) and cast("Json", model).get("type") not in KINDS:
        kind = cast("Json", model).get("type")
        raise UnsupportedFormat(f"{path}: its model is of kind {kind!r:.40}; expected one of {', '.join(KINDS)}.")
    added: Any = data.get("added_tokens") or []
    fine = isinstance(added, list) and all(_is_added(entry) for entry in cast("list[Any]", added))
    if not fine or not isinstance(model, dict) or not _has_vocab(cast("Json", model)):
        raise CheckpointError(f"{path}: expected a model with a vocab, and added_tokens with id and content.")
    merges: Any = cast("Json", model).get("merges") or []
    if not isinstance(merges, list) or not all(_is_merge(merge) for merge in cast("list[Any]", merges)):
        raise CheckpointError(f"{path}: merges must be a list of pairs of pieces.")


def _has_vocab(model: Json) -> bool:
    vocab: Any = model.get("vocab")
    if model["type"] == "Unigram":
        return isinstance(vocab, list) and bool(vocab) and all(_is_scored(piece) for piece in cast("list[Any]", vocab))
    ids = cast("Json", vocab).values() if isinstance(vocab, dict) else ()
    return bool(ids) and all(type(i) is int and 0 <= i < 2**31 for i in ids)


def _is_scored(piece: Any) -> bool:
    if not isinstance(piece, list) or len(cast("list[Any]", piece)) != 2:
        return False
    return isinstance(piece[0], str) and type(piece[1]) in (int, float)


def _is_merge(merge: Any) -> bool:
    pieces: Any = merge.split(" ", 1) if isinstance(merge, str) else merge
    if not isinstance(pieces, list) or len(cast("list[Any]", pieces)) != 2:
        return False
    return all(isinstance(piece, str) for piece in cast("list[Any]", pieces))


def _is_added(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    token = cast("Json", entry)
    return isinstance(token.get("content"), str) and type(token.get("id")) is int and 0 <= token["id"] < 2**31


def refuse_unlike_tokenizers(first: Tokenizer, others: Iterable[Tokenizer]) -> None:
    """Refuse tokenizers that do not split text into the same kind of pieces.

    Raises:
        Mismatch: they are of different kinds, or have no token in common.
    """
    for other in others:
        if other.kind != first.kind:
            raise Mismatch(
                f"the tokenizer of {other.label} is of kind {other.kind}, that of {first.label} of kind {first.kind}: "
                "their tokens mean different things.",
                remedies=[Remedy.KEEP_TABLES],
            )
        if first.pieces.keys().isdisjoint(other.pieces):
            raise Mismatch(
                f"the tokenizers of {first.label} and {other.label} have no token in common.",
                remedies=[Remedy.KEEP_TABLES],
            )


def tokenizer_union(first: Tokenizer, others: Sequence[Tokenizer]) -> Tokenizer:
    """A tokenizer with the tokens of all: those of the first keep their ids, others follow in order.

    Pieces stay pieces, and their merges follow those of the first; added tokens stay added tokens.
    """
    if all(other.tokens.keys() <= first.tokens.keys() for other in others):
        return first
    data = copy.copy(first.data)
    ids, size, merges = dict(first.tokens), first.size, _Merges(first)
    pieces: dict[str, Any] = {}
    added: dict[str, Json] = {}
    for other in others:
        own = {entry["content"]: entry for entry in other.added}
        scores = _scores(other)
        for token in sorted(other.tokens.keys() - ids.keys(), key=other.tokens.__getitem__):
            ids[token], size = size, size + 1
            if token in own:
                added[token] = {**own[token], "id": ids[token]}
            if token in other.pieces:
                pieces[token] = scores.get(token, ids[token])
        merges.add(other)
    data["model"] = _model(first, pieces, ids, added, merges)
    data["added_tokens"] = sorted([*first.added, *added.values()], key=lambda entry: entry["id"])
    return replace(first, data=data, settings=_with_added(first.settings, added.values()))


def with_tokens(tokenizer: Tokenizer, contents: Iterable[str]) -> Tokenizer:
    """The same tokenizer with more added tokens, matched literally."""
    size = tokenizer.size
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    new = [{"id": size + i, "content": content, **plain} for i, content in enumerate(contents)]
    if not new:
        return tokenizer
    data = {**tokenizer.data, "added_tokens": [*tokenizer.added, *new]}
    return replace(tokenizer, data=data, settings=_with_added(tokenizer.settings, new))


def _with_added(settings: Json, added: Iterable[Json]) -> Json:
    if "added_tokens_decoder" not in settings:
        return settings
    more = {str(entry["id"]): {k: v for k, v in entry.items() if k != "id"} for entry in added}
    return {**settings, "added_tokens_decoder": {**settings["added_tokens_decoder"], **more}}


def _scores(tokenizer: Tokenizer) -> dict[str, float]:
    if tokenizer.kind != "Unigram":
        return {}
    return dict(tokenizer.data["model"]["vocab"])


def _model(
    first: Tokenizer, pieces: Mapping[str, Any], ids: Mapping[str, int], added: Mapping[str, Json], merges: _Merges
) -> Json:
    model = dict(first.data["model"])
    if first.kind != "Unigram":
        # Loading keeps the ids of added tokens only if no piece has a larger id, or the model lists them too.
        between = {entry["content"]: entry["id"] for entry in (*first.added, *added.values())} if pieces else {}
        model["vocab"] = {**model["vocab"], **pieces, **between}
        return {**model, "merges": merges.all} if first.kind == "BPE" else model
    # A piece's id is its position in the list, so that added tokens with ids in between need a position too.
    least = min(score for _, score in model["vocab"]) - UNLIKELY
    by_id = {number: token for token, number in ids.items()}
    size = max((ids[piece] for piece in pieces), default=-1) + 1
    named = [by_id.get(i, f"<unused {i}>") for i in range(len(model["vocab"]), size)]
    more = [[token, pieces.get(token, least)] for token in named]
    return {**model, "vocab": [*model["vocab"], *more]}


class _Merges:
    """The merges of several BPE tokenizers, those of the first first, in the notation of the first."""

    def __init__(self, first: Tokenizer) -> None:
        self.all: list[Any] = list(first.data["model"].get("merges") or [])
        self._as_text = bool(self.all) and isinstance(self.all[0], str)
        self._known = {_pair(merge) for merge in self.all}

    def add(self, other: Tokenizer) -> None:
        for merge in other.data["model"].get("merges") or []:
            pair = _pair(merge)
            if pair not in self._known:
                self._known.add(pair)
                self.all.append(" ".join(pair) if self._as_text else list(pair))


def _pair(merge: Any) -> tuple[str, ...]:
    return tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge)
