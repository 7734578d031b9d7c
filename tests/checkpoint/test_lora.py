"""LoRA views against PEFT's own merge, and adapters that must not be merged."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyak import checkpoint
from polyak.checkpoint import with_lora
from polyak.errors import CheckpointError, InputChanged, SettingError, UnsupportedFormat

RANK, ROWS, COLUMNS = 2, 6, 5


@pytest.fixture
def adapter(tmp_path: Path):
    """Writes an adapter of one module, `layer`, with the given settings and tensors beside or instead of its own."""
    numpy_format = pytest.importorskip("safetensors.numpy")

    def write(tensors: dict[str, Any] | None = None, **settings: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, **settings}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        own = {
            "base_model.model.layer.lora_A.weight": _noise(RANK, COLUMNS),
            "base_model.model.layer.lora_B.weight": _noise(ROWS, RANK),
        }
        kept = {name: value for name, value in {**own, **(tensors or {})}.items() if value is not None}
        numpy_format.save_file(kept, folder / "adapter_model.safetensors")
        return folder

    return write


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture
def base() -> checkpoint.Checkpoint:
    return checkpoint.open({"layer.weight": _noise(ROWS, COLUMNS), "layer.bias": _noise(ROWS), "other": _noise(3)})


def factors(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    opened = checkpoint.open(folder / "adapter_model.safetensors")
    return opened.read("base_model.model.layer.lora_A.weight"), opened.read("base_model.model.layer.lora_B.weight")


def assert_equal_in_float32(got: np.ndarray, want: np.ndarray) -> None:
    """Up to rounding in sums, which PEFT and NumPy take in another order."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


# Values


def test_the_update_is_scale_times_alpha_over_rank_times_the_product(base, adapter):
    folder = adapter()
    a, b = factors(folder)
    got = with_lora(base, folder, scale=0.5).read("layer.weight")
    assert_equal_in_float32(got, base.read("layer.weight") + 0.5 * (4 / RANK) * (b @ a))


def test_rank_stabilised_adapters_divide_by_the_root_of_the_rank(base, adapter):
    folder = adapter(use_rslora=True)
    a, b = factors(folder)
    got = with_lora(base, folder).read("layer.weight")
    assert_equal_in_float32(got, base.read("layer.weight") + 4 / np.sqrt(RANK) * (b @ a))


def test_other_tensors_are_the_base_s(base, adapter):
    view = with_lora(base, adapter())
    assert list(view.specs) == list(base.specs)
    for name in ("layer.bias", "other"):
        np.testing.assert_array_equal(view.read(name), base.read(name))


def test_a_bfloat16_weight_is_delivered_as_float32_and_rests_as_bfloat16(adapter):
    import ml_dtypes

    weight = _noise(ROWS, COLUMNS).astype(ml_dtypes.bfloat16)
    folder = adapter()
    a, b = factors(folder)
    view = with_lora(checkpoint.open({"layer.weight": weight}), folder)
    spec = view.specs["layer.weight"]
    assert (spec.dtype.name, spec.stored.name) == ("F32", "BF16")
    assert_equal_in_float32(view.read("layer.weight"), weight.astype(np.float32) + 2 * (b @ a))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_dtypes_are_converted(adapter, dtype):
    weight = _noise(ROWS, COLUMNS).astype(dtype)
    folder = adapter()
    a, b = factors(folder)
    got = with_lora(checkpoint.open({"layer.weight": weight}), folder).read("layer.weight")
    assert_equal_in_float32(got, weight.astype(np.float32) + 2 * (b @ a))


def test_the_same_bits_come_whatever_range_is_asked_for(adapter):
    shape = 7, 9001  # wider than a tile of the kernel
    base = checkpoint.open({"layer.weight": _noise(*shape)})
    tensors = {
        "base_model.model.layer.lora_A.weight": _noise(13, shape[1]),
        "base_model.model.layer.lora_B.weight": _noise(shape[0], 13),
    }
    view = with_lora(base, adapter(tensors, r=13))
    whole = view.read("layer.weight").reshape(-1)
    for length in (1, 997, 4096, 20000):
        starts = [0, 1, 8999, 9001, whole.size - length] if length == 1 else range(0, whole.size, length)
        for start in starts:
            stop = min(start + length, whole.size)
            part = np.empty((stop - start) * 4, np.uint8)
            view.read_into("layer.weight", start, stop, part)
            assert part.tobytes() == whole[start:stop].tobytes()


