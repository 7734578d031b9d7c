"""The text demo keeps every head, and what it merges loads as an encoder; on a tiny encoder and made-up texts."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.numpy import load_file

from .conftest import write_texts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield importlib.import_module("examples.text.demo")


@pytest.fixture(scope="module")
def out(demo: ModuleType, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's folder after a run on small data."""
    data, folder = importlib.import_module("examples.text.data"), tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "FOLDER", folder)
        patch.setattr(data, "PARTS", {name: (file, slice(0, 48)) for name, (file, _) in data.PARTS.items()})
        for i, (name, task) in enumerate(data.TASKS.items()):
            for file in ("train", "test"):
                write_texts(folder / f"{name}.{file}.jsonl.gz", task.classes, 48, seed=i)
        merges = (demo.Merge("linear"), demo.Merge("task_arithmetic", scales=(0.5, 1.0)))
        demo.run(source, folder / "out", merges)
        yield folder / "out"
        data.examples.cache_clear()


def test_every_head_stays_as_its_expert_has_it(demo: ModuleType, out: Path) -> None:
    for name in demo.TASKS:
        expert = load_file(out / "models" / name / "model.safetensors")
        kept = load_file(out / "merged" / "linear" / "heads" / f"{name}.safetensors")
        assert {"classifier.weight", "classifier.bias"} == kept.keys()
        for tensor, values in kept.items():
            assert (values == expert[tensor]).all(), (name, tensor)


def test_a_merged_encoder_loads_with_no_missing_and_no_unexpected_key(out: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    for name in ("linear", "task_arithmetic"):
        _, info = AutoModel.from_pretrained(out / "merged" / name, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert AutoTokenizer.from_pretrained(out / "merged" / name)("red cat")["input_ids"]


def test_a_folder_that_lacks_a_tensor_is_no_encoder(out: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    encoders = importlib.import_module("examples.text.encoders")
    tensors = load_file(out / "models" / "base" / "model.safetensors")
    del tensors["pooler.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((out / "models" / "base" / "config.json").read_bytes())
    with pytest.raises(AssertionError, match=r"lacks \['pooler\.dense\.weight'\]"):
        encoders.load(tmp_path)


def test_results_have_a_row_for_base_experts_and_merges(demo: ModuleType, out: Path) -> None:
    results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in results["rows"]]
    assert names == ["base", *demo.TASKS, "mean expert", "linear", "task_arithmetic"]
    assert all(0 <= score <= 1 for row in results["rows"] for score in row["scores"].values())


def test_experts_trained_in_the_same_way_are_used_again(demo: ModuleType, out: Path) -> None:
    stamps = {name: (out / "models" / name / "model.safetensors").stat().st_mtime_ns for name in demo.TASKS}
    demo._train(demo.Workshop(out, tuple(demo.TASKS)), out / "models" / "base")
    assert stamps == {name: (out / "models" / name / "model.safetensors").stat().st_mtime_ns for name in demo.TASKS}


def test_without_data_the_demo_says_what_it_wants(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.import_module("examples.text.data"), "FOLDER", tmp_path)
    monkeypatch.setattr(demo.encoders, "pretrained", lambda: tmp_path)
    demo.main()
    assert "skipped" in (said := capsys.readouterr().err)
    assert "trec6.train.jsonl.gz" in said and "POLYAK_DATA" in said


def test_without_weights_the_demo_says_how_to_install_them(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo.encoders, "PACKAGE", "a_package_that_nobody_has")
    demo.main()
    assert "skipped: no weights" in (said := capsys.readouterr().err) and "requirements.txt" in said
