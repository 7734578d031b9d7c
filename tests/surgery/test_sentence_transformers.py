"""Models that sentence-transformers itself saves: merged, and loaded by it again, with every module in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

import polyak  # noqa: E402
from polyak.engine import run  # noqa: E402
from polyak.recipe import loads  # noqa: E402

from .encoders import write_encoder  # noqa: E402


def modules_of(kind: str, folder: Path, seed: int) -> list[Any]:
    from sentence_transformers.models import Dense, LayerNorm, Normalize, Pooling, Router, Transformer

    def encoder(name: str, more: int = 0) -> list[Any]:
        return [
            Transformer(write_encoder(folder / name, seed + more), max_seq_length=16),
            Pooling(16, pooling_mode="cls"),
        ]

    if kind == "router":
        return [Router.for_query_document(encoder("query"), encoder("document", 7)), Normalize()]
    dense = [Dense(16, 8), LayerNorm(8)] if kind == "dense" else []
    return [*encoder("body"), *dense, Normalize()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "width"), [("dense", 8), ("router", 16), ("plain", 16)])
def test_a_merge_is_a_model_of_sentence_transformers(tmp_path, monkeypatch, kind, width):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        modules = modules_of(kind, tmp_path / f"parts-{name}", seed)
        library.SentenceTransformer(modules=modules, device="cpu").save(name)
    run(polyak.plan(loads("method: linear\nmodels: [./a, {path: ./b, weight: 3}]\n")), "out")
    a, b, merged = (library.SentenceTransformer(name, device="cpu") for name in ("a", "b", "out"))
    assert [type(module) for module in merged] == [type(module) for module in a]
    one, other, found = (model.state_dict() for model in (a, b, merged))
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        expected = (one[name] + 3 * other[name]) / 4 if tensor.is_floating_point() else one[name]
        torch.testing.assert_close(tensor, expected)
    assert merged.encode(["w1 w2"]).shape == (1, width)
    assert "library_name: sentence-transformers" in Path("out/README.md").read_text()
