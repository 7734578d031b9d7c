"""Splits of tasks that are Python functions, or another library's."""

from __future__ import annotations

import numpy as np
import pytest

from polyak.checkpoint import MemoryCheckpoint
from polyak.errors import TaskError
from polyak.tasks import Divided, FunctionScorer, evaluate, load_task

MODEL = MemoryCheckpoint({"w": np.arange(200, dtype=np.float32)})
FUNCTIONS = """
def plain(checkpoint):
    return checkpoint.read("w")


class Norms:
    def __call__(self, checkpoint):
        return [1.0, 2.0]


norms = Norms()


def with_splits(checkpoint, split):
    return {"calibration": [1.0], "validation": [2.0, 3.0], "test": [4.0]}[split]
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "functions_of_test.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    return "functions_of_test"


def test_a_function_with_a_parameter_for_it_has_all_splits(functions):
    task = load_task(f"{functions}:with_splits")
    values = {split: evaluate(MODEL, task, split=split).values.tolist() for split in task.splits}
    assert values == {"calibration": [1.0], "validation": [2.0, 3.0], "test": [4.0]}
    assert len({task.digest(split) for split in task.splits}) == 3


def test_a_function_without_it_says_how_to_get_another_split(functions):
    with pytest.raises(TaskError, match=r"no split 'validation'.*parameter `split`, or divide.*validation=0\.5"):
        evaluate(MODEL, load_task(f"{functions}:plain"), split="validation")
    assert len(evaluate(MODEL, load_task(f"{functions}:plain")).values) == 200


def test_a_callable_object_is_a_task_of_its_name_in_the_module(functions):
    task = load_task(f"{functions}:norms")
    assert task.name == "norms" and evaluate(MODEL, task).values.tolist() == [1.0, 2.0]
    assert FunctionScorer(task.function).name == "Norms"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("builtins:dict", "builtins:dict has no signature that Python can inspect"),
        ("math:", "'math:' must be package.module:name"),
        (":sqrt", "':sqrt' must be package.module:name"),
        ("math:pi", "math:pi is of type float; expected a function"),
    ],
)
def test_names_of_what_is_no_task_are_refused(name, message):
    with pytest.raises(TaskError, match=message):
        load_task(name)


def test_examples_are_divided_without_overlap_and_by_their_position(functions):
    task = load_task(f"{functions}:plain,test=0.5,validation=0.25")
    assert isinstance(task, Divided) and task.splits == ("validation", "test")
    parts = {split: evaluate(MODEL, task, split=split).values for split in task.splits}
    assert not set(parts["test"]) & set(parts["validation"])
    assert 70 < len(parts["test"]) < 130 and 25 < len(parts["validation"]) < 75
    again = evaluate(MemoryCheckpoint({"w": np.arange(100, dtype=np.float32)}), task)
    assert np.array_equal(again.values, parts["test"][parts["test"] < 100])  # however many others there are
    assert np.array_equal(evaluate(MODEL, task, limit=7).values, parts["test"][:7])
    with pytest.raises(TaskError, match=r"no split 'calibration'.*by `,validation=0.5`"):
        evaluate(MODEL, task, split="calibration")


def test_the_digest_covers_fractions_and_the_task():
    one = FunctionScorer(lambda checkpoint: checkpoint.read("w"), name="one")
    digests = [
        Divided(one, {"test": 0.5}).digest("test"), Divided(one, {"test": 0.6}).digest("test"), one.digest("test"),
        Divided(one, {"validation": 0.5, "test": 0.5}).digest("test"),
        Divided(one, {"validation": 0.5, "test": 0.5}).digest("validation"),
    ]  # fmt: skip
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ("validation", "SPLIT=FRACTION"),
        ("validation=half", "SPLIT=FRACTION"),
        ("validatoin=0.5", "unknown split 'validatoin'. Did you mean 'validation'"),
        ("validation=0", "above 0 and at most 1; got 0"),
        ("validation=0.6,test=0.6", "add up to 1.2"),
        ("validation=0.5,validation=0.6", "names a split twice"),
    ],
)
def test_fractions_that_make_no_sense_are_refused(functions, shares, message):
    with pytest.raises(TaskError, match=message):
        load_task(f"{functions}:plain,{shares}")


def test_a_split_that_gets_no_example_is_refused(functions):
    small = MemoryCheckpoint({"w": np.arange(3, dtype=np.float32)})
    with pytest.raises(TaskError, match="has 3 examples, too few for the split 'validation'"):
        evaluate(small, load_task(f"{functions}:plain,validation=0.001"), split="validation")
