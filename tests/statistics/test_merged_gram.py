"""Grams behind merged blocks: against RegMean++ written out in NumPy, and from a task's file to a merge."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import polyak as api  # noqa: E402
from polyak import checkpoint, recipe  # noqa: E402
from polyak.cli import main  # noqa: E402
from polyak.errors import RecipeError, TaskError  # noqa: E402
from polyak.statistics import _through_merge as merged_gram  # noqa: E402
from polyak.statistics import load  # noqa: E402
from polyak.statistics._blocks import blocks_of, passage_of  # noqa: E402
from polyak.storage import claim  # noqa: E402

from ..engine.conftest import write_model as write_arrays  # noqa: E402

ROOT = Path(__file__).parents[2]
WIDTH, CLASSES, KEEP, RIDGE = 5, 3, 0.95, 1e-6
NETS = """
from tests.statistics.test_merged_gram import Residual, Network, Turned, Repeated


class Unlucky(Network):
    def forward(self, *points, **more):
        raise LookupError("out of luck")
"""


class Residual(nn.Module):
    """A block as transformers have them: a norm, two layers, and what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 7), nn.Linear(7, WIDTH)

    def forward(self, x, scale=1.0, past_key_values=None):
        return (x + scale * self.down(torch.tanh(self.up(self.norm(x)))),)


class Network(nn.Module):
    """An embedding, blocks, and a head."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(4, WIDTH)
        self.blocks = nn.ModuleList(Residual() for _ in range(depth))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, pixel_values):
        x = self.stem(pixel_values)
        for i, block in enumerate(self.blocks):
            x = block(x, scale=1.0 + i)[0]
        return self.head(x)


class Turned(Network):
    """Blocks in another order than they are listed in."""

    def forward(self, pixel_values):
        x = self.stem(pixel_values)
        for block in reversed(self.blocks):
            x = block(x)[0]
        return self.head(x)


class Repeated(Network):
    """Something happens between two blocks."""

    def forward(self, pixel_values):
        x = self.stem(pixel_values)
        for block in self.blocks:
            x = block(x)[0] * 2
        return self.head(x)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged-gram")
    (folder / "nets.py").write_text(NETS)
    for i in range(2):
        rng = np.random.default_rng(i)
        rows = [{"pixel_values": x.tolist(), "label": int(x.argmax() % CLASSES)} for x in rng.normal(i, 1, (30, 4))]
        (folder / f"t{i}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        said = f"kind: image-classification\nname: t{i}\nsplits: {{calibration: t{i}.jsonl}}\n"
        (folder / f"t{i}.yaml").write_text(f"{said}image: pixel_values\nscale: 1\n")
        torch.manual_seed(i)
        write_arrays(folder / f"m{i}", {n: t.numpy() for n, t in Network().state_dict().items()})
    models = "".join(f"  - {{path: {folder}/m{i}, weight: {i + 1}}}\n" for i in range(2))
    (folder / "recipe.yaml").write_text(f"method: regmean_plus_plus\nmodels:\n{models}")
    return folder


@pytest.fixture
def polyak(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(ROOT)

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["polyak", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said.out + said.err

    return run


def measured(*more: object, net: str = "Network") -> tuple[object, ...]:
    tasks = ("--task", "m0=t0.yaml", "--task", "m1=t1.yaml")
    return "measure", "merged-gram", "recipe.yaml", *tasks, "--module", f"nets:{net}", *more


Arrays = dict[str, np.ndarray]


def weights(folder: Path) -> Arrays:
    with checkpoint.open(folder) as held:
        return {name: held.read(name).astype(np.float64) for name in held.specs}


def inputs(place: Path, i: int) -> np.ndarray:
    lines = (place / f"t{i}.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["pixel_values"] for line in lines])


@dataclass
class Reference:
    """RegMean++ by loops, in float64."""

    models: list[Arrays]
    shares: np.ndarray

    def average(self, name: str) -> np.ndarray:
        return sum(w * m[name] for w, m in zip(self.shares, self.models, strict=True))  # type: ignore[return-value]

    def matched(self, name: str, grams: list[np.ndarray]) -> np.ndarray:
        eye = np.eye(len(grams[0]))
        shrunk = [w * g * (KEEP + (1 - KEEP) * eye) for w, g in zip(self.shares, grams, strict=True)]
        rho, mean = RIDGE * np.trace(sum(shrunk)) / len(eye), self.average(name)
        pulls = sum(g @ m[name].T for g, m in zip(shrunk, self.models, strict=True)) + rho * mean.T
        return np.linalg.solve(sum(shrunk) + rho * eye, pulls).T

    def merge(self, xs: list[np.ndarray], depth: int = 3) -> Arrays:
        merged = {name: self.average(name) for name in self.models[0]}
        xs = [x @ merged["stem.weight"].T + merged["stem.bias"] for x in xs]
        for i in range(depth):
            inside = [hidden(m, i, x) for m, x in zip(self.models, xs, strict=True)]
            for layer, at in (("up", 0), ("down", 1)):
                grams = [seen[at].T @ seen[at] / len(seen[at]) for seen in inside]
                merged[f"blocks.{i}.{layer}.weight"] = self.matched(f"blocks.{i}.{layer}.weight", grams)
            xs = [x + (1 + i) * out(merged, i, x) for x in xs]
        return merged


def hidden(m: Arrays, i: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What both layers of a block see."""
    centred = x - x.mean(1, keepdims=True)
    normed = centred / np.sqrt(x.var(1, keepdims=True) + 1e-5) * m[f"blocks.{i}.norm.weight"]
    normed = normed + m[f"blocks.{i}.norm.bias"]
    return normed, np.tanh(normed @ m[f"blocks.{i}.up.weight"].T + m[f"blocks.{i}.up.bias"])


