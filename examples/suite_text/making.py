"""Make the model of a row, by the same calls as `polyak measure`, `learn`, `search` and `merge`, and score it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import polyak
from polyak import learn, recipe
from polyak.search import Search, search
from polyak.statistics import Data, Statistic, measure_to, resolve
from polyak.tasks import Task, evaluate

from .cost import Cost, measured
from .data import digest
from .models import MULTITASK, Models
from .rows import Effort, Row
from .tasks import Board

Scores = Mapping[str, Sequence[float]]  # one number an example, by task


@dataclass(frozen=True)
class Outcome:
    """A model, scored.

    Attributes:
        scores: On the test examples.
        cost: Of making it.
    """

    scores: Scores
    cost: Cost


@dataclass(frozen=True)
class Workshop:
    """Where rows are made.

    Attributes:
        folder: For everything that is made; what data decided is kept there.
        models: Base and experts.
        board: Tasks.
        effort: How long learners learn.
    """

    folder: Path
    models: Models
    board: Board
    effort: Effort

    def make(self, wanted: tuple[Row, int]) -> Outcome:
        """Merge a row with a seed, and score it; what was made of the same models, data and settings is kept.

        A row without data is made again when polyak's code has changed: that costs little. What learners found
        is kept until polyak's version changes, or the file is removed.
        """
        row, seed = wanted
        place, key = self.folder / "rows" / f"{_slug(row, seed)}.json", self._key(row, seed)
        if kept := _read(place, key):
            return kept
        out = self.folder / "merged" / _slug(row, seed)
        cost = self._merge(row, seed, out)
        found = Outcome(self.score(out, seed), cost)
        shutil.rmtree(out)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"key": key, **asdict(found)}), encoding="utf-8")
        return found

    def score(self, model: Path, seed: int = 0, *, heads: str = "") -> Scores:
        """A model on the test examples of all tasks."""
        tasks = self.board.tasks(seed, model=heads)
        return {n: evaluate(model, t, cache=self.folder / "scores").values.tolist() for n, t in tasks.items()}

    def reference(self, name: str) -> Outcome:
        """The base, an expert, or the model of all tasks with heads of its own."""
        return Outcome(self.score(self.models.folder / name, heads=name if name == MULTITASK else ""), Cost())

    def _merge(self, row: Row, seed: int, out: Path) -> Cost:
        tasks = list(self.board.tasks(seed).values())
        cost = self._measure(row, tasks, seed)
        with measured() as rest:
            polyak.merge(self._filled_in(row, tasks, seed), out, force=True)
        shutil.rmtree(self._statistics(row, seed), ignore_errors=True)
        return cost + rest

    def _filled_in(self, row: Row, tasks: Sequence[Task], seed: int) -> Path:
        place = self.folder / "recipes" / f"{_slug(row, seed)}.yaml"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(yaml.safe_dump(self._recipe(row, seed), sort_keys=False), encoding="utf-8")
        if row.learner:
            found, _ = learn.learn(row.learner, recipe.load(place), tasks, settings=row.how, seed=seed)
            place.write_text(learn.text_for(found, place), encoding="utf-8")
        if row.is_searched:
            study = place.with_suffix(".study.db")
            study.unlink(missing_ok=True)
            best = search(Search(recipe.load(place), tasks, study, seed=seed), trials=self.effort.trials).recipe
            place.write_text(learn.text_for(best, place), encoding="utf-8")
        return place

    def _recipe(self, row: Row, seed: int) -> dict[str, Any]:
        names = [*self.models.tasks, *(self.models.irrelevant if row.irrelevant else ())]
        base = {"base": str(self.models.base.absolute())} if row.has_base else {}
        models = [self._model(row, seed, name) for name in names]
        return {**base, "models": models, "method": row.method, "settings": dict(row.settings), "seed": seed}

    def _model(self, row: Row, seed: int, name: str) -> dict[str, Any]:
        told: dict[str, Any] = {"path": str((self.models.folder / name).absolute())}
        if row.weight is not None:
            told["weight"] = dict(row.weight)
        if row.statistic:
            told["statistics"] = {row.statistic: str(self._statistics(row, seed).absolute() / f"{name}.safetensors")}
        return told

    def _statistics(self, row: Row, seed: int) -> Path:
        return self.folder / "statistics" / _slug(row, seed)

    def _measure(self, row: Row, tasks: Sequence[Task], seed: int) -> Cost:
        with measured() as cost:
            for task in tasks if row.statistic else ():
                data = Data(task, examples=self.effort.measured)
                with polyak.open(self.models.folder / task.name) as expert:
                    statistic = self._statistic(row, data, task, expert, seed)
                    place = self._statistics(row, seed) / f"{task.name}.safetensors"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    measure_to(place, statistic, data.trees, force=True)
        return cost

    def _statistic(self, row: Row, data: Data, task: Task, expert: Any, seed: int) -> Statistic:
        settings = {"estimator": "sampled"} if row.statistic == "fisher" else {}
        return resolve(row.statistic).start(replace(data, seed=seed), task.live(expert), settings)

    def _key(self, row: Row, seed: int) -> str:
        names = ["base", *self.models.tasks, *(self.models.irrelevant if row.irrelevant else ())]
        trained = [self.models.folder / name / "trained.json" for name in names[1:]]
        made = [json.loads(file.read_text(encoding="utf-8"))["digest"] for file in trained]
        data = [
            t.digest(split) for t in self.board.tasks(seed).values() for split in ("calibration", "validation", "test")
        ]
        code = _code() if row.data == "none" else polyak.__version__
        return digest(asdict(row), asdict(self.effort), seed, made, data, code)


@cache
def _code() -> str:
    package = Path(polyak.__file__).parent
    return digest([file.read_text(encoding="utf-8") for file in sorted(package.rglob("*.py"))])


def _read(place: Path, key: str) -> Outcome | None:
    if not place.is_file():
        return None
    kept = json.loads(place.read_text(encoding="utf-8"))
    return Outcome(kept["scores"], Cost(**kept["cost"])) if kept["key"] == key else None


def _slug(row: Row, seed: int) -> str:
    name = row.name.lower().replace("+", " plus ")
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {seed}").strip("-")
