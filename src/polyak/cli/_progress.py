"""Progress of commands, on standard error."""

from __future__ import annotations

from ..events import Reporter


def reporter(activity: str, unit: str = "bytes", *, quiet: bool, as_json: bool) -> Reporter:
    """Report an activity as a bar on terminals, JSON lines under `--json`, and a line now and then elsewhere."""
    from ..display import watcher_for

    return Reporter(watcher_for(quiet=quiet, as_json=as_json), activity, unit)