def out(m: Arrays, i: int, x: np.ndarray) -> np.ndarray:
    return hidden(m, i, x)[1] @ m[f"blocks.{i}.down.weight"].T + m[f"blocks.{i}.down.bias"]


def test_measuring_and_merging_is_regmean_plus_plus_written_out(place: Path, polyak: Any, tmp_path: Path):
    said = polyak(*measured("-o", tmp_path / "grams"))
    assert "merged_gram of 6 tensors over 30 examples" in said
    polyak("merge", tmp_path / "grams" / "recipe.yaml", tmp_path / "merged", "--quiet")
    reference = Reference([weights(place / f"m{i}") for i in range(2)], np.array([1, 2]) / 3)
    wanted, found = reference.merge([inputs(place, i) for i in range(2)]), weights(tmp_path / "merged")
    for name, one in wanted.items():
        np.testing.assert_allclose(found[name], one, atol=2e-5, err_msg=name)
    moved = [np.abs(one - reference.average(name)).max() for name, one in wanted.items() if "up.weight" in name]
    assert max(moved) > 0.01


def test_batches_do_not_matter(place: Path, polyak: Any, tmp_path: Path):
    for size in (30, 7):
        polyak(*measured("-o", tmp_path / str(size), "--batch-size", size, "--quiet"))
    one, other = (load(tmp_path / str(size) / "m1.safetensors") for size in (30, 7))
    for name in one.tensors:
        np.testing.assert_allclose(one.tensors[name], other.tensors[name], rtol=1e-5, atol=1e-6)
    assert (one.data, one.model) == (other.data, other.model)


def test_plain_grams_are_not_taken_for_them(place: Path, polyak: Any, tmp_path: Path):
    polyak("measure", "gram", "m0", "--task", "t0.yaml", "--module", "nets:Network", "-o", tmp_path / "g.safetensors")
    asked = recipe.load(place / "recipe.yaml")
    given = tuple(replace(one, statistics={"merged_gram": str(tmp_path / "g.safetensors")}) for one in asked.models)
    with pytest.raises(Exception, match="is 'gram' by its metadata"):
        api.plan(replace(asked, models=given))


def test_what_is_there_is_not_replaced_unless_asked(place: Path, polyak: Any, tmp_path: Path):
    polyak(*measured("-o", tmp_path / "grams", "--quiet"))
    assert "m0.safetensors exists" in polyak(*measured("-o", tmp_path / "grams"), code=5)
    (tmp_path / "grams" / "m0.safetensors").rename(tmp_path / "kept.safetensors")
    (tmp_path / "grams" / "m1.safetensors").unlink()
    assert "recipe.yaml exists" in polyak(*measured("-o", tmp_path / "grams"), code=5)
    polyak(*measured("-o", tmp_path / "grams", "--force", "--quiet"))
    assert (tmp_path / "grams" / "m0.safetensors").read_bytes() == (tmp_path / "kept.safetensors").read_bytes()


