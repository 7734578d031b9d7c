"""Reports of adapters whose files, names or numbers are not as other tools expect them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polyak import adapters
from polyak.errors import CheckpointError, NotFinite, UnsupportedFormat

from ..adapters.made import deltas, write_adapter
from ..docs.models import write_tensors
from .adapted import baked, baked_logits, close, llama, logits, tensors, trained
from .reported import reported

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
SHAPES = {"model.layers.0.q_proj": (12, 8), "model.layers.1.q_proj": (12, 8)}


def write_base(folder: Path, seed: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    folder.mkdir(exist_ok=True)
    write_tensors(folder / "model.safetensors", weights)
    return weights


def assert_baked(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """The base with the adapter is W + s B A."""
    added, found = deltas(folder / "adapter"), baked(folder)
    for name, weight in weights.items():
        np.testing.assert_allclose(found[name], weight + added[name.removesuffix(".weight")], rtol=1e-5, atol=1e-6)


def renamed(folder: Path, old: str, new: str) -> None:
    """Replace a part of the names of an adapter's tensors."""
    file = folder / "adapter_model.safetensors"
    write_tensors(file, {name.replace(old, new): value for name, value in tensors(file).items()})


def assert_same_as_before(folder: Path, old: str, new: str) -> None:
    """An adapter with other names of its tensors is baked to the same numbers."""
    weights = write_base(folder / "base")
    added = deltas(write_adapter(folder / "adapter", shapes=SHAPES))
    renamed(folder / "adapter", old, new)
    for name, values in baked(folder).items():
        np.testing.assert_allclose(values, weights[name] + added[name.removesuffix(".weight")], rtol=1e-5, atol=1e-6)


@reported(
    "huggingface/peft#1579",
    what="Factors named with the adapter's name, as in lora_A.default.weight, were ignored: the merge was the base.",
    versions="files only",
    result="`lora bake` reads them: W + s B A.",
)
def test_names_with_the_name_of_the_adapter(tmp_path: Path):
    assert_same_as_before(tmp_path, ".weight", ".default.weight")


@reported(
    "MakazhanAlpamys/Soup#335",
    what="torch.compile put _orig_mod. before all names of an adapter, and PEFT loaded nothing of it.",
    versions="files only",
    result="`lora bake` finds the modules: W + s B A.",
)
def test_names_of_a_compiled_model(tmp_path: Path):
    assert_same_as_before(tmp_path, "base_model.model.", "_orig_mod.base_model.model.")


@reported(
    "unslothai/unsloth#869",
    what="The merged model was identical to the base: the adapter was not applied, and nothing said so.",
    versions="files only",
    result="An adapter with modules that the base lacks is refused, with names of both.",
)
def test_modules_that_the_base_lacks(tmp_path: Path):
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", shapes={"transformer.h.0.c_attn": (12, 8)})
    with pytest.raises(
        CheckpointError, match=r"'transformer.h.0.c_attn.weight' is not in the base.*Is this the adapter's base"
    ):
        baked(tmp_path)


