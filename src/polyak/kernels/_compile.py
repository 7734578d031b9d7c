"""How kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from numba import njit  # pyright: ignore[reportUnknownVariableType]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(fn: F) -> F:
    """Compile on first call, into Numba's cache (beside the source, else the user's cache folder).

    No fastmath: sums keep their order, so results do not depend on the compiler's mood.
    """
    return cast("F", njit(nogil=True, cache=True, error_model="numpy")(fn))


def inlined(fn: F) -> F:
    """A function for use inside kernels."""
    return cast("F", njit(nogil=True, error_model="numpy", inline="always")(fn))


@contextmanager
def saying_when_compiling(say: Callable[[str], None]) -> Generator[None]:
    """Have it said, once, if a kernel is not in the cache and must be compiled."""
    from numba.core import event

    class Listener(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                self.said = True
                say("compiling kernels for this machine; this happens once ...")

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield
