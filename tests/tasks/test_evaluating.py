"""Models scored and compared on a task, from the command line and from Python; and everything that can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from polyak import checkpoint
from polyak.errors import NotFinite, TaskError
from polyak.modules.live import LiveModel
from polyak.tasks import Batch, FunctionScorer, Task, compare, evaluate, task_of

from .models import TASK, Network, write_data, write_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    write_data(folder / "points.jsonl")
    (folder / "points.yaml").write_text(TASK)
    (folder / "nets.py").write_text("from tests.tasks.models import Network\n\ndef broken():\n    1 / 0\n")
    write_model(folder / "expert")
    write_model(folder / "noisy", noise=0.5)
    write_model(folder / "base", epochs=3)
    (folder / "soup.yaml").write_text("models: [./expert, ./noisy]\nmethod: linear\n")
    return folder


def task(place, factory=Network, **changes):
    return task_of(
        {"kind": "image-classification", "data": "points.jsonl", "scale": 1} | changes, place, factory=factory
    )


def test_evaluate_prints_scores_keeps_them_and_writes_a_report(place, polyak):
    command = [
        "evaluate",
        "expert",
        "soup.yaml",
        "--task",
        "points.yaml",
        "--module",
        "nets:Network",
        "--cache",
        "kept",
    ]
    first, second = (json.loads(polyak(*command, "--json", "--html", "out.html")) for _ in range(2))
    assert [one["cached"] for one in first + second] == [False, False, True, True]
    assert [{**one, "cached": 0} for one in first] == [{**one, "cached": 0} for one in second]
    assert first[0]["value"] == np.mean(first[0]["scores"])
    assert first[0]["interval"][0] < first[0]["value"] < first[0]["interval"][1]
    page = (place / "out.html").read_text()
    assert "<svg" in page and "soup" in page and "http" not in page.replace("http://www.w3.org", "")


def test_compare_pairs_examples_and_normalises_to_the_expert(place, polyak):
    command = ["compare", "expert", "noisy", "soup.yaml", "--task", "points.yaml", "--module", "nets:Network"]
    extra = [
        "--experts",
        "points=expert",
        "--base",
        "base",
        "--cache",
        "kept",
        "--html",
        "cmp.html",
        "--resamples",
        500,
    ]
    found = json.loads(polyak(*command, *extra, "--json"))
    one = found["tasks"][0]
    assert one["group"] == "held-in"
    assert one["results"]["expert"]["normalised"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    noisy = one["results"]["noisy"]
    assert noisy["difference"]["value"] == pytest.approx((noisy["wins"] - noisy["losses"]) / one["examples"])
    assert noisy["normalised"]["value"] == pytest.approx(noisy["score"]["value"] / one["expert"])
    assert noisy["recovered"]["value"] == pytest.approx(
        (noisy["score"]["value"] - one["base"]) / (one["expert"] - one["base"])
    )
    assert "held-in" in (place / "cmp.html").read_text()
    assert found == json.loads(polyak(*command, *extra, "--json"))
    assert "differences from expert" in polyak(*command, *extra)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--task", "points.yaml"], "names no model to run the task", 7),
        (["--task", "points.yaml", "--module", "nets:Netwrok"], "Did you mean 'Network'", 7),
        (["--task", "points.yaml", "--module", "nets:broken"], "no module can be built", 7),
        (["--task", "points.yaml", "--module", "none:f"], "cannot be imported", 7),
        (["--task", "nothing.yaml", "--module", "nets:Network"], "cannot be read", 7),
        (["--task", "nothing", "--module", "nets:Network"], "unknown task", 7),
        (["--task", "points.yaml", "--module", "nets:Network", "--split", "calibration"], "no split 'calibration'", 7),
        (["--task", "points.yaml", "--module", "nets:Network", "--device", "cuda:99"], "cannot run on 'cuda:99'", 7),
        (["--task", "points.yaml", "--module", "nets:Network", "--html", "points.yaml/x.html"], "cannot be written", 5),
    ],
)
def test_wrong_commands_end_with_a_message_and_a_code(polyak, arguments, said, code):
    assert said in polyak("evaluate", "expert", *arguments, code=code)


def test_two_models_of_one_name_must_be_named(place, polyak):
    said = polyak("compare", "expert", "./expert", "--task", "points.yaml", code=2)
    assert "two models are named 'expert'" in said


def test_the_cache_forgets_what_is_damaged_or_belongs_to_other_weights(place, tmp_path):
    score = lambda: evaluate(place / "expert", task(place), cache=tmp_path)  # noqa: E731
    first = score()
    assert score().cached
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-9])
    again = score()
    assert not again.cached and np.array_equal(again.values, first.values)
    assert not evaluate(place / "noisy", task(place), cache=tmp_path).cached
    assert not evaluate(place / "expert", task(place, metric="loss"), cache=tmp_path).cached
    assert not evaluate(place / "expert", task(place), cache=tmp_path, limit=5).cached
    assert score().cached


def test_accuracy_is_that_of_the_module(place):
    found = evaluate(place / "expert", task(place), batch_size=7)
    rows = [json.loads(line) for line in (place / "points.jsonl").read_text().splitlines()]
    module = Network()
    module.load_state_dict({n: torch.from_numpy(t) for n, t in _arrays(place / "expert").items()})
    logits = module(torch.tensor([row["image"] for row in rows]))
    right = (logits.argmax(1) == torch.tensor([row["label"] for row in rows])).double()
    assert np.array_equal(found.values, right.numpy())
    loss = evaluate(place / "expert", task(place, metric="loss"))
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"] for row in rows])).detach()
    assert loss.metric_value == pytest.approx(float(wanted), rel=1e-6)
    assert not loss.higher_is_better


def test_balanced_accuracy_counts_classes_the_same(place, tmp_path):
    rows = [json.loads(line) for line in (place / "points.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["label"]] + [row for row in rows if not row["label"]][:4]
    (tmp_path / "points.jsonl").write_text("\n".join(map(json.dumps, kept)))
    found = evaluate(place / "noisy", task(tmp_path, metric="balanced_accuracy"))
    labels = np.array([row["label"] for row in kept])
    assert found.metric_value == pytest.approx(np.mean([found.values[labels == c].mean() for c in range(3)]))


def test_a_model_whose_forward_fails_is_named_with_its_task(place):
    class Failing(Network):
        def forward(self, pixel_values):
            raise RuntimeError("out of luck")

    with pytest.raises(TaskError, match=r"task 'task', model .*expert: the model fails: out of luck"):
        evaluate(place / "expert", task(place, Failing))


def test_scores_that_are_not_numbers_are_refused(place):
    class Overflowing(Network):
        def forward(self, pixel_values):
            return super().forward(pixel_values) * torch.nan

    for metric in ("accuracy", "loss"):
        with pytest.raises(TaskError, match=r"score of .*expert on example 1 is nan \(120 of 120"):
            evaluate(place / "expert", task(place, Overflowing, metric=metric))
    broken = _arrays(place / "expert")
    broken["layers.0.bias"][0] = np.inf
    with pytest.raises(NotFinite, match=r"layers\.0\.bias"):
        evaluate(checkpoint.open(broken), task(place))


def test_labels_that_the_model_has_no_output_for_are_refused(place, tmp_path):
    write_data(tmp_path / "points.jsonl", 5)
    with (tmp_path / "points.jsonl").open("a") as file:
        file.write(json.dumps({"image": [0, 0, 0, 0], "label": 3}) + "\n")
    with pytest.raises(TaskError, match="label 3 is out of range: the model has 3 outputs"):
        evaluate(place / "expert", task(tmp_path))
    with pytest.raises(TaskError, match=r"example 6: label 3 is out of range; labels are numbered from 0 to 2"):
        task(tmp_path, classes=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [8]}, r"size must be \[height, width\], or one number for both"),
        ({"size": [8, 0]}, r"size\[1\] must be at least 1"),
        ({"spread": [1, 0]}, r"spread\[1\] must be above 0"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"mean": 0.5}, "rows of numbers, which have no `mean`"),
        ({"size": 8, "channels": 3}, "rows of numbers, which have no `size` or `channels`"),
    ],
)
def test_preparations_that_cannot_be_are_refused(place, changes, message):
    with pytest.raises(TaskError, match=message):
        evaluate(place / "expert", task(place, **changes))


@pytest.mark.parametrize("name", ["limit", "batch_size"])
def test_counts_below_one_are_refused(place, name):
    with pytest.raises(TaskError, match=f"{name} must be at least 1; got 0"):
        evaluate(place / "expert", task(place), **{name: 0})


def test_a_task_whose_examples_have_no_weight_has_no_metric(place, monkeypatch):
    monkeypatch.setattr(type(task(place)), "weights", lambda self, batch: torch.zeros(len(batch)))
    with pytest.raises(TaskError, match="the weights of all examples are 0, so there is no accuracy"):
        evaluate(place / "expert", task(place))


class Silent(Task):
    """A task that gives nothing."""

    name, metric, splits = "silent", "accuracy", ("test",)

    def count(self, split):
        return 0

    def batches(self, split, **settings):
        return iter(())

    def outputs(self, module, batch):
        return module(**batch.inputs)

    def scores(self, module, batch):
        return torch.zeros(len(batch), 2)

    def digest(self, split):
        return "0"

    def live(self, checkpoint):
        live = LiveModel.of(Network())
        live.load(checkpoint)
        return live


def test_a_task_without_examples_is_refused(place):
    with pytest.raises(TaskError, match="'silent': the split 'test' has no examples"):
        evaluate(place / "expert", Silent())


def test_scores_of_the_wrong_shape_are_refused(place, monkeypatch):
    monkeypatch.setattr(Silent, "batches", lambda self, split, **settings: [Batch({}, None, (0, 1, 2))])
    with pytest.raises(TaskError, match=r"one number per example, \(3,\); got \(3, 2\)"):
        evaluate(place / "expert", Silent())


def test_one_example_can_be_scored_but_not_compared(place, tmp_path):
    write_data(tmp_path / "points.jsonl", 1)
    assert evaluate(place / "expert", task(tmp_path)).values.shape == (1,)
    with pytest.raises(TaskError, match="has one example"):
        compare({"a": place / "expert", "b": place / "noisy"}, [task(tmp_path)])


def test_comparisons_refuse_one_model_twin_tasks_and_unknown_experts(place):
    a, b = place / "expert", place / "noisy"
    with pytest.raises(TaskError, match="two models or more"):
        compare({"a": a}, [task(place)])
    with pytest.raises(TaskError, match="two tasks are called 'task'"):
        compare({"a": a, "b": b}, [task(place), task(place)])
    with pytest.raises(TaskError, match=r"an expert for 'tusk'.*Did you mean 'task'"):
        compare({"a": a, "b": b}, [task(place)], experts={"tusk": a})


def test_less_is_better_turns_ratios_over(place):
    loss = task(place, metric="loss")
    found = compare({"expert": place / "expert", "noisy": place / "noisy"}, [loss], base=place / "noisy")
    (one,) = found.tasks
    assert one.group == "held-out"
    assert one.results["expert"].normalised.value > 1
    assert one.results["noisy"].difference.value > 0 and one.results["noisy"].losses > one.results["noisy"].wins
    assert set(found.groups) == {"held-out"}


def test_a_function_of_a_checkpoint_is_a_task(place):
    norm = FunctionScorer(lambda model: [float(np.sum(model.read(n) ** 2)) for n in model.specs], name="norm")
    found = evaluate(place / "expert", norm)
    assert found.metric_value == pytest.approx(np.mean([np.sum(t**2) for t in _arrays(place / "expert").values()]))
    failing = FunctionScorer(lambda model: model.none, name="failing")
    with pytest.raises(TaskError, match=r"task 'failing', model .*expert: the function fails"):
        evaluate(place / "expert", failing)


def _arrays(folder):
    opened = checkpoint.open(folder)
    return {name: opened.read(name) for name in opened.specs}
