"""Studies in SQLite: created, or continued if they belong to the same search."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import CannotResume, OutputError, PolyakError
from ..storage import regular_file
from .scoring import Direction

if TYPE_CHECKING:
    from optuna.study import Study

NAME = "polyak"  # of the study, and of the attribute that identifies the search
_SQLITE = b"SQLite format 3\0"


def open_study(path: Path, about: Mapping[str, Any], directions: list[Direction], space: Mapping[str, Any]) -> Study:
    """The study in a file, which is created if it does not exist.

    Args:
        path: File of the database.
        about: Settings and inputs of the search as plain data, which must be equal when a search is continued.
        directions: `maximize` or `minimize`, per objective.
        space: The distribution of each value.

    Raises:
        CannotResume: the study belongs to another search; the message names the difference.
        OutputError: the file is not a study of polyak, or cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not path.exists() or not path.stat().st_size:
        with _reading(path):
            study = optuna.create_study(storage=_storage(path, new=True), study_name=NAME, directions=directions)
            study.set_user_attr(NAME, json.dumps(about, sort_keys=True))
            return study
    with regular_file(path) as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            raise OutputError(f"{path} is not a study: it is not a SQLite database. Choose another --study.")
    with _reading(path):
        _check_version(path)
        study = optuna.load_study(storage=_storage(path), study_name=NAME)
        try:
            saved: Any = json.loads(study.user_attrs[NAME])
            _check_same(path, saved, json.loads(json.dumps(about)))
            _check_trials(study, directions, space)
        except BaseException:
            close(study)
            raise
    return study


@contextmanager
def _reading(path: Path) -> Generator[None]:
    """Turn whatever a file that another program changed makes Optuna and SQLAlchemy raise into one line."""
    try:
        yield
    except PolyakError:
        raise
    except KeyError:
        raise OutputError(f"{path} holds no study of `polyak search`. Choose another --study.") from None
    except Exception as error:  # a tampered database reaches a dozen kinds, assertions among them
        message = " ".join(str(error).split())[:200] or type(error).__name__
        raise OutputError(f"{path} cannot be used as a study: {message}. Choose another --study.") from error


def _check_version(path: Path) -> None:
    """Check that the database names its version, which Optuna would add if it were missing.

    Raises:
        ValueError: it does not.
        sqlite3.Error: it has no such table, or is damaged.
    """
    with closing(sqlite3.connect(path)) as database:
        if database.execute("select count(*) from version_info").fetchone() == (0,):
            raise ValueError("it does not name its version")


def _check_trials(study: Study, directions: list[Direction], space: Mapping[str, Any]) -> None:
    """Check that a search wrote the trials.

    Raises:
        ValueError: one of them is not what a search writes.
    """
    if [direction.name.lower() for direction in study.directions] != directions:
        raise ValueError("it has other objectives")
    for trial in study.get_trials(deepcopy=False):
        record = trial.user_attrs.get(NAME, {})
        complete = NAME in trial.user_attrs or trial.state.name == "COMPLETE"
        if not _lies_in(space, trial.params, trial.distributions, complete=complete):
            raise ValueError(f"candidate {trial.number} is of another search space")
        if not isinstance(record, dict) or not _is_record(cast("dict[str, Any]", record)):
            raise ValueError(f"the record of candidate {trial.number} is damaged")
        if trial.state.name == "COMPLETE" and [*record.get("objectives", ())] != [*(trial.values or ())]:
            raise ValueError(f"the scores of candidate {trial.number} differ from its record")
        if not isinstance(trial.user_attrs.get("baseline", ""), str):
            raise ValueError(f"the baseline of candidate {trial.number} has no name")


def _lies_in(
    space: Mapping[str, Any], values: Mapping[str, Any], distributions: Mapping[str, Any], *, complete: bool
) -> bool:
    """True if a candidate has values of the space: of all of it if it is `complete`, else of a part."""
    if distributions.keys() - space.keys() or (complete and distributions.keys() != space.keys()):
        return False
    return all(space[name] == distributions[name] and _contains(space[name], values[name]) for name in distributions)


def _contains(distribution: Any, value: Any) -> bool:
    choices = getattr(distribution, "choices", None)
    return distribution.low <= value <= distribution.high if choices is None else value in choices


def _is_record(record: Mapping[str, Any]) -> bool:
    objectives, metrics = record.get("objectives", []), record.get("metrics", {})
    if (
        not isinstance(objectives, list)
        or not isinstance(metrics, dict)
        or not isinstance(record.get("error", ""), str)
    ):
        return False
    numbers = [*objectives, *metrics.values(), record.get("merging", 0.0), record.get("scoring", 0.0)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)


def join_study(path: Path) -> Study:
    """The study of a search that another process has opened."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(storage=_storage(path), study_name=NAME)


def _storage(path: Path, *, new: bool = False) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, event

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}, skip_table_creation=not new)
    event.listen(storage.engine, "connect", _hurry)
    storage.engine.dispose()  # connections that were made before
    return storage


def _hurry(connection: Any, _: Any) -> None:
    """Sync once in a while rather than several times per candidate; a power cut may lose the last ones."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def close(study: Study) -> None:
    """Close the database of a study."""
    storage: Any = study._storage
    backend = getattr(storage, "_backend", storage)
    backend.remove_session()
    backend.engine.dispose()


def _check_same(path: Path, saved: Any, about: Mapping[str, Any]) -> None:
    if saved == about:
        return
    keys = [key for key in about if not isinstance(saved, dict) or saved.get(key) != about[key]]
    raise CannotResume(
        f"{path} is the study of another search: it differs in {', '.join(keys) or 'its version'}. Continue with the "
        "same settings and inputs, or choose another --study."
    )


def close_interrupted(study: Study) -> None:
    """Mark the unfinished trials of a stopped search as failed, so that they do not count."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def counted(study: Study) -> list[Any]:
    """The finished trials in order: complete, pruned, or failed with a recorded reason."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    kept = [trial for trial in ended if trial.state != TrialState.FAIL or NAME in trial.user_attrs]
    return sorted(kept, key=lambda trial: trial.number)
