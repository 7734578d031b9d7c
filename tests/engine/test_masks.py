"""Masks beside a merge, and the models that they cut out of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import polyak
from polyak import errors
from polyak.checkpoint.safetensors import SafetensorsFile
from polyak.cli import app
from polyak.engine import run
from polyak.inspection.verification import verify
from polyak.storage.staging import Draft

from ..methods.test_golden import BASE, BIASES, DELTAS
from .conftest import random_family, tree_digest, write_model

MODELS = ("m0", "m1", "m2")


def written(folder: Path, family: dict[str, dict[str, np.ndarray]]) -> Path:
    for name, tensors in family.items():
        write_model(folder / name, tensors)
    return folder


def recipe(folder: Path, method: str = "emr", **more: str) -> Path:
    lines = {"base": "./base", "models": "[./m0, ./m1, ./m2]", "method": method} | more
    path = folder / f"{method}.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a family of bfloat16 and its merge by EMR."""
    folder = written(tmp_path_factory.mktemp("emr"), random_family(models=3))
    polyak.merge(recipe(folder), folder / "out")
    return folder


def task(folder: Path, model: str, out: str = "out") -> polyak.Checkpoint:
    return polyak.open(folder / out / "masks" / f"{model}.safetensors")


def floats(checkpoint: polyak.Checkpoint, name: str) -> np.ndarray:
    return checkpoint.read(name).astype(np.float32)


@pytest.mark.parametrize(
    ("rescale", "wanted"),
    [("official", [1.0, 1.28571, 1.07692]), ("paper", [19 / 21, 19 / 17, 22 / 20])],
)
def test_rescalers_of_two_tensors_agree_with_the_authors(tmp_path: Path, rescale: str, wanted: list[float]):
    golden = {"base": {"w": BASE, "b": np.zeros(4)}}
    golden |= {f"m{i}": {"w": BASE + DELTAS[i], "b": BIASES[i]} for i in range(3)}
    written(tmp_path, {n: {k: t.astype(np.float32) for k, t in tensors.items()} for n, tensors in golden.items()})
    polyak.merge(recipe(tmp_path, settings=f"{{rescale: {rescale}}}"), tmp_path / "out")
    for model, scale in enumerate(wanted):
        masks = SafetensorsFile(tmp_path / "out" / "masks" / f"m{model}.safetensors")
        assert {float(masks.read(f"{name}:scale")) for name in "wb"} == {float(masks.read("w:scale"))}
        np.testing.assert_allclose(masks.read("w:scale"), scale, atol=1e-5)


def test_a_task_model_is_base_and_rescaled_masked_unified_delta(merged: Path):
    family = random_family(models=3)
    as_floats = {n: {k: np.asarray(t, np.float64) for k, t in tensors.items()} for n, tensors in family.items()}
    base = as_floats["base"]
    deltas = {n: np.stack([as_floats[m][n] - base[n] for m in MODELS]) for n in base}
    unified = {}
    for name, stack in deltas.items():
        gamma = np.where(stack.sum(axis=0) > 0, 1, -1)
        unified[name] = gamma * np.max(np.where(stack * gamma > 0, np.abs(stack), 0), axis=0)
    for i, model in enumerate(MODELS):
        masks = {n: stack[i] * unified[n] > 0 for n, stack in deltas.items()}
        size = sum(np.abs(stack[i]).sum() for stack in deltas.values())
        scale = size / sum(np.abs(masks[n] * unified[n]).sum() for n in masks)
        with task(merged, model) as found:
            for name in base:
                wanted = base[name] + scale * masks[name] * unified[name]
                np.testing.assert_allclose(floats(found, name), wanted, rtol=1e-5, atol=1e-6)


def test_the_unified_model_holds_numbers_of_the_models_or_the_base_and_none_is_rounded(merged: Path):
    family = random_family(models=3)
    with polyak.open(merged / "out") as unified:
        for name, base in family["base"].items():
            candidates = np.stack([base, *(family[m][name] for m in MODELS)]).astype(np.float32)
            assert (candidates == floats(unified, name)).any(axis=0).all()


def test_a_task_model_is_nearer_to_its_model_than_the_base_is(merged: Path):
    family = random_family(models=3)
    for model in MODELS:
        with task(merged, model) as found:
            moved = floats(found, "layers.0.w") - family[model]["layers.0.w"].astype(np.float32)
            tuned = (family["base"]["layers.0.w"] - family[model]["layers.0.w"]).astype(np.float32)
            assert np.abs(moved).sum() < 0.5 * np.abs(tuned).sum()


