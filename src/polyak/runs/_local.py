"""The executor on this machine: calls in this process, or in processes of their own."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any, TypeAlias

from ..errors import SettingError
from ._executor import Call, Emit, Executor, Outcome, UnitFailed
from ._worker import attempt, serve

_Packed: TypeAlias = "tuple[Call, bytes]"  # a call, and the same pickled
_POLITE = 5.0  # seconds for a process to end before it is killed


class LocalProcesses(Executor):
    """Fresh processes of this machine; with one worker, this process itself.

    A call whose process dies is made once more. Processes are kept until the executor is closed.

    Args of the constructor:
        workers: Calls at the same time.
        threads: Threads of torch and BLAS per call. Another number can change the last bits of results.

    Raises:
        SettingError: there is no worker or no thread.
    """

    def __init__(self, workers: int = 1, *, threads: int = 1) -> None:
        if workers < 1 or threads < 1:
            raise SettingError(f"workers and threads must be at least 1; got {workers} and {threads}.")
        self.workers, self.threads = workers, threads
        self._processes: list[_Worker] = []

    def map(self, calls: Sequence[Call], emit: Emit) -> Iterator[Outcome]:
        return self._here(calls, emit) if self.workers == 1 else self._elsewhere(calls, emit)

    def close(self) -> None:
        for worker in self._processes:
            worker.end()
        self._processes = []

    def _here(self, calls: Sequence[Call], emit: Emit) -> Iterator[Outcome]:
        for call in calls:
            with _few_threads(self.threads):
                outcome = attempt(call, emit)
            yield outcome

    def _elsewhere(self, calls: Sequence[Call], emit: Emit) -> Iterator[Outcome]:
        waiting, died = deque(_packed(call) for call in calls), set[str]()
        is_complete = False
        try:
            while waiting or self._busy:
                self._hand_out(waiting)
                for worker in _ready(self._busy):
                    message = worker.receive()
                    if isinstance(message, Outcome):
                        yield message
                    elif message is not None:
                        emit(message)
                    elif (lost := self._buried(worker))[0].name in died:
                        yield Outcome(lost[0].name, error=worker.death())
                    else:
                        died.add(lost[0].name)
                        waiting.append(lost)
            is_complete = True
        finally:
            if not is_complete:
                self.close()

    @property
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._processes if worker.call is not None]

    def _hand_out(self, waiting: deque[_Packed]) -> None:
        while len(self._processes) < min(self.workers, len(waiting) + len(self._busy)):
            self._processes.append(_Worker(self.threads))
        for worker in self._processes:
            if waiting and worker.call is None:
                worker.begin(waiting.popleft())

    def _buried(self, worker: _Worker) -> _Packed:
        """Forget a process that died; the call that it was making."""
        self._processes.remove(worker)
        worker.end()
        assert worker.call is not None
        return worker.call


class _Worker:
    """A process, and the call that it makes."""

    def __init__(self, threads: int) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")  # the threads of torch and of the kernels do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True, name="polyak-worker")
        self.call: _Packed | None = None
        with _environment(OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE"):  # read when torch is imported
            self.process.start()
        theirs.close()

    def begin(self, call: _Packed) -> None:
        self.call = call
        with suppress(OSError):  # it died before: `receive` finds the end of the pipe
            self.pipe.send((call[0].name, call[1]))

    def receive(self) -> Any:
        """An outcome or an event that has arrived; None if the process died."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, Outcome):
            self.call = None
        return message

    def death(self) -> UnitFailed:
        code = self.process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        return UnitFailed(
            f"its process {how}, twice. Is there too little memory? In a script, start what runs in several processes "
            "below `if __name__ == '__main__':`."
        )

    def end(self) -> None:
        self.process.terminate()
        self.process.join(_POLITE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """The workers from which something has arrived, or that died; waits for the first."""
    arrived = wait([worker.pipe for worker in workers])
    return [worker for worker in workers if worker.pipe in arrived]


def _packed(call: Call) -> _Packed:
    try:
        return call, pickle.dumps(call)
    except Exception as error:  # whatever an object's own pickling raises
        raise SettingError(
            f"{call.name} cannot be sent to another process: {str(error)[:200]}. Use one worker, or name tasks by "
            "their files and modules as 'package.module:function'."
        ) from None


@contextmanager
def _environment(**variables: str) -> Generator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _few_threads(threads: int) -> Generator[None]:
    """Limit the threads of torch, where it is installed; elsewhere nothing that a unit calls has threads of its own."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
