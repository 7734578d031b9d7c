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


@dataclass(frozen=True)
class OutputVocabulary:
    """Vocabulary of the merged model.

    Attributes:
        donor: The model whose tokenizer files are copied.
        tokenizer: The tokenizer to write instead, if it differs from the donor's.
        sizes: Number of rows of the donor's tables before and after alignment.
        kept: Tables that are copied from the base or first model instead of merged.
        notes: Remarks for the user.
    """

    donor: Opened
    tokenizer: Tokenizer | None = None
    sizes: tuple[int, int] = (0, 0)
    kept: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


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


def align(wanted: Vocabulary | None, opened_models: OpenedModels, donor: Opened) -> OutputVocabulary:
    """Replace each opened model by a view with aligned embedding rows.

    Args:
        wanted: The `vocabulary` of the recipe; None if all models must have the same tokens.
        opened_models: All opened models of the merge.
        donor: The model whose config and tokenizer the result takes.

    Raises:
        Mismatch: the tokenizers are incompatible.
        RecipeError: the recipe takes a token's row from a model that does not have it.
        CheckpointError: a tokenizer is missing or damaged.
    """
    tokenized = [_Tokenized(one, *tables_of(one)) for one in opened_models.in_order()]
    tokenized = [one for one in tokenized if one.rows]
    if wanted is None:
        return OutputVocabulary(donor)
    if not tokenized:
        raise RecipeError("`vocabulary:` has no effect: no model has an embedding table.")
    if wanted.rows is not None:
        return _by_rows(wanted.rows, tokenized, opened_models, donor)
    return _by_tokens(wanted, tokenized, opened_models, donor)


def _by_rows(
    policy: str, tokenized: Sequence[_Tokenized], opened_models: OpenedModels, donor: Opened
) -> OutputVocabulary:
    counts = {one.name: one.rows for one in tokenized}
    old = counts.get(donor.name, tokenized[0].rows)
    if policy == "keep" or len(set(counts.values())) == 1:
        return OutputVocabulary(donor)
    said = ", ".join(f"{name} {rows}" for name, rows in counts.items())
    if policy == "skip":
        kept = frozenset(table for one in tokenized for table in one.tables)
        return OutputVocabulary(
            donor, kept=kept, notes=(f"embedding tables are not merged ({said} rows): those of {donor.name}.",)
        )
    new = (min if policy == "intersect" else max)(counts.values())
    for one in tokenized:
        tables = {name: _numbered(one, name, new, tokenized) for name in one.tables}
        opened_models.put(one.name, AlignedCheckpoint(one.model.checkpoint, tables))
    notes = [f"embedding tables have {new} rows in the result ({said})."]
    if new < old:
        notes.append(f"the tokenizer of {donor.name} may have tokens without a row: remove those from {new} on.")
    return OutputVocabulary(donor, sizes=(old, new), notes=tuple(notes))


def _numbered(one: _Tokenized, name: str, new: int, tokenized: Sequence[_Tokenized]) -> TokenRows:
    """Rows by number: the model's own, then those of the other models, in order, that have more rows."""
    givers = [one, *(other for other in tokenized if other is not one and other.model.find(name))]
    source, row, begin = np.zeros(new, np.int64), np.arange(new), 0
    for i, giver in enumerate(givers):
        source[begin:] = i
        begin = max(begin, min(giver.rows, new))
    return TokenRows(_places(name, givers), source, row)


def _places(name: str, tokenized: Sequence[_Tokenized]) -> list[tuple[Checkpoint, str]]:
    """The checkpoint and stored name of a table in each model; it may be tied to another."""
    return [(one.model.checkpoint, spec.name if (spec := one.model.find(name)) else "") for one in tokenized]


def _by_tokens(
    wanted: Vocabulary, tokenized: Sequence[_Tokenized], opened_models: OpenedModels, donor: Opened
) -> OutputVocabulary:
    tokenized = [replace(one, tokenizer=read_tokenizer(one.model.checkpoint.folder, one.name)) for one in tokenized]
    for one in tokenized:
        _refuse_missing_rows(one)
    tokenizer, giver = _result(wanted, tokenized, donor)
    plan = _Alignment(tokenizer, giver, wanted, tokenized)
    for one in tokenized:
        stamps = one.tokenizer.stamps if one.tokenizer else ()
        tables = {name: plan.rows(one, name) for name in one.tables}
        opened_models.put(one.name, AlignedCheckpoint(one.model.checkpoint, tables, stamps))
    old = next((one.rows for one in tokenized if one.name == donor.name), tokenized[0].rows)
    changed = tokenizer if tokenizer is not giver.tokenizer else None
    return OutputVocabulary(giver.model, changed, (old, plan.size), notes=tuple(plan.notes()))


def _refuse_missing_rows(one: _Tokenized) -> None:
    assert one.tokenizer
    if one.tokenizer.size > one.rows:
        token = max(one.tokenizer.tokens, key=one.tokenizer.tokens.__getitem__)
        raise Mismatch(
            f"the tokenizer of {one.name} has {token!r} with id {one.tokenizer.size - 1}, but its tables have "
            f"{one.rows} rows. Remove such tokens, or add rows with `model.resize_token_embeddings()` in transformers."
        )


