"""Tasks of lm-eval (EleutherAI's language model evaluation harness), one score per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import PolyakError, TaskError, suggestion
from ..modules import bring_to_life, from_transformers, quietly, read_tokenizer
from ._batch import Outcome, ScoreRequest
from ._task import Scorer

PREFERRED = ("acc", "exact_match", "acc_norm")  # the first that a task has


class HarnessScorer(Scorer):
    """A task of lm-eval, run on the model in a checkpoint; all of its examples are test examples.

    The model's folder has the config and tokenizer. Only metrics with one number per example can be compared, which
    excludes metrics of a corpus, such as its perplexity. `Divided` divides the examples among splits.

    Args of the constructor:
        name: The task, as lm-eval calls it.
        folder: Folder with the user's task files. lm-eval runs the functions that they name.
        metric: One of the task's metrics; None takes the first of `PREFERRED`.
        model: Folder with config and tokenizer, instead of those of the checkpoint.
    """

    split_help = (
        "All examples of an lm-eval task are test examples; divide them, such as by "
        "`lm-eval:TASK,validation=0.5,test=0.5`."
    )

    def __init__(
        self, name: str, *, folder: Path | None = None, metric: str | None = None, model: Path | None = None
    ) -> None:
        try:
            import lm_eval  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise TaskError(
                f"the task {name!r} is one of lm-eval, which is not installed: pip install 'polyak[lm-eval]'"
            ) from None
        self.name, self.folder, self.requested, self.model = name, folder, metric, model
        self.metric, self.splits = metric or "score", ("test",)
        self._version = str(getattr(lm_eval, "__version__", "unknown"))

    def score(self, checkpoint: Checkpoint, request: ScoreRequest) -> Outcome:
        self.check_split(request.split)
        folder = self.model or checkpoint.folder
        if folder is None:
            raise TaskError(f"task {self.name!r}: {checkpoint.label} has no folder with config and tokenizer.")
        live = bring_to_life(from_transformers("AutoModelForCausalLM", folder), checkpoint)
        try:
            samples = self._samples(live.module, read_tokenizer(folder), request)
        except PolyakError:
            raise
        except Exception as error:
            message = " ".join(str(error).split())[:300]
            raise TaskError(
                f"task {self.name!r}, model {checkpoint.label}: lm-eval fails: {message} ({type(error).__name__})."
            ) from error
        if request.progress is not None:
            request.progress(len(samples))
        return self._outcome(samples)

    def _samples(self, module: Any, tokenizer: Any, request: ScoreRequest) -> Sequence[Mapping[str, Any]]:
        from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
        from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

        make_model: Any = HFLM  # decorators of lm-eval hide both signatures
        evaluate: Any = simple_evaluate
        with quietly():
            model = make_model(
                pretrained=module, tokenizer=tokenizer, batch_size=request.batch_size, device=request.device
            )
            results: Any = evaluate(
                model=model,
                tasks=[self.name],
                task_manager=TaskManager(include_path=None if self.folder is None else str(self.folder)),
                limit=request.limit,
                log_samples=True,
                bootstrap_iters=0,
            )
        samples: Mapping[str, Sequence[Mapping[str, Any]]] = results["samples"]
        if len(samples) != 1:
            raise TaskError(f"{self.name!r} is a group of tasks. Name one of its tasks: {', '.join(samples)}.")
        return next(iter(samples.values()))

    def _outcome(self, samples: Sequence[Mapping[str, Any]]) -> Outcome:
        if not samples:
            raise TaskError(f"task {self.name!r} has no examples.")
        numbers = [
            n for n in samples[0]["metrics"] if all(isinstance(sample.get(n), int | float) for sample in samples)
        ]
        if self.requested is None:
            self.metric = next((n for n in (*PREFERRED, *numbers) if n in numbers), "")
        if self.metric not in numbers:
            raise TaskError(
                f"task {self.name!r} has no metric {self.metric!r} with one number per example. "
                f"{suggestion(self.metric, numbers)}"
            )
        first = samples[0]["filter"]  # a task may have several filters; the first is its default
        chosen = sorted(
            (sample for sample in samples if sample["filter"] == first), key=lambda sample: sample["doc_id"]
        )
        values = np.array([float(sample[self.metric]) for sample in chosen])
        return Outcome(tuple(int(sample["doc_id"]) for sample in chosen), values, np.ones(len(chosen)))

    def digest(self, split: str) -> str:
        """Digest of the task's name, lm-eval's version and the user's task files; lm-eval keeps its data."""
        import xxhash

        self.check_split(split)
        hasher = xxhash.xxh3_128(f"lm-eval {self._version} {self.name} {self.requested} {self.model}".encode())
        for file in sorted(self.folder.rglob("*")) if self.folder is not None else []:
            if file.is_file():
                hasher.update(file.read_bytes())
        return hasher.hexdigest()
