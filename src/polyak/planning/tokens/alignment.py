"""Alignment of models with different tokens: every embedding table gets one row per token of the merged vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...checkpoint import (
    MEAN_ROW,
    PADDING_ROW,
    ZERO_ROW,
    AlignedCheckpoint,
    Checkpoint,
    MeanRows,
    RowNumbers,
    Tokenizer,
    TokenRows,
    read_tokenizer,
    refuse_unlike_tokenizers,
    tokenizer_union,
    with_tokens,
)
from ...errors import Mismatch, RecipeError
from ...recipe import BASE, Token, Vocabulary
from ..compatibility import Opened
from ..open_models import OpenedModels
from .embedding_tables import tables_of
from .vocabulary import OutputVocabulary


@dataclass(frozen=True)
class _Tokenized:
    """A model with embedding tables."""

    model: Opened
    rows: int
    tables: Sequence[str]
    tokenizer: Tokenizer | None = None

    @property
    def name(self) -> str:
        return self.model.name


def aligned(vocabulary: Vocabulary, opened_models: OpenedModels, donor: Opened) -> OutputVocabulary:
    """Align the models' embedding rows as a recipe asks, by token or by number; see `align` for the rest."""
    tokenized = [_Tokenized(entry, *tables_of(entry)) for entry in opened_models.in_order()]
    tokenized = [entry for entry in tokenized if entry.rows]
    if not tokenized:
        raise RecipeError("there is no vocabulary to merge: no model has an embedding table.")
    if vocabulary.rows is not None:
        return _by_rows(vocabulary.rows, tokenized, opened_models, donor)
    return _by_tokens(vocabulary, tokenized, opened_models, donor)


def _by_rows(
    policy: str, tokenized: Sequence[_Tokenized], opened_models: OpenedModels, donor: Opened
) -> OutputVocabulary:
    counts = {entry.name: entry.rows for entry in tokenized}
    old = counts.get(donor.name, tokenized[0].rows)
    if policy == "keep" or len(set(counts.values())) == 1:
        return OutputVocabulary(donor)
    listed = ", ".join(f"{name} {rows}" for name, rows in counts.items())
    if policy == "skip":
        kept = frozenset(table for entry in tokenized for table in entry.tables)
        return OutputVocabulary(
            donor, kept=kept, notes=(f"embedding tables are not merged ({listed} rows): those of {donor.name}.",)
        )
    new = (min if policy == "intersect" else max)(counts.values())
    for entry in tokenized:
        tables = {name: _numbered(entry, name, new, tokenized) for name in entry.tables}
        opened_models.put(entry.name, AlignedCheckpoint(entry.model.checkpoint, tables))
    notes = [f"embedding tables have {new} rows in the result ({listed})."]
    if new < old:
        notes.append(f"the tokenizer of {donor.name} may have tokens without a row: remove those from {new} on.")
    return OutputVocabulary(donor, sizes=(old, new), notes=tuple(notes))


def _numbered(entry: _Tokenized, name: str, new: int, tokenized: Sequence[_Tokenized]) -> TokenRows:
    """Rows by number: the model's own, then those of the other models, in order, that have more rows."""
    givers = [entry, *(other for other in tokenized if other is not entry and other.model.find(name))]
    source, row, begin = np.zeros(new, np.int64), np.arange(new), 0
    for i, giver in enumerate(givers):
        source[begin:] = i
        begin = max(begin, min(giver.rows, new))
    return TokenRows(_places(name, givers), source, row)


def _places(name: str, tokenized: Sequence[_Tokenized]) -> list[tuple[Checkpoint, str]]:
    """The checkpoint and stored name of a table in each model; it may be tied to another."""
    return [(entry.model.checkpoint, spec.name if (spec := entry.model.find(name)) else "") for entry in tokenized]


def _by_tokens(
    vocabulary: Vocabulary, tokenized: Sequence[_Tokenized], opened_models: OpenedModels, donor: Opened
) -> OutputVocabulary:
    tokenized = [
        replace(entry, tokenizer=read_tokenizer(entry.model.checkpoint.folder, entry.name)) for entry in tokenized
    ]
    for entry in tokenized:
        _refuse_missing_rows(entry)
    tokenizer, giver = _result(vocabulary, tokenized, donor)
    plan = _Alignment(tokenizer, giver, vocabulary, tokenized)
    for entry in tokenized:
        stamps = entry.tokenizer.stamps if entry.tokenizer else ()
        tables = {name: plan.rows(entry, name) for name in entry.tables}
        opened_models.put(entry.name, AlignedCheckpoint(entry.model.checkpoint, tables, stamps))
    old = next((entry.rows for entry in tokenized if entry.name == donor.name), tokenized[0].rows)
    changed = tokenizer if tokenizer is not giver.tokenizer else None
    return OutputVocabulary(giver.model, changed, (old, plan.size), notes=tuple(plan.notes()))


def _refuse_missing_rows(entry: _Tokenized) -> None:
    assert entry.tokenizer
    if entry.tokenizer.size > entry.rows:
        token = max(entry.tokenizer.tokens, key=entry.tokenizer.tokens.__getitem__)
        raise Mismatch(
            f"the tokenizer of {entry.name} has {token!r} with id {entry.tokenizer.size - 1}, but its tables have "
            f"{entry.rows} rows. Remove such tokens, or add rows by `model.resize_token_embeddings()` of transformers."
        )


