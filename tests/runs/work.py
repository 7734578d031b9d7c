"""Units of tests, in a module that other processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from polyak.runs import Desk, UnitFailed


def add(desk: Desk, task: Any) -> dict[str, Any]:
    """The sum of a number and of the results of earlier units."""
    total = task + sum(result["metrics"]["total"] for result in desk.results.values())
    (desk.folder / "total.txt").write_text(f"{total}\n")
    desk.measured(step=1, total=total)
    desk.advance(2)
    return {"metrics": {"total": total}, "process": os.getpid()}


def diverge(desk: Desk, task: Any) -> dict[str, Any]:
    raise UnitFailed(f"the loss is {task}.")


def break_down(desk: Desk, task: Any) -> dict[str, Any]:
    raise ZeroDivisionError("something is zero")


def die(desk: Desk, task: Any) -> dict[str, Any]:
    """Die the first time; with a task, every time."""
    marker = Path(desk.folder.parents[2] / "died")
    if task or not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return add(desk, 1)


def die_until_marked(desk: Desk, task: Any) -> dict[str, Any]:
    """Kill the whole run, unless a file exists."""
    (desk.folder / "half.txt").write_text("half")
    if not Path(task).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"left": sorted(path.name for path in desk.folder.iterdir()), **add(desk, 1)}


def sleep(desk: Desk, task: Any) -> dict[str, Any]:
    (desk.folder / "began").touch()
    time.sleep(task)
    return {}


def threads(desk: Desk, task: Any) -> dict[str, Any]:
    import torch

    return {"threads": torch.get_num_threads()}
