"""Reports of adapters that went wrong when they were extracted from a fine-tune."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak.adapters import Choice, extract
from polyak.errors import Mismatch

from ..adapters.made import deltas, relative_error
from ..docs.models import write_tensors
from .adapted import close, llama, logits, shifted
from .reported import reported

BASE, TUNED = "base", "tuned"


def fine_tuned(folder: Path, base: Any, tuned: Any, *trained: str) -> Any:
    """Write a base and a fine-tune of it in which the parameters with these words in their names are changed."""
    for name, parameter in tuned.named_parameters():
        parameter.requires_grad = any(word in name for word in trained)
    shifted(tuned)
    base.save_pretrained(folder / BASE)
    tuned.save_pretrained(folder / TUNED)
    return tuned


def in_peft(folder: Path, base: Any) -> Any:
    """The extracted adapter on its base in PEFT, which must find all that it needs."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return peft.PeftModel.from_pretrained(base, folder / "adapter").eval()


def copied(model: Any, make: Any) -> Any:
    other = make()
    other.load_state_dict(model.state_dict())
    return other


def written(folder: Path, differences: dict[str, np.ndarray]) -> None:
    """A base of zeros and a fine-tune that differs from it by these matrices."""
    zeros = {f"{name}.weight": np.zeros_like(d, np.float32) for name, d in differences.items()}
    tuned = {f"{name}.weight": d.astype(np.float32) for name, d in differences.items()}
    write_tensors(folder / f"{BASE}.safetensors", zeros)
    write_tensors(folder / f"{TUNED}.safetensors", tuned)


def extracted(folder: Path, **settings: Any) -> Any:
    return extract(folder / f"{BASE}.safetensors", folder / f"{TUNED}.safetensors", folder / "adapter", **settings)


@reported(
    "arcee-ai/mergekit#521",
    what="PEFT missed the factors of lm_head when it loaded an extracted adapter, and the model was wrong.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="What is left out is listed with its energy; with lm_head asked for, PEFT finds all factors and gives the "
    "fine-tune's logits.",
)
@pytest.mark.filterwarnings("ignore")
def test_a_changed_head_is_in_the_adapter_or_listed(tmp_path: Path):
    pytest.importorskip("transformers")
    base = llama()
    tuned = fine_tuned(tmp_path, base, copied(base, llama), "q_proj", "lm_head")
    report = extract(tmp_path / BASE, tmp_path / TUNED, tmp_path / "without", rank=32)
    assert list(report.left_out) == ["lm_head.weight"]
    assert report.left_out["lm_head.weight"] > 0
    choice = Choice(modules="q_proj|lm_head")
    extract(tmp_path / BASE, tmp_path / TUNED, tmp_path / "adapter", rank=32, choice=choice)
    assert close(logits(in_peft(tmp_path, base)), logits(tuned), 1e-4)


@reported(
    "arcee-ai/mergekit#484",
    what="Extraction ended in KeyError: 'lm_head.weight' for models whose head is tied to the embedding.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="The adapter is extracted; in PEFT it gives the fine-tune's logits.",
)
@pytest.mark.filterwarnings("ignore")
def test_a_tied_head(tmp_path: Path):
    pytest.importorskip("transformers")

    def tied() -> Any:
        return llama(tie_word_embeddings=True)

    base = tied()
    tuned = fine_tuned(tmp_path, base, copied(base, tied), "_proj")
    extract(tmp_path / BASE, tmp_path / TUNED, tmp_path / "adapter", rank=32)
    assert close(logits(in_peft(tmp_path, base)), logits(tuned), 1e-4)


@reported(
    "arcee-ai/mergekit#328",
    what="Extraction failed on a fine-tune with added tokens, whose lm_head has more rows than the base's.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="Longer tables are kept whole; on the resized base PEFT gives the fine-tune's logits.",
)
@pytest.mark.filterwarnings("ignore")
def test_added_tokens(tmp_path: Path):
    pytest.importorskip("transformers")
    base = llama()
    longer = copied(base, llama)
    longer.resize_token_embeddings(67)
    tuned = fine_tuned(tmp_path, base, longer, "q_proj", "embed_tokens", "lm_head")
    extract(tmp_path / BASE, tmp_path / TUNED, tmp_path / "adapter", rank=32)
    base.resize_token_embeddings(67)
    assert close(logits(in_peft(tmp_path, base)), logits(tuned), 1e-4)


@reported(
    "kohya-ss/sd-scripts#2422",
    what="An IndexError where a layer has fewer singular values than the rank, such as a projection to one number.",
    versions="files only",
    result="The rank is limited by each matrix; such a layer is exact.",
)
def test_a_matrix_that_is_smaller_than_the_rank(tmp_path: Path):
    rng = np.random.default_rng(0)
    differences = {"up": rng.standard_normal((16, 12)), "gate": rng.standard_normal((1, 12))}
    written(tmp_path, differences)
    report = extracted(tmp_path, rank=8)
    assert {module.name: module.rank for module in report.modules} == {"up": 8, "gate": 1}
    assert close(deltas(tmp_path / "adapter")["gate"], differences["gate"])


@reported(
    "kohya-ss/sd-scripts#2194",
    what="The rank for a fraction of the energy was too large by one.",
    versions="files only",
    result="`energy` gives the smallest rank that reaches the fraction, for known singular values.",
)
@pytest.mark.parametrize(("energy", "rank"), [(0.8, 1), (0.89, 1), (0.91, 2), (0.94, 2), (0.96, 3), (1.0, 3)])
def test_the_rank_for_an_energy(tmp_path: Path, energy: float, rank: int):
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 3)))[0] for n in (10, 8))
    written(tmp_path, {"layer": left * np.sqrt([0.9, 0.05, 0.05]) @ right.T})
    (module,) = extracted(tmp_path, energy=energy).modules
    assert module.rank == rank


@reported(
    "kohya-ss/sd-scripts#81",
    what="An adapter that was saved as float16 was much weaker than the fine-tune.",
    versions="files only",
    result="Factors in float16 give the difference to the precision of float16, also if it is tiny.",
)
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_factors_in_half_precision(tmp_path: Path, size: float):
    difference = (
        size * np.random.default_rng(0).standard_normal((12, 3)) @ np.random.default_rng(1).standard_normal((3, 8))
    )
    written(tmp_path, {"layer": difference})
    extracted(tmp_path, rank=3, dtype="float16")
    assert relative_error(deltas(tmp_path / "adapter"), {"layer": difference}) < 2e-3


@reported(
    "kohya-ss/sd-scripts#1034",
    what="The text encoder was left out of an extraction, since its difference was below a threshold.",
    versions="files only",
    result="Every difference is extracted, however small beside the others; models without any are refused.",
)
def test_small_differences_are_differences(tmp_path: Path):
    rng = np.random.default_rng(0)
    small, large = 1e-7 * rng.standard_normal((6, 3)) @ rng.standard_normal((3, 5)), rng.standard_normal((6, 5))
    written(tmp_path, {"text.layer": small, "unet.layer": large})
    report = extracted(tmp_path, rank=5)
    assert not report.left_out
    assert close(deltas(tmp_path / "adapter")["text.layer"], small)
    written(tmp_path, {"text.layer": np.zeros((6, 5))})
    with pytest.raises(Mismatch, match=r"no matrix .* differs between the two models"):
        extracted(tmp_path, rank=2, force=True)
