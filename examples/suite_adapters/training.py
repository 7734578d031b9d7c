"""One LoRA run with the Hugging Face Trainer: seeded, resumed where it stopped, kept as long as nothing changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from .data import Row

SEED, STEPS, EVERY, BATCH = 0, 100, 10, 4
LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
HOW: dict[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": BATCH,
    "learning_rate": 1e-3,
    # Averaging is for runs whose rate has not decayed: the weights still move about at the end.
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 10,
    "bf16": True,
    "seed": SEED,
    "logging_steps": 2,
    "save_steps": EVERY,
    "eval_steps": EVERY,
}


def numbers(tokenizer: Any, row: Row) -> tuple[list[int], list[int]]:
    """Tokens of a prompt, and of its answer."""
    return tokenizer(row["prompt"])["input_ids"], tokenizer(row["answer"], add_special_tokens=False)["input_ids"]


def train(base: Path, parts: dict[str, list[Row]], run: Path) -> None:
    """Fine-tune an adapter, with a checkpoint every `EVERY` steps; what was trained in the same way is kept.

    Args:
        base: Folder of the pretrained model.
        parts: Rows for `training` and `validation`.
        run: Folder of the run.
    """
    how = _digest(base, parts)
    done = run / "how.txt"
    if not done.is_file() or done.read_text(encoding="utf-8") != how:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        done.write_text(how, encoding="utf-8")
    if (run / f"checkpoint-{STEPS}" / "trainer_state.json").is_file():
        return
    _trainer(base, parts, run).train(resume_from_checkpoint=get_last_checkpoint(str(run)))


def _digest(base: Path, parts: dict[str, list[Row]]) -> str:
    with (base / "model.safetensors").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    asked = [weights, LORA, HOW, parts["training"], parts["validation"]]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _trainer(base: Path, parts: dict[str, list[Row]], run: Path) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(SEED)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **LORA))
    examples = {part: [numbers(tokenizer, row) for row in rows] for part, rows in parts.items()}
    return Trainer(
        model,
        TrainingArguments(
            str(run), use_cpu=True, eval_strategy="steps", save_strategy="steps", per_device_eval_batch_size=8,
            report_to="none", remove_unused_columns=False, label_names=["labels"], dataloader_pin_memory=False,
            disable_tqdm=True, **HOW,
        ),
        partial(_padded, fill=tokenizer.pad_token_id),
        train_dataset=examples["training"],
        eval_dataset=examples["validation"],
    )  # fmt: skip


def _padded(examples: Sequence[tuple[list[int], list[int]]], fill: int) -> dict[str, Tensor]:
    longest = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids, mask, labels = (torch.full((len(examples), longest), value) for value in (fill, 0, -100))
    for row, (prompt, answer) in enumerate(examples):
        count = len(prompt) + len(answer)
        ids[row, :count] = torch.tensor([*prompt, *answer])
        mask[row, :count] = 1
        labels[row, len(prompt) : count] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
