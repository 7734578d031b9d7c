"""What every merge method must do.  Public: authors of methods run these checks on their own.

from polyak.testing import check_method
check_method(my_method)
"""

from __future__ import annotations

from collections.abc import Iterator

from ..methods import Method
from . import _checks
from ._asserts import assert_close as assert_close
from ._asserts import assert_refused as assert_refused
from ._asserts import assert_that as assert_that
from ._laws import LAWS as LAWS
from ._laws import Check as Check
from ._problems import Problem as Problem
from ._problems import choices as choices
from ._problems import sample as sample
from ._problems import uneven as uneven


def checks_for(method: Method) -> Iterator[Check]:
    """The universal checks, then one for each law that `method` claims."""
    yield from (check for name, check in vars(_checks).items() if name.startswith("check_"))
    yield from (check for law, check in LAWS.items() if law in method.laws)


def check_method(method: Method) -> None:
    """Run every check that applies.

    Raises:
        AssertionError: the first that fails, saying how.
    """
    for check in checks_for(method):
        check(method)