def test_many_threads_read_the_same_bits(base, adapter):
    view = with_lora(base, adapter())
    want = view.read("layer.weight").tobytes()
    fresh = with_lora(base, adapter())
    with ThreadPoolExecutor(8) as pool:
        assert {got.tobytes() for got in pool.map(fresh.read, ["layer.weight"] * 64)} == {want}


def test_a_tensor_tied_to_a_changed_one_keeps_its_own_values(adapter):
    weight = _noise(ROWS, COLUMNS)
    base = checkpoint.open({"layer.weight": weight, "head.weight": weight, "also.weight": weight})
    view = with_lora(base, adapter())
    np.testing.assert_array_equal(view.read("head.weight"), weight)
    np.testing.assert_array_equal(view.read("also.weight"), weight)
    assert not np.array_equal(view.read("layer.weight"), weight)
    assert "head.weight" in view.specs


def test_an_alias_can_be_changed_by_itself(adapter):
    weight = _noise(ROWS, COLUMNS)
    view = with_lora(checkpoint.open({"embed.weight": weight, "layer.weight": weight}), adapter())
    np.testing.assert_array_equal(view.read("embed.weight"), weight)
    assert not np.array_equal(view.read("layer.weight"), weight)


def test_the_base_may_have_or_lack_a_prefix(adapter):
    weight = _noise(ROWS, COLUMNS)
    want = with_lora(checkpoint.open({"layer.weight": weight}), adapter()).read("layer.weight")
    longer = with_lora(checkpoint.open({"model.layer.weight": weight}), adapter())
    np.testing.assert_array_equal(longer.read("model.layer.weight"), want)
    tensors = {
        "base_model.model.model.layer.lora_A.weight": _noise(RANK, COLUMNS),
        "base_model.model.model.layer.lora_B.weight": _noise(ROWS, RANK),
        "base_model.model.layer.lora_A.weight": None,
        "base_model.model.layer.lora_B.weight": None,
    }
    shorter = with_lora(checkpoint.open({"layer.weight": weight}), adapter(tensors))
    np.testing.assert_array_equal(shorter.read("layer.weight"), want)


def test_names_with_the_adapter_s_name_in_them_are_understood(base, adapter):
    want = with_lora(base, adapter()).read("layer.weight")
    tensors = {
        "base_model.model.layer.lora_A.default.weight": _noise(RANK, COLUMNS),
        "base_model.model.layer.lora_B.default.weight": _noise(ROWS, RANK),
        "base_model.model.layer.lora_A.weight": None,
        "base_model.model.layer.lora_B.weight": None,
    }
    np.testing.assert_array_equal(with_lora(base, adapter(tensors)).read("layer.weight"), want)


def test_the_stamps_include_the_adapter_and_its_configuration(base, adapter):
    folder = adapter()
    stamped = {stamp.path.name for stamp in with_lora(base, folder).stamps}
    assert stamped == {"adapter_model.safetensors", "adapter_config.json"}


def test_opening_imports_neither_numba_nor_torch(adapter):
    script = (
        "import sys, numpy; from polyak import checkpoint as c\n"
        f"c.with_lora(c.open({{'layer.weight': numpy.zeros(({ROWS}, {COLUMNS}), 'f4')}}), sys.argv[1])\n"
        "assert not {'numba', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", script, str(adapter())], check=True)


def test_after_close_reading_is_an_error(base, adapter):
    view = with_lora(base, adapter())
    view.close()
    with pytest.raises(CheckpointError, match="is closed"):
        view.read("layer.weight")


# Against PEFT


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=50, num_key_value_heads=2))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16))


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, max_position_embeddings=16, num_labels=3))


def _convolutions() -> Any:
    import torch

    class Convolutions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pointwise = torch.nn.Conv2d(4, 6, 1)
            self.wide = torch.nn.Conv2d(6, 5, 3)

    return Convolutions()


