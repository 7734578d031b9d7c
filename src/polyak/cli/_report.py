"""The report of a merge, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine import Report


def show(report: Report, *, as_json: bool, quiet: bool) -> None:
    """Print the report of a merge as text or as JSON."""
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(report) | {"out": str(report.out)}))
    elif not quiet:
        print(report)
