"""What a search scores in memory is what `polyak merge` writes of its best recipe, byte by byte."""

from __future__ import annotations

import pytest

from polyak import api, checkpoint, recipe
from polyak.search import search
from polyak.search.scoring import Scoring

WEIGHTS = "models: [{path: ./a, weight: {search: [0.1, 1]}}, {path: ./b, weight: {search: [0.1, 1]}}]\n"
PLAIN = "base: ./base\nmodels: [./a, ./b]\n"
RECIPES = {
    "linear": f"{WEIGHTS}method: linear\n",
    "linear as bfloat16": f"{WEIGHTS}method: linear\ndtype: bfloat16\n",
    "ties with density": f"base: ./base\n{WEIGHTS}method: ties\nsettings: {{density: {{search: [0.1, 0.9]}}}}\n",
    "dare with a seed": f"{PLAIN}method: dare_linear\nseed: 7\nsettings: {{density: {{search: [0.2, 0.9]}}}}\n",
    "slerp": "models: [./a, ./b]\nmethod: slerp\nsettings: {t: {search: [0.1, 0.9]}}\n",
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=list(RECIPES))
def test_the_best_candidate_in_memory_has_the_bytes_that_its_recipe_merges_to(asked, tmp_path, monkeypatch, text):
    """After candidates that came before it in the same memory, and scored before others that overwrite it."""
    tensors, modules = dict[str, dict[str, bytes]](), dict[str, dict[str, bytes]]()
    score = Scoring.score

    def watched(self, candidates, label, *, gradually):
        tensors[label] = {name: one.tobytes() for name, one in candidates.tensors().items()}
        (live,) = self._live.values()
        modules[label] = {name: one.detach().numpy().tobytes() for name, one in live.tensors.items()}
        return score(self, candidates, label, gradually=gradually)

    monkeypatch.setattr(Scoring, "score", watched)
    found = search(asked(text, sampler="random"), trials=7)
    assert len(set(map(repr, modules.values()))) >= 5  # baselines may be one model
    best = f"candidate {found.best.number}"
    (tmp_path / "best.yaml").write_text(recipe.dump(found.recipe, tmp_path))
    api.merge(tmp_path / "best.yaml", tmp_path / "out")
    with checkpoint.open(tmp_path / "out") as written:
        stored = {name: written.read(name) for name in written.specs}
    assert tensors[best] == {name: one.tobytes() for name, one in stored.items()}
    assert modules[best] == {name: one.astype("f4").tobytes() for name, one in stored.items()}
