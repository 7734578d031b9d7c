"""Remedies of errors, in the words of the file or command at hand.

Who raises an error names remedies; the door through which the user came decides the words: a recipe of polyak's names
its keys, a file of mergekit's has other keys, and a command has options. `at` is that door; `models` are those of a
command without a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Literal, TypeAlias

Door: TypeAlias = Literal["recipe", "mergekit", "models", "extract", "bake"]


class Remedy(Enum):
    """A change that a user can make."""

    VOCABULARY = auto()
    HEADS = auto()
    CLASSES = auto()
    SIZES = auto()
    SKIP = auto()
    SKIP_INTEGERS = auto()
    PREFIX = auto()
    NAME = auto()
    BASE = auto()
    BUFFERS = auto()
    FINITE = auto()
    STACK = auto()
    REST = auto()
    OUTSIDE = auto()
    ORDER_TOKENS = auto()
    OWN_ROWS = auto()
    KEEP_TABLES = auto()
    LORA = auto()
    KEY = auto()
    STATISTICS = auto()
    WIDER = auto()


_SIZES = "Layers of different sizes do not merge: use models of one architecture and size."
_NATIVE = "A recipe in polyak's own form can do more; see docs/coming-from-mergekit.md."
_WORDS: Mapping[Door, Mapping[Remedy, str]] = {
    "recipe": {
        Remedy.VOCABULARY: "Different vocabularies are brought together by `vocabulary: union`.",
        Remedy.CLASSES: "Heads of different classes are kept with their models by `heads: REGEX`.",
        Remedy.SIZES: _SIZES,
        Remedy.HEADS: "`heads: REGEX` keeps task heads with their model.",
        Remedy.SKIP: "`skip: REGEX` keeps the base's tensor or leaves it out.",
        Remedy.SKIP_INTEGERS: "Integers do not merge with floats: `skip: REGEX` keeps the base's tensor.",
        Remedy.PREFIX: "`strip_prefix:` and `add_prefix:` on a model change its names.",
        Remedy.NAME: "Give one of them another `name:`.",
        Remedy.BASE: "Give `base:`.",
        Remedy.BUFFERS: "Say which to take, `buffers: first` or `buffers: last`, or give a `base:`.",
        Remedy.FINITE: "Leave that model out, or `skip:` the tensor.",
        Remedy.STACK: "Name one by `stack:`, or use `modules:`.",
        Remedy.REST: "End the list with `match: '.*'`.",
        Remedy.OUTSIDE: "Give it a rule of its own, or the gradient a value `outside:`.",
        Remedy.ORDER_TOKENS: "`vocabulary: union` or `vocabulary: base` puts the rows in order; `vocabulary: keep` "
        "merges them as they are.",
        Remedy.KEEP_TABLES: "Merge models that share a tokenizer, or keep the tables of one model: `vocabulary: skip`.",
        Remedy.OWN_ROWS: "`vocabulary: union` keeps each token with its own row.",
        Remedy.LORA: "Name its base as `path:` and the adapter as `lora:`, or bake it first: polyak lora bake.",
        Remedy.KEY: "Choose one by `key:` (\"\" is the outermost mapping).",
        Remedy.STATISTICS: "Name the file at each model: `statistics: {NAME: PATH}`.",
        Remedy.WIDER: "Write a wider `dtype:`, or look at weights and scale.",
    },
    "mergekit": {
        Remedy.VOCABULARY: "Different vocabularies are brought together by `tokenizer: {source: union}`.",
        Remedy.CLASSES: f"Models of different tasks are merged without their heads. {_NATIVE}",
        Remedy.SIZES: _SIZES,
        Remedy.HEADS: f"Merge models of one architecture. {_NATIVE}",
        Remedy.SKIP_INTEGERS: "Integers do not merge with floats.",
        Remedy.NAME: "Remove one of them.",
        Remedy.BASE: "Give `base_model:`.",
        Remedy.BUFFERS: "Give a `base_model:`, whose values are taken.",
        Remedy.FINITE: "Leave that model out.",
        Remedy.STACK: "Name the parts by `modules:`.",
        Remedy.REST: "Add to `modules:` the one that has them, such as text_decoder.",
        Remedy.OUTSIDE: "Add an entry without a `filter:`, as `[{filter: mlp, value: [0, 1]}, {value: 1}]`.",
        Remedy.ORDER_TOKENS: "`tokenizer: {source: union}` or `tokenizer: {source: base}` puts the rows in order.",
        Remedy.KEEP_TABLES: "Merge models that share a tokenizer.",
        Remedy.OWN_ROWS: "`tokenizer: {source: union}` keeps each token with its own row.",
        Remedy.LORA: "Write it behind its base, `BASE+ADAPTER`, or bake it first: polyak lora bake.",
        Remedy.WIDER: "Write a wider `dtype:`, or look at weights and scale.",
    },
    "models": {
        Remedy.BASE: "Give --base.",
        Remedy.BUFFERS: "Give a --base, whose values are taken.",
        Remedy.FINITE: "Leave that model out.",
        Remedy.LORA: "Bake it into its base first: polyak lora bake.",
        Remedy.SIZES: _SIZES,
    },
    "extract": {
        Remedy.CLASSES: "Heads that only the fine-tune has are kept whole; layers must have the same shapes.",
        Remedy.SIZES: _SIZES,
        Remedy.HEADS: "Compare a fine-tune with the model that it was trained from.",
        Remedy.LORA: "Name the full model, or bake the adapter first: polyak lora bake.",
        Remedy.FINITE: "Repair or train that model again.",
    },
    "bake": {
        Remedy.HEADS: "Name the model that the adapter was trained on.",
        Remedy.FINITE: "Repair that model or adapter first.",
        Remedy.WIDER: "Write a wider --dtype.",
        Remedy.LORA: "Name the full model as BASE, or bake that adapter into its own base first.",
    },
}  # fmt: skip


def worded(remedies: Iterable[Remedy], at: Door) -> str:
    """The remedies that exist at a door, as sentences."""
    distinct = list(dict.fromkeys(remedies))
    words = [_WORDS[at][remedy] for remedy in distinct if remedy in _WORDS[at]]
    more = [_WORDS["recipe"][remedy] for remedy in distinct if remedy not in _WORDS[at]] if at == "models" else []
    return " ".join([*words, *(["In a recipe file:", *more] if more else [])])