@reported(
    "paiml/aprender#2189",
    what="The scaling of rank-stabilised adapters was ignored, and factors in bfloat16 were read as float32.",
    versions="torch 2.13.0, safetensors 0.8.0",
    result="`lora bake` adds alpha / sqrt(r) B A, with the factors' own dtype.",
)
def test_rank_stabilised_factors_in_bfloat16(tmp_path: Path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    weights = write_base(tmp_path / "base")
    file = write_adapter(tmp_path / "adapter", shapes=SHAPES, rank=4, use_rslora=True) / "adapter_model.safetensors"
    factors = {name: torch.tensor(value).bfloat16() for name, value in tensors(file).items()}
    save_file(factors, file)
    found = baked(tmp_path)
    for module in SHAPES:
        a, b = (factors[f"base_model.model.{module}.lora_{x}.weight"].double().numpy() for x in "AB")
        np.testing.assert_allclose(
            found[f"{module}.weight"], weights[f"{module}.weight"] + 2 * b @ a, rtol=1e-5, atol=1e-6
        )


@reported(
    "axolotl-ai-cloud/axolotl#3673",
    what="Ranks and alphas per module, by pattern, must reach the merge: each module is scaled by its own alpha / r.",
    versions="files only",
    result="`lora bake` scales by the patterns, alone and together, against the formula in NumPy.",
)
def test_ranks_and_alphas_by_pattern(tmp_path: Path):
    weights = write_base(tmp_path / "base")
    write_adapter(
        tmp_path / "adapter", shapes=SHAPES, rank=2, ranks={"model.layers.1.q_proj": 4},
        lora_alpha=6, alpha_pattern={"layers.0.q_proj": 10},
    )  # fmt: skip
    scalings = {"model.layers.0.q_proj": 10 / 2, "model.layers.1.q_proj": 6 / 4}
    factors, found = tensors(tmp_path / "adapter" / "adapter_model.safetensors"), baked(tmp_path)
    for module, scaling in scalings.items():
        a, b = (factors[f"base_model.model.{module}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        expected = weights[f"{module}.weight"] + scaling * b @ a
        np.testing.assert_allclose(found[f"{module}.weight"], expected, rtol=1e-5, atol=1e-6)


@reported(
    "huggingface/peft#1388",
    what="Merging in bfloat16 lost accuracy: the update was rounded before it was added.",
    versions="torch 2.13.0, safetensors 0.8.0",
    result="The sum is computed in float32 and rounded once: bit for bit the exact sum, rounded.",
)
def test_the_sum_is_rounded_once(tmp_path: Path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    weight = torch.randn(64, 32).bfloat16()
    a, b = (
        torch.randint(-63, 64, shape).float() / 256 for shape in ((4, 32), (64, 4))
    )  # products are exact in float32
    (tmp_path / "base").mkdir()
    save_file({"layer.weight": weight}, tmp_path / "base" / "model.safetensors")
    factors = {"base_model.model.layer.lora_A.weight": a.numpy(), "base_model.model.layer.lora_B.weight": b.numpy()}
    write_adapter(tmp_path / "adapter", shapes={"layer": (64, 32)}, rank=4, tensors=factors)
    expected = (weight.double() + b.double() @ a.double()).bfloat16()
    assert not torch.equal(weight + (b @ a).bfloat16(), expected)
    adapters.bake(tmp_path / "base", tmp_path / "adapter", tmp_path / "baked")
    load_file = pytest.importorskip("safetensors.torch").load_file
    assert torch.equal(load_file(tmp_path / "baked" / "model.safetensors")["layer.weight"], expected)


@reported(
    "huggingface/peft#1001",
    what="An adapter with NaN was merged, and the model was broken without a word.",
    versions="files only",
    result="`lora bake` and `lora merge` refuse it and name the tensor; nothing is written.",
)
def test_an_adapter_with_nan(tmp_path: Path):
    from polyak import recipe

    write_base(tmp_path / "base")
    broken = np.full((2, 8), np.nan, np.float32)
    write_adapter(
        tmp_path / "adapter", shapes=SHAPES, tensors={f"base_model.model.{next(iter(SHAPES))}.lora_A.weight": broken}
    )
    with pytest.raises(NotFinite, match=r"layers\.0\.q_proj"):
        baked(tmp_path)
    models = [{"path": "adapter", "name": name} for name in "ab"]
    with pytest.raises(NotFinite, match=r"layers\.0\.q_proj"):
        adapters.merge(recipe.read({"method": "task_arithmetic", "models": models}, tmp_path), tmp_path / "merged")
    assert not (tmp_path / "baked").exists()
    assert not (tmp_path / "merged").exists()


@reported(
    "artidoro/qlora#28",
    what="An adapter could not be merged into the 4-bit base that it was trained on.",
    versions="files only",
    result="The quantised base is refused by its maker's name, with the call that dequantises it; with a base in full "
    "precision the sum is exact.",
)
def test_a_quantised_base(tmp_path: Path):
    weights = write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", shapes=SHAPES)
    (tmp_path / "quantised").mkdir()
    codes = {f"{name}.weight": np.ones((48, 1), np.uint8) for name in SHAPES}
    absmax = {f"{name}.weight.absmax": np.ones(1, np.float32) for name in SHAPES}
    write_tensors(tmp_path / "quantised" / "model.safetensors", codes | absmax)
    with pytest.raises(UnsupportedFormat, match=r"quantised model, by bitsandbytes.*dequantise it first"):
        adapters.bake(tmp_path / "quantised", tmp_path / "adapter", tmp_path / "out")
    assert_baked(tmp_path, weights)


@reported(
    "huggingface/peft#1539",
    what="Merging an AdaLoRA adapter failed where a module had been pruned to rank 0.",
    versions="files only",
    result="AdaLoRA is refused by name, with PEFT's calls that merge it.",
)
def test_an_adapter_of_adalora(tmp_path: Path):
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", shapes=SHAPES, peft_type="ADALORA")
    with pytest.raises(UnsupportedFormat, match=r"'ADALORA'.*merge_and_unload\(\)\.save_pretrained"):
        baked(tmp_path)


@reported(
    "Comfy-Org/ComfyUI#15114",
    what="The scaling of LoKr was ignored where both of its matrices are stored whole.",
    versions="peft 0.21.2, torch 2.13.0",
    result="`lora bake` gives the weights with which PEFT runs the layer.",
)
def test_lokr_of_whole_matrices(tmp_path: Path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    model = torch.nn.Module()
    model.layer = torch.nn.Linear(16, 12, bias=False)
    config = peft.LoKrConfig(r=32, alpha=8, target_modules=["layer"], init_weights=False)
    adapted = trained(tmp_path, model, config)
    names = tensors(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.rpartition(".")[2] for name in names} == {"lokr_w1", "lokr_w2"}
    with torch.no_grad():
        columns = adapted.base_model.model.layer(torch.eye(16)).numpy()
    assert close(baked(tmp_path)["layer.weight"], columns.T)


@reported(
    "huggingface/peft#2863",
    what="Trained rows of an untied lm_head, which is a linear layer and no embedding, failed.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="`lora bake` gives the logits of the adapted model.",
)
def test_trained_tokens_of_a_head(tmp_path: Path):
    peft = pytest.importorskip("peft")
    pytest.importorskip("transformers")
    tokens = {"embed_tokens": [1, 5], "lm_head": [2, 5, 60]}
    expected = logits(
        trained(tmp_path, llama(), peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=tokens))
    )
    assert close(baked_logits(tmp_path), expected)


@reported(
    "huggingface/transformers#45127",
    what="After merging an adapter with added tokens, the saved config tied the head again: one token was repeated.",
    versions="peft 0.21.2, transformers 5.24.0",
    result="config.json says that embedding and head differ; loaded, the logits are the adapted model's.",
)
def test_added_tokens_of_a_tied_head(tmp_path: Path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = llama(tie_word_embeddings=True)
    base.save_pretrained(tmp_path / "base")
    base.resize_token_embeddings(67)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    expected = logits(trained(tmp_path, base, config))
    baked(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    assert (model.config.vocab_size, model.config.tie_word_embeddings) == (67, False)
    assert close(logits(model), expected)


@reported(
    "huggingface/peft#3608",
    what="Two DoRA adapters on one layer came out otherwise merged than run: norms were those of the changed weights.",
    versions="files only",
    result="`lora: [a, b]` applies adapters in order: the numbers of baking one, then the other.",
)
def test_two_dora_adapters_in_order(tmp_path: Path):
    from polyak import merge, recipe

    weights = write_base(tmp_path / "base")
    for seed, name in enumerate(("adapter", "second")):
        rng = np.random.default_rng(seed)
        lengths = {f"base_model.model.{m}.lora_magnitude_vector": rng.random(12).astype(np.float32) + 1 for m in SHAPES}
        write_adapter(tmp_path / name, seed, shapes=SHAPES, tensors=lengths, use_dora=True)
    both = {"method": "passthrough", "models": [{"path": "base", "lora": ["adapter", "second"]}]}
    merge(recipe.read(both, tmp_path), tmp_path / "both")
    baked(tmp_path)
    adapters.bake(tmp_path / "baked", tmp_path / "second", tmp_path / "twice")
    for name, values in tensors(tmp_path / "both").items():
        np.testing.assert_allclose(values, tensors(tmp_path / "twice")[name], rtol=1e-5, atol=1e-6)
        assert not np.allclose(values, weights[name])
