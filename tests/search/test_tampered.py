"""Studies that something else wrote into: continued, or refused in one line."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from polyak.errors import PolyakError
from polyak.search import search

CHANGES = [
    "update trial_user_attributes set value_json = '[1]' where key = 'polyak'",
    """update trial_user_attributes set value_json = '{"objectives": "x"}' where key = 'polyak'""",
    """update trial_user_attributes set value_json = '{"objectives": [NaN], "metrics": {}}' where key = 'polyak'""",
    "update trial_user_attributes set value_json = '{{' where key = 'polyak'",
    "update trial_user_attributes set value_json = '[]' where key = 'baseline'",
    "update trial_values set value = 99",
    "delete from trial_values",
    "update trial_params set distribution_json = '{}'",
    "update trial_params set param_name = param_name || '2'",
    "update trial_params set param_value = 77",
    "update study_directions set direction = 'MAXIMIZE'",
    "delete from study_directions",
    "update study_user_attributes set value_json = '7'",
    "update studies set study_name = 'x'",
    "update trials set state = 'DONE'",
    "drop table trials",
    "drop table trial_params",
    "delete from version_info",
]


@pytest.fixture(scope="module")
def study(place, tmp_path_factory):
    """A study of two candidates, searched once."""
    from polyak import recipe
    from polyak.search import Search
    from polyak.tasks import task_of
    from tests.tasks.models import Network

    from .conftest import NUMBERS

    settings = {"kind": "image-classification", "data": "points.jsonl", "scale": 1, "metric": "loss"}
    task = task_of(settings | {"splits": {"validation": 0.7, "test": 0.3}}, place, factory=Network)
    path = tmp_path_factory.mktemp("study") / "study.db"
    search(Search(recipe.loads(NUMBERS, place), tasks=[task], study=path), trials=2)
    return path


@pytest.mark.parametrize("change", CHANGES)
def test_a_tampered_study_is_refused_in_one_line(asked, tmp_path, study, change):
    shutil.copy(study, tmp_path / "study.db")
    with sqlite3.connect(tmp_path / "study.db") as database:
        assert database.execute(change).rowcount
    database.close()
    with pytest.raises(PolyakError) as caught:
        search(asked(), trials=3)
    assert "study.db" in str(caught.value) and "\n" not in str(caught.value)


def test_an_untouched_study_is_continued(asked, tmp_path, study):
    shutil.copy(study, tmp_path / "study.db")
    assert len(search(asked(), trials=3).tried) == 3
