"""Checkpoints of a run and averages of them as whole models, one in memory at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import checkpoint as checkpoints
from ..checkpoint import Checkpoint, read_json, with_lora
from ..errors import CheckpointError
from ..recipe import Recipe
from .recipes import ADAPTER, averaged
from .runs import RunCheckpoint
from .weighting import Weighting


class Opener:
    """Opens checkpoints and averages of them, adapters on their base.

    Args of the constructor:
        base: Base of a run's adapters (default: the one named by their configuration, if it exists locally).
        key: Key of the state dict in pickled checkpoints.
        strip_prefix: Prefix to strip from tensor names.
    """

    def __init__(self, base: str | None = None, *, key: str | None = None, strip_prefix: str | None = None) -> None:
        self._base, self._key, self._strip_prefix = base, key, strip_prefix

    @contextmanager
    def checkpoint(self, saved: RunCheckpoint) -> Generator[Checkpoint]:
        """One checkpoint of a run.

        Raises:
            CheckpointError: it cannot be read, or its base does not exist locally.
        """
        if (saved.path / ADAPTER).is_file():
            with self._base_of(saved.path) as base:
                yield with_lora(base, saved.path)
            return
        alone = averaged([saved], Weighting(), key=self._key, strip_prefix=self._strip_prefix)
        with self.average(alone) as model:
            yield model

    @contextmanager
    def average(self, recipe: Recipe) -> Generator[Checkpoint]:
        """An average of `averaged`: the model that `polyak average` would write, without writing it.

        Raises:
            CheckpointError, Mismatch: as for a merge, or the base of adapters does not exist locally.
        """
        if recipe.adapter is None:
            from ..checkpoint import MemoryCheckpoint
            from ..engine import run_in_memory
            from ..planning import plan

            yield MemoryCheckpoint(run_in_memory(plan(recipe)), label=recipe.models[-1].name)
            return
        from ..adapters import merge

        adapter = Path(recipe.models[0].source.path or "")
        with TemporaryDirectory(prefix="polyak-") as scratch, self._base_of(adapter) as base:
            out = Path(scratch) / "average"
            merge(recipe, out)
            yield with_lora(base, out)

    def _base_of(self, adapter: Path) -> Checkpoint:
        named = self._base or read_json(adapter / ADAPTER).get("base_model_name_or_path")
        if isinstance(named, str) and (self._base or Path(named).exists()):
            return checkpoints.open(named)
        problem = f"{named!r} does not exist here" if named else "is not named"
        raise CheckpointError(f"{adapter} is an adapter whose base {problem}. Give the base with --base.")
