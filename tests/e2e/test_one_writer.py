"""Two commands that write one place at the same time, and what a killed one left for the next."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy.errors import ArtifactError, OutputError
from fedsup_deploy.locks import Holder

RUN = Path("runs/digits")
SUPERNET = RUN / "supernet.safetensors"
SEARCH = (
    "search",
    "--profile",
    "raspberry-pi-4",
    "--run",
    "runs/digits",
    "--evaluations",
    "8",
    "--accuracy",
    "measured",
)
LEFT_BEHIND = (".partial-", "fedsup-lock", "fedsup-holder")

# A file system without locks of the kernel: Python imports this module at its start.
NO_FLOCK = """
import errno, fcntl, os
def flock(descriptor, operation):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
fcntl.flock = flock
"""


@contextlib.contextmanager
def running(shell: Any, *commands: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Start commands together, and let none of them outlive the test."""
    started: list[Any] = []
    try:
        for words in commands:
            started.append(shell.start(*words))
        yield started
    finally:
        for command in started:
            with command.process:
                command.process.kill()


@pytest.fixture
def copied(workshop: Any, searched: Any, shell: Any) -> Any:
    """A shell with a finished run that was searched."""
    shutil.copytree(workshop.folder / RUN, shell.folder / RUN)
    return shell


def left_behind(shell: Any) -> list[str]:
    return [name for name in shell.content() if any(part in name for part in LEFT_BEHIND)]


def holder_in(lock: Path) -> Holder | None:
    with contextlib.suppress(FileNotFoundError):
        return Holder.parse(lock.read_text(encoding="utf-8"))
    return None


def one_of_two(shell: Any, words: tuple[Any, ...], place: str, lock: str) -> Any:
    """Start a command twice together; return how the one that got the place ended, after the other was refused."""
    with running(shell, words, words) as both:
        both[0].wait_until(lambda: holder_in(shell.folder / lock))
        holder = holder_in(shell.folder / lock)
        assert holder is not None
        first, second = sorted(both, key=lambda command: command.process.pid != holder.pid)
        assert first.process.pid == holder.pid
        # Not a moment later: what is tested is two at the same time, on however fast a machine.
        first.process.send_signal(signal.SIGSTOP)
        refused = second.end()
        first.process.send_signal(signal.SIGCONT)
        ended = first.end()
    assert (refused.exit_code, refused.out) == (OutputError.exit_code, "")
    (error,) = refused.errors
    assert error == (
        f"error: {place} is being written by process {holder.pid} on {os.uname().nodename} ({holder.command}); "
        "wait for it or stop it - or choose another --out"
    )
    assert holder.command.startswith(f"fedsup-deploy {words[0]} ")
    return ended


def test_of_two_trainings_of_one_run_one_trains_as_if_alone(workshop, shell):
    words = tuple(shell.training())
    ended = one_of_two(shell, words, "runs/digits", "runs/digits/.this-folder.fedsup-lock")
    assert ended.exit_code == 0, ended.err
    for name in ("supernet.safetensors", "checkpoint/state.safetensors", "config.resolved.yaml", "space.yaml"):
        assert (shell.folder / RUN / name).read_bytes() == (workshop.folder / RUN / name).read_bytes()
    expected = (workshop.folder / RUN / "events.jsonl").read_text(encoding="utf-8")
    assert (shell.folder / RUN / "events.jsonl").read_text(encoding="utf-8").count("\n") == expected.count("\n")
    assert left_behind(shell) == []


@pytest.mark.slow
def test_of_two_exports_of_one_bundle_one_makes_it(exported, copied):
    folder = Path(exported["folder"])
    words = ("export", "--search", "runs/digits/search.json", "--format", "onnx", "--quiet")
    ended = one_of_two(copied, words, str(folder), f"{folder.parent}/.{folder.name}.fedsup-lock")
    assert ended.exit_code == 0, ended.err
    assert copied.json("verify", folder)["verdict"] == "ok"
    assert [path.name for path in (copied.folder / folder.parent).iterdir()] == [folder.name]
    assert left_behind(copied) == []


def test_of_two_searches_into_one_file_one_writes_it(copied):
    words = (*SEARCH, "--out", "found/x.json", "--quiet")
    ended = one_of_two(copied, words, "found/x.json", "found/.x.json.fedsup-lock")
    assert ended.exit_code == 0, ended.err
    assert [path.name for path in (copied.folder / "found").iterdir()] == ["x.json"]
    assert left_behind(copied) == []


@pytest.mark.slow
def test_two_searches_of_one_run_into_two_files_find_the_same(copied):
    """They share what the run keeps of its evaluations."""
    with running(copied, *((*SEARCH, "--out", name, "--quiet") for name in ("a.json", "b.json"))) as both:
        ended = [command.end() for command in both]
    assert [each.exit_code for each in ended] == [0, 0], ended
    first, second = ((copied.folder / name).read_text(encoding="utf-8") for name in ("a.json", "b.json"))
    assert first.partition('"seconds"')[0] == second.partition('"seconds"')[0]
    assert left_behind(copied) == []


def test_a_run_that_is_being_trained_is_not_read(shell):
    with running(shell, tuple(shell.training(training__rounds=200))) as (training,):
        training.wait_for("rounds 0/200")
        refused = shell.run("evaluate", "runs/digits", "--arch", "largest")
        assert training.process.poll() is None
    assert refused.exit_code == ArtifactError.exit_code
    (error,) = refused.errors
    assert error.startswith(f"error: the run at runs/digits is not finished: process {training.process.pid} on ")
    assert error.endswith(" is training it; wait for its end")


@pytest.mark.slow
def test_an_export_removes_what_a_killed_one_left_and_not_what_another_is_writing(copied):
    folder = copied.folder / "exports" / "raspberry-pi-4"
    leftover = folder / ".adeadbeef0000.partial-12345678"
    (leftover / "inner").mkdir(parents=True)

    def export(arch: str) -> tuple[str, ...]:
        words = ("export", "runs/digits", "--arch", arch, "--profile", "raspberry-pi-4", "--format", "onnx")
        return (*words, "--quiet")

    def others() -> list[Path]:
        return [path for path in folder.glob(".*.partial-*") if path != leftover]

    with running(copied, export("largest")) as (other,):
        other.wait_until(others)
        other.process.send_signal(signal.SIGSTOP)
        (live,) = others()
        copied.json(*export("smallest"))
        assert not leftover.exists()
        assert live.is_dir()
        other.kill()
    assert left_behind(copied) != []
    copied.json(*export("smallest"))
    assert left_behind(copied) == []
    assert len(list(folder.iterdir())) == 1


def test_without_locks_of_the_kernel_all_goes_on_after_a_kill(workshop, shell, tmp_path_factory, monkeypatch):
    module = tmp_path_factory.mktemp("no-flock")
    (module / "sitecustomize.py").write_text(NO_FLOCK, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(module))
    link = shell.folder / RUN / ".this-folder.fedsup-holder"
    with running(shell, tuple(shell.training())) as (training,):
        training.wait_for("rounds 1/3")
        assert f'"pid": {training.process.pid},' in str(link.readlink())
        training.kill()
    assert link.is_symlink()
    shell.train("digits", "--resume")
    assert (shell.folder / SUPERNET).read_bytes() == (workshop.folder / SUPERNET).read_bytes()
    shell.json(*SEARCH)
    assert left_behind(shell) == []