def _result(wanted: Vocabulary, tokenized: Sequence[_Tokenized], donor: Opened) -> tuple[Tokenizer, _Tokenized]:
    """The tokenizer of the result, and the model that it is derived from."""
    called = donor.name if wanted.source == "union" else wanted.source
    giver = next((one for one in tokenized if one.name == called), None)
    if giver is None:
        raise RecipeError(f"`vocabulary:` names {called!r}, which has no embedding table in this merge.")
    assert giver.tokenizer
    others = [one.tokenizer for one in tokenized if one is not giver and one.tokenizer]
    refuse_unlike_tokenizers(giver.tokenizer, others)
    found = tokenizer_union(giver.tokenizer, others) if wanted.source == "union" else giver.tokenizer
    return with_tokens(found, [content for content in wanted.tokens if content not in found.tokens]), giver


class _Alignment:
    """Sources of the rows of the merged vocabulary, per model."""

    def __init__(
        self, tokenizer: Tokenizer, giver: _Tokenized, wanted: Vocabulary, tokenized: Sequence[_Tokenized]
    ) -> None:
        self._tokenizer, self._speakers, self._wanted = tokenizer, tokenized, wanted
        self._own = np.stack([_own(tokenizer, one, kept=one is giver) for one in tokenized])
        self._chosen = {
            tokenizer.tokens[content]: self._choice(content, token) for content, token in wanted.tokens.items()
        }
        self._forced = [tokenizer.tokens[content] for content, token in wanted.tokens.items() if token.force]
        multiple = wanted.pad_to_multiple_of or 1
        self.size = -(-tokenizer.size // multiple) * multiple
        self._fills: dict[tuple[bool, ...], tuple[RowNumbers, RowNumbers]] = {}

    def rows(self, one: _Tokenized, name: str) -> TokenRows:
        """The sources of the rows of one table of one model."""
        has_table = tuple(other.model.find(name) is not None for other in self._speakers)
        if has_table not in self._fills:
            self._fills[has_table] = self._filled(np.array(has_table))
        fill, fill_row = self._fills[has_table]
        index = self._speakers.index(one)
        mine = self._own[index] >= 0
        mine[self._forced] = False
        source, row = np.where(mine, index, fill), np.where(mine, self._own[index], fill_row)
        means = self._means(np.flatnonzero(source == MEAN_ROW), np.array(has_table))
        padding = np.full(self.size - len(source), PADDING_ROW)
        return TokenRows(_places(name, self._speakers), np.append(source, padding), np.append(row, padding), means)

    def _filled(self, has_table: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """Row per token for models that lack it: the base's, else the only owner's, else the mean of the owners'."""
        has = (self._own >= 0) & has_table[:, None]
        count = has.sum(0)
        fill = np.where(count == 0, ZERO_ROW, np.where(count == 1, has.argmax(0), MEAN_ROW))
        base = next((i for i, one in enumerate(self._speakers) if one.name == BASE), None)
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
        index = next((i for i, one in enumerate(self._speakers) if one.name == token.source), None)
        if index is None:
            raise RecipeError(
                f"the row of token {content!r} is taken from {token.source}, which has no embedding table."
            )
        giver = self._speakers[index]
        assert giver.tokenizer
        wanted = token.token if token.token is not None else content
        row = token.token_id if token.token_id is not None else giver.tokenizer.tokens.get(wanted, -1)
        if not 0 <= row < giver.rows:
            what = f"the token {wanted!r}" if token.token_id is None else f"a row {row}; it has {giver.rows}"
            raise RecipeError(f"the row of token {content!r} is taken from {giver.name}, which does not have {what}.")
        return index, row

    def notes(self) -> list[str]:
        """Remarks on the size of the vocabulary, and on the tokens that each model lacks."""
        total = len(self._tokenizer.tokens)
        found = [f"the result has {total} tokens in tables of {self.size} rows."]
        for one, own in zip(self._speakers, self._own, strict=True):
            lacking = int((own < 0).sum())
            assert one.tokenizer
            lost = len(one.tokenizer.tokens) - len(one.tokenizer.tokens.keys() & self._tokenizer.tokens.keys())
            if lacking or lost:
                found.append(f"{one.name} lacks {lacking} of them, and {lost} of its tokens are not in the result.")
        return found


def _own(tokenizer: Tokenizer, one: _Tokenized, *, kept: bool) -> RowNumbers:
    """For each row of the result, the row of the same token in a model; -1 if it has no such token.

    With `kept`, rows without a token, which a tokenizer may leave between others, are the model's rows of that number.
    """
    assert one.tokenizer
    own = np.where(kept & (np.arange(tokenizer.size) < one.rows), np.arange(tokenizer.size), -1)
    there: Mapping[str, int] = one.tokenizer.tokens
    numbers = np.fromiter(tokenizer.tokens.values(), np.int64, len(tokenizer.tokens))
    own[numbers] = np.fromiter((there.get(token, -1) for token in tokenizer.tokens), np.int64, len(numbers))
    return own
