"""Cases in mergekit's language: every method that its files may name, and the forms of its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polyak

from .case import Case
from .inputs import Inputs
from .method_cases import ANGLES

_WEIGHED = """
base_model: ./small-F32/base
models:
  - model: ./small-F32/m0
    parameters: {weight: 0.7}
  - model: ./small-F32/m1
    parameters: {weight: 0.4}
  - model: ./small-F32/m2
    parameters: {weight: 0.3}
"""
_DENSE = (
    _WEIGHED.replace("0.7", "0.7, density: 0.6")
    .replace("0.4", "0.4, density: 0.5")
    .replace("0.3}", "0.3, density: 0.4}")
)
_PLAIN = _WEIGHED.replace("parameters", "#")
_TWO = "\nbase_model: ./small-F32/base\nmodels: [{model: ./small-F32/base}, {model: ./small-F32/m2}]\n"
_PAIR = """
models:
  - {model: ./small-F32/m0, parameters: {weight: 0.7}}
  - {model: ./small-F32/m1, parameters: {weight: 0.4}}
"""


def _no_base(text: str) -> str:
    return text.replace("base_model: ./small-F32/base\n", "")


# From the method to files in it, by what is special about them.
FILES = {
    "linear": {"": _no_base(_WEIGHED), "base": "parameters: {normalize: false, weight: 0.5}" + _WEIGHED},
    "slerp": {"": "parameters: {t: 0.3}" + _TWO, "gradient": "parameters: {t: [0, 0.5, 1]}" + _TWO},
    "passthrough": {"": "models: [{model: ./small-F32/m1, parameters: {scale: 0.7}}]\n"},
    "task_arithmetic": {"": _WEIGHED, "lambda": "parameters: {normalize: true, lambda: 0.3}" + _WEIGHED},
    "ties": {"": _DENSE, "sum": "parameters: {normalize: false, rescale: true}" + _DENSE},
    "dare_linear": {"": _DENSE, "plain": "parameters: {rescale: false, normalize: true}" + _DENSE},
    "dare_ties": {"": _DENSE, "plain": "parameters: {rescale: false, normalize: true}" + _DENSE},
    "breadcrumbs": {"": _DENSE, "gamma": "parameters: {gamma: 0.1, rescale: true}" + _DENSE},
    "breadcrumbs_ties": {"": _DENSE, "mean": "parameters: {gamma: 0.1, normalize: true}" + _DENSE},
    "della": {"": _DENSE, "sum": "parameters: {normalize: false, epsilon: 0.1}" + _DENSE},
    "della_linear": {"": _DENSE, "plain": "parameters: {rescale: false, normalize: true}" + _DENSE},
    "sce": {"": _PLAIN, "some": "parameters: {select_topk: 0.3}" + _PLAIN},
    "nuslerp": {
        "": _PAIR,
        "base": "base_model: ./small-F32/base" + _PAIR,
        "rows": "parameters: {nuslerp_flatten: false}" + _PAIR,
    },
    "multislerp": {"": _no_base(_WEIGHED), "base": _WEIGHED},
    "karcher": {"": _no_base(_PLAIN), "base": _PLAIN},
    "arcee_fusion": {"": _TWO},
    "nearswap": {"": "parameters: {t: 0.001}" + _TWO},
    "ram": {"": _PLAIN, "epsilon": "parameters: {epsilon: 0.01}" + _PLAIN},
    "ramplus_tl": {"": _PLAIN, "epsilon": "parameters: {epsilon: 0.01, r: 0.5}" + _PLAIN},
    "model_stock": {"": _PLAIN, "rows": "parameters: {filter_wise: true}" + _PLAIN},
}  # fmt: skip

_FIRST = """
base_model: ./small-F32/base
models:
  - model: ./small-F32/m0
    parameters: {weight: %s}
  - model: ./small-F32/m1
    parameters: {weight: 0.3}
"""
FORMS = {
    "gradient": _FIRST % "[0.2, 1.0]",
    "filters": _FIRST % "[{filter: mlp, value: 0.9}, {filter: self_attn, value: [0.1, 0.5]}, {value: 0.2}]",
    "dtype": "dtype: bfloat16" + _FIRST % "0.5",
    "out_dtype": "dtype: float32\nout_dtype: float16" + _FIRST % "0.5",
    "slices": "base_model: ./small-F32/base\nslices:\n"
    "  - sources:\n"
    "      - {model: ./small-F32/base, layer_range: [0, 2]}\n"
    "      - {model: ./small-F32/m0, layer_range: [0, 2], parameters: {weight: 0.4}}\n"
    "  - sources:\n"
    "      - {model: ./small-F32/base, layer_range: [1, 3]}\n"
    "      - {model: ./small-F32/m1, layer_range: [1, 3], parameters: {weight: 0.6}}\n",
}


def mergekit_cases() -> Iterator[Case]:
    for method, files in FILES.items():
        for label, text in files.items():
            name = f"mergekit/{method}" + (f"/{label}" if label else "")
            yield Case(name, partial(_merge, f"merge_method: {method}\n{text}"), method not in ANGLES)
    for label, text in FORMS.items():
        yield Case(f"mergekit/form/{label}", partial(_merge, f"merge_method: task_arithmetic\n{text}"))


def _merge(text: str, inputs: Inputs, out: Path) -> None:
    inputs.family()
    path = inputs.root / "mergekit.yaml"
    path.write_text(text, encoding="utf-8")
    polyak.merge(path, out, workers=1)
