"""Models whose tensors are the codes, scales or tables of a quantiser, recognised by maker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import UnsupportedFormat
from ._api import Checkpoint, TensorSpec
from ._foreign import Foreign


@dataclass(frozen=True)
class _Maker(Foreign):
    """A quantiser.

    Attributes:
        method: Pattern for `quant_method` in config.json, in any case.
    """

    method: str


_LOAD = "AutoModelForCausalLM.from_pretrained(folder"
_ORIGINAL = "merge the models from which it was made, and quantise the result"


_START = r"(?:^|\.)"  # of one of the parts of a name


def _maker(name: str, names: str, method: str, remedy: str) -> _Maker:
    return _Maker(name, rf"{_START}{names}$", remedy, method)


_MAKERS = (
    _maker("bitsandbytes", r"(?:SCB|CB|absmax|nested_absmax|quant_map|quant_state\..+)", "bitsandbytes|bnb",
           f"{_LOAD}).dequantize() in transformers"),
    _maker("EXL2 or EXL3", r"(?:q_scale_max|q_groups|q_invperm|trellis|suh|svh)", "exl", _ORIGINAL),
    _maker("MXFP4", r".*experts.*_(?:blocks|scales)", "mxfp4",
           f"{_LOAD}, quantization_config=Mxfp4Config(dequantize=True)) in transformers, then save_pretrained"),
    _maker("block fp8", "weight_scale_inv", "^fp8|fine_?grained",
           f"{_LOAD}, quantization_config=FineGrainedFP8Config(dequantize=True)) in transformers, then "
           "save_pretrained"),
    _maker("compressed-tensors", r"(?:weight_packed|weight_scale|weight_global_scale|weight_zero_point)",
           "compressed|sparseml",
           f"{_LOAD}, quantization_config=CompressedTensorsConfig(dequantize=True)) in transformers, then "
           "save_pretrained"),
    _maker("torchao", r"(?:\w*_?weight(?:_q?data|_scale|_zero_point)|.+:_?(?:data|scale|zero_point))", "torchao",
           _ORIGINAL),
    _maker("quanto", r"weight\._(?:data|scale|shift)", "quanto", _ORIGINAL),
    _maker("HQQ", r"(?:W_q|weight_quantized)", "hqq", _ORIGINAL),
    _maker("GPTQ", r"(?:g_idx)", "gptq", _ORIGINAL),
    _maker("AWQ or GPTQ", r"(?:qweight|qzeros)", "awq|auto-?round|intel", _ORIGINAL),
)  # fmt: skip
# One search tells that a name is none of them, as most are.
_ANY = re.compile(rf"{_START}(?:{'|'.join(maker.names.removeprefix(_START) for maker in _MAKERS)})")
_MLX = _maker("MLX", "biases", "mlx", "python -m mlx_lm convert --hf-path FOLDER --mlx-path NEW --dequantize")
_AQLM_OR_VPTQ = _maker("AQLM or VPTQ", r"(?:codebooks|centroids)", "aqlm|vptq", _ORIGINAL)
_UNKNOWN = _maker("an unknown quantiser", "(?!)", "(?!)", _ORIGINAL)
_CODES = {"codebooks": "codes", "centroids": "indices"}
_CONFIGS_BESIDE = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "qwix_config.json")


def refuse_quantised(opened: Checkpoint) -> None:
    """Refuse a model whose tensors are the codes, scales or tables of a quantiser.

    Raises:
        UnsupportedFormat: a tensor has the name or the dtype of such codes.
    """
    for name, spec in opened.specs.items():
        if (maker := _maker_of(name, spec, opened.specs)) is not None:
            raise _refusal(opened.label, maker, f"{name!r} ({spec.dtype}) belongs to a quantiser")


def refuse_quantised_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a model whose config.json, or another file of the folder, names a quantiser.

    Raises:
        UnsupportedFormat: it is.
    """
    key = next((key for key in ("quantization_config", "compression_config", "quantization") if config.get(key)), None)
    if key is not None:
        settings = cast("dict[str, Any]", config[key]) if isinstance(config[key], dict) else {}
        method = settings.get("quant_method", "unknown")
        mlx = _MLX if "quant_method" not in settings and {"group_size", "bits"} <= settings.keys() else None
        maker = mlx or next(
            (maker for maker in (*_MAKERS, _AQLM_OR_VPTQ) if re.search(maker.method, str(method), re.IGNORECASE)),
            _UNKNOWN,
        )
        raise _refusal(str(folder), maker, f"config.json has a {key}, method {method!r:.40}")
    if beside := next((name for name in _CONFIGS_BESIDE if (folder / name).is_file()), None):
        raise _refusal(str(folder), _UNKNOWN, f"{beside} is next to its weights")


def _maker_of(name: str, spec: TensorSpec, specs: Mapping[str, TensorSpec]) -> _Maker | None:
    stem, _, leaf = name.rpartition(".")
    weight = specs.get(f"{stem}.weight")
    if leaf in ("weight", "scales", "biases") and f"{stem}.scales" in specs and weight and weight.dtype.name == "U32":
        return _MLX
    candidates = _MAKERS if _ANY.search(name) else ()
    maker = next((maker for maker in candidates if maker.evidence([name])), None)
    if maker is not None and maker.name in ("GPTQ", "AWQ or GPTQ"):
        return next(m for m in _MAKERS if m.name == ("GPTQ" if f"{stem}.g_idx" in specs else "AWQ or GPTQ"))
    if leaf in _CODES and f"{stem}.{_CODES[leaf]}" in specs:
        return _AQLM_OR_VPTQ
    if maker is not None or leaf != "weight" or not _is_code(spec):
        return maker
    scaled = any(f"{stem}.{other}" in specs for other in ("scale", "scales", "weight_scales", "weight.scale"))
    return _UNKNOWN if scaled else None


def _is_code(spec: TensorSpec | None) -> bool:
    return spec is not None and not spec.dtype.floating and len(spec.shape) >= 2


def _refusal(label: str, maker: _Maker, evidence: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{label} is a quantised model, by {maker.name}: {evidence}. Its codes cannot be averaged: dequantise it first "
        f"({maker.remedy})."
    )
