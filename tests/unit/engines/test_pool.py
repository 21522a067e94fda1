"""Worker processes: replies, errors, death of a worker or of this process at any moment, and what they import."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.engines import pool
from fedsup_deploy.engines.pool import Worker, WorkerPool
from fedsup_deploy.errors import ArtifactError, FederationError, OutputError
from fedsup_deploy.shared_files import SharedFile

#: A module that is found here and in workers, because its folder is on `sys.path` here.
CHORES = """
    import os, sys, time

    from fedsup_deploy.errors import ArtifactError

    def opened_on(file):
        def append(content):
            size = os.fstat(file.descriptor).st_size
            os.pwrite(file.descriptor, content, size)
            return size
        return append

    class Unsendable(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def opened():
        return answer

    def opened_with(array):
        return lambda index: (array[index].item(), array.flags.writeable, array.flags.aligned)

    def opened_slowly(file):
        open(file, "w").close()
        time.sleep(600)

    def not_opened():
        raise ArtifactError("nothing to work with")

    def answer(request):
        if request == "pid":
            return os.getpid()
        if request == "modules":
            return {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
        if request == "path":
            return sys.path
        if request == "artifact":
            raise ArtifactError("altered")
        if request == "unsendable":
            raise Unsendable(1, 2)
        if isinstance(request, float):
            time.sleep(request)
            return os.getpid()
        return request
"""

#: Starts two workers, leaves one idle and one busy, says who they are, and waits to be killed.
PARENT = """
    import sys, time

    sys.path.insert(0, sys.argv[1])
    import chores
    from fedsup_deploy.engines.pool import WorkerPool

    def half_asleep(worker):
        return worker.ask(0.2)

    pool = WorkerPool(chores.opened, 2)
    pids = [reply.result() for reply in [pool.submit(half_asleep), pool.submit(half_asleep)]]
    busy = pool.submit(lambda worker: worker.ask(600.0))
    print(*pids, flush=True)
    time.sleep(600)
"""

PoolOf = Callable[..., WorkerPool]


@pytest.fixture
def chores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "chores.py").write_text(textwrap.dedent(CHORES))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "chores", raising=False)
    import chores

    return chores


@pytest.fixture
def pool_of() -> Iterator[PoolOf]:
    """Make a pool that is closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(open_work: Callable[[], Any], num_workers: int = 1) -> WorkerPool:
            return stack.enter_context(contextlib.closing(WorkerPool(open_work, num_workers)))

        yield make


def children(of: int | None = None) -> set[int]:
    """Return the worker processes of a process, by default of this one."""
    columns = ["-o", "pid=", "-o", "ppid=", "-o", "command="]
    listed = subprocess.run(["ps", "-A", "-ww", *columns], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    mine = str(of or os.getpid())
    return {int(pid) for pid, parent, *command in rows if parent == mine and "worker.py" in str(command)}


def is_running(pid: int) -> bool:
    """Return whether a process exists and is more than an entry nobody has collected yet."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() != "" and not state.startswith("Z")


def wait_until(has_happened: Callable[[], object]) -> None:
    while not has_happened():
        time.sleep(0.005)


def submit(pool: WorkerPool, request: object) -> "Future[Any]":
    """Ask one worker for one reply."""
    return pool.submit(lambda worker: worker.ask(request))


def error_of(reply: "Future[Any]") -> BaseException | None:
    """Return what a reply ends with. A minute is forever: nothing here takes longer than Python takes to start."""
    return reply.exception(timeout=60)


def test_arrays_are_in_memory_once_and_nobody_writes_to_them(chores: ModuleType, pool_of: PoolOf) -> None:
    odd, array_N = np.arange(3, dtype=np.uint8), np.arange(1000)
    pool = pool_of(functools.partial(chores.opened_with, array_N))
    assert submit(pool, 999).result() == (999, False, True)
    assert submit(pool_of(functools.partial(chores.opened_with, odd)), 2).result() == (2, False, True)


def test_a_shared_file_is_one_file_for_all(chores: ModuleType, pool_of: PoolOf) -> None:
    """What workers write, each and this process read; one that starts late has it as well."""
    file = SharedFile()
    assert file.descriptor is not None
    for workers in [pool_of(functools.partial(chores.opened_on, file)) for _ in range(2)]:
        workers.submit(lambda worker: worker.ask(b"w")).result()
    assert os.pread(file.descriptor, 3, 0) == b"ww"
    other = pool_of(functools.partial(chores.opened_on, SharedFile()))
    assert other.submit(lambda worker: worker.ask(b"x")).result() == 0


def test_what_is_raised_in_a_worker_is_raised_here(chores: ModuleType, pool_of: PoolOf) -> None:
    """With its type where it can be sent; and the worker goes on."""
    pool = pool_of(chores.opened)
    error = error_of(submit(pool, "artifact"))
    assert isinstance(error, ArtifactError)
    assert str(error) == "altered"
    assert "in answer\n" in str(error.__cause__), "the trace in the worker"
    assert repr(error_of(submit(pool, "unsendable"))) == "RuntimeError('Unsendable: 1 and 2')"
    assert submit(pool, "next").result() == "next"


def test_work_that_cannot_be_opened_says_why_each_time(chores: ModuleType, pool_of: PoolOf) -> None:
    pool = pool_of(chores.not_opened)
    assert [str(error_of(submit(pool, request))) for request in (1, 2)] == ["nothing to work with"] * 2


def kill_while_starting(pool: WorkerPool) -> "Future[Any]":
    reply = submit(pool, 600.0)
    wait_until(children)
    (worker,) = children()
    os.kill(worker, signal.SIGKILL)
    return reply


def kill_while_computing(pool: WorkerPool) -> "Future[Any]":
    worker, reply = submit(pool, "pid").result(), submit(pool, 600.0)
    wait_until(reply.running)
    os.kill(worker, signal.SIGKILL)
    return reply


def kill_while_idle(pool: WorkerPool) -> "Future[Any]":
    os.kill(submit(pool, "pid").result(), signal.SIGKILL)
    return submit(pool, "pid")


def kill_while_sent_to(pool: WorkerPool) -> "Future[Any]":
    """A worker that is stopped takes in no more than fits the buffer of a connection."""
    worker = submit(pool, "pid").result()
    os.kill(worker, signal.SIGSTOP)
    reply = submit(pool, bytes(32 * 2**20))
    wait_until(reply.running)
    os.kill(worker, signal.SIGKILL)
    return reply


@pytest.mark.parametrize("kill", [kill_while_starting, kill_while_computing, kill_while_idle, kill_while_sent_to])
def test_a_worker_that_dies_is_an_error_that_says_what_to_do(
    kill: Callable[[WorkerPool], "Future[Any]"], chores: ModuleType, pool_of: PoolOf
) -> None:
    pool = pool_of(chores.opened)
    expected = "a worker process died, killed or out of memory; lower engine.workers and continue with --resume"
    for reply in (kill(pool), submit(pool, "pid")):
        error = error_of(reply)
        assert isinstance(error, FederationError)
        assert str(error) == expected


def test_where_one_dies_nobody_waits_for_the_others(chores: ModuleType, pool_of: PoolOf) -> None:
    pool = pool_of(chores.opened, 2)
    replies = [submit(pool, 600.0), submit(pool, 600.0)]
    wait_until(lambda: len(children()) == 2)
    os.kill(min(children()), signal.SIGKILL)
    assert [type(error_of(reply)) for reply in replies] == [FederationError] * 2
    assert children() == set()


def test_closing_ends_a_busy_worker_at_once(chores: ModuleType) -> None:
    pool = WorkerPool(chores.opened, 1)
    try:
        worker, reply = submit(pool, "pid").result(), submit(pool, 600.0)
        assert os.getsid(worker) == worker, "what a terminal sends does not reach it"
        wait_until(reply.running)
    finally:
        pool.close()
    assert not is_running(worker)
    pool.close()


def test_closing_waits_for_nobody_who_cannot_end(chores: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal raises wherever this thread is: within `Future.result` it may just have taken the future's lock."""
    monkeypatch.setattr(pool, "_PATIENCE_S", 0.01)
    workers = WorkerPool(chores.opened, 1)
    asked: Future[int] = Future()
    asked._condition.acquire()
    workers._exchanges.put((asked, lambda worker: worker.ask("pid")))
    workers.close()
    assert not asked.done()
    asked._condition.release()
    with pytest.raises(FederationError, match="a worker process died"):
        asked.result()


def test_a_cancelled_request_is_not_carried_out(chores: ModuleType, pool_of: PoolOf) -> None:
    pool = pool_of(chores.opened)
    first, second = submit(pool, 0.2), submit(pool, 600.0)
    assert second.cancel()
    assert (first.result(), submit(pool, "third").result()) == (submit(pool, "pid").result(), "third")


def test_an_exchange_has_a_worker_to_itself_and_may_ask_it_often(chores: ModuleType, pool_of: PoolOf) -> None:
    """What a worker was sent is noted beside it, for the exchanges to come."""

    def exchange(worker: Worker) -> tuple[object, object, set[str]]:
        before = set(worker.held)
        worker.held.add("sent")
        return worker.ask(0.2), worker.ask("pid"), before

    pool = pool_of(chores.opened, 2)
    found = [reply.result() for reply in [pool.submit(exchange) for _ in range(4)]]
    assert all(first == second for first, second, _ in found)
    pids = {pid for _, pid, _ in found}
    assert [sum(not before for _, which, before in found if which == pid) for pid in pids] == [1] * len(pids)


def test_what_is_raised_in_an_exchange_is_raised_here(chores: ModuleType, pool_of: PoolOf) -> None:
    pool = pool_of(chores.opened)
    assert repr(error_of(pool.submit(lambda worker: 1 // len(worker.held)))).startswith("ZeroDivisionError")
    assert submit(pool, "next").result() == "next"


def test_a_full_disk_is_an_error_of_the_output(chores: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work file is written to a device that is always full."""
    monkeypatch.setattr("tempfile.TemporaryFile", functools.partial(Path("/dev/full").open, "r+b", 0))
    with pytest.raises(OutputError, match=r"^cannot write temporary files: no space left .*; set TMPDIR to a folder"):
        WorkerPool(chores.opened, 1)


@pytest.mark.parametrize("relative", ["", ".", "modules/.."])
def test_workers_import_nothing_from_the_current_folder(
    relative: str, chores: ModuleType, pool_of: PoolOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though this process would, and PYTHONPATH names it."""
    for name in ("sitecustomize", "usercustomize", "struct", "pickle", "multiprocessing", "signal", "mmap"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{relative or '.'}")
    monkeypatch.setattr(sys, "path", [relative, *sys.path])
    pool = pool_of(chores.opened)
    modules = submit(pool, "modules").result()
    assert not (tmp_path / "imported").exists()
    assert modules["chores"] == str(tmp_path / "modules" / "chores.py")
    assert [name for name, file in modules.items() if Path(file).parent == tmp_path] == []
    assert all(Path(folder).is_absolute() for folder in submit(pool, "path").result())


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
def test_workers_idle_or_busy_end_with_a_parent_that_is_killed(
    signal_name: str, chores: ModuleType, tmp_path: Path
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen([sys.executable, script, tmp_path / "modules"], stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(set(pids)) == 2
        assert all(is_running(pid) for pid in pids)
        parent.send_signal(signal.Signals[signal_name])
        parent.wait()
        wait_until(lambda: not any(is_running(pid) for pid in pids))
    finally:
        parent.kill()
        for pid in pids:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        parent.communicate()


def test_workers_end_with_a_parent_that_is_killed_while_they_start(chores: ModuleType, tmp_path: Path) -> None:
    program = f"""
        import functools, sys, time
        sys.path.insert(0, {str(tmp_path / "modules")!r})
        import chores
        from fedsup_deploy.engines.pool import WorkerPool
        pool = WorkerPool(functools.partial(chores.opened_slowly, {str(tmp_path / "started")!r}), 1)
        reply = pool.submit(lambda worker: worker.ask("pid"))
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    worker = None
    try:
        wait_until((tmp_path / "started").exists)
        (worker,) = children(parent.pid)
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_running(worker))
    finally:
        parent.kill()
        parent.wait()
        if worker is not None and is_running(worker):
            os.kill(worker, signal.SIGKILL)
