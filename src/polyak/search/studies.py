"""Studies in SQLite: begun, or gone on with if they are of the same search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CannotResume, OutputError
from .scoring import Direction

if TYPE_CHECKING:
    from optuna.study import Study

NAME = "polyak"  # of the study, and of the attribute that says what it is of
_SQLITE = b"SQLite format 3\0"


def open_study(path: Path, about: Mapping[str, Any], directions: list[Direction]) -> Study:
    """The study in a file; begun, if there is no file.

    Args:
        path: Of the database.
        about: What the search is of, as plain data: it must be the same for all parts of a search.
        directions: `maximize` or `minimize`, for each objective.

    Raises:
        CannotResume: the study is of another search; the message says in what.
        OutputError: the file is no study of polyak's, or cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    is_new = not path.exists() or not path.stat().st_size
    if not is_new:
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                raise OutputError(f"{path} is no study: it is not a SQLite database. Choose another --study.")
    try:
        if is_new:
            study = optuna.create_study(storage=_storage(path), study_name=NAME, directions=directions)
            study.set_user_attr(NAME, json.dumps(about, sort_keys=True))
            return study
        study = optuna.load_study(storage=_storage(path), study_name=NAME)
        said: Any = json.loads(study.user_attrs[NAME])
    except KeyError:
        raise OutputError(f"{path} holds no study that `polyak search` has begun. Choose another --study.") from None
    except (optuna.exceptions.OptunaError, ValueError, RuntimeError, _sql_errors()) as error:
        said = " ".join(str(error).split())[:200]
        raise OutputError(f"{path} cannot be used as a study: {said}") from error
    _check_same(path, said, json.loads(json.dumps(about)))
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
    found = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    event.listen(found.engine, "connect", _hurry)
    found.engine.dispose()  # connections that were made before
    return found


def _hurry(connection: Any, _: Any) -> None:
    """Wait for the disk once in a while, and not several times a candidate; a power cut may cost the last ones."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def close(study: Study) -> None:
    """Give the file back."""
    storage: Any = study._storage
    backend = getattr(storage, "_backend", storage)
    backend.remove_session()
    backend.engine.dispose()


def _sql_errors() -> type[Exception]:
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError


def _check_same(path: Path, said: Any, about: Mapping[str, Any]) -> None:
    if said == about:
        return
    keys = [key for key in about if not isinstance(said, dict) or said.get(key) != about[key]]
    raise CannotResume(
        f"{path} is the study of another search: it differs in {', '.join(keys) or 'its version'}. Go on with what it "
        "was begun with, or choose another --study."
    )


def close_interrupted(study: Study) -> None:
    """Trials that nobody is at any more, of a search that was stopped: they count for nothing."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def counted(study: Study) -> list[Any]:
    """The trials that came to an end, in order: merged and scored, given up, or failed for a reason that is kept."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    kept = [trial for trial in ended if trial.state != TrialState.FAIL or NAME in trial.user_attrs]
    return sorted(kept, key=lambda trial: trial.number)
