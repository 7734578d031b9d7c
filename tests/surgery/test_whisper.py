"""Whisper: its processor consists of more files than a text model's, and its output head is the tied embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

from .encoders import RECIPE, assert_mean, averaged  # noqa: E402

MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
WORDS = [*"abcdefgh", *MARKS]
MELS, SECOND = 8, 16_000
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": MELS}
ENDS = {"pad_token_id": 8, "bos_token_id": 8, "eos_token_id": 8, "decoder_start_token_id": 9}
# Of other frameworks, of the training, and of the model before the merge.
LEFT_OUT = ["flax_model.msgpack", "pytorch_model.bin", "tf_model.h5", "training_args.bin"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        small = transformers.WhisperConfig(
            **SIZES, **HEADS, **ENDS, vocab_size=len(WORDS), max_source_positions=50, max_target_positions=8,
            suppress_tokens=None, begin_suppress_tokens=None,
        )  # fmt: skip
        transformers.WhisperForConditionalGeneration(small).save_pretrained(tmp_path / name)
        write_processor(tmp_path / name)
        for file in LEFT_OUT:
            (tmp_path / name / file).write_bytes(b"never opened")
    return tmp_path


def write_processor(folder: Path) -> None:
    """As WhisperProcessor saves itself, with the files of older versions beside."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text(json.dumps({mark: vocabulary[mark] for mark in MARKS}))
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    tokenizer = transformers.WhisperTokenizer(
        vocab=vocabulary, merges=[], normalizer_file=str(folder / "normalizer.json"), language="english",
        additional_special_tokens=MARKS,
    )  # fmt: skip
    features = transformers.WhisperFeatureExtractor(feature_size=MELS, chunk_length=1)
    features.save_pretrained(folder)
    transformers.WhisperProcessor(features, tokenizer).save_pretrained(folder)


def test_a_merge_hears_and_writes(place, polyak):
    polyak("merge", "recipe.yaml", "out", "--quiet")
    stored = [safetensors.load_file(f"{name}/model.safetensors") for name in ("out", "a", "b")]
    assert "proj_out.weight" not in stored[0]
    assert_mean(*stored)
    kind = transformers.WhisperForConditionalGeneration
    merged, a, b = (kind.from_pretrained(name).eval() for name in ("out", "a", "b"))
    assert merged.proj_out.weight is merged.model.decoder.embed_tokens.weight
    processor = transformers.WhisperProcessor.from_pretrained("out")
    sound = np.sin(np.arange(SECOND) / 20)
    heard = processor(sound, sampling_rate=SECOND, return_tensors="pt").input_features
    assert heard.shape == (1, MELS, 100)
    start = torch.tensor([[9, 10, 11]])
    logits, expected = (model(heard, decoder_input_ids=start).logits for model in (merged, averaged(a, b)))
    torch.testing.assert_close(logits, expected)
    written = merged.generate(heard, max_new_tokens=3)
    assert set(processor.batch_decode(written, skip_special_tokens=True)[0]) <= set("abcdefgh")


def test_the_processor_of_a_merge_is_that_of_its_first_model(place, polyak):
    polyak("merge", "recipe.yaml", "out", "--quiet")
    listed = polyak("plan", "recipe.yaml")
    assert [file for file in LEFT_OUT if file not in listed or Path("out", file).exists()] == []
    files = {path.name for path in Path("a").iterdir()} - {"config.json", "model.safetensors", *LEFT_OUT}
    assert {"preprocessor_config.json", "generation_config.json", "added_tokens.json", "normalizer.json"} <= files
    for file in files:
        assert Path("out", file).read_bytes() == Path("a", file).read_bytes()
    processor = transformers.WhisperProcessor.from_pretrained("out")
    assert processor.tokenizer.normalize("The colour") == "the color"
    assert processor.feature_extractor.sampling_rate == SECOND