CASES = {
    "plain": (_llama, {"target_modules": ["q_proj", "v_proj"]}),
    "rank stabilised": (_llama, {"target_modules": "all-linear", "use_rslora": True}),
    "patterns": (
        _llama,
        {
            "target_modules": ["q_proj", "k_proj", "down_proj"],
            "rank_pattern": {"k_proj": 3, r"model.layers.0.*q_proj": 5, "proj": 7},
            "alpha_pattern": {"layers.1.mlp.down_proj": 32, "q_proj": 11, "^model.layers.0.self_attn.k_proj": 1},
        },
    ),
    "embeddings": (_llama, {"target_modules": ["embed_tokens", "lm_head", "o_proj"]}),
    "saved modules": (_llama, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "norm"]}),
    "transposed": (_gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "corrected by peft": (_gpt2, {"target_modules": ["c_attn", "c_proj"]}),
    "all biases": (_bert, {"target_modules": ["query", "value"], "bias": "all", "task_type": "SEQ_CLS"}),
    "biases of the targets": (
        _bert,
        {"target_modules": ["query", "dense"], "bias": "lora_only", "modules_to_save": ["classifier"]},
    ),
    "embedding of bert": (_bert, {"target_modules": ["word_embeddings", "query"]}),
    "convolutions": (_convolutions, {"target_modules": ["pointwise", "wide"]}),
}


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("case", CASES)
def test_views_equal_what_peft_merges(case: str, safe: bool, tmp_path: Path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    make, settings = CASES[case]
    model = make()
    torch.save(model.state_dict(), tmp_path / "base.pt")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, **settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    adapted.save_pretrained(tmp_path / "adapter", safe_serialization=True)
    if not safe:
        _as_bin(tmp_path / "adapter")
    view = with_lora(checkpoint.open(tmp_path / "base.pt", key=""), tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    assert set(merged) == {*view.specs, *view.ties}
    for name, want in merged.items():
        assert_equal_in_float32(view.read(name), want.numpy())


def _as_bin(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


# Refusals, all at open time


def assert_refused(base: checkpoint.Checkpoint, folder: Path, kind: type[Exception], *words: str) -> None:
    with pytest.raises(kind) as caught:
        with_lora(base, folder)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["VERA", "ADALORA", "OFT", "PROMPT_TUNING", None, 3, [], {}])
def test_other_adapters_are_refused_by_name(base, adapter, kind):
    assert_refused(base, adapter(peft_type=kind), UnsupportedFormat, repr(kind))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"layer_replication": [[0, 2]]}, "layer replication"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        *(
            ({"init_lora_weights": name}, name)
            for name in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
        ),
    ],
)
def test_variants_that_are_more_than_a_product_are_refused(base, adapter, settings, word):
    assert_refused(base, adapter(**settings), UnsupportedFormat, word)


@pytest.mark.parametrize("name", [True, False, "gaussian", "eva", "orthogonal"])
def test_initialisations_that_leave_the_base_alone_are_accepted(base, adapter, name):
    with_lora(base, adapter(init_lora_weights=name))


def test_a_magnitude_vector_without_the_setting_is_refused(base, adapter):
    folder = adapter({"base_model.model.layer.lora_magnitude_vector": _noise(ROWS)})
    assert_refused(base, folder, UnsupportedFormat, "lora_magnitude_vector")


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 0}, {"r": True}, {"r": "8"}, {"lora_alpha": None}, {"lora_alpha": float("nan")}, {"use_rslora": "yes"},
        {"rank_pattern": [1]}, {"rank_pattern": {"layer": 0}}, {"alpha_pattern": {"layer": "1"}},
        {"modules_to_save": "head"},
        {"rank_pattern": {"(": 2}},
    ],
)  # fmt: skip
def test_settings_of_the_wrong_kind_are_refused(base, adapter, settings):
    assert_refused(base, adapter(**settings), CheckpointError, "adapter_config.json")


def test_a_rank_that_is_not_the_configuration_s_is_refused(base, adapter):
    assert_refused(base, adapter(r=3), CheckpointError, "layer", "rank 3")


