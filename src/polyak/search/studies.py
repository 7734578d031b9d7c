"""Studies in SQLite: created, or continued if they belong to the same search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CannotResume, OutputError
from .scoring import Direction

if TYPE_CHECKING:
    from optuna.study import Study

NAME = "polyak"  # of the study, and of the attribute that identifies the search
_SQLITE = b"SQLite format 3\0"


def open_study(path: Path, about: Mapping[str, Any], directions: list[Direction]) -> Study:
    """The study in a file, which is created if it does not exist.

    Args:
        path: File of the database.
        about: Settings and inputs of the search as plain data, which must be equal when a search is continued.
        directions: `maximize` or `minimize`, per objective.

    Raises:
        CannotResume: the study belongs to another search; the message names the difference.
        OutputError: the file is not a study of polyak, or cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_new = not path.exists() or not path.stat().st_size
    if not is_new:
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                raise OutputError(f"{path} is not a study: it is not a SQLite database. Choose another --study.")
    try:
        if is_new:
            study = optuna.create_study(storage=_storage(path), study_name=NAME, directions=directions)
            study.set_user_attr(NAME, json.dumps(about, sort_keys=True))
            return study
        study = optuna.load_study(storage=_storage(path), study_name=NAME)
        saved: Any = json.loads(study.user_attrs[NAME])
    except KeyError:
        raise OutputError(f"{path} holds no study of `polyak search`. Choose another --study.") from None
    except (optuna.exceptions.OptunaError, ValueError, RuntimeError, _sql_errors()) as error:
        message = " ".join(str(error).split())[:200]
        raise OutputError(f"{path} cannot be used as a study: {message}") from error
    _check_same(path, saved, json.loads(json.dumps(about)))
    return study


def join_study(path: Path) -> Study:
    """The study of a search that another process has opened."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(storage=_storage(path), study_name=NAME)


def _storage(path: Path) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, event

    url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
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


def _sql_errors() -> type[Exception]:
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError


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
