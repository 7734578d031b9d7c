"""Whisper: its processor consists of more files than a text model's."""

from __future__ import annotations

import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")

import polyak  # noqa: E402
from polyak.engine import run  # noqa: E402
from polyak.recipe import loads  # noqa: E402

from ..engine.conftest import write_model  # noqa: E402


def write_processor(folder):
    """As WhisperProcessor saves itself, with a vocabulary of letters."""
    letters = {letter: i for i, letter in enumerate("abcdefgh")}
    marks = ["endoftext", "startoftranscript", "en", "transcribe", "translate", "notimestamps"]
    letters |= {f"<|{mark}|>": 8 + i for i, mark in enumerate(marks)}
    (folder / "vocab.json").write_text(json.dumps(letters))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    tokenizer = transformers.WhisperTokenizer(
        vocab=letters, merges=[], normalizer_file=str(folder / "normalizer.json"), language="english"
    )
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)


def test_the_processor_of_a_merge_is_that_of_its_first_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value, name in enumerate("ab"):
        write_model(tmp_path / name, {"w": np.full((2, 2), value, np.float32)}, {"model_type": "whisper"})
        write_processor(tmp_path / name)
        (tmp_path / name / "generation_config.json").write_text(json.dumps({"no_timestamps_token_id": 3}))
    run(polyak.plan(loads("method: linear\nmodels: [./a, ./b]\n")), "out")
    files = {path.name for path in (tmp_path / "a").iterdir()} - {"README.md"}
    assert files <= {path.name for path in (tmp_path / "out").iterdir()}
    processor = transformers.WhisperProcessor.from_pretrained("out")
    assert processor.tokenizer.normalize("The colour") == "the color"
    assert processor.feature_extractor.sampling_rate == 16000
