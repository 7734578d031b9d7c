"""Heads of classifiers whose configs name their classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from polyak import api, recipe

from ..docs.models import write_tensors


def notes_on_classes(place: Path, labels: dict[str, list[str]], **settings: str) -> list[str]:
    rng = np.random.default_rng(0)
    for name, classes in labels.items():
        (place / name).mkdir()
        shapes = {"bert.pooler.weight": (4, 4), "classifier.weight": (len(classes), 4)}
        values = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
        write_tensors(place / name / "model.safetensors", values)
        config = {"model_type": "bert", "id2label": dict(enumerate(classes))}
        (place / name / "config.json").write_text(json.dumps(config))
    described = {"method": "linear", "models": [f"./{name}" for name in labels], **settings}
    return [note for note in api.plan(recipe.read(described, place)).notes if "classes" in note]


def test_a_note_names_the_classes_that_differ(tmp_path: Path):
    (note,) = notes_on_classes(tmp_path, {"a": ["sports", "world"], "b": ["joy", "World"], "c": ["sports", "world"]})
    assert note.startswith("the classes of 'classifier.weight' have other names in b than in a ('sports' and 'joy'). ")
    assert "`heads: REGEX`" in note


@pytest.mark.parametrize(
    ("classes", "settings"),
    [
        (["sports", "world"], {}),
        (["LABEL_0", "LABEL_1"], {}),
        (["0", "1"], {}),
        (["joy", "fear"], {"heads": "^classifier"}),
        (["joy", "fear"], {"skip": "^classifier"}),
    ],
)
def test_heads_of_the_same_or_unnamed_classes_and_heads_that_are_not_merged_have_no_note(
    tmp_path: Path, classes: list[str], settings: dict[str, str]
):
    assert notes_on_classes(tmp_path, {"a": ["sports", "world"], "b": classes}, **settings) == []
