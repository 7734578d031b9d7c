"""Run a search: candidates proposed, merged in memory, scored and kept, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import recipe as recipes
from .._version import __version__
from ..errors import CheckpointError, NotFinite, PolyakError, RecipeError, SettingError, TaskError
from ..recipe import sought
from ..storage import locked
from .candidates import Candidates, with_values
from .job import Progress, Search
from .processes import work_together
from .results import Found, Tried, as_tried, best_of, counts_of, front_of, importance_of
from .samplers import check_sampler, sampler_for
from .scoring import Objective, Scoring, selection_of
from .space import baselines, distributions, largest
from .studies import close, close_interrupted, counted, join_study, open_study

if TYPE_CHECKING:
    from optuna.study import Study

    from ..planning import Plan


def search(
    request: Search,
    *,
    trials: int = 100,
    minutes: float | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Found:
    """Search the values that a recipe leaves open.

    With one job, the same search gives the same candidates, interrupted or not.  With more, the proposal of a candidate
    depends on which others have finished.

    Args:
        request: The search to run.
        trials: Total number of candidates, with those already in the study.
        minutes: Start no new candidate after N minutes.
        jobs: Processes on this machine.
        progress: Called with each finished candidate, in this process only.

    Raises:
        RecipeError: the recipe has no `search:`, or cannot be merged with any values.
        TaskError: tasks, splits and experts do not fit together, or no candidate could be scored.
        CannotResume: the study is of another search.
        OutputError: the study cannot be written.
        SettingError: an option is wrong, or Optuna is not installed.
    """
    _check_optuna(request.sampler)
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    worker = _Worker(request)
    with locked(request.study, f"another search is using {request.study} now. Wait for it, or choose another --study."):
        study = open_study(request.study, worker.about, worker.objective.directions)
        try:
            close_interrupted(study)
            worker.enqueue_baselines(study)
            if jobs == 1:
                worker.work(study, trials - len(counted(study)), ends, progress)
            else:
                work_together(request, trials - len(counted(study)), ends, jobs, study, progress, work)
            return worker.result(study)
        finally:
            close(study)


def work(request: Search, share: int, ends: float | None, process: int) -> None:
    """Try a share of the candidates of a search that another process has started."""
    study = join_study(request.study)
    try:
        _Worker(request, process).work(study, share, ends, None)
    finally:
        close(study)


def _check_optuna(sampler: str) -> None:
    needed = ["optuna", "sqlalchemy", *(["cmaes"] if sampler == "cma-es" else [])]
    for name in needed:
        try:
            __import__(name)
        except ImportError:
            raise SettingError(f"a search needs {name}: pip install 'polyak[search]'") from None


class _Worker:
    """Proposes, merges and scores candidates in one process."""

    def __init__(self, request: Search, process: int | None = None) -> None:
        self._request = request
        # processes that see the same history must not propose the same candidates
        self._apart = [] if process is None else [process]
        self._open = sought(request.recipe)
        if not self._open:
            raise RecipeError(
                "the recipe leaves nothing to search. Write a range such as `weight: {search: [0, 1]}` for a value "
                "that is to be searched."
            )
        tasks = request.tasks() if callable(request.tasks) else request.tasks
        self._scoring = Scoring(tasks, replace(request.examples, seed=request.seed))
        self.objective = Objective(request.objective, self._scoring.tasks, request.experts)
        if request.pruning and self.objective.kind == "each":
            raise SettingError("pruning needs a single objective: use the mean of the tasks.")
        self._space, self._baselines = distributions(self._open), baselines(self._open)
        check_sampler(request.sampler, self._space, len(self.objective.names))
        self._candidates = Candidates(request.recipe, memory=request.memory, workers=request.workers)
        self.about = {
            "recipe": recipes.digest(request.recipe),
            "inputs": self._inputs(),
            "tasks": self._scoring.digests,
            "examples": selection_of(request.examples),
            "objective": request.objective,
            "experts": dict(request.experts),
            "sampler": request.sampler,
            "seed": request.seed,
            "pruning": request.pruning,
        }

    def _inputs(self) -> dict[str, Any]:
        """The files of the models, which identify a study.

        Raises:
            PolyakError: the recipe cannot be merged with any of a few typical values.
        """
        inputs = self._planned().inputs
        return {name: [[s.path.name, s.size, s.header] for s in source.stamps] for name, source in inputs.items()}

    def _planned(self) -> Plan:
        tries = [
            *self._baselines.values(),
            {hyperparameter.place: largest(hyperparameter) for hyperparameter in self._open},
        ]
        for values in tries[:-1]:
            try:
                return self._candidates.plan(values)
            except SettingError:  # such as weights that sum to zero; other values may work
                continue
        return self._candidates.plan(tries[-1])

    def enqueue_baselines(self, study: Study) -> None:
        """Enqueue the baselines that the study does not have yet."""
        from optuna.trial import TrialState

        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        there = {trial.user_attrs.get("baseline") for trial in [*waiting, *counted(study)]}
        for name, values in self._baselines.items():
            if name not in there:
                study.enqueue_trial(dict(values), user_attrs={"baseline": name})

    def work(self, study: Study, trials: int, ends: float | None, progress: Progress | None) -> None:
        """Try a number of candidates, or fewer if time is up."""
        if self._request.pruning:
            from optuna.pruners import MedianPruner

            study.pruner = MedianPruner(n_startup_trials=5)
        start = next(iter(self._baselines.values()))
        for _ in range(trials):
            if ends is not None and time.monotonic() >= ends:
                return
            seed = [self._request.seed, len(counted(study)), *self._apart]
            study.sampler = sampler_for(self._request.sampler, seed, start, self._space)
            done = self._try(study, study.ask(self._space))
            if progress is not None:
                progress(as_tried(done))

    def _try(self, study: Study, trial: Any) -> Any:
        """Merge and score the values of a trial; returns the finished trial."""
        from optuna.trial import TrialState

        record: dict[str, Any] = {}
        values, state = None, TrialState.FAIL
        try:
            values, state = self._outcome(trial, record)
        except PolyakError as error:
            if isinstance(error, CheckpointError) and not isinstance(error, NotFinite):
                raise  # an error of the models, which every candidate would meet
            record["error"] = str(error)
        trial.set_user_attr("polyak", record)
        return study.tell(trial, values, state=state)

    def _outcome(self, trial: Any, record: dict[str, Any]) -> tuple[list[float] | None, Any]:
        from optuna.trial import TrialState

        label, began = f"candidate {trial.number}", time.perf_counter()
        self._candidates.merge(trial.params)
        self._scoring.bring_to_life(self._candidates, label)
        record["merging"] = time.perf_counter() - began
        began, prunes = time.perf_counter(), self._prunes(trial)
        for share, metrics in self._scoring.score(self._candidates, label, gradually=prunes):
            values = self.objective.of(metrics)
            record |= {"metrics": metrics, "objectives": values, "scoring": time.perf_counter() - began}
            if share < 1:
                trial.report(values[0], round(100 * share))
                if trial.should_prune():
                    return None, TrialState.PRUNED
        return record["objectives"], TrialState.COMPLETE

    def _prunes(self, trial: Any) -> bool:
        return self._request.pruning and "baseline" not in trial.user_attrs

    def result(self, study: Study) -> Found:
        """The result of a study.

        Raises:
            TaskError: no candidate could be scored.
        """
        tried = tuple(as_tried(trial) for trial in counted(study))
        complete = [candidate for candidate in tried if candidate.state == "complete"]
        if not complete:
            first_error = next((f" The first: {candidate.error}" for candidate in tried if candidate.error), "")
            raise TaskError(f"none of {len(tried)} candidates could be merged and scored.{first_error}")
        directions = tuple(self.objective.directions)
        front = front_of(complete, directions)
        best = best_of(front, directions)
        about = {**self._provenance(), "trials": counts_of(tried), **self._reached(best, tried)}
        return Found(
            with_values(self._request.recipe, best.values, about), best, tried, tuple(front),
            tuple(self.objective.names), directions, importance_of(study, len(complete)), about,
        )  # fmt: skip

    def _provenance(self) -> dict[str, Any]:
        from importlib.metadata import version

        settings = {key: value for key, value in self.about.items() if key == "seed" or (value and key != "inputs")}
        metrics = {task.name: task.metric for task in self._scoring.tasks}
        return {
            "learned_by": "search",
            **settings,
            "metrics": metrics,
            "polyak": __version__,
            "optuna": version("optuna"),
        }

    def _reached(self, best: Tried, tried: Sequence[Tried]) -> dict[str, Any]:
        first = {
            candidate.baseline: list(candidate.objectives)
            for candidate in tried
            if candidate.baseline and candidate.objectives
        }
        reached = {"candidate": best.number, "objectives": list(best.objectives), "metrics": dict(best.metrics)}
        return {"found": {**reached, "values": dict(best.values)}, "baselines": first}
