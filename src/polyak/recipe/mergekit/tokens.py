"""Reader of mergekit's `tokenizer_source` and `tokenizer`: the vocabulary of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ...reading import Place, Table, integer, mapping, text
from .._scope import Scope
from .._vocabulary import Token, Vocabulary
from .methods import flag
from .models import Reference, read_reference, without_nulls


class VocabularyReader:
    """Reads the vocabulary of the result, whose sources are models of the file."""

    def __init__(
        self, scope: Scope, base: Reference | None, mentioned: Sequence[Reference], called: Mapping[str, str]
    ) -> None:
        self._scope, self._base, self._mentioned, self._called = scope, base, mentioned, called

    def vocabulary(self, table: Table) -> Vocabulary | None:
        """The vocabulary of a file, or None if it has neither key."""
        if "tokenizer" in table and "tokenizer_source" in table:
            raise table.place.expected("given one of tokenizer and tokenizer_source", "both")
        source = table.take("tokenizer_source", self._source, None)
        vocabulary = table.take("tokenizer", self._block, None)
        return Vocabulary(source) if source else vocabulary

    def _block(self, value: object, place: Place) -> Vocabulary:
        table = Table(without_nulls(value), place)
        vocabulary = Vocabulary(
            source=table.take("source", self._source, "union"),
            tokens=table.take("tokens", self._tokens, MappingProxyType({})),
            pad_to_multiple_of=table.take("pad_to_multiple_of", integer, None) or None,
        )
        table.finish()
        return vocabulary

    def _source(self, value: object, place: Place) -> str:
        if value == "union":
            return "union"
        if value == "base":
            if self._base is None:
                raise place.error("is 'base', but there is no base_model")
            return "base"
        return self._name(value, place)

    def _name(self, value: object, place: Place) -> str:
        """The name in the recipe of a model that the file refers to."""
        reference = read_reference(value, place, self._scope)
        if self._base is not None and reference.source == self._base.source:
            return "base"
        for mentioned in self._mentioned:
            if reference.source == mentioned.source:
                return self._called[mentioned.written]
        raise place.error(f"is {reference.written!r}, which is not a model of this merge")

    def _tokens(self, value: object, place: Place) -> Mapping[str, Token]:
        tokens = {content: self._token(token, place / content) for content, token in mapping(value, place).items()}
        return MappingProxyType(tokens)

    def _token(self, value: object, place: Place) -> Token:
        table = Table(without_nulls(value), place)
        source = table.take("source", self._row)
        force = table.take("force", flag, False)
        table.finish()
        return Token(*source, force=bool(force))

    def _row(self, value: object, place: Place) -> tuple[str, str | None, int | None]:
        """A model, or {kind: zero}, or {kind: model_token, model, token or token_id}."""
        if not (isinstance(value, Mapping) and "kind" in value):
            return self._name(value, place), None, None
        table = Table(without_nulls(value), place)
        kind = table.take("kind", text)
        if kind not in ("zero", "model_token"):
            raise (place / "kind").expected("zero or model_token", kind)
        row: tuple[str, str | None, int | None] = ("zero", None, None)
        if kind == "model_token":
            model, token = table.take("model", self._name), table.take("token", text, None)
            number = table.take("token_id", integer, None)
            if (token is None) is (number is None):
                raise place.expected("given either token or token_id", "neither" if token is None else "both")
            row = model, token, number
        table.finish()
        return row
