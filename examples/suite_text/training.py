"""Fine-tune the encoder with a linear head for each task; whatever was trained in the same way before is used again."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from .data import Example, Examples, digest

BUCKET = 50  # batches that are sorted by length together, so that little of a batch is padding


@dataclass(frozen=True)
class Settings:
    """How models are trained.

    Attributes:
        encoder_rate: Learning rate of the encoder at the beginning; it falls linearly to 0.
        head_rate: Of the heads.
        batch: Texts in a batch; all of one task.
        length: Tokens that are kept of a text.
        seed: Orders the examples.
    """

    encoder_rate: float = 1e-4
    head_rate: float = 5e-3
    batch: int = 32
    length: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """What is learned of one task.

    Attributes:
        examples: Texts and labels.
        classes: How many labels there are.
        epochs: How often each text is seen.
    """

    examples: Examples
    classes: int
    epochs: int


@dataclass
class Pupil:
    """An encoder and its heads.

    Attributes:
        encoder: Shared by all tasks.
        heads: One for each task.
        tokenizer: Of the encoder.
        settings: How they are trained.
    """

    encoder: Any
    heads: nn.ModuleDict
    tokenizer: Any
    settings: Settings
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.settings.seed)

    def learn(self, lessons: Mapping[str, Lesson]) -> None:
        """See every lesson's examples in a random order, batches of all tasks among each other."""
        batches = [(name, batch) for name, lesson in lessons.items() for batch in self._batches(lesson)]
        self.random.shuffle(batches)
        rates = ((self.encoder, self.settings.encoder_rate), (self.heads, self.settings.head_rate))
        optimiser = torch.optim.AdamW([{"params": m.parameters(), "lr": rate} for m, rate in rates], fused=True)
        decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, len(batches))
        for name, batch in batches:
            loss = nn.functional.cross_entropy(self._logits(name, batch), torch.tensor([one.label for one in batch]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            decay.step()

    def _logits(self, task: str, batch: Examples) -> Tensor:
        texts = [one.text for one in batch]
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.settings.length, return_tensors="pt"
        )
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (self.encoder(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)
        return self.heads[task](pooled)

    def _batches(self, lesson: Lesson) -> Iterator[Examples]:
        for _ in range(lesson.epochs):
            order = self.random.sample(lesson.examples, len(lesson.examples))
            size = self.settings.batch
            for start in range(0, len(order), BUCKET * size):
                near = sorted(order[start : start + BUCKET * size], key=lambda one: len(one.text))
                yield from (near[i : i + size] for i in range(0, len(near), size))


def train(base: Path, lessons: Mapping[str, Lesson], folder: Path, settings: Settings) -> float | None:
    """Train a copy of the encoder on all lessons, and keep it as `model.safetensors` and `heads/<task>.safetensors`.

    Args:
        base: Folder of the encoder, with its tokenizer.
        lessons: For each task.
        folder: Where the model goes; one that was trained in the same way is left as it is.
        settings: How.

    Returns:
        Seconds that it took; None if it was there already.
    """
    how, done = _digest(base, lessons, settings), folder / "trained.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["digest"] == how:
        return None
    began = time.monotonic()
    torch.manual_seed(settings.seed)
    # Without dropout: an epoch or two do not overfit, and a third of the time on a CPU would go into random numbers.
    kept = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = AutoModel.from_pretrained(base, dtype=torch.float32, **kept).train()
    heads = nn.ModuleDict({name: _head(encoder, lesson.classes) for name, lesson in lessons.items()})
    pupil = Pupil(encoder, heads, AutoTokenizer.from_pretrained(base), settings)
    pupil.learn(lessons)
    _save(pupil, folder)
    seconds = time.monotonic() - began
    done.write_text(json.dumps({"digest": how, "seconds": seconds}), encoding="utf-8")
    return seconds


def shuffled(examples: Examples, seed: int = 0) -> Examples:
    """The same texts with labels that mean nothing: each has that of another."""
    labels = [one.label for one in examples]
    random.Random(seed).shuffle(labels)
    return [Example(one.text, label) for one, label in zip(examples, labels, strict=True)]


def _head(encoder: Any, classes: int) -> nn.Module:
    head = nn.Linear(encoder.config.hidden_size, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _digest(base: Path, lessons: Mapping[str, Lesson], settings: Settings) -> str:
    files = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (base / "model.safetensors", Path(__file__))]
    learned = {name: [lesson.classes, lesson.epochs, digest(lesson.examples)] for name, lesson in lessons.items()}
    return digest(files, asdict(settings), learned)


def _save(pupil: Pupil, folder: Path) -> None:
    (folder / "heads").mkdir(parents=True, exist_ok=True)
    save_file(_contiguous(pupil.encoder.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    for name, head in pupil.heads.items():
        tensors = {f"classifier.{key}": tensor for key, tensor in head.state_dict().items()}
        save_file(_contiguous(tensors), folder / "heads" / f"{name}.safetensors", metadata={"format": "pt"})


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
