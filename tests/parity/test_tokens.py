"""Unions of tokenizers, tokens' own sources and chat templates: the same rows for the same tokens as in mergekit."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("mergekit", reason="mergekit is not installed; `make parity` does it")
if version("mergekit") != "0.1.5":
    pytest.skip(f"mergekit is {version('mergekit')}, not 0.1.5", allow_module_level=True)

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .both import tensors
from .families import HIDDEN, initial, moved

TEXTS = {
    "base": "the cat sat on the mat and the rat sat on the hat " * 3,
    "expert-1": "the cat sat on the mat while two dogs dug deep ditches " * 3,
    "expert-2": "the cat sat on the mat; seven swans swam southwards " * 3,
}
ADDED = {"base": ["<pad>"], "expert-1": ["<|im_start|>", "<tool>"], "expert-2": ["<tool>"]}
TEMPLATES = {"base": "{{ 'one' }} of a template", "expert-1": "{{ 'two' }} of a template"}
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two experts that each learnt words of their own."""
    folder = tmp_path_factory.mktemp("tokens")
    for seed, name in enumerate(TEXTS):
        tokenizer = trained(name)
        config = transformers.LlamaConfig(
            hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            vocab_size=len(tokenizer.get_vocab()),
        )  # fmt: skip
        moved(initial(config, "llama", seed), 1e-2, seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def trained(name: str) -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator([TEXTS[name]], trainer)
    tokenizer.add_special_tokens(ADDED[name])
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<s>")
    found.chat_template = TEMPLATES.get(name, TEMPLATES["expert-1"])
    return found


def numbers(folder: Path) -> dict[str, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoTokenizer.from_pretrained(folder).get_vocab()


LINEAR = (
    "models: [{model: ./base}, {model: ./expert-1}, {model: ./expert-2}]\nparameters: {weight: 1}\ndtype: float32\n"
)
TASK = (
    "base_model: ./base\nmodels: [{model: ./expert-1}, {model: ./expert-2}]\n"
    "parameters: {weight: 0.5}\ndtype: float32\n"
)
CASES = {
    "union, with a base": f"merge_method: linear\nbase_model: ./base\n{LINEAR}tokenizer_source: union\n",
    "union of deltas": f"merge_method: task_arithmetic\n{TASK}tokenizer: {{source: union}}\n",
    "base": f"merge_method: task_arithmetic\n{TASK}tokenizer_source: base\n",
    "an expert's": f"merge_method: task_arithmetic\n{TASK}tokenizer_source: ./expert-2\n",
    "padded": f"merge_method: task_arithmetic\n{TASK}tokenizer: {{pad_to_multiple_of: 16}}\n",
    "rows of tokens": f"""merge_method: task_arithmetic
{TASK}
tokenizer:
  source: union
  tokens:
    <tool>: {{source: ./expert-2}}
    <|im_start|>: {{source: {{kind: model_token, model: ./expert-1, token: <tool>}}, force: true}}
    <pad>: {{source: {{kind: zero}}}}
    <new>: {{source: {{kind: model_token, model: ./expert-2, token_id: 3}}}}
""",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_every_token_has_the_same_row(family, run_both, text):
    theirs, ours = run_both(family, text)
    their_numbers, our_numbers = numbers(theirs), numbers(ours)
    assert our_numbers.keys() == their_numbers.keys()
    found, wanted = tensors(ours), tensors(theirs)
    for name in TABLES:
        assert found[name].shape == wanted[name].shape
        for token, row in our_numbers.items():
            torch.testing.assert_close(
                found[name][row], wanted[name][their_numbers[token]], rtol=1e-6, atol=1e-7, msg=token
            )
        if len(found[name]) > len(our_numbers):
            torch.testing.assert_close(found[name][-1], wanted[name][-1], rtol=1e-5, atol=1e-7)
    loaded, problems = transformers.AutoModelForCausalLM.from_pretrained(ours, output_loading_info=True)
    assert loaded.config.vocab_size == len(found[TABLES[0]])
    assert not any(problems[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_text_comes_back_and_old_words_of_the_base_may_be_cut_as_before(family, run_both):
    _, ours = run_both(family, CASES["union, with a base"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(ours)
    for text in TEXTS.values():
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("the <tool>cat")[-2:] == ["<tool>", "cat"]


TALK = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "So"},
]


@pytest.mark.parametrize("wanted", ["auto", "chatml", "mistral", "'{{ messages[0].content }} and no more'"])
def test_chat_templates_say_the_same(family, run_both, wanted):
    outs = run_both(family, f"merge_method: task_arithmetic\n{TASK}chat_template: {wanted}\ntokenizer_source: base\n")
    told = [transformers.AutoTokenizer.from_pretrained(out) for out in outs]
    for generate in (False, True):
        theirs, ours = (
            one.apply_chat_template(TALK, tokenize=False, add_generation_prompt=generate, bos_token="<s>")
            for one in told
        )
        assert ours == theirs
