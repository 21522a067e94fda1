"""Worker processes of this machine, and the requests and replies between them and this one. Knows no federation.

A worker is Python started on the file `worker.py`. It never imports from the current folder, which may be anybody's; it
is in a session of its own, so that Ctrl-C in a terminal is for this process to act upon; and nothing of it lies in any
folder, so that a kill of either process at any moment leaves nothing. Each has one connection, whose end tells either
side that the other has gone.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from fedsup_deploy import shared_files
from fedsup_deploy.engines import worker
from fedsup_deploy.errors import FederationError, OutputError
from fedsup_deploy.libraries import ENVIRONMENT

T = TypeVar("T")

_DIED: Final = "a worker process died, killed or out of memory; lower engine.workers and continue with --resume"
#: Seconds for a thread to see that its worker has ended, which is at once.
_PATIENCE_S: Final = 5.0
_PROGRAM: Final = os.path.abspath(worker.__file__)  # noqa: PTH100  the folder may change, but links are not followed
_PACKAGE_FOLDER: Final = str(Path(_PROGRAM).parents[2])


class WorkerPool:
    """Shares exchanges among worker processes. Each starts when an exchange needs it.

    Args:
        open_work: Returns what answers requests; called once in every worker, so it must pickle.
        num_workers: Number of processes, at most.

    Raises:
        OutputError: No room for temporary files.

    Side effects: Starts processes, which end with `close` or with this process, however it ends.
    """

    def __init__(self, open_work: Callable[[], Callable[[Any], object]], num_workers: int) -> None:
        self.num_workers = num_workers
        # What it pickles as may name files that are open here for as long.
        self._open_work = open_work
        self._work, self._descriptors = _work_file(open_work)
        self._exchanges: queue.SimpleQueue[tuple[Future[Any], Callable[[Worker], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._is_ended = False
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(num_workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, exchange: "Callable[[Worker], T]") -> "Future[T]":
        """Return what comes of an exchange with one worker, whichever is free first.

        It raises what was raised in the exchange or in the worker, or FederationError where that died.

        Args:
            exchange: Asks the worker, once or several times; called in a thread of its own.
        """
        future: Future[T] = Future()
        self._exchanges.put((future, exchange))
        return future

    def close(self) -> None:
        """End the worker processes at once, whatever they are doing; replies still to come become FederationError."""
        self._end_workers()
        for _ in self._threads:
            self._exchanges.put(None)
        for thread in self._threads:
            # Not for ever: whoever stops a command may do so just after this process has taken the lock of a future,
            # and nobody lets go of it then. The thread that waits for it asks no worker any more.
            thread.join(_PATIENCE_S)
        self._work.close()

    def _serve(self) -> None:
        """Let one exchange after the other have one worker. Runs in a thread of its own."""
        served: Worker | None = None
        while (item := self._exchanges.get()) is not None:
            future, exchange = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                served = served or self._start_worker()
                future.set_result(exchange(served))
            except _DiedError as death:
                # The others are of no use now, and what they were asked must fail at once, not after an hour.
                self._end_workers()
                error = FederationError(_DIED)
                error.__cause__ = death
                future.set_exception(error)
            except Exception as raised:  # noqa: BLE001  whatever it is, whoever waits for the reply gets it
                future.set_exception(raised)
        if served is not None:
            served.disconnect()

    def _start_worker(self) -> "Worker":
        with self._lock:
            if self._is_ended:
                raise FederationError(_DIED)
            try:
                started = Worker(self._work, self._descriptors)
            except OSError as error:
                raise FederationError(
                    f"a worker process cannot be started: {error.strerror}; lower engine.workers"
                ) from error
            self._workers.append(started)
            return started

    def _end_workers(self) -> None:
        with self._lock:
            self._is_ended = True
            for started in self._workers:
                started.end()


class _DiedError(Exception):
    """The other end of a worker's connection is closed."""


class Worker:
    """One process, from outside.

    Args:
        work: The file that says what it does.
        shared: Descriptors of other files that it is to have.

    Attributes:
        held: Names of what it was sent and should hold, for those who ask it.
    """

    def __init__(self, work: IO[bytes], shared: Collection[int] = ()) -> None:
        self.held: set[str] = set()
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            descriptors = (theirs.fileno(), work.fileno())
            self._process = subprocess.Popen(
                [*_python(), _PROGRAM, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # this process's is for the result of a command
                env={**os.environ, **ENVIRONMENT},
                pass_fds=(*descriptors, *shared),
                start_new_session=True,
            )

    def ask(self, request: object) -> object:
        """Send a request and return the reply. Raises what was raised in the worker."""
        message = pickle.dumps(request, protocol=5)
        try:
            self._connection.send_bytes(message)
            reply = self._connection.recv_bytes()
        except (EOFError, OSError) as death:
            raise _DiedError from death
        result, error, trace = pickle.loads(reply)  # noqa: S301  from our own process
        if error is not None:
            raise error from RuntimeError(f"in a worker process:\n{trace}")
        return result

    def end(self) -> None:
        """Kill the process: it keeps nothing that could be lost. Whoever waits for its reply gets an EOFError."""
        self._process.kill()
        self._process.wait()

    def disconnect(self) -> None:
        """Close the connection, which ends the process if it still runs. For the thread that asks, and no other."""
        self._connection.close()


def _python() -> list[str]:
    """Return the command that starts Python as this process was, but for what it takes from its surroundings.

    Isolated (-I), it puts neither the current folder nor the script's on `sys.path`, nor what PYTHONPATH names: the
    work file says where modules are.
    """
    flags = ["-I", "-X", f"utf8={sys.flags.utf8_mode}", *(f"-W{each}" for each in sys.warnoptions)]
    return [sys.executable, *flags, *(["-B"] if sys.dont_write_bytecode else [])]


def _work_file(open_work: Callable[[], object]) -> tuple[IO[bytes], frozenset[int]]:
    """Return a file that says what workers do, and the shared files they need. It has no name, so nobody removes it."""
    try:
        with contextlib.ExitStack() as on_error, shared_files.descriptors_of() as descriptors:
            file = on_error.enter_context(tempfile.TemporaryFile())
            worker.write_work(file, open_work, module_folders())
            on_error.pop_all()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write temporary files: {reason}; set TMPDIR to a folder with room") from error
    return file, frozenset(descriptors)


def module_folders() -> list[str]:
    """Return where a worker finds modules: where this process does, but not relative to the current folder."""
    folders = [folder for folder in sys.path if os.path.isabs(folder)]  # noqa: PTH117  they are strings
    return folders if _PACKAGE_FOLDER in folders else [*folders, _PACKAGE_FOLDER]
