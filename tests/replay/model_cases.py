"""Cases for what recipes can say beside the method: dtypes, shards, rules, nesting, layers, masks, vocabularies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, merge, recipe_of
from .inputs import (
    DTYPES,
    MODELS,
    SMALL,
    VOCABULARY,
    WIDTH,
    Inputs,
    family,
    noise,
    write_model,
    write_tokenizer,
)

OUTPUTS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
KINDS_OF_FLOAT = ("F64", "F32", "F16", "BF16")


def model_cases() -> Iterator[Case]:
    yield from _dtype_cases()
    yield from _layout_cases()
    yield from (Case(f"recipe/{name}", partial(_merge_text, more)) for name, more in RECIPES.items())
    yield from (Case(f"layers/{name}", partial(_merge_plain, recipe)) for name, recipe in LAYERED.items())
    yield from (Case(f"vocabulary/{name}", partial(_merge_speakers, more)) for name, more in VOCABULARIES.items())
    yield from (Case(f"buffers/{name}", partial(_merge_buffers, more)) for name, more in BUFFERS.items())


def _dtype_cases() -> Iterator[Case]:
    for dtype in OUTPUTS:
        for method in ("linear", "ties"):
            more = {"dtype": dtype, "settings": {"weight": 0.7}}
            yield Case(f"dtype/F32-to-{dtype}/{method}", partial(_merge_family, "small", "F32", method, more))
    for method in ("linear", "ties", "dare_ties", "emr"):
        yield Case(f"dtype/mixed/{method}", partial(_merge_mixed, method), quick=method == "ties")
    yield Case("dtype/F8_E5M2/ties", partial(_merge_family, "small", "F8_E5M2", "ties", {}))


def _layout_cases() -> Iterator[Case]:
    for method in ("linear", "ties", "dare_linear", "emr"):
        for workers in (1, 2):
            options = {"workers": workers, "shard_nbytes": 9_000}
            merged = partial(_merge_family, "small", "F32", method, {}, **options)
            yield Case(f"layout/shards/{method}/{workers}", merged)
    for method, dtype in {"linear": "F32", "ties": "BF16", "dare_linear": "F32", "emr": "BF16"}.items():
        tiny = partial(_merge_family, "tiny", dtype, method, {}, workers=2)
        yield Case(f"layout/thousands-of-tiny-tensors/{method}/{dtype}", tiny, quick=False)
    sharded = partial(_merge_family, "large", "F32", "ties", {}, workers=2, shard_nbytes=2_000_000)
    yield Case("layout/large-shards", sharded, quick=False)
    yield Case("layout/sha256", partial(_merge_family, "small", "F32", "ties", {}, digest="sha256"))


def _merge_family(
    kind: str, dtype: str, method: str, more: Mapping[str, Any], inputs: Inputs, out: Path, **options: Any
) -> None:
    merge(inputs, recipe_of(inputs.family(kind, dtype), method, **more), out, **options)


def _merge_text(more: Mapping[str, Any], inputs: Inputs, out: Path) -> None:
    folder = inputs.family()
    recipe = {"base": f"./{folder}/base", "models": [f"./{folder}/{name}" for name in MODELS]}
    merge(inputs, {key: value for key, value in {**recipe, **more}.items() if value is not None}, out, workers=2)


def _merge_plain(recipe: Mapping[str, Any], inputs: Inputs, out: Path) -> None:
    inputs.family()
    merge(inputs, recipe, out)


def _merge_mixed(method: str, inputs: Inputs, out: Path) -> None:
    """Models of different dtypes, and of a different dtype for each tensor."""

    def write(folder: Path) -> None:
        for i, (model, tensors) in enumerate(family(SMALL).items()):
            kinds = [DTYPES[KINDS_OF_FLOAT[(i + j) % 4]] for j in range(len(tensors))]
            mixed = {name: tensor.astype(kind) for (name, tensor), kind in zip(tensors.items(), kinds, strict=True)}
            write_model(folder / model, mixed)

    merge(inputs, recipe_of(inputs.folder("mixed", write), method), out, workers=2)


def _model(model: str, **more: Any) -> dict[str, Any]:
    return {"path": f"./small-F32/{model}", **more}


_INNER = {"base": "./small-F32/base", "models": ["./small-F32/m0", "./small-F32/m1"]}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "rules": {
        "method": "ties",
        "rules": [
            {"match": "embed|lm_head", "method": "linear", "settings": {"weight": 0.5}},
            {"match": "mlp", "layers": [0, 2], "settings": {"density": 0.5}, "models": {"m1": {"weight": 0.3}}},
            {"match": "qkv", "method": "dare_ties"},
        ],
    },
    "weights-and-gradients": {
        "models": [
            _model("m0", weight={"gradient": [0.2, 0.8, 0.4], "outside": 0.5}),
            _model("m1", weight={"cases": [{"match": "mlp", "value": 0.9}, {"match": ".*", "value": 0.1}]}),
            _model("m2", weight=-0.3),
        ],
        "method": "task_arithmetic",
        "settings": {"scale": {"lines": {"alpha": 0.2, "beta": 0.8}}},
    },
    "gradient-of-density": {"method": "ties", "settings": {"density": {"gradient": [0.1, 0.9], "outside": 0.4}}},
    "skip-and-heads": {"method": "linear", "skip": r"model\.norm", "heads": "lm_head"},
    "heads-and-masks": {"method": "emr", "heads": "lm_head", "rules": [{"match": "embed", "method": "linear"}]},
    "masks-of-bfloat16": {"method": "tall_masks", "dtype": "bfloat16"},
    "other-seed": {"method": "dare_linear", "seed": 123456789},
    "names-of-models": {"models": [_model("m0", name="b"), _model("m1", name="a")], "method": "dare_ties", "seed": 3},
    "not-normalised": {"method": "linear", "settings": {"normalize": False, "weight": [0.5, 0.25, 0.1]}},
    "one-model": {"models": [_model("m0")], "method": "ties"},
    "provenance": {"method": "linear", "provenance": {"objective": "accuracy", "steps": [1, 2.5, None]}},
    "nested": {
        "models": [{"name": "inner", "recipe": {**_INNER, "method": "ties"}}, _model("m2")],
        "method": "task_arithmetic",
    },
    "nested-twice": {
        "models": [
            {
                "name": "outer",
                "recipe": {
                    "base": "./small-F32/base",
                    "models": [{"name": "inner", "recipe": {**_INNER, "method": "dare_ties"}}, _model("m2")],
                    "method": "ties",
                    "settings": {"granularity": "model"},
                },
            }
        ],
        "method": "wise_ft",
    },
    "nested-lines": {
        "models": [{"name": "inner", "recipe": {**_INNER, "method": "task_arithmetic"}}, _model("m0"), _model("m1")],
        "method": "lines",
        "settings": {"beta": {"gradient": [0, 0.5], "outside": 0}},
    },
}
LAYERED: Mapping[str, Mapping[str, Any]] = {
    "fewer": {"method": "passthrough", "models": [_model("m0", layers=[1, 3])]},
    "stacked": {
        "method": "passthrough",
        "slices": [{"models": [_model("m0", layers=[0, 2])]}, {"models": [_model("m1", layers=[1, 3])]}],
    },
    "repeated-and-merged": {
        "method": "passthrough",
        "slices": [
            {"models": [_model("m0", layers=[2, 3])]},
            {
                "models": [
                    _model("m0", layers=[0, 3], weight={"gradient": [1, 0], "outside": 0.5}),
                    _model("m1", layers=[0, 3], weight={"gradient": [0, 1], "outside": 0.5}),
                ],
                "method": "linear",
            },
            {"models": [_model("m2", layers=[0, 1])], "settings": {"scale": 0.5}},
        ],
    },
    "modules": {
        "method": "linear",
        "base": "./small-F32/base",
        "modules": [
            {"match": "self_attn", "models": [_model("m0")], "method": "passthrough"},
            {"match": "mlp", "models": [_model("m0"), _model("m1")], "method": "ties"},
            {"match": ".*", "models": [_model("m1"), _model("m2")]},
        ],
    },
}

_TOKENS = {"base": "s one two three", "m0": "s two one three four", "m1": "s one two five <b> four"}
VOCABULARIES: Mapping[str, Mapping[str, Any]] = {
    "union": {"vocabulary": "union"},
    "union-ties": {"vocabulary": "union", "method": "ties"},
    "of-base": {"vocabulary": "base"},
    "of-a-model": {"vocabulary": "m1"},
    "intersect": {"vocabulary": {"rows": "intersect"}},
    "pad": {"vocabulary": {"rows": "pad"}},
    "skip": {"vocabulary": {"rows": "skip"}},
    "tokens": {
        "vocabulary": {
            "source": "base",
            "pad_to_multiple_of": 8,
            "tokens": {
                "three": "zero",
                "five": "m1",
                "<new>": {"source": "m0", "token": "four"},
                "<other>": {"source": "base", "token_id": 2},
                "one": {"source": "m1", "force": True},
            },
        }
    },
    "chat-template": {"vocabulary": "union", "chat_template": "chatml"},
}


def _merge_speakers(more: Mapping[str, Any], inputs: Inputs, out: Path) -> None:
    """Models that have other tokens in other orders."""

    def write(folder: Path) -> None:
        body = family({"layers.0.w": (9, WIDTH)}, models=2)
        for i, (model, text) in enumerate(_TOKENS.items()):
            tokens, rng = text.split(), np.random.default_rng([23, i])
            table = noise(rng, (len(tokens), WIDTH)).astype(np.float32)
            tables = {"embed_tokens.weight": table, "lm_head.weight": table * np.float32(0.5)}
            write_model(folder / model, tables | body[model], vocab_size=len(tokens), num_hidden_layers=1)
            write_tokenizer(folder / model, tokens, [token for token in tokens if token == "<b>"])

    folder = inputs.folder("speakers", write)
    merge(inputs, recipe_of(folder, "linear", models=2) | dict(more), out)


BUFFERS: Mapping[str, Mapping[str, Any]] = {
    "of-base": {},
    "first": {"base": None, "buffers": "first"},
    "last": {"base": None, "buffers": "last"},
}


def _merge_buffers(more: Mapping[str, Any], inputs: Inputs, out: Path) -> None:
    """Integers, booleans and tensors that only some models would round."""

    def write(folder: Path) -> None:
        shapes = {"w": (5, 7), "embed.weight": (VOCABULARY, 3)}
        for i, (model, tensors) in enumerate(family(shapes).items()):
            buffers = {"steps": np.array(i), "ids": np.arange(6, dtype=np.int32) + i, "bits": np.arange(5) % 2 == i % 2}
            write_model(folder / model, tensors | buffers | {"bytes": np.full(3, i, np.uint8)})

    recipe = recipe_of(inputs.folder("buffers", write), "linear") | dict(more)
    merge(inputs, {key: value for key, value in recipe.items() if value is not None}, out)
