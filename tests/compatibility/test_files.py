"""Public reports of files next to weights: pooling, generation settings, code, templates, processors and tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from .library_models import LINEAR, library, loaded, mean, save, state_of
from .reported import reported
from .small_models import assert_same, llama, merged, write, write_tokenizer

OWN = "method: linear\nmodels: [./a, ./b]\n"
WORDS = ["[UNK]", "[PAD]", "one", "two", "three"]


def sentence_transformer(folder: Path, seed: int, pooling: str) -> None:
    """A tiny BERT, pooled and normalised, as sentence-transformers saves it."""
    tf = library()
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Normalize, Pooling, Transformer

    body = folder.with_name(f"{folder.name}-body")
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    save(body, lambda: tf.BertModel(tf.BertConfig(vocab_size=5, max_position_embeddings=16, **sizes)), seed)
    write_tokenizer(body, WORDS, unk_token="[UNK]", pad_token="[PAD]")
    modules = [Transformer(str(body), max_seq_length=8), Pooling(8, pooling_mode=pooling), Normalize()]
    st.SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    shutil.rmtree(body)


def embedding(folder: Path) -> np.ndarray:
    st = pytest.importorskip("sentence_transformers")
    return st.SentenceTransformer(str(folder), device="cpu").encode(["one two", "three"])


@reported(
    "FlagOpen/FlagEmbedding#311",
    what="A merged embedding model lost modules.json and 1_Pooling, so the library averaged tokens where the model "
    "takes the first.",
    versions="sentence-transformers 6.2.0, transformers 5.24.0",
    result="Pooling and normalisation are kept: the merged folder's embeddings are those of the mean weights with "
    "the first token.",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_pooling_of_an_embedding_model(tmp_path):
    tf = library()
    import torch

    for seed, name in enumerate("ab"):
        sentence_transformer(tmp_path / name, seed, "cls")
    merged(tmp_path, OWN)
    a, b = (state_of(tf.BertModel.from_pretrained(tmp_path / name)) for name in "ab")
    reference = tf.BertModel.from_pretrained(tmp_path / "a")
    reference.load_state_dict({name: torch.from_numpy(values) for name, values in mean(a, b).items()})
    ids = torch.tensor([[2, 3], [4, 1]])
    with torch.no_grad():
        first = reference.eval()(input_ids=ids, attention_mask=(ids != 1).long()).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(
        embedding(tmp_path / "out"), first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-5
    )


@reported(
    "huggingface/sentence-transformers#3776",
    what="One of two models has an older pooling config with fewer keys, and its empty 2_Normalize folder was never "
    "uploaded.",
    versions="sentence-transformers 6.2.0, transformers 5.24.0",
    result="Merged in either order, and the result is loaded with pooling and normalisation.",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_an_older_pooling_config(tmp_path, order):
    for seed, name in enumerate("ab"):
        sentence_transformer(tmp_path / name, seed, "mean")
    shutil.rmtree(tmp_path / "a" / "2_Normalize", ignore_errors=True)
    old = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (tmp_path / "a" / "1_Pooling" / "config.json").write_text(json.dumps(old))
    merged(tmp_path, f"method: linear\nmodels: [./{order[0]}, ./{order[1]}]\n")
    found = embedding(tmp_path / "out")
    assert found.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert not np.allclose(found, embedding(tmp_path / "a"), atol=1e-3)


@reported(
    "arcee-ai/mergekit#275",
    what="generation_config.json, in which Llama 3 has its second end token, is missing after a merge.",
    versions="files only",
    result="It is copied, byte by byte, from the base.",
)
def test_generation_settings(tmp_path):
    settings = '{\n  "eos_token_id": [128001, 128009],\n  "temperature": 0.6\n}\n'
    for seed, name in enumerate("ab"):
        write(tmp_path / name, llama(seed))
    (tmp_path / "b" / "generation_config.json").write_text(settings)
    merged(
        tmp_path, "merge_method: task_arithmetic\nbase_model: ./b\nmodels: [{model: ./a, parameters: {weight: 1}}]\n"
    )
    assert (tmp_path / "out" / "generation_config.json").read_text() == settings


@reported(
    "arcee-ai/mergekit#105",
    what="A merged Qwen cannot be loaded: files of its own code are missing.",
    versions="files only",
    result="Code, vocabulary and all other files of the first model are copied; only its weights and its card are not.",
)
def test_code_and_vocabulary(tmp_path):
    files = {
        "modeling_qwen.py", "configuration_qwen.py", "qwen_generation_utils.py", "tokenization_qwen.py",
        "qwen.tiktoken", "cpp_kernels.py", "LICENSE", "cache_autogptq_cuda_256.cpp",
    }  # fmt: skip
    for seed, name in enumerate("ab"):
        write(tmp_path / name, llama(seed), auto_map={"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"})
        for file in files:
            (tmp_path / name / file).write_text(f"{file} of {name}")
    slices = "[{sources: [{model: ./a, layer_range: [0, 2]}]}, {sources: [{model: ./a, layer_range: [1, 2]}]}]"
    merged(tmp_path, f"merge_method: passthrough\nslices: {slices}\n")
    for file in files:
        assert (tmp_path / "out" / file).read_text() == f"{file} of a"


@reported(
    "2U1/Llama3.2-Vision-Finetune#5",
    what="preprocessor_config.json and tokenizer files are missing after merging a vision-language model.",
    versions="files only",
    result="Processor, image and video settings, templates and tokenizer are in the result, byte by byte.",
)
def test_processors(tmp_path):
    files = (
        "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json",
        "special_tokens_map.json", "added_tokens.json",
    )  # fmt: skip
    for seed, name in enumerate("ab"):
        write(tmp_path / name, llama(seed, rows=5), vocab_size=5)
        write_tokenizer(tmp_path / name, WORDS)
        for file in files:
            (tmp_path / name / file).write_text(json.dumps({"of": name}))
    merged(tmp_path, OWN)
    for file in (*files, "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "a" / file).read_bytes(), file


@reported(
    "arcee-ai/mergekit#589",
    what="With `chat_template: llama3` merges had a jinja file and could not be deployed as chat models.",
    versions="transformers 5.24.0; jinja by transformers",
    result="The tokenizer that the library loads has the template, and it renders the tags of Llama 3.",
)
def test_a_named_chat_template(tmp_path):
    tf = library()
    for seed, name in enumerate("ab"):
        write(tmp_path / name, llama(seed, rows=5), vocab_size=5)
        write_tokenizer(
            tmp_path / name, WORDS, unk_token="[UNK]", bos_token="[PAD]", chat_template="old {{ messages }}"
        )
    merged(tmp_path, f"{LINEAR}chat_template: llama3\n")
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": " Hello "}, {"role": "assistant", "content": "Hi"}]
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    turns = f"{header.format('user')}Hello<|eot_id|>{header.format('assistant')}Hi<|eot_id|>"
    assert tokenizer.apply_chat_template(messages, tokenize=False) == f"[PAD]{turns}"
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == f"[PAD]{turns}{header.format('assistant')}"


@reported(
    "arcee-ai/mergekit#272",
    what="Whisper models cannot be merged: unsupported architecture WhisperForConditionalGeneration.",
    versions="transformers 5.24.0, torch 2.13.0",
    result="Encoder, decoder and the tied projection are merged, the files of its tokenizer are copied, and the "
    "library loads the mean.",
)
def test_whisper(tmp_path):
    tf = library()
    config = tf.WhisperConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_source_positions=20,
        max_target_positions=20, num_mel_bins=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    a, b = (
        save(tmp_path / name, lambda: tf.WhisperForConditionalGeneration(config), seed)
        for seed, name in enumerate("ab")
    )
    for name in ("normalizer.json", "preprocessor_config.json"):
        (tmp_path / "a" / name).write_text("{}")
    merged(tmp_path, LINEAR)
    assert_same(loaded(tmp_path / "out", tf.WhisperForConditionalGeneration), mean(a, b))
    assert {"normalizer.json", "preprocessor_config.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
