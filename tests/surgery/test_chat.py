"""Chat templates of the result: whose it is, what the known ones say, and where they lie."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.engine import run
from polyak.planning.output import chat
from polyak.recipe import loads

from ..engine.conftest import write_model

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "So"},
]
SAID = {
    "alpaca": "Be brief.\n\n### Instruction:\nHello\n\n### Response:\nYes.\n\n### Instruction:\nSo\n\n### Response:\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|system|]Be brief.[|endofturn|]\n[|user|]Hello\n[|assistant|]Yes.[|endofturn|]\n"
    "[|user|]So\n[|assistant|]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "Yes.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nSo<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] Be brief.\n\nHello [/INST] Yes.</s> [INST] So [/INST]",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`a` has its template in the settings of its tokenizer, `b` in a file, `c` the words of `b`; `d` has none."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("abcd"):
        write_model(tmp_path / name, {"w": np.full((2, 2), i, np.float32)})
        write_settings(tmp_path / name)
    write_settings(tmp_path / "a", chat_template="{{ 'of a' }}")
    for name in "bc":
        (tmp_path / name / "chat_template.jinja").write_text("{{ 'of b' }}\n")
    return tmp_path


def write_settings(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 7, **settings}))


def merged(wanted: str, models: str = "abcd") -> str | None:
    """The template of the result, which must stand in the file alone: transformers refuses to choose between two."""
    listed = ", ".join(f"./{name}" for name in models)
    run(polyak.plan(loads(f"method: linear\nmodels: [{listed}]\nchat_template: {wanted}\n")), "out", force=True)
    settings = json.loads(Path("out/tokenizer_config.json").read_text())
    assert settings == {"model_max_length": 7}
    file = Path("out/chat_template.jinja")
    return file.read_text() if file.exists() else None


def refused(wanted: str, *parts: str, models: str = "abcd") -> None:
    with pytest.raises(errors.RecipeError) as caught:
        merged(wanted, models)
    for part in parts:
        assert part in str(caught.value)


def test_auto_takes_what_most_models_have_and_else_the_first(place):
    assert merged("auto") == "{{ 'of b' }}"
    assert merged("auto", "ab") == "{{ 'of a' }}"


def test_a_model_may_give_its_template(place):
    assert merged("a") == "{{ 'of a' }}"
    assert merged("c") == "{{ 'of b' }}"


def test_none_takes_every_template_away(place):
    assert merged("none") is None
    assert merged("none", "ba") is None


def test_a_template_may_be_written_out(place):
    assert merged("'{{ messages[0].content }}'") == "{{ messages[0].content }}"


def test_of_several_templates_the_default_is_taken(place):
    several = [{"name": "tools", "template": "{{ 'tools' }}"}, {"name": "default", "template": "{{ 'plain' }}"}]
    write_settings(place / "a", chat_template=several)
    assert merged("a") == "{{ 'plain' }}"


def test_a_template_that_is_not_there_is_refused(place):
    refused("d", "`chat_template: d`: this model has no chat template")
    refused("auto", "no model has a chat template", "`chatml`", models="d")
    refused("chatlm", "`chat_template: chatlm` is neither a template", "Did you mean 'chatml'?")


def test_a_template_that_is_no_text_is_refused_by_its_file(place):
    (place / "b" / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(errors.CheckpointError, match=r"chat_template\.jinja cannot be read"):
        merged("b")


def test_the_known_templates_are_files_of_the_package():
    held = resources.files("polyak").joinpath("planning", "output", "chat_templates")
    assert sorted(file.name for file in held.iterdir()) == sorted(f"{name}.jinja" for name in chat.template_names())
    assert chat.template_names() == sorted(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_known_template_says_what_its_models_were_trained_on(place, name):
    jinja2 = pytest.importorskip("jinja2", reason="jinja2, which comes with transformers, is not installed")
    # As transformers renders them.
    world = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = world.from_string(merged(name))
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    assert template.render(messages=TALK, add_generation_prompt=True, **ends) == SAID[name]
    begun = template.render(messages=TALK[:3], add_generation_prompt=False, **ends)
    assert SAID[name].startswith(begun) and begun.rstrip().endswith(("Yes.", "</s>", "|>", "<|eot_id|>", "|]"))