def test_factors_that_do_not_fit_the_base_are_refused(base, adapter):
    folder = adapter({"base_model.model.layer.lora_A.weight": _noise(RANK, COLUMNS + 1)})
    assert_refused(base, folder, CheckpointError, "layer", f"[{ROWS}, {COLUMNS}]")


def test_factors_that_do_not_fit_each_other_are_refused(base, adapter):
    folder = adapter({"base_model.model.layer.lora_B.weight": _noise(ROWS, RANK + 1)})
    assert_refused(base, folder, CheckpointError, "do not fit together")
    own = {"base_model.model.layer.lora_B.weight": _noise(ROWS, RANK)}
    folder = adapter({**own, "base_model.model.layer.lora_A.weight": _noise(RANK + 1, COLUMNS)})
    assert_refused(base, folder, CheckpointError, "do not fit together")


def test_a_factor_without_its_partner_is_refused(base, adapter):
    assert_refused(
        base, adapter({"base_model.model.layer.lora_B.weight": None}), CheckpointError, "without its partner"
    )


def test_a_module_that_the_base_lacks_is_named(base, adapter):
    extra = {
        "base_model.model.nothing.lora_A.weight": _noise(2, 5),
        "base_model.model.nothing.lora_B.weight": _noise(6, 2),
    }
    assert_refused(base, adapter(extra), CheckpointError, "nothing.weight", "layer.weight")


def test_a_module_that_could_be_two_of_the_base_s_is_refused(adapter):
    base = checkpoint.open({"a.layer.weight": _noise(ROWS, COLUMNS), "b.layer.weight": _noise(ROWS, COLUMNS, seed=1)})
    assert_refused(base, adapter(), CheckpointError, "a.layer.weight", "b.layer.weight")


def test_a_saved_module_of_another_shape_is_refused(base, adapter):
    folder = adapter({"base_model.model.other": _noise(4)}, modules_to_save=["other"])
    assert_refused(base, folder, CheckpointError, "[4]", "[3]")


def test_a_head_that_the_base_lacks_is_added(base, adapter):
    folder = adapter({"base_model.model.score.weight": _noise(2, 3)}, modules_to_save=["score"])
    np.testing.assert_array_equal(with_lora(base, folder).read("score.weight"), _noise(2, 3))


def test_a_square_module_that_may_be_transposed_is_refused(adapter):
    square, wide = _noise(4, 4), _noise(4, 6)
    tensors = {
        "base_model.model.square.lora_A.weight": _noise(RANK, 4),
        "base_model.model.square.lora_B.weight": _noise(4, RANK),
        "base_model.model.wide.lora_A.weight": _noise(RANK, 4),
        "base_model.model.wide.lora_B.weight": _noise(6, RANK),
        "base_model.model.layer.lora_A.weight": None, "base_model.model.layer.lora_B.weight": None,
    }  # fmt: skip
    base = checkpoint.open({"square.weight": square, "wide.weight": wide})
    assert_refused(base, adapter(tensors), CheckpointError, "square", "fan_in_fan_out")
    view = with_lora(base, adapter(tensors, fan_in_fan_out=True))
    assert_equal_in_float32(view.read("square.weight"), square + 2 * (_noise(4, RANK) @ _noise(RANK, 4)).T)


def test_an_integer_weight_cannot_be_updated(adapter):
    base = checkpoint.open({"layer.weight": np.ones((ROWS, COLUMNS), np.int32)})
    assert_refused(base, adapter(), CheckpointError, "floating-point", "I32")


def test_a_folder_without_a_configuration_is_no_adapter(base, tmp_path):
    assert_refused(base, tmp_path, CheckpointError, "adapter_config.json")


def test_an_adapter_without_weights_is_refused(base, adapter):
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    assert_refused(base, folder, CheckpointError, "adapter_model.safetensors")


def test_a_scale_that_is_no_number_is_refused(base, adapter):
    with pytest.raises(SettingError, match="scale"):
        with_lora(base, adapter(), scale=float("inf"))


def test_an_adapter_that_shrinks_is_noticed(base, adapter):
    folder = adapter()
    view = with_lora(base, folder)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputChanged, match="adapter_model"):
        view.read("layer.weight")
