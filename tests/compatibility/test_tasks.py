"""Reports of scores and statistics that misled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyak as api
from polyak import recipe, tasks
from polyak.errors import Mismatch
from polyak.tasks.spans import f1_parts

from ..docs.models import write_tensors
from .adapted import tensors
from .reported import reported

torch = pytest.importorskip("torch")

from polyak.statistics import recalibrate  # noqa: E402

NETS = """
from tests.compatibility.test_tasks import Normed
"""


class Normed(torch.nn.Module):
    """Two BatchNorms, called by keyword as tasks call modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.body = torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 6)
        self.deep, self.head = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)

    def forward(self, pixel_values: Any) -> Any:
        return self.head(self.deep(torch.relu(self.body(self.norm(pixel_values)))))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


@reported(
    "Lightning-AI/pytorch-lightning#14866",
    what="BatchNorm statistics of averaged weights were those of the last batch, since the momentum was set wrongly.",
    versions="torch 2.13.0",
    result="`recalibrate` averages over all examples, also with a smaller last batch, and restores the momentum.",
)
def test_statistics_are_those_of_all_batches():
    torch.manual_seed(0)
    module, points = Normed(), torch.randn(50, 4) * 3 + 2
    batches = points.split(16)
    recalibrate(module, [{"pixel_values": batch} for batch in batches], lambda m, batch: m(**batch))
    np.testing.assert_allclose(module.norm.running_mean.numpy(), points.mean(0).numpy(), rtol=1e-5)
    variances = sum(len(batch) * batch.var(0) for batch in batches) / len(points)
    np.testing.assert_allclose(module.norm.running_var.numpy(), variances.numpy(), rtol=1e-5)
    assert module.norm.momentum == 0.1


@reported(
    "pytorch/pytorch#49082",
    what="PyTorch's update_bn calls the model with the first part of a batch, so models of several inputs fail.",
    versions="torch 2.13.0",
    result="Batches are passed as a function says; batches of mappings and of several inputs are measured right.",
)
def test_models_of_several_inputs():
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, first: Any, *, second: Any) -> Any:
            return self.norm(first + second)

    first, second, module = torch.randn(20, 4), torch.randn(20, 4), Two()
    batches = [(first[i : i + 10], second[i : i + 10]) for i in (0, 10)]
    recalibrate(module, batches, lambda m, batch: m(batch[0], second=batch[1]))
    np.testing.assert_allclose(module.norm.running_mean.numpy(), (first + second).mean(0).numpy(), atol=1e-6)


@reported(
    "openpifpaf/openpifpaf#308",
    what="Data in file order, sorted by class, gave each batch statistics of its own, and BatchNorm wrong ones.",
    versions="torch 2.13.0",
    result="`polyak recalibrate` shuffles: variances of sorted data are within 10 % of those of one large batch, where "
    "file order is off by more than half.",
)
def test_sorted_data_are_shuffled(place: Path, polyak: Any):
    torch.manual_seed(0)
    net, labels = Normed(), np.repeat(np.arange(3), 64)
    points = (
        np.random.default_rng(0).standard_normal((192, 4)).astype(np.float32)
        + 4 * np.eye(3, 4, dtype=np.float32)[labels]
    )
    rows = [{"image": p.tolist(), "label": int(label)} for p, label in zip(points, labels, strict=True)]
    (place / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "points.yaml").write_text(
        "kind: image-classification\ndata: points.jsonl\nscale: 1\nsplits: {calibration: 1.0}\n"
    )
    write_tensors(place / "merged.safetensors", {name: value.numpy() for name, value in net.state_dict().items()})
    polyak(
        "recalibrate", "merged.safetensors", "--task", "points.yaml", "--module", "nets:Normed", "--batch-size", "32",
        "-o", "out",
    )  # fmt: skip
    found = _variances(place / "out")
    whole = [{"pixel_values": torch.tensor(points)}]
    in_order = [{"pixel_values": batch} for batch in torch.tensor(points).split(32)]
    right, wrong = (recalibrate(net, batches, lambda m, b: m(**b)) for batches in (whole, in_order))
    for name, values in found.items():
        assert np.abs(values / right[name] - 1).mean() < 0.1, name
    assert max(np.abs(wrong[name] / right[name] - 1).mean() for name in found) > 0.5