def test_any_range_of_entries_reads_alike(merged: Path):
    with task(merged, "m1") as found:
        whole = found.read("layers.0.w").reshape(-1)
        for start, stop in [(0, 1), (1, 9), (7, 8), (8, 16), (13, 6143), (6143, 6144), (5, 5)]:
            part = np.empty(4 * (stop - start), np.uint8)
            found.read_into("layers.0.w", start, stop, part)
            np.testing.assert_array_equal(part.view(np.float32), whole[start:stop])


@pytest.mark.parametrize(("workers", "tile"), [(1, 64), (4, 333), (2, 100_000)])
def test_workers_and_tiles_change_no_byte_of_the_masks(merged: Path, tmp_path: Path, workers: int, tile: int):
    run(polyak.plan(merged / "emr.yaml"), tmp_path / "out", workers=workers, tile=tile)
    assert tree_digest(tmp_path / "out") == tree_digest(merged / "out")


def test_verify_notices_a_changed_bit_of_a_mask(merged: Path, tmp_path: Path):
    shutil.copytree(merged / "out", tmp_path / "out")
    assert verify(tmp_path / "out", inputs=True).differing == ()
    path = tmp_path / "out" / "masks" / "m1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (problem,) = verify(tmp_path / "out").differing
    assert problem.startswith("masks/m1.safetensors:") and problem.endswith("was changed")


