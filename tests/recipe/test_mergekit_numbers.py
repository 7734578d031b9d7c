"""mergekit's files give mergekit's numbers.

mergekit_numbers.json holds recipes and what mergekit 0.1.5 (its own resolution of parameters, its own methods, float32)
makes of the tensors below: entries 3 to 6 of some of them. Random methods are compared where they drop nothing.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from polyak import methods
from polyak.planning.resolve import Treatment
from polyak.recipe import loads

methods.load_all()

MODELS = ["o/base", "o/a", "o/b", "o/c", "o/x"]
LAYERS = [
    f"model.layers.{i}.{k}.weight" for i in range(4) for k in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
]
NAMES = ["model.embed_tokens.weight", *LAYERS, "lm_head.weight"]
CASES = json.loads((Path(__file__).parent / "mergekit_numbers.json").read_text())


def tensor(source, name):
    model, number = MODELS.index(source.path.removeprefix("hf://")), NAMES.index(name)
    shape = (12,) if "norm" in name else (3, 8)
    i = np.arange(np.prod(shape))
    base, own = np.sin(1.7 * i + number), np.sin(0.3 * (i + 1) * (model + 2) + 0.9 * number + model)
    distance = [0, 0.1, 0.1, 0.1, 1][model]
    return (base + distance * own).astype(np.float32).reshape(shape)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_numbers_are_mergekits(case):
    recipe = loads(case["recipe"])
    treatment = Treatment(recipe, NAMES)
    for name, wanted in case["merged"].items():
        _, method, settings = treatment.of(name)
        stack = np.stack([tensor(model.source, name) for model in recipe.models])
        base = tensor(recipe.base, name) if recipe.base and method.uses_base else None
        merged = method(stack, base, **settings)
        np.testing.assert_allclose(merged.ravel()[3:7], wanted, rtol=2e-6, atol=2e-7, err_msg=name)