def _variances(folder: Path) -> dict[str, Any]:
    return {name: values for name, values in tensors(folder).items() if name.endswith("running_var")}


@reported(
    "dataiku/kiji-proxy#261",
    what="Scores per token made a tagger look good that finds no entity, since most words are O.",
    versions="files only",
    result="The F1 of spans counts an entity only if both ends and the type are right.",
)
@pytest.mark.parametrize(
    ("predicted", "right", "spans"), [("O O O O O O", 0, 1), ("O B-T I-T I-T O O", 0, 2), ("O B-T I-T I-T I-T O", 2, 2)]
)
def test_entities_count_as_a_whole(predicted: str, right: int, spans: int):
    expected = "O B-T I-T I-T I-T O"
    assert f1_parts(predicted.split(), expected.split()) == (right, spans)


@reported(
    "jiesutd/NCRFpp#87",
    what="A prediction that is no valid sequence of tags scored F1 = 1 although half of its tags were wrong.",
    versions="files only",
    result="An I that follows no B begins a span, as in conlleval; F1 is 0.",
)
def test_invalid_sequences_of_tags():
    right, spans = f1_parts(["I-PER", "B-PER", "O", "E-PER"], ["O", "B-PER", "I-PER", "E-PER"])
    assert right == 0
    assert spans == 4


@reported(
    "QData/TextAttack#684",
    what="A released model had its classes in another order than the data set, and scored 7 % instead of 84 %.",
    versions="torch 2.13.0",
    result="Names in `labels:`, in the order of the model's outputs, are matched to those in the data: a model that is "
    "always right scores 1, in any order.",
)
@pytest.mark.parametrize(
    "order", [["entailment", "neutral", "contradiction"], ["contradiction", "entailment", "neutral"]]
)
def test_classes_in_another_order(place: Path, order: list[str]):
    points = np.eye(3, dtype=np.float32)
    rows = [{"image": point.tolist(), "label": name} for point, name in zip(points, order, strict=True)]
    (place / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    described = {"kind": "image-classification", "data": "points.jsonl", "scale": 1, "labels": order, "input": "x"}

    class Identity(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.flatten(1)

    task = tasks.task_of(described, place, factory=Identity)
    (batch,) = task.batches("test", batch_size=8)
    assert task.scores(Identity(), batch).tolist() == [1, 1, 1]


@reported(
    "huggingface/datasets#2457",
    what="A classifier had its labels in another order than others of the same task, which nothing said: only the "
    "scores were low.",
    versions="files only",
    result="Classifiers whose configs order the same classes differently are refused, not averaged; with `heads:`, as "
    "the error says, the bodies are averaged and each keeps its head.",
)
def test_heads_with_classes_in_another_order(place: Path):
    orders = {"a": ["entailment", "neutral", "contradiction"], "b": ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]}
    rng = np.random.default_rng(0)
    for name, order in orders.items():
        (place / name).mkdir()
        shapes = {"bert.pooler.weight": (4, 4), "classifier.weight": (3, 4), "classifier.bias": (3,)}
        values = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
        write_tensors(place / name / "model.safetensors", values)
        (place / name / "config.json").write_text(
            json.dumps({"model_type": "bert", "id2label": dict(enumerate(order))})
        )
    described = {"method": "linear", "models": ["./a", "./b"]}
    with pytest.raises(Mismatch, match=r"'classifier\.\w+' has the classes entailment, .* in a(.|\n)*`heads: REGEX`"):
        api.merge(recipe.read(described, place), place / "out")
    api.merge(recipe.read(described | {"heads": "^classifier"}, place), place / "out")
    body = "bert.pooler.weight"
    mean = (tensors(place / "a")[body] + tensors(place / "b")[body]) / 2
    np.testing.assert_allclose(tensors(place / "out")[body], mean, rtol=1e-6)