@pytest.mark.parametrize("damaged", ["", "model.safetensors", "masks/m2.safetensors"])
def test_an_interrupted_merge_goes_on_and_does_damaged_pieces_again(
    merged: Path, tmp_path: Path, damaged: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(draft: Draft) -> None:
        raise KeyboardInterrupt

    plan, out = polyak.plan(merged / "emr.yaml"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "publish", fail)
        with pytest.raises(KeyboardInterrupt):
            run(plan, out)
    (draft,) = (path for path in tmp_path.rglob("model.safetensors"))
    if damaged:
        path = draft.parent / damaged
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    report = run(plan, out, resume=True)
    assert report.resumed == len(plan.steps) - bool(damaged)
    assert tree_digest(out) == tree_digest(merged / "out")


@pytest.fixture
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and leaves so small that a tensor's masks have several."""
    from polyak.engine import tuning
    from polyak.engine.output import completed as ledger
    from polyak.inspection import verification as verify
    from polyak.storage import digest

    monkeypatch.setattr(tuning, "CHUNK", 4096)
    for one in (digest, ledger, verify):
        monkeypatch.setattr(one, "LEAF_NBYTES", 4096)


@pytest.fixture
def long(tmp_path: Path, small_leaves: None) -> Path:
    """A recipe for models with a tensor of three pieces, the last of which is short and no multiple of eight."""
    shapes = {"layers.0.w": (80_003,), "layers.1.w": (9,)}
    return recipe(written(tmp_path, random_family(models=3, shapes=shapes)), settings="{masks: true}")


@pytest.mark.parametrize("workers", [1, 3])
def test_masks_of_several_pieces_are_those_of_one(long: Path, workers: int, monkeypatch: pytest.MonkeyPatch):
    run(polyak.plan(long), long.parent / "out", workers=workers)
    assert verify(long.parent / "out").differing == ()
    monkeypatch.undo()
    run(polyak.plan(long), long.parent / "whole")
    for model in MODELS:
        name = f"masks/{model}.safetensors"
        assert (long.parent / "out" / name).read_bytes() == (long.parent / "whole" / name).read_bytes()


def test_a_piece_whose_masks_are_not_in_the_journal_is_done_again(long: Path, monkeypatch: pytest.MonkeyPatch):
    from polyak.engine.step.masks import MaskPacker

    plan, out = polyak.plan(long), long.parent / "out"
    digests, calls = MaskPacker.digests, []

    def fail_at_the_third(packer: MaskPacker):
        calls.append(packer)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return digests(packer)

    with monkeypatch.context() as patch:
        patch.setattr(MaskPacker, "digests", fail_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run(plan, out, workers=1)
    report = run(plan, out, workers=1, resume=True)
    assert 7 < report.resumed < 24
    assert verify(out, inputs=True).differing == ()
    run(plan, long.parent / "again", workers=2)
    assert tree_digest(out) == tree_digest(long.parent / "again")


def test_a_recipe_takes_task_models_as_models(merged: Path, tmp_path: Path):
    for model in ("m0", "m2"):
        path = merged / "out" / "masks" / f"{model}.safetensors"
        (tmp_path / "one.yaml").write_text(f"models: [{path}]\nmethod: passthrough\n")
        polyak.merge(tmp_path / "one.yaml", tmp_path / model)
        with task(merged, model) as view, polyak.open(tmp_path / model) as baked:
            for name in baked.specs:
                assert baked.specs[name].dtype.name == "BF16"
                wanted = view.read(name).astype(ml_dtypes.bfloat16)
                np.testing.assert_array_equal(baked.read(name).view(np.uint16), wanted.view(np.uint16))
        assert (tmp_path / model / "config.json").is_file()
    assert verify(tmp_path / "m0", inputs=True).inputs == {"m0.safetensors": "unchanged"}


def test_tall_masks_choose_between_the_bits_of_merge_and_base(tmp_path: Path):
    family = random_family(models=3)
    written(tmp_path, family)
    polyak.merge(recipe(tmp_path, "tall_masks", settings="{tall_lambda: 0.4}"), tmp_path / "out")
    base, name = family["base"]["layers.1.w"].astype(np.float32), "layers.1.w"
    deltas = np.stack([family[m][name].astype(np.float32) - base for m in MODELS])
    keep = np.abs(deltas) > np.float32(0.4) * np.abs(deltas.sum(axis=0) - deltas)
    with polyak.open(tmp_path / "out") as merge:
        for i, model in enumerate(MODELS):
            with task(tmp_path, model) as found:
                np.testing.assert_array_equal(floats(found, name), np.where(keep[i], floats(merge, name), base))
    assert 0.1 < keep.mean() < 0.9


def test_a_model_of_weight_zero_has_an_empty_mask(tmp_path: Path):
    family = random_family(models=3)
    written(tmp_path, family)
    polyak.merge(recipe(tmp_path, "tall_masks", settings="{weight: [1, 0, 1]}"), tmp_path / "out")
    with task(tmp_path, "m1") as found:
        np.testing.assert_array_equal(floats(found, "layers.0.w"), family["base"]["layers.0.w"].astype(np.float32))


def test_tensors_that_other_methods_merge_are_the_merges_and_heads_come_along(tmp_path: Path):
    family = random_family(models=3)
    for i, model in enumerate(MODELS):
        family[model]["head.weight"] = np.full((i + 2, 4), i, np.float32)
    written(tmp_path, family)
    path = recipe(tmp_path, heads="head", rules="[{match: embed, method: linear}]")
    polyak.merge(path, tmp_path / "out")
    with task(tmp_path, "m2") as found, polyak.open(tmp_path / "out") as merge:
        assert found.read("head.weight").tolist() == np.full((4, 4), 2.0).tolist()
        assert found.read("embed_tokens.weight").tobytes() == merge.read("embed_tokens.weight").tobytes()
        assert not (floats(found, "layers.0.w") == floats(merge, "layers.0.w")).all()
    assert verify(tmp_path / "out").differing == ()
    heads = tmp_path / "out" / "heads" / "m2.safetensors"
    heads.rename(tmp_path / "elsewhere.safetensors")
    heads.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(errors.CheckpointError, match="link out of the folder"):
        task(tmp_path, "m2")


def test_masks_false_writes_none_and_merges_in_memory_and_nested_ones_write_none(merged: Path, tmp_path: Path):
    family = random_family(models=3)
    written(tmp_path, family)
    polyak.merge(recipe(tmp_path, settings="{masks: false}"), tmp_path / "out")
    assert not (tmp_path / "out" / "masks").exists()
    found = polyak.merge_state_dicts([family[m] for m in MODELS], method="emr", base=family["base"])
    assert found.keys() == family["base"].keys()
    nested = tmp_path / "nested.yaml"
    nested.write_text("models: [{recipe: emr.yaml, name: e}]\nmethod: passthrough\n")
    recipe(tmp_path)
    polyak.merge(nested, tmp_path / "flat")
    for name in found:
        for out in (tmp_path / "flat", tmp_path / "out", merged / "out"):
            with polyak.open(out) as model:
                assert model.read(name).tobytes() == found[name].tobytes()


def test_the_plan_says_what_lies_beside_the_merge(merged: Path):
    assert "masks and scales into masks/m2.safetensors" in polyak.plan(merged / "emr.yaml").explain()


@pytest.mark.parametrize("more", [{}, {"settings": "{masks: false}", "heads": "embed"}])
def test_a_name_that_would_leave_the_folder_is_refused_for_masks_and_heads(tmp_path: Path, more: dict[str, str]):
    written(tmp_path, random_family(models=3))
    models = "[{path: ./m0, name: ../../m0}, ./m1, ./m2]"
    with pytest.raises(errors.RecipeError, match=r"'\.\./\.\./m0' cannot be: give it a `name:` without '/'"):
        polyak.plan(recipe(tmp_path, models=models, **more))
    polyak.plan(recipe(tmp_path, models=models, settings="{masks: false}"))


def test_the_model_card_names_the_masks_where_there_are_some(merged: Path, tmp_path: Path):
    assert "`masks/m2.safetensors` (`polyak bake`)" in (merged / "out" / "README.md").read_text()
    run(polyak.plan(recipe(written(tmp_path, random_family(models=3)), "ties")), tmp_path / "out")
    assert "bake" not in (tmp_path / "out" / "README.md").read_text()


def bake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    try:
        app(["bake", *map(str, arguments)], standalone_mode=False)
    except errors.PolyakError as error:
        return str(error)
    return capsys.readouterr().out


def test_bake_writes_a_task_model_and_finds_a_base_that_moved(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    masks = merged / "out" / "masks" / "m0.safetensors"
    assert "8 tensors" in bake(capsys, masks, tmp_path / "baked")
    shutil.copytree(merged, tmp_path / "elsewhere")
    here = tmp_path / "elsewhere" / "out" / "masks" / "m0.safetensors"
    data = here.read_bytes().replace(str(merged / "base").encode(), b"/" + b"x" * (len(str(merged / "base")) - 1))
    here.write_bytes(data)
    said = bake(capsys, here, tmp_path / "again")
    assert "which is not at '/xxx" in said and "--base BASE" in said
    bake(capsys, here, tmp_path / "again", "--base", tmp_path / "elsewhere" / "base")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "baked" / "model.safetensors"
    ).read_bytes()


def test_what_is_no_mask_or_does_not_fit_is_refused(merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    weights = merged / "out" / "model.safetensors"
    assert "is not a file of masks" in bake(capsys, weights, tmp_path / "x", "--base", merged / "base")
    masks = merged / "out" / "masks" / "m0.safetensors"
    write_model(tmp_path / "other", {"layers.0.w": np.zeros((2, 2), np.float32)})
    with pytest.raises(errors.CheckpointError, match=r"masks '.+', which is .+ in .*out and .+ in .*other"):
        polyak.with_masks(polyak.open(merged / "out"), polyak.open(tmp_path / "other"), masks)


@pytest.mark.parametrize("wrong", ["scale is missing", "mask is short", "scale is nan"])
def test_a_damaged_file_of_masks_is_refused(merged: Path, tmp_path: Path, wrong: str):
    out, masks = tmp_path / "out", tmp_path / "out" / "masks" / "m0.safetensors"
    shutil.copytree(merged / "out", out)
    good = SafetensorsFile(masks)
    tensors = {name: good.read(name) for name in good.specs}
    if wrong == "scale is missing":
        del tensors["norm:scale"]
    elif wrong == "mask is short":
        tensors["norm:mask"] = tensors["norm:mask"][:-1]
    else:
        tensors["norm:scale"] = np.array(np.nan, np.float32)
    write_model(tmp_path / "new", tensors)
    shutil.copy(tmp_path / "new" / "model.safetensors", masks)
    data = masks.read_bytes()
    with pytest.raises(errors.CheckpointError, match="not a file of masks"):
        polyak.with_masks(polyak.open(out), polyak.open(merged / "base"), masks)
    masks.write_bytes(_marked(data))
    with pytest.raises(errors.CheckpointError, match=r"is damaged: .*'norm'"):
        polyak.with_masks(polyak.open(out), polyak.open(merged / "base"), masks).read("norm")


def _marked(data: bytes) -> bytes:
    """The same file, with metadata that says that it holds masks."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'{"format":"pt"}', b'{"polyak":"masks"}')
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def test_masks_of_a_tensor_longer_than_what_is_written_at_a_time_are_those_of_any_tiles(tmp_path: Path):
    written(tmp_path, random_family(models=3, shapes={"w": (700_001,)}))
    for out, tile in {"own": None, "odd": 70_001}.items():
        run(polyak.plan(recipe(tmp_path)), tmp_path / out, tile=tile)
    assert tree_digest(tmp_path / "own") == tree_digest(tmp_path / "odd")
