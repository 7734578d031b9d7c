"""The blocks `vocabulary` of recipes: which tokens the result has, and where their rows come from."""

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
        token: Whose row it is there (default: the same token's).
        token_id: Or which row, by its number.
        force: Also in models that have the token.
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
        rows: Instead, by the number of rows alone: `intersect` cuts tables to the shortest, `pad` fills them up to the
            longest with the base's rows, `skip` keeps those of the base or first model, `keep` merges tables of one
            length although their tokens are ordered differently.
        tokens: Tokens whose rows are chosen; those that are in no tokenizer are added.
        pad_to_multiple_of: Rows are added until their number can be divided by this; they hold the mean.
    """

    source: str | None = None
    rows: Literal["intersect", "pad", "skip", "keep"] | None = None
    tokens: Mapping[str, Token] = field(default_factory=lambda: MappingProxyType({}))
    pad_to_multiple_of: int | None = None


def read_vocabulary(value: object, place: Place) -> Vocabulary:
    """Read a block, or one word for it: a source, or what to do with rows.

    Raises:
        RecipeError: it says both, or neither, or something else.
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
        raise place.wanted("given either `source:` or `rows:`", "both" if rows else "neither")
    if rows and (tokens or multiple):
        what = "tokens" if tokens else "pad_to_multiple_of"
        raise (place / what).error("has no effect beside rows", "Give a `source:` instead.")
    return Vocabulary(source, cast("Any", rows), tokens, multiple)


def plain_vocabulary(vocabulary: Vocabulary | None) -> Any:
    """The data that reads as this block."""
    if vocabulary is None:
        return None
    tokens = {content: _plain_token(token) for content, token in vocabulary.tokens.items()}
    said = {"source": vocabulary.source, "rows": vocabulary.rows, "tokens": tokens}
    data = {**said, "pad_to_multiple_of": vocabulary.pad_to_multiple_of}
    return {key: value for key, value in data.items() if value}


def _plain_token(token: Token) -> dict[str, Any]:
    data = {"source": token.source, "token": token.token, "token_id": token.token_id, "force": token.force or None}
    return {key: value for key, value in data.items() if value is not None}


def _read_tokens(value: object, place: Place) -> Mapping[str, Token]:
    return MappingProxyType(
        {content: _read_token(one, place / content) for content, one in mapping(value, place).items()}
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
        return "has both `token` and `token_id`, of which only one can be meant"
    if token.source == "zero" and (token.token is not None or token.token_id is not None):
        return "is zero, which has no token of its own"
    return None


def _positive(value: object, place: Place) -> int:
    found = integer(value, place)
    if not 1 <= found <= 2**20:
        raise place.wanted("a whole number from 1 to 2^20", value)
    return found


def checked(vocabulary: Vocabulary | None, names: set[str], place: Place) -> None:
    """Refuse a block that speaks of models that the recipe does not have.

    Raises:
        RecipeError: with the names that there are.
    """
    if vocabulary is None:
        return
    said = [(place / "source", vocabulary.source, names | {"union"})]
    for content, token in vocabulary.tokens.items():
        said.append((place / "tokens" / content / "source", token.source, names | {"zero"}))
    for where, source, known in said:
        if source is not None and source not in known:
            raise where.error(f"is {source!r}, which is no model of this recipe", suggestion(source, known))
