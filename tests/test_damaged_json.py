"""JSON beside weights, with one value replaced by another: used, or refused with a message; never a traceback."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyak
from polyak import adapters, checkpoint, recipe
from polyak.engine import run
from polyak.errors import PolyakError
from polyak.inspection.verification import verify

from .adapters.made import write_adapter
from .engine.conftest import random_family, recipe_text, write_model
from .surgery.test_vocabulary import write_speaker

JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, 2**70, "", "x", "../x", "/etc/passwd", "\0", [], [None], [5], {}, {"x": 1}, {"": []}]
)

# What PEFT writes beside the settings that an adapter needs.
PEFT = {
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 4},
    "modules_to_save": [],
    "exclude_modules": None,
    "layers_to_transform": None,
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "init_lora_weights": True,
}


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of some JSON stand, the outer ones first."""
    yield at
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from places(value, (*at, key))


def changed(data: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    data = copy.deepcopy(data)
    holder = data
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    return data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    for name, tensors in random_family().items():
        config = {"model_type": "llama", "num_hidden_layers": 2, "layer_types": ["a", "b"], "architectures": ["X"]}
        write_model(folder / name, tensors, config | {"tie_word_embeddings": False, "torch_dtype": "bfloat16"})
    (folder / "recipe.yaml").write_text(recipe_text("linear"))
    run(polyak.plan(folder / "recipe.yaml"), folder / "merged", shard_nbytes=9_000)
    for i, words in enumerate((["<s>", "one", "two"], ["<s>", "two", "three", "<b>"])):
        write_speaker(folder / f"speaker{i}", words, i, added=tuple(w for w in words if w == "<b>"))
    for i in range(2):
        write_adapter(folder / f"adapter{i}", i)
    config = folder / "adapter0" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | PEFT))
    return folder


def _merge(folder: Path) -> None:
    run(polyak.plan(folder / "recipe.yaml"), folder / "again", workers=1, force=True)


def _speak(folder: Path) -> None:
    data = {"models": ["speaker0", "speaker1"], "method": "linear", "vocabulary": "union"}
    run(polyak.plan(recipe.read(data, folder)), folder / "spoken", workers=1, force=True)


def _adapt(folder: Path) -> None:
    asked = recipe.read({"models": ["adapter0", "adapter1"], "method": "linear"}, folder)
    adapters.merge(asked, folder / "adapted", force=True)


FILES: dict[str, Callable[[Path], object]] = {
    "merged/model.safetensors.index.json": lambda folder: checkpoint.open(folder / "merged").close(),
    "merged/polyak.json": lambda folder: verify(folder / "merged", inputs=True),
    "m0/config.json": _merge,
    "adapter0/adapter_config.json": _adapt,
    "speaker1/tokenizer.json": _speak,
    "speaker0/tokenizer_config.json": _speak,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=int(os.environ.get("EXAMPLES", "40")), deadline=None)
@given(data=st.data())
def test_a_changed_value_is_used_or_refused_with_a_message(place: Path, name: str, data: st.DataObject):
    path = place / name
    whole = path.read_bytes()
    parsed = json.loads(whole)
    at = data.draw(st.sampled_from(list(places(parsed))))
    path.write_text(json.dumps(changed(parsed, at, data.draw(JUNK))))
    try:
        FILES[name](place)
    except PolyakError as error:
        assert str(error)
    finally:
        path.write_bytes(whole)
        shutil.rmtree(place / ".again.polyak", ignore_errors=True)
