"""What a merge did, for people and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._size import human

if TYPE_CHECKING:
    from ..engine import Report


def tell(report: Report, *, as_json: bool, quiet: bool) -> None:
    """Print what a merge did, as words or as JSON."""
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(report) | {"out": str(report.out)}))
    elif not quiet:
        rate = human(report.nbytes_read / max(report.seconds, 1e-9))
        print(
            f"{report.out}: {report.tensors} tensors, {human(report.nbytes_written)} written in {report.seconds:.1f} s "
            f"({human(report.nbytes_read)} of inputs, {rate}/s)"
        )
