"""The suite of averaged adapters, on a tiny language model and made-up problems."""

import gzip
import importlib
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from polyak.cli import app

# What peft and the Trainer call of each other.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
ROOT = Path(__file__).parents[2]
WORDS = ["one", "two", "three", "and", "is", "Question", "Answer", ":", "apples", "many"]


@pytest.fixture(scope="module")
def suite() -> Iterator[Any]:
    for name in ("torch", "transformers", "peft", "accelerate"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield importlib.import_module("examples.suite_adapters.suite")


def write_base(out: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>").save_pretrained(out)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), pad_token_id=0, **size)).save_pretrained(out)


def write_problems(folder: Path) -> None:
    rng = random.Random(0)
    for file in ("train", "test"):
        with gzip.open(folder / f"gsm8k.{file}.jsonl.gz", "wt", encoding="utf-8") as lines:
            for _ in range(40):
                a, b = rng.choices(WORDS[:3], k=2)
                row = {"question": f"{a} and {b} apples is many", "answer": f"{a} and {b} is {b}"}
                lines.write(json.dumps(row) + "\n")


def typed(folder: Path, *words: str) -> Any:
    """The command in this process, which has imported torch already."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(app, [*words, "--json"])
    finally:
        os.chdir(before)
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


@pytest.fixture(scope="module")
def found(suite: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any, list[Any]]]:
    """The suite's folder, its results, and those of a second time."""
    folder = tmp_path_factory.mktemp("suite")
    write_problems(folder)
    how = suite.training.HOW | {"max_steps": 4, "save_steps": 2, "eval_steps": 2, "logging_steps": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite.data, "FOLDER", folder)
        patch.setattr(suite.data, "COUNTS", {"validation": 4, "test": 6, "training": 16})
        patch.setattr(suite.training, "HOW", how)
        patch.setattr(suite.training, "STEPS", 4)
        patch.setattr(suite.model, "unpack", lambda file, out: out.exists() or write_base(out))
        patch.setattr(suite, "LATE", ("--last", "1"))
        patch.setattr(suite, "ASKED", suite.ASKED | {"of the last five": ("--last", "1")})
        patch.setattr(suite, "polyak", typed)
        once = suite.run(Path("unread"), folder / "out")
        seen = {path: path.stat().st_mtime_ns for path in (folder / "out" / "run").rglob("*")}
        again = suite.run(Path("unread"), folder / "out")
        yield folder / "out", once, [seen, again]


def test_every_strategy_has_a_loss_and_is_compared(found: tuple[Path, Any, list[Any]]):
    _, once, _ = found
    (task,) = once["selected"]["against last"]["comparison"]["tasks"]
    names = list(task["results"])
    assert names[:3] == ["last", "source-dev best", "average"]
    assert [name.split(",")[0] for name in names[3:-1]] == ["average by loss"] * 5
    assert names[-1] == "oracle"
    assert task["metric"] == "loss"
    assert task["examples"] == 6
    assert all(one["difference"] for one in list(task["results"].values())[1:])
    assert set(once["selected"]["by step"]["comparison"]["models"]) > {"average by step, shift 1"}
    assert 0 <= once["error_of_factors"] < 1


def test_nothing_is_trained_or_scored_twice(found: tuple[Path, Any, list[Any]]):
    out, once, (seen, again) = found
    assert {path: path.stat().st_mtime_ns for path in (out / "run").rglob("*")} == seen
    assert again["selected"] == once["selected"]


def test_the_table_has_a_row_for_each_strategy(found: tuple[Path, Any, list[Any]], tmp_path: Path):
    _, once, _ = found
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        suites = importlib.import_module("_suites")
        patch.setattr(suites, "SUITE_ADAPTERS", tmp_path / "found.json")
        (tmp_path / "found.json").write_text(json.dumps(once))
        text = suites.suite_adapters()
        sys.modules.pop("_suites")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows[:3] == ["last", "source-dev best", "average"]
    assert rows[-2:] == ["average by step, shift 1", "average of the last five"]
    assert len(rows) == len(set(rows)) == 11


def test_without_data_the_suite_says_what_is_missing(suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suite.data, "FOLDER", tmp_path)
    assert "gsm8k.train.jsonl.gz. Set POLYAK_DATA" in suite.data.missing()