def _result(vocabulary: Vocabulary, tokenized: Sequence[_Tokenized], donor: Opened) -> tuple[Tokenizer, _Tokenized]:
    """The tokenizer of the result, and the model that it is derived from."""
    called = donor.name if vocabulary.source == "union" else vocabulary.source
    giver = next((entry for entry in tokenized if entry.name == called), None)
    if giver is None:
        raise RecipeError(f"the vocabulary is that of {called!r}, which has no embedding table in this merge.")
    assert giver.tokenizer
    others = [entry.tokenizer for entry in tokenized if entry is not giver and entry.tokenizer]
    refuse_unlike_tokenizers(giver.tokenizer, others)
    tokenizer = tokenizer_union(giver.tokenizer, others) if vocabulary.source == "union" else giver.tokenizer
    return with_tokens(tokenizer, [token for token in vocabulary.tokens if token not in tokenizer.tokens]), giver


class _Alignment:
    """Sources of the rows of the merged vocabulary, per model."""

    def __init__(
        self, tokenizer: Tokenizer, giver: _Tokenized, vocabulary: Vocabulary, tokenized: Sequence[_Tokenized]
    ) -> None:
        self._tokenizer, self._entries = tokenizer, tokenized
        self._own = np.stack([_own(tokenizer, entry, kept=entry is giver) for entry in tokenized])
        self._chosen = {
            tokenizer.tokens[content]: self._choice(content, token) for content, token in vocabulary.tokens.items()
        }
        self._forced = [tokenizer.tokens[content] for content, token in vocabulary.tokens.items() if token.force]
        multiple = vocabulary.pad_to_multiple_of or 1
        self.size = -(-tokenizer.size // multiple) * multiple
        self._fills: dict[tuple[bool, ...], tuple[RowNumbers, RowNumbers]] = {}

    def rows(self, entry: _Tokenized, name: str) -> TokenRows:
        """The sources of the rows of one table of one model."""
        has_table = tuple(other.model.find(name) is not None for other in self._entries)
        if has_table not in self._fills:
            self._fills[has_table] = self._filled(np.array(has_table))
        fill, fill_row = self._fills[has_table]
        index = self._entries.index(entry)
        mine = self._own[index] >= 0
        mine[self._forced] = False
        source, row = np.where(mine, index, fill), np.where(mine, self._own[index], fill_row)
        means = self._means(np.flatnonzero(source == MEAN_ROW), np.array(has_table))
        padding = np.full(self.size - len(source), PADDING_ROW)
        return TokenRows(_places(name, self._entries), np.append(source, padding), np.append(row, padding), means)

    def _filled(self, has_table: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """Row per token for models that lack it: the base's, else the only owner's, else the mean of the owners'."""
        has = (self._own >= 0) & has_table[:, None]
        count = has.sum(0)
        fill = np.where(count == 0, ZERO_ROW, np.where(count == 1, has.argmax(0), MEAN_ROW))
        base = next((i for i, entry in enumerate(self._entries) if entry.name == BASE), None)
        if base is not None:
            fill = np.where(has[base], base, fill)
        row = np.where(fill >= 0, self._own[fill, np.arange(len(fill))], 0)
        for number, (source, its_row) in self._chosen.items():
            fill[number], row[number] = source, its_row
        return fill, row

    def _means(self, of: RowNumbers, has_table: RowNumbers) -> MeanRows:
        owner, which = np.nonzero((self._own[:, of] >= 0) & has_table[:, None])
        return MeanRows(of[which], owner, self._own[owner, of[which]])

    def _choice(self, content: str, token: Token) -> tuple[int, int]:
        """The index of the model, and the row, that the recipe chooses for a token."""
        if token.source == "zero":
            return ZERO_ROW, 0
        index = next((i for i, entry in enumerate(self._entries) if entry.name == token.source), None)
        if index is None:
            raise RecipeError(
                f"the row of token {content!r} is taken from {token.source}, which has no embedding table."
            )
        giver = self._entries[index]
        assert giver.tokenizer
        source_token = token.token if token.token is not None else content
        row = token.token_id if token.token_id is not None else giver.tokenizer.tokens.get(source_token, -1)
        if not 0 <= row < giver.rows:
            lacking = f"the token {source_token!r}" if token.token_id is None else f"a row {row}; it has {giver.rows}"
            raise RecipeError(
                f"the row of token {content!r} is taken from {giver.name}, which does not have {lacking}."
            )
        return index, row

    def notes(self) -> list[str]:
        """Remarks on the size of the vocabulary, and on the tokens that each model lacks."""
        total = len(self._tokenizer.tokens)
        notes = [f"the result has {total} tokens in tables of {self.size} rows."]
        for entry, own in zip(self._entries, self._own, strict=True):
            lacking = int((own < 0).sum())
            assert entry.tokenizer
            lost = len(entry.tokenizer.tokens) - len(entry.tokenizer.tokens.keys() & self._tokenizer.tokens.keys())
            if lacking or lost:
                notes.append(f"{entry.name} lacks {lacking} of them, and {lost} of its tokens are not in the result.")
        return notes


def _own(tokenizer: Tokenizer, entry: _Tokenized, *, kept: bool) -> RowNumbers:
    """For each row of the result, the row of the same token in a model; -1 if it has no such token.

    With `kept`, rows without a token, which a tokenizer may leave between others, are the model's rows of that number.
    """
    assert entry.tokenizer
    own = np.where(kept & (np.arange(tokenizer.size) < entry.rows), np.arange(tokenizer.size), -1)
    ids: Mapping[str, int] = entry.tokenizer.tokens
    numbers = np.fromiter(tokenizer.tokens.values(), np.int64, len(tokenizer.tokens))
    own[numbers] = np.fromiter((ids.get(token, -1) for token in tokenizer.tokens), np.int64, len(numbers))
    return own
