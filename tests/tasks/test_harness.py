"""Tasks of lm-eval; where it is not installed, what is said then."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pytest

from polyak.errors import TaskError
from polyak.tasks import evaluate, load_task
from polyak.tasks.harness import HarnessScorer


def test_without_lm_eval_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(TaskError, match=r"'piqa' is one of lm-eval, .*: pip install 'polyak\[lm-eval\]'"):
        load_task("lm-eval:piqa")


def sample(number, **values):
    return {"doc_id": number, "filter": "none", "metrics": list(values), **values}


@pytest.fixture
def scorer(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", type(sys)("lm_eval"))
    return HarnessScorer("mine")


def test_samples_become_numbers_in_the_order_of_the_examples(scorer):
    found = scorer._outcome([sample(1, acc=0.0, acc_norm=1.0), sample(0, acc=1.0, acc_norm=0.0)])
    assert scorer.metric == "acc"
    assert found.examples == (0, 1) and np.array_equal(found.values, [1.0, 0.0])


def test_metrics_without_a_number_an_example_are_refused(scorer):
    with pytest.raises(TaskError, match="no metric '' with one number an example"):
        scorer._outcome([sample(0, word_perplexity=(1.0, 2))])
    with pytest.raises(TaskError, match="has no examples"):
        scorer._outcome([])


@pytest.mark.filterwarnings("ignore")
def test_a_local_task_file_is_scored(tmp_path):
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lm_eval.evaluator", reason="lm-eval is not installed")
        pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed")
        from .test_kinds import write_causal

        write_causal(tmp_path / "causal")
        rows = [
            {"q": "the cat", "choices": ["sits", "runs"], "gold": 0},
            {"q": "a dog", "choices": ["is", "on"], "gold": 1},
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "mine.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
        found = evaluate(tmp_path / "causal", load_task(f"lm-eval:mine_pets@{tmp_path / 'mine'}"))
    assert found.metric == "acc" and len(found.values) == 2


TASK = """
task: mine_pets
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_target: gold
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