def test_an_interrupted_measurement_goes_on_behind_the_last_block(
    place: Path, polyak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    polyak(*measured("-o", tmp_path / "whole", "--quiet"))
    look, seen = merged_gram._Expert.measure, list[int]()

    def interrupted(pupil: Any, i: int) -> Any:
        seen.append(i)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return look(pupil, i)

    part = measured("-o", tmp_path / "part", "--quiet")
    monkeypatch.setattr(merged_gram._Expert, "measure", interrupted)
    assert "--resume" in polyak(*part, code=130)
    assert sorted(one.name for one in (tmp_path / "part").iterdir()) == [".unfinished"]
    assert "there is an unfinished measurement" in polyak(*part, code=5)
    assert "other models, settings or data" in polyak(*part, "--resume", "--examples", 20, code=5)
    polyak(*part, "--resume")
    assert seen == [0, 0, 1, 1, 1, 1, 2, 2]
    names = ["m0.safetensors", "m1.safetensors", "recipe.yaml"]
    assert sorted(one.name for one in (tmp_path / "part").iterdir()) == names
    for name in names[:2]:
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_damaged_unfinished_measurement_is_refused(place: Path, polyak: Any, tmp_path: Path):
    (tmp_path / "grams").mkdir()
    claim(tmp_path / "grams" / ".unfinished")
    (tmp_path / "grams" / ".unfinished" / "block-0.safetensors").write_bytes(b"no safetensors")
    assert "is damaged" in polyak(*measured("-o", tmp_path / "grams", "--resume"), code=5)
    polyak(*measured("-o", tmp_path / "grams", "--force", "--quiet"))
    assert not (tmp_path / "grams" / ".unfinished").exists()


@pytest.mark.parametrize("option", ["--resume", "--force"])
def test_a_folder_of_others_where_unfinished_work_would_lie_is_neither_read_nor_removed(
    place: Path, polyak: Any, tmp_path: Path, option: str
):
    other = tmp_path / "grams" / ".unfinished" / "block-0.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"no safetensors")
    assert "lacks the file 'polyak-staging'" in polyak(*measured("-o", tmp_path / "grams", option), code=5)
    assert other.read_bytes() == b"no safetensors"


def test_a_link_where_unfinished_work_would_lie_is_not_removed(place: Path, polyak: Any, tmp_path: Path):
    link = tmp_path / "grams" / ".unfinished"
    link.parent.mkdir()
    (tmp_path / "file").write_bytes(b"junk")
    link.symlink_to(tmp_path / "file")
    assert "is a link" in polyak(*measured("-o", tmp_path / "grams", "--force"), code=5)
    assert link.is_symlink() and (tmp_path / "file").read_bytes() == b"junk"


def test_a_file_where_unfinished_work_would_lie_is_replaced_by_force_alone(place: Path, polyak: Any, tmp_path: Path):
    odd = tmp_path / "grams" / ".unfinished"
    odd.parent.mkdir()
    odd.write_bytes(b"junk")
    assert "--force" in polyak(*measured("-o", tmp_path / "grams"), code=5)
    assert odd.read_bytes() == b"junk"
    polyak(*measured("-o", tmp_path / "grams", "--force", "--quiet"))
    assert not odd.exists()


def test_what_a_module_raises_is_said_with_its_model(polyak: Any, tmp_path: Path):
    said = polyak(*measured("-o", tmp_path / "grams", net="Unlucky"), code=7)
    assert "model m0: the model fails: out of luck (LookupError)" in said


@pytest.mark.parametrize("net", ["Turned", "Repeated"])
def test_blocks_that_do_not_follow_one_another_are_refused(polyak: Any, tmp_path: Path, net: str):
    assert "the blocks are not consecutive" in polyak(*measured("-o", tmp_path / "grams", net=net), code=7)


def test_a_recipe_of_another_method_or_other_models_is_refused(place: Path, polyak: Any, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text((place / "recipe.yaml").read_text().replace("regmean_plus_plus", "regmean"))
    words = list(measured("-o", tmp_path / "grams"))
    said = polyak(*words[:2], other, *words[3:], code=3)
    assert "are for the method 'regmean_plus_plus'; the recipe has 'regmean'" in said
    assert "m1 has no examples" in polyak(*words[:5], *words[7:], code=3)
    assert "has no model 'm2'" in polyak(*words, "--task", "m2=t1.yaml", code=3)


def test_blocks_are_found_or_named():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = nn.ModuleList([nn.Linear(2, 2)])
            self.large = nn.ModuleList([nn.Linear(9, 9)])

    assert blocks_of(Two())[0] == "large"
    assert blocks_of(Two(), "small")[0] == "small"
    with pytest.raises(TaskError, match=r"no blocks at 'smal'.*'small', 'large'"):
        blocks_of(Two(), "smal")
    with pytest.raises(TaskError, match="neither a ModuleList nor a Sequential"):
        blocks_of(nn.Linear(2, 2))
    assert blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))[0] == ""


def test_caches_do_not_grow_when_a_block_runs_again():
    class DynamicCache:
        pass

    block = Residual()
    x = torch.ones(2, WIDTH)
    found = passage_of(lambda: block(x, past_key_values=DynamicCache()), [block], None, [b"a", b"b"])
    assert found.others == [((), {})]
    torch.testing.assert_close(found.through(block, 0), block(x)[0])


def test_the_recipe_must_name_the_method_to_the_library_too():
    with pytest.raises(RecipeError):
        from polyak.statistics import measure_through_merge

        measure_through_merge(recipe.read({"models": ["a", "b"], "method": "linear"}), {})
