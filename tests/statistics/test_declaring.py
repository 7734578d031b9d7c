"""Statistics are declared; the command, its options and its help derive from the declaration."""

from __future__ import annotations

from typing import Annotated

import pytest

torch = pytest.importorskip("torch")

from polyak.declare import In  # noqa: E402
from polyak.errors import DeclarationError, RecipeError, SettingError, TaskError  # noqa: E402
from polyak.statistics import Data, Statistic, measure, registry, resolve, statistic  # noqa: E402

from ..tasks.models import Network, write_data, write_model  # noqa: E402


class Counting(Statistic):
    """Adds one for each example to the first parameter."""

    kind = "counting"

    def measurable(self):
        return [self.name_of(next(self.module.named_parameters())[0])]

    def accumulate(self, batch, identities):
        (name,) = self.measurable()
        first = next(self.module.parameters())
        self.add(name, self.start * len(identities) * torch.ones_like(first), len(identities))


@pytest.fixture
def counting():
    @statistic("counting", source="this test")
    def start(data, live, *, by: Annotated[float, In(0, 10)] = 1.0):
        """Counts examples."""
        made = Counting(live.module, live.names, data.identify)
        made.start = by
        return made

    yield registry["counting"]
    del registry["counting"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from polyak import checkpoint
    from polyak.tasks import task_of

    folder = tmp_path_factory.mktemp("declared")
    write_data(folder / "points.jsonl")
    write_model(folder / "model", epochs=1)
    described = {"kind": "image-classification", "data": "points.jsonl", "scale": 1}
    task = task_of(described, folder, factory=Network)
    return Data(task, "test", 10), task.live(checkpoint.open(folder / "model"))


def test_a_declared_statistic_is_started_with_bound_settings(counting, data):
    measured = measure(counting.start(*data, {"by": 3}), data[0].trees())
    (values,) = measured.tensors.values()
    assert measured.kind == "counting" and measured.examples == 10 and (values == 3).all()
    with pytest.raises(SettingError, match="statistic 'counting' has no setting 'bye'"):
        counting.start(*data, {"bye": 3})


def test_a_measurement_of_zeros_is_refused(counting, data):
    with pytest.raises(TaskError, match="the counting is zero everywhere"):
        measure(counting.start(*data, {"by": 0}), data[0].trees())


def test_kind_and_name_must_agree(data):
    @statistic("miscounting", source="this test")
    def start(data, live):
        """Counts otherwise."""
        return Counting(live.module)

    try:
        with pytest.raises(DeclarationError, match="set `kind = 'miscounting'` on Counting"):
            registry["miscounting"].start(*data)
    finally:
        del registry["miscounting"]


def test_an_unknown_statistic_is_answered_with_a_guess():
    with pytest.raises(RecipeError, match=r"unknown statistic 'fischer'. Did you mean 'fisher'"):
        resolve("fischer")


def test_a_setting_may_not_hide_an_option_of_the_command(counting):
    from polyak.cli.measure import _command_of

    @statistic("hiding", source="this test")
    def start(data, live, *, split: int = 0):
        """Hides an option."""

    try:
        with pytest.raises(DeclarationError, match="'split' is an option of the command; rename the setting"):
            _command_of(registry["hiding"])
    finally:
        del registry["hiding"]


def test_the_command_has_the_settings_as_options(counting):
    import typer
    from typer.testing import CliRunner

    from polyak.cli._app import app
    from polyak.cli.measure import measure as group

    assert isinstance(group, typer.Typer) and app
    shown = CliRunner().invoke(group, ["counting", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert "--by" in shown and "Counts examples." in shown and "--batch-size" in shown
