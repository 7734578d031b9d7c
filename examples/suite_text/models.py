"""The models of the suite: base, experts, one of all tasks, and some that learned nothing of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..report import say
from ..text import encoders
from .crew import each
from .data import CLASSES, training
from .training import Lesson, Settings, shuffled, train

# Long texts are seen once, short ones of many classes twice.
EPOCHS = {"ag_news": 1, "banking77": 2, "clinc150": 2, "snips": 1, "hwu64": 2, "trec6": 2, "subj": 1, "sst2": 1}
IRRELEVANT = ("hwu64", "clinc150", "snips", "trec6")  # whose texts are also learned with labels that mean nothing
MULTITASK = "multitask"


@dataclass(frozen=True)
class Models:
    """Where models lie: a folder for each, with `model.safetensors` and `heads/<task>.safetensors`.

    Attributes:
        folder: Of all.
        tasks: Of the experts, which are called like them.
        examples: At most so many of each task are learned from.
    """

    folder: Path
    tasks: Sequence[str]
    examples: int | None = None

    @property
    def base(self) -> Path:
        """What all were tuned from, with config and tokenizer."""
        return self.folder / "base"

    @property
    def irrelevant(self) -> list[str]:
        """Models that learned shuffled labels."""
        return [f"irrelevant_{name}" for name in IRRELEVANT if name in self.tasks]

    def head(self, model: str, task: str) -> Path:
        """What a model reads a task with."""
        return self.folder / model / "heads" / f"{task}.safetensors"

    def make(self, pretrained: Path, jobs: int = 1) -> None:
        """Train whatever is not there yet.

        Args:
            pretrained: Folder of the encoder.
            jobs: Processes that train.
        """
        if not self.base.is_dir():
            _saved_again(pretrained, self.base)
        lessons = self._lessons()
        seconds = each(partial(self._train, pretrained), list(lessons.items()), jobs)
        for name, took in zip(lessons, seconds, strict=True):
            say(f"{name}: kept" if took is None else f"{name}: trained in {took:.0f} s")

    def _train(self, pretrained: Path, named: tuple[str, Mapping[str, Lesson]]) -> float | None:
        name, lessons = named
        return train(pretrained, lessons, self.folder / name, Settings())

    def _lessons(self) -> dict[str, dict[str, Lesson]]:
        experts = {name: Lesson(training(name)[: self.examples], CLASSES[name], EPOCHS[name]) for name in self.tasks}
        useless = {f"irrelevant_{n}": {n: _useless(experts[n])} for n in IRRELEVANT if n in self.tasks}
        together = {name: Lesson(one.examples, one.classes, 1) for name, one in experts.items()}
        alone = {name: {name: one} for name, one in experts.items()}
        return {MULTITASK: together, **alone, **useless}  # the longest first: processes share the work better so


def _useless(lesson: Lesson) -> Lesson:
    return Lesson(shuffled(lesson.examples), lesson.classes, 1)


def _saved_again(pretrained: Path, folder: Path) -> None:
    """As transformers writes it today: old files have tensors that it no longer knows, and experts lack."""
    encoders.save(encoders.load(pretrained), {}, pretrained, folder)
