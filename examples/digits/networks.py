"""A small network, trained with scikit-learn, kept as a folder and run with NumPy."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.neural_network import MLPClassifier

from .data import Images, Labels

HIDDEN = (256, 128)


def pretrain(images: Images, labels: Labels, epochs: int) -> MLPClassifier:
    """Train from random weights with Adam, a batch at a time."""
    net = MLPClassifier(HIDDEN, batch_size=32, learning_rate_init=5e-4, random_state=0, shuffle=False)
    return _train(net, images, labels, epochs, seed=0)


def finetune(base: MLPClassifier, images: Images, labels: Labels, epochs: int) -> MLPClassifier:
    """Go on training a copy, with its learning rate and the state of its optimiser."""
    return _train(copy.deepcopy(base), images, labels, epochs, seed=1)


def _train(net: MLPClassifier, images: Images, labels: Labels, epochs: int, seed: int) -> MLPClassifier:
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(len(labels))
        net.partial_fit(images[order], labels[order], classes=range(10))
    return net


def save(net: MLPClassifier, folder: Path) -> None:
    """Write `model.safetensors`, with weights of (outputs, inputs), and `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"layers.{i}.weight": np.ascontiguousarray(weight.T) for i, weight in enumerate(net.coefs_)}
    tensors |= {f"layers.{i}.bias": bias for i, bias in enumerate(net.intercepts_)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "mlp", "hidden_act": "relu", "layer_sizes": [64, *HIDDEN, 10], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def accuracy(folder: Path, images: Images, labels: Labels) -> float:
    """Share of images whose digit the network in a folder names."""
    tensors = load_file(folder / "model.safetensors")
    last = len(HIDDEN)
    for i in range(last + 1):
        images = images @ tensors[f"layers.{i}.weight"].T + tensors[f"layers.{i}.bias"]
        if i < last:
            images = np.maximum(images, 0)
    return float(np.mean(images.argmax(axis=1) == labels))
