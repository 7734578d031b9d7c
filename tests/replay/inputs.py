"""The models that are merged: small folders on disk, made from fixed seeds by exact arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Tensors = dict[str, np.ndarray]
DTYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(kind): name for name, kind in DTYPES.items()}
MODELS = ("m0", "m1", "m2")
WIDTH, VOCABULARY, LAYERS = 16, 50, 3

_LAYER = {
    "self_attn.qkv.weight": (3 * WIDTH, WIDTH),
    "mlp.up.weight": (24, WIDTH),
    "mlp.down.weight": (WIDTH, 24),
    "conv.weight": (6, 4, 3, 3),
    "norm.weight": (WIDTH,),
    "norm.bias": (7,),
}
SMALL = {
    "model.embed_tokens.weight": (VOCABULARY, WIDTH),
    **{f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in _LAYER.items()},
    "model.norm.weight": (WIDTH,),
    "lm_head.weight": (VOCABULARY, WIDTH),
    "scale": (),
    "nothing": (0, 4),
}
ODD = {"layers.0.a": (1,), "layers.0.b": (3, 1, 5), "layers.1.a": (1, 1), "layers.1.b": (127, 3), "c": (65_537,)}
LARGE = {"layers.0.flat": (1_100_003,), "layers.1.matrix": (601, 503), "layers.1.wide": (3, 150_001)}
HUGE = {"layers.0.flat": (4_300_003,), "layers.1.matrix": (1100, 1000)}
TINY = {f"layers.{i}.{j}": (1 + (7 * i + j) % 19,) for i in range(40) for j in range(60)}
SHAPES = {"small": SMALL, "odd": ODD, "large": LARGE, "huge": HUGE, "tiny": TINY}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def write_json(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file, the widest dtypes first."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    start = 0
    for name, tensor in ordered:
        entry = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = {**entry, "data_offsets": [start, start + tensor.nbytes]}
        start += tensor.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join([len(head).to_bytes(8, "little"), head, *(tensor.tobytes() for _, tensor in ordered)]))
    return path


def write_model(folder: Path, tensors: Tensors, **config: object) -> Path:
    write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", CONFIG | config)
    return folder


def write_tokenizer(folder: Path, tokens: Sequence[str], added: Sequence[str] = ()) -> None:
    """A tokenizer of whole words; `added` are those of the tokens that were added later."""
    vocabulary = {token: i for i, token in enumerate(tokens) if token not in added}
    data = {
        "version": "1.0",
        "added_tokens": [{"id": tokens.index(token), "content": token, "special": True} for token in added],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": tokens[0]},
    }
    write_json(folder / "tokenizer.json", data)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def noise(rng: np.random.Generator, shape: Iterable[int]) -> np.ndarray:
    """Triangular noise in (-1, 1), multiples of 2^-15: no function that processors or libraries compute differently."""
    shape = tuple(shape)
    return (rng.integers(-(2**14), 2**14, shape) + rng.integers(-(2**14), 2**14, shape)) / 2.0**15


def family(
    shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32", seed: int = 0, models: int = 3
) -> dict[str, Tensors]:
    """A base and fine-tunes of it.

    A quarter of each fine-tune's entries did not move, and every other tensor moved in steps of 2^-7, so that there
    are zeros and equal magnitudes.
    """
    rng = np.random.default_rng([seed, len(shapes)])
    base = {name: noise(rng, shape) for name, shape in shapes.items()}
    made = {"base": base}
    for i in range(models):
        made[f"m{i}"] = {
            name: tensor + _moved(rng, tensor.shape, j % 2) for j, (name, tensor) in enumerate(base.items())
        }
    return {
        name: {n: np.asarray(t).astype(DTYPES[dtype]) for n, t in tensors.items()} for name, tensors in made.items()
    }


def _moved(rng: np.random.Generator, shape: tuple[int, ...], coarse: int) -> np.ndarray:
    delta = noise(rng, shape) / 8
    if coarse:
        delta = np.round(delta * 128) / 128
    return np.where(rng.integers(0, 4, shape) > 0, delta, 0.0)


def statistics(kind: str, shapes: Mapping[str, tuple[int, ...]], *, inputs_first: bool = False) -> dict[str, Tensors]:
    """What was measured of each model, of every tensor but the norms and the tokens' tables."""
    made: dict[str, Tensors] = {}
    for i, model in enumerate(MODELS):
        rng = np.random.default_rng([17, i])
        measured = {
            name: _statistic(kind, shape, rng, inputs_first) for name, shape in shapes.items() if _is_measured(name)
        }
        made[model] = {name: tensor for name, tensor in measured.items() if tensor is not None}
    return made


def _is_measured(name: str) -> bool:
    return not any(part in name for part in ("norm", "embed", "head", "scale", "nothing"))


def _statistic(kind: str, shape: tuple[int, ...], rng: np.random.Generator, inputs_first: bool) -> np.ndarray | None:
    if kind == "fisher":
        return (noise(rng, shape) ** 2).astype(np.float32)
    if len(shape) < 2:
        return None
    side = shape[0] if inputs_first else math.prod(shape[1:])
    half = np.round(noise(rng, (side, side)) * 256) / 256  # products of 17 bits: any order of summing gives one sum
    return (half @ half.T / side).astype(np.float32)


class Inputs:
    """The folders that cases merge, each written when it is first asked for, below the working folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._written: set[str] = set()

    def family(self, kind: str = "small", dtype: str = "F32") -> str:
        """The folder that holds `base`, `m0`, `m1` and `m2`."""
        folder = f"{kind}-{dtype}"
        if self._is_new(folder):
            for name, tensors in family(SHAPES[kind], dtype).items():
                write_model(self.root / folder / name, tensors)
        return folder

    def statistics(self, kind: str, *, inputs_first: bool = False) -> str:
        """The folder with a file of statistics for each of the small models."""
        folder = f"{kind}-{'in_out' if inputs_first else 'out_in'}"
        if self._is_new(folder):
            for model, tensors in statistics(kind, SMALL, inputs_first=inputs_first).items():
                write_tensors(self.root / folder / f"{model}.safetensors", tensors, {"polyak.statistic": kind})
        return folder

    def folder(self, name: str, write: Any) -> str:
        """A folder that `write(path)` fills."""
        if self._is_new(name):
            write(self.root / name)
        return name

    def _is_new(self, folder: str) -> bool:
        new = folder not in self._written
        self._written.add(folder)
        return new
