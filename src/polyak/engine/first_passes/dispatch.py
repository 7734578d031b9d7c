"""Choose what answers a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ...methods import Gram, Order, Request, Sum, Top
from .. import tuning
from ..step.prepared import PreparedStep
from .base import RunningPass, row_length
from .gram import GramByColumn, GramByRow, GramOfTensors
from .quantiles import QuantilesOfTensors
from .sums import SumByRow, SumOfTensors
from .topk import TopkOfTensors
from .topk_rows import TopkByRow
from .topk_whole import TopkOfDerived


def can_share(one: Request, other: Request) -> bool:
    """True if one sweep can answer both requests."""
    match one, other:
        case Top(scope=here, of=a, kernel=c), Top(scope=there, of=b, kernel=d):
            return here == there and a is b and c is d
        case _:
            return False


def start_pass(requests: Sequence[Request], members: Sequence[PreparedStep]) -> RunningPass:
    """Begin to answer a request, or some that can share their sweeps."""
    request = requests[0]
    match request:
        case Order():
            return QuantilesOfTensors(request, members)
        case Top(scope="row") if not _is_one_long_row(members[0]):
            return TopkByRow(cast("Sequence[Top]", requests), members)
        case Top() if members[0].step.is_whole:
            return TopkOfDerived(cast("Sequence[Top]", requests), members)
        case Top():
            return TopkOfTensors(cast("Sequence[Top]", requests), members)
        case Gram(scope="row") if not _is_one_long_row(members[0]):
            return GramByRow(request, members)
        case Gram(scope="column") if len(members[0].step.out.shape) > 1:
            return GramByColumn(request, members)
        case Gram():
            return GramOfTensors(request, members)
        case Sum(scope="row"):
            return SumByRow(request, members)
        case Sum():
            return SumOfTensors(request, members)


def _is_one_long_row(prepared: PreparedStep) -> bool:
    """True if a tensor is a single row too long to be held whole; it is then processed in blocks."""
    return prepared.step.out.numel == row_length(prepared) > tuning.LONG_ROW
