"""Statistics in recipes: found, held against their models, streamed, and named when they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import polyak
from polyak import errors, recipe
from polyak.checkpoint import TensorSpec
from polyak.checkpoint._api import F16, F32
from polyak.checkpoint.safetensors import layout
from polyak.engine import run, tuning
from polyak.inspection.verification import verify
from polyak.planning import compatibility as fit
from polyak.planning.statistics import model_digest

from ..engine.conftest import write_model

SHAPES = {"layers.0.w": (4, 3), "layers.1.w": (4, 3), "norm": (3,)}


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def measured(seed: int, names: tuple[str, ...] = ("layers.0.w", "layers.1.w")) -> dict[str, np.ndarray]:
    return {name: value**2 for name, value in tensors(seed).items() if name in names}


def write(path: Path, found: dict[str, np.ndarray], dtype=F32, **metadata: str) -> Path:
    head, offsets = layout([TensorSpec(n, dtype, t.shape) for n, t in found.items()], metadata)
    with path.open("wb") as file:
        file.write(head)
        for name, tensor in found.items():
            file.seek(offsets[name])
            file.write(np.asarray(tensor, "<f2" if dtype is F16 else "<f4").tobytes())
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for i, name in enumerate("ab"):
        write_model(tmp_path / name, tensors(i))
        write(tmp_path / f"{name}.safetensors", measured(10 + i), **of(tmp_path / name))
    return tmp_path


def of(model: Path, names: tuple[str, ...] = ("layers.0.w", "layers.1.w"), kind: str = "fisher") -> dict[str, str]:
    digest = model_digest(fit.opened("x", polyak.open(model)), names)
    return {"polyak.statistic": kind, "polyak.model": digest}


def text(a: str = "fisher: ./a.safetensors", b: str = "fisher: ./b.safetensors", method: str = "fisher") -> str:
    models = "".join(f"  - {{path: ./{n}, statistics: {{{s}}}}}\n" for n, s in (("a", a), ("b", b)))
    return f"models:\n{models}method: {method}\n"


def planned(place: Path, body: str) -> polyak.Plan:
    (place / "recipe.yaml").write_text(body)
    return polyak.plan(place / "recipe.yaml")


def wanted() -> dict[str, np.ndarray]:
    models, known = [tensors(0), tensors(1)], [measured(10), measured(11)]
    return polyak.merge_state_dicts(models, method="fisher", statistics={"fisher": known})


def test_a_merge_from_files_is_the_merge_in_memory(place):
    run(planned(place, text()), place / "out")
    found = polyak.open(place / "out")
    for name, tensor in wanted().items():
        assert np.array_equal(found.read(name), tensor)
    stack = np.stack([tensors(i)["layers.0.w"] for i in range(2)])
    known = np.stack([measured(10 + i)["layers.0.w"] for i in range(2)])
    direct = polyak.methods.resolve("fisher")(stack, statistics={"fisher": known})
    np.testing.assert_allclose(found.read("layers.0.w"), direct, rtol=1e-6)


def test_small_windows_change_no_byte(place, monkeypatch):
    whole = wanted()
    monkeypatch.setattr(tuning, "READ_NBYTES", 40)
    monkeypatch.setattr(tuning, "TILE", 5)
    monkeypatch.setattr(tuning, "CHUNK", 7)
    for name, tensor in wanted().items():
        assert np.array_equal(tensor, whole[name])


def test_the_norm_is_taken_over_the_whole_model():
    models, known = [tensors(0), tensors(1)], [measured(10), measured(11)]
    found = polyak.merge_state_dicts(models, method="fisher", statistics={"fisher": known}, normalize=True)
    norms = [np.sqrt(sum(float((f.astype(np.float64) ** 2).sum()) for f in one.values())) for one in known]
    floored = [np.maximum(known[0]["layers.1.w"], 1e-6), known[1]["layers.1.w"]]
    shares = [f / norm for f, norm in zip(floored, norms, strict=True)]
    direct = sum(s * m["layers.1.w"] for s, m in zip(shares, models, strict=True)) / sum(shares)
    np.testing.assert_allclose(found["layers.1.w"], direct, rtol=1e-5)
    shares = [1 / norm for norm in norms]
    direct = sum(s * m["norm"] for s, m in zip(shares, models, strict=True)) / sum(shares)
    np.testing.assert_allclose(found["norm"], direct, rtol=1e-5)


def test_a_weight_that_changes_over_the_layers_leaves_the_norm_whole():
    models, known = [tensors(0), tensors(1)], [measured(10), measured(11)]
    rules = [{"match": r"layers\.0", "settings": {"weight": 2.0}}]
    data = {"models": ["a", "b"], "method": "fisher", "settings": {"normalize": True}, "rules": rules}
    given = {n: polyak.open(m) for n, m in zip("ab", models, strict=True)}
    known = {"fisher": {n: polyak.open(m) for n, m in zip("ab", known, strict=True)}}
    merged = [
        polyak.engine.run_in_memory(polyak.planning.plan(recipe.read(one, Path()), given, known))
        for one in (data, {**data, "rules": []})
    ]
    assert np.array_equal(merged[0]["layers.1.w"], merged[1]["layers.1.w"])


def test_provenance_digest_and_explanation_name_the_statistics(place):
    plan = planned(place, text())
    assert "fisher of a" in plan.explain()
    assert "without fisher" in plan.explain()  # of the norm, no model has any
    run(plan, place / "out")
    stated = json.loads((place / "out" / "polyak.json").read_text())
    assert set(stated["statistics"]["fisher of a"]["tensors"]) == {"layers.0.w", "layers.1.w"}
    assert verify(place / "out", inputs=True).inputs["fisher of b"] == "unchanged"
    write(place / "b.safetensors", measured(12), **of(place / "b"))
    assert verify(place / "out", inputs=True).inputs["fisher of b"].startswith("changed")
    assert planned(place, text()).digest != plan.digest


def test_a_recipe_with_statistics_survives_writing(place):
    found = recipe.read(recipe_data := {**_plain(place), "seed": 3}, place)
    again = recipe.loads(recipe.dump(found), place)
    assert again == found
    assert recipe.digest(again) == recipe.digest(found) != recipe.digest(recipe.read(without(recipe_data), place))


def _plain(place: Path) -> dict:
    models = [{"path": f"./{n}", "statistics": {"fisher": f"./{n}.safetensors"}} for n in "ab"]
    return {"models": models, "method": "fisher"}


def without(data: dict) -> dict:
    return {**data, "models": [{"path": one["path"]} for one in data["models"]]}


def test_a_model_without_the_statistic_is_named_with_the_remedy(place):
    body = "models: [./a, {path: ./b, statistics: {fisher: ./b.safetensors}}]\nmethod: fisher\n"
    with pytest.raises(errors.RecipeError, match=r"'fisher' of every model; a has none.*polyak measure fisher"):
        planned(place, body)


def test_a_statistic_of_another_model_is_refused_though_names_and_shapes_fit(place):
    with pytest.raises(errors.Mismatch, match=r"'fisher' of a \(.*b\.safetensors\) was measured on another model than"):
        planned(place, text(a="fisher: ./b.safetensors"))


def test_a_statistic_that_says_nothing_of_its_model_is_taken_with_a_note(place):
    write(place / "a.safetensors", measured(10))
    assert any("does not state the model" in note for note in planned(place, text()).notes)


@pytest.mark.parametrize(
    ("found", "metadata", "message"),
    [
        ({"other.w": np.ones((4, 3))}, {}, r"for another model: it has 'other\.w', which .*a lacks"),
        ({"layers.0.w": np.ones((4, 2)), "layers.1.w": np.ones((4, 3))}, {}, r"\[4, 2\]; for this tensor it must be"),
        ({"layers.0.w": np.ones((4, 3))}, {}, r"of a .* lacks 'layers\.1\.w', for which other models have"),
        ({"layers.0.w": np.ones((4, 3))}, {"polyak.statistic": "gram"}, r"is 'gram' by its metadata"),
        ({}, {}, "has no tensors"),
    ],
    ids=["other names", "other shape", "a tensor missing", "other kind", "nothing"],
)
def test_a_statistic_that_does_not_fit_is_refused_by_name(place, found, metadata, message):
    write(place / "a.safetensors", found, **metadata)
    with pytest.raises(errors.Mismatch, match=message):
        planned(place, text())


def test_another_dtype_is_refused(place):
    write(place / "a.safetensors", measured(10), F16)
    with pytest.raises(errors.Mismatch, match=r"'layers\.0\.w' as F16; statistics are F32"):
        planned(place, text())


@pytest.mark.parametrize(("value", "error"), [(np.nan, errors.NotFinite), (-1.0, errors.CheckpointError)])
def test_numbers_that_no_statistic_has_are_refused_where_they_stand(place, value, error):
    bad = measured(10)
    bad["layers.1.w"][2, 1] = value
    write(place / "a.safetensors", bad, **of(place / "a"))
    with pytest.raises(error, match=r"'layers\.1\.w' of the statistic fisher of a .* at \[2, 1\]; it must be finite"):
        run(planned(place, text()), place / "out")
    assert not (place / "out").exists()


def test_a_statistic_that_no_method_of_the_recipe_takes_is_refused(place):
    with pytest.raises(errors.RecipeError, match=r"'linear'.*takes the statistic 'fisher'"):
        planned(place, text(method="linear"))
    with pytest.raises(errors.RecipeError, match=r"models\[0\]\.statistics must be a mapping"):
        planned(place, "models: [{path: ./a, statistics: x}, ./b]\nmethod: fisher\n")
    with pytest.raises(errors.CheckpointError, match="does not exist"):
        planned(place, text(a="fisher: ./none.safetensors"))


def test_grams_are_read_whole_and_other_tensors_are_averaged(place):
    rng = np.random.default_rng(3)
    known = []
    for i in range(2):
        inputs = rng.standard_normal((9, 3)).astype(np.float32)
        known.append({"layers.0.w": inputs.T @ inputs, "layers.1.w": inputs.T @ inputs})
        write(place / f"{'ab'[i]}.safetensors", known[i], **of(place / "ab"[i], kind="gram"))
    body = text("gram: ./a.safetensors", "gram: ./b.safetensors", "regmean")
    run(planned(place, body), place / "out", workers=2)
    found = polyak.open(place / "out")
    stack = np.stack([tensors(i)["layers.0.w"] for i in range(2)])
    grams = np.stack([one["layers.0.w"] for one in known])
    direct = polyak.methods.resolve("regmean")(stack, statistics={"gram": grams})
    assert np.array_equal(found.read("layers.0.w"), direct)
    np.testing.assert_allclose(found.read("norm"), (tensors(0)["norm"] + tensors(1)["norm"]) / 2, rtol=1e-6)
    with pytest.raises(errors.Mismatch, match=r"\[3, 3\]; for this tensor it must be \[4, 4\]"):
        planned(place, body + "settings: {layout: in_out}\n")


def test_a_merge_that_is_not_written_yet_has_no_statistic_to_check(place):
    body = text().replace("path: ./a,", "recipe: {models: [./a], method: linear}, name: a,")
    with pytest.raises(errors.Mismatch, match="has not been written"):
        planned(place, body)


def test_statistics_for_some_of_the_models_in_memory_are_refused():
    with pytest.raises(errors.SettingError, match="1 of 2 models"):
        polyak.merge_state_dicts([tensors(0), tensors(1)], method="fisher", statistics={"fisher": [measured(1)]})
