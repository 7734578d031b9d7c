"""Loops over arrays as machine code: compiled by Numba once for a machine, loaded without it afterwards."""

from ._kernel import filled as filled
from ._kernel import in_rows as in_rows
from ._kernel import inlined as inlined
from ._kernel import kernel as kernel
from ._kernel import saying_when_compiling as saying_when_compiling
from ._kernel import scratch as scratch
from ._kernel import settle as settle
from ._kernel import stream as stream
