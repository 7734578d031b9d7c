"""The key `vocabulary` of recipes: the tokens of the result, and the sources of their embedding rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, cast

from ..errors import suggestion
from ..reading import Place, Table, boolean, integer, mapping, one_of, text

ROWS = ("intersect", "pad", "skip", "keep")


@dataclass(frozen=True)
class Token:
    """Source of a token's embedding row for models that lack the token.

    Attributes:
        source: A model by name, `base`, or `zero`.
        token: The token there whose row is taken (default: the same token).
        token_id: Instead of `token`, the number of the row there.
        force: Take the row for all models, including those that have the token.
    """

    source: str
    token: str | None = None
    token_id: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of the merged model, and the alignment of embedding tables of models with other tokens.

    Attributes:
        source: The tokens of the result: `union`, `base`, or those of a model by name.
        rows: Instead of `source`, align by row numbers alone: `intersect` cuts tables to the shortest, `pad` extends
            them to the longest with the base's rows, `skip` copies those of the base or first model, `keep` merges
            tables of equal length although their tokens are ordered differently.
        tokens: Tokens with a chosen source of their rows; those that no tokenizer has are added.
        pad_to_multiple_of: Number of which the number of rows becomes a multiple; the added rows hold the mean.
    """

    source: str | None = None
    rows: Literal["intersect", "pad", "skip", "keep"] | None = None
    tokens: Mapping[str, Token] = field(default_factory=lambda: MappingProxyType({}))
    pad_to_multiple_of: int | None = None


def read_vocabulary(value: object, place: Place) -> Vocabulary:
    """Read the mapping, or a word that stands for `source` or `rows` alone.

    Raises:
        RecipeError: it has both `source` and `rows`, or neither, or an invalid value.
    """
    if isinstance(value, str):
        return Vocabulary(rows=cast("Any", value)) if value in ROWS else Vocabulary(source=text(value, place))
    table = Table(value, place)
    rows = table.take("rows", one_of(ROWS), None)
    source = table.take("source", text, None)
    tokens = table.take("tokens", _read_tokens, MappingProxyType({}))
    multiple = table.take("pad_to_multiple_of", _positive, None)
    table.finish()
    if (rows is None) is (source is None):
        raise place.expected("given either `source:` or `rows:`", "both" if rows else "neither")
    if rows and (tokens or multiple):
        key = "tokens" if tokens else "pad_to_multiple_of"
        raise (place / key).error("has no effect together with rows", "Give a `source:` instead.")
    return Vocabulary(source, cast("Any", rows), tokens, multiple)


def plain_vocabulary(vocabulary: Vocabulary | None) -> Any:
    """Data from which `read_vocabulary` reads the same vocabulary."""
    if vocabulary is None:
        return None
    tokens = {content: _plain_token(token) for content, token in vocabulary.tokens.items()}
    without_padding = {"source": vocabulary.source, "rows": vocabulary.rows, "tokens": tokens}
    data = {**without_padding, "pad_to_multiple_of": vocabulary.pad_to_multiple_of}
    return {key: value for key, value in data.items() if value}


def _plain_token(token: Token) -> dict[str, Any]:
    data = {"source": token.source, "token": token.token, "token_id": token.token_id, "force": token.force or None}
    return {key: value for key, value in data.items() if value is not None}


def _read_tokens(value: object, place: Place) -> Mapping[str, Token]:
    return MappingProxyType(
        {content: _read_token(source, place / content) for content, source in mapping(value, place).items()}
    )


def _read_token(value: object, place: Place) -> Token:
    if isinstance(value, str):
        return Token(text(value, place))
    table = Table(value, place)
    token = Token(
        table.take("source", text),
        table.take("token", text, None),
        table.take("token_id", integer, None),
        force=table.take("force", boolean, False),
    )
    table.finish()
    if problem := _problem(token):
        raise place.error(problem)
    return token


def _problem(token: Token) -> str | None:
    if token.token is not None and token.token_id is not None:
        return "has both `token` and `token_id`; give only one"
    if token.source == "zero" and (token.token is not None or token.token_id is not None):
        return "is zero, which has no tokens"
    return None


def _positive(value: object, place: Place) -> int:
    count = integer(value, place)
    if not 1 <= count <= 2**20:
        raise place.expected("an integer from 1 to 2^20", value)
    return count


def checked(vocabulary: Vocabulary | None, names: set[str], place: Place) -> None:
    """Refuse sources that are not models of the recipe.

    Raises:
        RecipeError: with a suggestion of the likely name.
    """
    if vocabulary is None:
        return
    sources = [(place / "source", vocabulary.source, names | {"union"})]
    for content, token in vocabulary.tokens.items():
        sources.append((place / "tokens" / content / "source", token.source, names | {"zero"}))
    for where, source, allowed in sources:
        if source is not None and source not in allowed:
            raise where.error(f"is {source!r}, which is not a model of this recipe", suggestion(source, allowed))
