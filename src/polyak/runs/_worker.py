"""The other side of a process: makes the calls that arrive, and sends their outcomes."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import PolyakError
from ._executor import Call, Emit, Outcome


def serve(pipe: Connection[Any, Any]) -> None:
    """Make calls until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the first ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sending = threading.Lock()

    def send(message: Any) -> None:
        with sending:
            pipe.send(message)

    while True:
        try:
            name, packed = pipe.recv()
        except EOFError:
            return
        send(_sendable(attempt(Call(name, _unpacked, (packed,)), send)))


def _unpacked(emit: Emit, packed: bytes) -> Any:
    """Make a pickled call; what it needs may not exist here, such as the current folder's modules."""
    call: Call = pickle.loads(packed)
    return call.fn(emit, *call.arguments)


def attempt(call: Call, emit: Emit) -> Outcome:
    """Make a call; every exception but Ctrl-C is an outcome."""
    began = time.perf_counter()
    try:
        value = call.fn(emit, *call.arguments)
    except PolyakError as error:
        return Outcome(call.name, error=error, seconds=time.perf_counter() - began)
    except Exception as error:  # such as one of a user's own module
        message = " ".join(str(error).split())[:500]
        told = PolyakError(f"{message} ({type(error).__name__}).")
        return Outcome(call.name, None, told, time.perf_counter() - began, traceback.format_exc())
    return Outcome(call.name, value, seconds=time.perf_counter() - began)


def _end_with_parent() -> None:
    """End with the process that started this one, however that ends: nobody else would stop this one's writing."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _sendable(outcome: Outcome) -> Outcome:
    """The outcome with an error that the other side can read: an exception may not survive its own pickling."""
    try:
        pickle.loads(pickle.dumps(outcome))
    except Exception:
        error = PolyakError(str(outcome.error) if outcome.error else "its result cannot be sent to another process.")
        return Outcome(outcome.name, None, error, outcome.seconds, outcome.detail)
    return outcome
