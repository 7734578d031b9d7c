"""Averages of whole runs, as a user makes them: folders as trainers write them, and the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from polyak import averaging, checkpoint
from polyak.averaging import Choice, RunCheckpoint, Weighting
from polyak.cli import app
from polyak.errors import CheckpointError, PolyakError, SettingError

from ..adapters.made import deltas, relative_error, write_adapter
from ..docs.models import write_tensors


def weights_at(step: int) -> np.ndarray:
    return np.full((2, 3), float(step), np.float32)


def write_trainer_run(place: Path, steps: tuple[int, ...] = (10, 20, 30)) -> Path:
    """A run as the Hugging Face Trainer leaves it; the loss is logged twice between checkpoints."""
    log = [{"step": s, "epoch": s / 30, "loss": 100 / s + d} for s in steps for d in (0.0,)]
    log += [{"step": s - 5, "epoch": s / 30, "loss": 100 / s + 1.0} for s in steps]
    log += [{"step": s, "epoch": s / 30, "eval_accuracy": a} for s, a in zip(steps, (0.5, 0.8, 0.78), strict=True)]
    for step in steps:
        folder = place / f"checkpoint-{step}"
        write_tensors(folder / "model.safetensors", {"w": weights_at(step), "n": np.array([step], np.int64)})
        upto = [entry for entry in log if entry["step"] <= step]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": upto, "global_step": step}))
        (folder / "optimizer.pt").write_bytes(b"not read")
    return place


def read(folder: Path) -> dict[str, np.ndarray]:
    with checkpoint.open(folder) as held:
        return {name: held.read(name) for name in held.specs}


def polyak(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if isinstance(done.exception, PolyakError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout if "--json" in words else done.output


def test_a_trainers_run_has_its_metrics_since_the_checkpoint_before(tmp_path: Path):
    run = averaging.read_run(write_trainer_run(tmp_path))
    assert [(one.name, one.step) for one in run] == [
        ("checkpoint-10", 10),
        ("checkpoint-20", 20),
        ("checkpoint-30", 30),
    ]
    assert [one.metrics["loss"] for one in run] == pytest.approx([10.5, 5.5, 100 / 30 + 0.5])
    assert [one.metrics["eval_accuracy"] for one in run] == [0.5, 0.8, 0.78]
    assert "epoch" not in run[0].metrics


def test_steps_that_a_resumed_run_repeats_count_once_with_their_last_value(tmp_path: Path):
    write_trainer_run(tmp_path)
    state = tmp_path / "checkpoint-30" / "trainer_state.json"
    log = json.loads(state.read_text())["log_history"]
    state.write_text(json.dumps({"log_history": [*log, {"step": 25, "loss": 0.0}, {"step": 30, "loss": 1.0}]}))
    assert averaging.read_run(tmp_path)[-1].metrics["loss"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), 20),
        (("--last", 2), 25),
        (("--last", 2, "--stride", 2), 20),
        (("--after", 0.5), 25),
        (("--by", "ema", "--decay", 0.5), (10 + 2 * 20 + 4 * 30) / 7),
        (("--by", "ema-raw", "--decay", 0.5), 0.25 * 10 + 0.25 * 20 + 0.5 * 30),
        (("--decay", "linear"), 20),
        (("--decay", "1-sqrt"), 10 + 10 * (1 - (1 / 3) ** 0.5) + 10 * (1 - (2 / 3) ** 0.5)),
        (("--by", "posthoc-ema", "--width", 0.288675), 20),
        (("--by", "step", "--penalty", 1), (20 * 10 + 30 * 20) / 30),
        (("--dev", "eval_accuracy"), 25),
        (("--by", "eval_accuracy", "--form", "rank", "--penalty", 1), 20),
    ],
)
def test_a_run_is_averaged_as_asked(tmp_path: Path, options: tuple[object, ...], wanted: float):
    run = write_trainer_run(tmp_path / "run")
    polyak("average", run, tmp_path / "out", *options)
    merged = read(tmp_path / "out")
    np.testing.assert_allclose(merged["w"], np.full((2, 3), wanted), rtol=1e-6)


def test_the_implied_decay_is_printed_and_plotted(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    said = polyak("average", run, "--decay", "linear", "--show-curve", "--html", tmp_path / "curve.html")
    assert [line.split() for line in said.splitlines()[1:]] == [
        ["checkpoint-10", "0.3333"],
        ["checkpoint-20", "0.3333", "0.6667", "#" * 20],
        ["checkpoint-30", "0.3333", "0.3333", "#" * 10],
    ]
    page = (tmp_path / "curve.html").read_text()
    assert "<polyline" in page and "<td>checkpoint-20</td><td>20</td><td>0.3333</td><td>0.6667</td>" in page
    (tmp_path / "rates.txt").write_text("1 0")
    again = polyak("average", run, "--decay", tmp_path / "rates.txt", "--show-curve")
    assert again == said


def test_a_post_hoc_average_tells_its_correlation(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    words = ("--by", "posthoc-ema", "--width", 0.15, "--recipe", tmp_path / "r.yaml")
    said = polyak("average", run, tmp_path / "out", *words)
    correlation = averaging.stepwise([10, 20, 30], 0.15).correlation
    assert 0.8 < correlation < 1
    assert f"correlation of {correlation:.4f} with the profile of width 0.15" in said
    assert f"correlation: {correlation}" in (tmp_path / "r.yaml").read_text()


def test_the_recipe_rebuilds_the_same_bytes_and_says_how_its_weights_came_about(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    polyak("average", run, tmp_path / "out", "--by", "loss", "--form", "minmax", "--recipe", tmp_path / "r.yaml")
    polyak("merge", tmp_path / "r.yaml", tmp_path / "again")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()
    text = (tmp_path / "r.yaml").read_text()
    assert "provenance:" in text
    assert "form: minmax" in text


def test_a_recipe_and_its_run_can_be_moved_together(tmp_path: Path):
    run = write_trainer_run(tmp_path / "place/run")
    polyak("average", run, "--recipe", tmp_path / "place/recipes/r.yaml")
    assert "../run/checkpoint-10" in (tmp_path / "place/recipes/r.yaml").read_text()
    (tmp_path / "place").rename(tmp_path / "elsewhere")
    polyak("merge", tmp_path / "elsewhere/recipes/r.yaml", tmp_path / "out")
    np.testing.assert_allclose(read(tmp_path / "out")["w"], np.full((2, 3), 20))


def test_left_out_checkpoints_are_named(tmp_path: Path):
    shown = polyak("average", write_trainer_run(tmp_path / "run"), tmp_path / "out", "--dev", "eval_accuracy")
    assert "left out: checkpoint-10, whose eval_accuracy of 0.5 is too far from the best, 0.8" in shown


def test_integers_are_those_of_the_last_checkpoint(tmp_path: Path):
    polyak("average", write_trainer_run(tmp_path / "run"), tmp_path / "out")
    assert read(tmp_path / "out")["n"].tolist() == [30]


def test_adapters_are_averaged_as_products_or_as_factors(tmp_path: Path):
    made = [write_adapter(tmp_path / f"run/checkpoint-{s}", seed=s) for s in (10, 20)]
    polyak("average", tmp_path / "run", tmp_path / "product")
    polyak("average", tmp_path / "run", tmp_path / "factors", "--space", "factors")
    one, other = (deltas(folder) for folder in made)
    mean = {name: (one[name] + other[name]) / 2 for name in one}
    assert relative_error(deltas(tmp_path / "product"), mean) < 1e-6
    assert relative_error(deltas(tmp_path / "factors"), mean) > 0.1


def test_a_lightning_run_is_read_from_its_log(tmp_path: Path):
    torch = pytest.importorskip("torch")
    for epoch, step in enumerate((100, 200)):
        state = {"state_dict": {"w": torch.full((2,), float(step))}, "optimizer_states": [{}], "global_step": step}
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        torch.save(state, tmp_path / "checkpoints" / f"epoch={epoch}-step={step}.ckpt")
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss,val_loss\n0,50,4,\n0,100,2,\n0,100,,3\n1,200,1,2\n")
    run = averaging.read_run(tmp_path)
    assert [one.metrics for one in run] == [{"train_loss": 3.0, "val_loss": 3.0}, {"train_loss": 1.0, "val_loss": 2.0}]
    polyak("average", tmp_path, tmp_path / "out", "--by", "train_loss", "--penalty", 0)
    np.testing.assert_allclose(read(tmp_path / "out")["w"], 0.25 * 100 + 0.75 * 200)


def test_any_run_can_be_listed_in_a_table(tmp_path: Path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        write_tensors(tmp_path / f"{name}.safetensors", {"w": np.full(3, value, np.float32)})
    (tmp_path / "t.csv").write_text("path,step,loss\na.safetensors,1,0.5\nb.safetensors,2,0.25\n")
    polyak("average", tmp_path, tmp_path / "out", "--table", tmp_path / "t.csv", "--by", "loss", "--penalty", 0)
    np.testing.assert_allclose(read(tmp_path / "out")["w"], 1 / 3 + 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--last", 4), "there are only 3 checkpoints"),
        (("--after", 1.0), "fraction"),
        (("--by", "los"), "Did you mean 'loss'"),
        (("--by", "loss", "--form", "shfit"), "Did you mean 'shift'"),
        (("--by", "ema", "--decay", 1), "decay"),
        (("--decay", 0.9), "is the decay of --by ema"),
        (("--decay", "liner"), "Did you mean 'linear'"),
        (("--by", "loss", "--decay", "linear"), "give one of them"),
        (("--by", "posthoc-ema"), "needs --width"),
        (("--width", 0.1), "no other weighting has one"),
        (("--by", "posthoc-ema", "--width", 0.5), "at most 0.288675"),
        (("--dev", "eval_accuracy", "--floor", 2), "floor"),
        (("--table", "none.csv"), "none.csv cannot be read"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, options: tuple[object, ...], said: str):
    with pytest.raises(PolyakError, match=said):
        polyak("average", write_trainer_run(tmp_path / "run"), tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,loss\na,1\n", "no column 'step'"),
        ("path,step\nnowhere,1\n", "does not exist"),
        ("path,step\na,one\n", "line 2: the step must be a number; got 'one'"),
        ("path,step\na,1\n./a,2\n", "listed twice"),
    ],
)
def test_tables_that_do_not_list_a_run_are_refused(tmp_path: Path, table: str, said: str):
    (tmp_path / "a").mkdir()
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(CheckpointError, match=said):
        averaging.read_run(tmp_path, tmp_path / "t.csv")


def test_a_checkpoint_that_vanishes_is_named_and_nothing_is_written(tmp_path: Path):
    run = write_trainer_run(tmp_path / "run")
    polyak("average", run, "--recipe", tmp_path / "r.yaml")
    shutil.rmtree(run / "checkpoint-20")  # as a trainer does that keeps the latest
    with pytest.raises(CheckpointError, match="checkpoint-20"):
        polyak("merge", tmp_path / "r.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_fsdp_are_refused_with_a_command_that_converts_them(tmp_path: Path):
    run = tmp_path / "run"
    for step in (10, 20):
        (run / f"checkpoint-{step}/pytorch_model_fsdp_0").mkdir(parents=True)
        for name in (".metadata", "__0_0.distcp"):
            (run / f"checkpoint-{step}/pytorch_model_fsdp_0" / name).write_bytes(b"not read")
    with pytest.raises(CheckpointError, match=r"accelerate merge-weights .*checkpoint-10"):
        polyak("average", run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_checkpoints_says_what_a_run_looks_like(tmp_path: Path):
    with pytest.raises(CheckpointError, match="checkpoint-STEP"):
        averaging.read_run(tmp_path)


def test_a_damaged_log_is_refused_by_name(tmp_path: Path):
    write_trainer_run(tmp_path)
    (tmp_path / "checkpoint-30/trainer_state.json").write_text('{"log_history": [1]}')
    with pytest.raises(CheckpointError, match=r"trainer_state.json is not a log"):
        averaging.read_run(tmp_path)


def test_adapters_and_whole_models_are_not_averaged_together(tmp_path: Path):
    write_adapter(tmp_path / "checkpoint-1")
    write_tensors(tmp_path / "checkpoint-2/model.safetensors", {"w": weights_at(1)})
    with pytest.raises(CheckpointError, match="checkpoint-1 is an adapter and checkpoint-2 is not"):
        averaging.averaged(averaging.read_run(tmp_path), Weighting())


def test_an_unclear_metric_must_be_explained():
    run = [RunCheckpoint("a", Path("a"), 1, {"quality": 1.0}), RunCheckpoint("b", Path("b"), 2, {"quality": 2.0})]
    with pytest.raises(SettingError, match="--higher-is-better"):
        averaging.chosen(run, Choice(dev="quality"))
    assert averaging.chosen(run, Choice(dev="quality"), higher_is_better=True)[0] == run[1:]
