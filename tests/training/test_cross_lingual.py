"""Cross-lingual transfer on small languages: shared heads, strategies, few-shot training, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from polyak import averaging, checkpoint, training  # noqa: E402
from polyak.errors import RecipeError, TaskError  # noqa: E402
from polyak.modules import with_new_head  # noqa: E402
from polyak.runs import UNITS  # noqa: E402
from polyak.tasks import evaluate, read_task  # noqa: E402
from polyak.training.transfer.intervals import interval_of_mean, paired, spread, student  # noqa: E402
from polyak.training.transfer.mixed import SOURCE, Mixed, Shots  # noqa: E402
from polyak.training.transfer.vaccination import vaccinate  # noqa: E402

from . import languages  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("languages")
    languages.write(folder)
    return folder


@pytest.fixture(scope="module")
def done(place: Path) -> training.Trained:
    keys = languages.keys(place, few_shot="mixed", vaccinate=True, shots=6, runs=2, languages=["bb"], epochs=2)
    return training.train("cross_lingual", keys, place / "out")


def tensors(folder: Path) -> dict[str, np.ndarray]:
    with checkpoint.open(folder) as model:
        return {name: model.read(name) for name in model.specs}


def test_runs_share_the_head_of_the_full_run_and_nothing_else(done: training.Trained):
    units = done.out / UNITS
    last = done.results["full"]["checkpoints"][-1]["step"]
    full = tensors(units / "full" / f"checkpoint-{last}")
    runs = [tensors(units / unit / f"checkpoint-{last}") for unit in ("seed1", "seed2")]
    start = tensors(units / "start" / "model")
    assert start["classifier.weight"].tobytes() != full["classifier.weight"].tobytes()
    for name, values in full.items():
        shared = [run[name].tobytes() == values.tobytes() for run in runs]
        is_fixed = name.startswith("classifier") or "position_embeddings" in name
        assert shared == [is_fixed, is_fixed], name
    assert runs[0]["bert.embeddings.word_embeddings.weight"].tobytes() != (
        runs[1]["bert.embeddings.word_embeddings.weight"].tobytes()
    )


def test_scores_are_those_of_the_models_that_the_commands_would_write(place: Path, done: training.Trained):
    folder = done.out / UNITS / "seed1"
    entries = done.results["seed1"]["checkpoints"]
    run = [
        averaging.RunCheckpoint(f"checkpoint-{e['step']}", folder / f"checkpoint-{e['step']}", e["step"])
        for e in entries
    ]
    mean = {name: np.mean([tensors(one.path)[name] for one in run], 0) for name in tensors(run[0].path)}
    task = read_task(place / "bb.json")
    with checkpoint.open(mean) as model:
        wanted = evaluate(model, task).metric_value
    found = done.results["scores.seed1"]["scores"]
    assert found["CA of all"]["bb"] == pytest.approx(wanted, abs=1e-6)
    assert found["LAST"]["bb"] == pytest.approx(evaluate(run[-1].path, task).metric_value, abs=1e-9)
    assert found["TRG-DEV"].keys() == {"bb"}
    assert {"LAST", "SRC-DEV", "CA", "WSM", "EMA", "LAWA", "MWA"} < found.keys()


def test_the_result_is_the_mean_over_runs_and_the_report_has_every_language(done: training.Trained):
    result, last = tensors(done.model), done.results["few.seed1"]["checkpoints"][-1]["step"]
    runs = [tensors(done.out / UNITS / f"few.seed{i}" / f"checkpoint-{last}") for i in (1, 2)]
    assert len(done.results["few.seed1"]["checkpoints"]) == 1
    for name, values in result.items():
        assert np.allclose(values, np.mean([run[name] for run in runs], 0), atol=1e-6), name
    assert (done.model / "tokenizer.json").exists()
    html = (done.out / "report.html").read_text()
    assert all(words in html for words in ("Zero-shot", "Few-shot", "TRG-DEV (oracle)", "Minus LAST", "RA of CA"))
    assert {"RA of LAST", "RA of CA", "greedy soup of LAST"} <= done.metrics.keys()


def test_the_loss_of_a_mixed_step_is_the_mean_over_languages(place: Path, done: training.Trained):
    source, targets = read_task(place / "aa.json"), {n: read_task(place / f"{n}.json") for n in ("bb", "cc")}
    mixed = Mixed(source, targets, shots=3, seed=0)
    with checkpoint.open(done.out / UNITS / "start" / "model") as start:
        module = source.live(start).module.double()
    batch = mixed.batch("train", [0, 1, 5, 7])
    parts = {SOURCE: source, **targets}
    wanted = [parts[name].losses(module, part).mean().item() for name, part in batch.extra.items()]
    assert mixed.losses(module, batch).mean().item() == pytest.approx(np.mean(wanted), rel=1e-6)
    drawn = {i for k in range(40) for i in mixed.batch("train", [k]).extra["bb"].examples}
    assert len(drawn) == 3
    mixed.watch("cc")
    mixed.losses(module, batch)
    (first, *_), loss = mixed.watched(module), targets["cc"].losses(module, batch.extra["cc"]).mean()
    assert torch.allclose(first[1], torch.autograd.grad(loss, first[0])[0])
    alone = Shots("bb", targets["bb"], shots=3, seed=0)
    assert alone.count("train") == 3
    assert set(alone.batch("train", [0, 1, 2]).extra[SOURCE].examples) == drawn


@pytest.mark.parametrize("sign", [1, -1])
def test_a_vaccinated_gradient_does_not_oppose_its_oracle(sign: int):
    rng = np.random.default_rng(0)
    oracle = [rng.standard_normal(shape) for shape in ((3, 4), (5,))]
    gradient = [sign * o + 0.3 * rng.standard_normal(o.shape) for o in oracle]
    flat_g, flat_o = (np.concatenate([one.ravel() for one in each]) for each in (gradient, oracle))
    wanted = flat_g - min(flat_g @ flat_o / (flat_o @ flat_o), 0) * flat_o
    changed = [torch.tensor(one) for one in gradient]
    share = vaccinate(changed, [torch.tensor(one) for one in oracle])
    found = np.concatenate([one.numpy().ravel() for one in changed])
    assert np.allclose(found, wanted, rtol=1e-12)
    assert (share < 0) == (sign < 0)
    assert found @ flat_o >= -1e-12
    assert vaccinate(changed, [torch.zeros(3, 4), torch.zeros(5)]) == 0


def test_intervals_are_students_and_spreads_those_of_the_values():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 9, 30):
        assert student(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    values = [0.1, 0.4, 0.35, 0.2, 0.3]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    found = interval_of_mean(values)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert interval_of_mean([1.0]).low is None
    assert paired({"a": 2.0, "b": 5.0}, {"a": 1.0, "b": 3.0, "c": 9.0}).value == 1.5
    assert (spread(values).deviation, spread(values).range) == pytest.approx((np.std(values), 0.3))


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"languages": ["bb", "xx", "yy"]}, RecipeError, r"no data for the languages xx, yy\. .* has: aa, bb, cc"),
        ({"targets": "nowhere.json"}, RecipeError, r"must have \{language\} once"),
        ({"heads": "clasifier"}, TaskError, r"no tensor of the model matches the heads 'clasifier'.*bert, classifier"),
        ({"heads": "^classifier.weight"}, TaskError, r"lacks 1 tensors.*not among the heads.*classifier\.bias"),
        ({"vaccinate": True}, RecipeError, r"`vaccinate` is for `few_shot: mixed`; got 'none'"),
        ({"learning_rates": [0.1, 0.1]}, RecipeError, r"`learning_rates` or `schedules` has the same value twice"),
        ({"learning_rates": [0.0]}, RecipeError, r"learning rates must be above 0"),
        ({"schedules": ["steps"]}, RecipeError, r"constant"),
        ({"floor": 1.5}, RecipeError, r"at least 0 and below 1"),
    ],
)
def test_keys_that_do_not_fit_are_refused_before_anything_starts(place: Path, keys: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        training.prepare("cross_lingual", languages.keys(place, **keys))


def test_labels_that_training_lacks_are_named(place: Path):
    task = {"labels": [*languages.TAGS, "rare"]}
    languages.write_language(place, "aa", 0, **task)
    languages.write_language(place, "bb", 1, **task)
    text = (place / "bb.jsonl").read_text().replace('"verb"', '"rare"')
    (place / "bb.jsonl").write_text(text)
    keys = languages.keys(place, languages=["bb"])
    try:
        with pytest.raises(TaskError, match=r"bb: labels rare of the test split are unseen in training"):
            training.prepare("cross_lingual", keys)
        assert any("count as wrong" in n for n in training.prepare(
            "cross_lingual", keys | {"unseen_labels": "count"}
        ).plan.notes)  # fmt: skip
        languages.write_language(place, "bb", 1, labels=[*languages.TAGS[::-1], "rare"])
        with pytest.raises(TaskError, match=r"language 'bb': its labels are .* those of the source"):
            training.prepare("cross_lingual", keys)
    finally:
        for number, language in enumerate(languages.SHARED):
            languages.write_language(place, language, number)


def test_a_new_head_keeps_the_body_and_follows_its_seed(place: Path):
    task = read_task(place / "aa.json")
    with checkpoint.open(place / "encoder") as encoder:
        made = [with_new_head(task.body.build, encoder, "^classifier", seed=seed)[1] for seed in (1, 1, 2)]
        body = encoder.read("embeddings.word_embeddings.weight")
    assert torch.equal(made[0]["classifier.weight"], made[1]["classifier.weight"])
    assert not torch.equal(made[0]["classifier.weight"], made[2]["classifier.weight"])
    assert made[0]["bert.embeddings.word_embeddings.weight"].numpy().tobytes() == body.tobytes()
