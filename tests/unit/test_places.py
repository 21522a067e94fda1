"""Places that one writer holds: who waits, who is refused, what is made for them and what killed writers left."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import files, places
from fedsup_deploy.errors import OutputError

_FILL_FOLDER = """
import sys
from pathlib import Path
from fedsup_deploy import files
with files.atomic_directory(Path(sys.argv[1])) as partial:
    (partial / "half").touch()
    print("begun", flush=True)
    sys.stdin.readline()
"""
_HOLD = """
import sys
from pathlib import Path
from fedsup_deploy import places
with places.hold(Path(sys.argv[1]), inside=sys.argv[2] == "inside"):
    print("begun", flush=True)
    sys.stdin.readline()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["flock", "no flock"])
def preamble(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With locks of the kernel and without: what makes another process see the same as this test."""
    if request.param == "flock":
        return ""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return "import fcntl\ndef flock(*_): raise OSError(38, 'Function not implemented')\nfcntl.flock = flock\n"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program that goes on when it reads a line; whoever still runs at the end is killed."""
    started = []

    def run(program: str, *words: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(program), *map(str, words)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "begun\n"
        return started[-1]

    try:
        yield run
    finally:
        for process in started:
            process.kill()
            process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("inside", [True, False])
def test_links_in_a_circle_are_refused_before_the_work(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "loop").symlink_to("loop")
    expected = r"^cannot write .*loop: too many levels of symbolic links; move away what is in the way$"
    with pytest.raises(OutputError, match=expected), places.hold(tmp_path / "loop", inside=inside):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["loop"]


def test_long_work_on_a_held_place_is_refused_in_one_line(tmp_path: Path, preamble: str, start: Start) -> None:
    place = tmp_path / "x"
    other = start(preamble + _HOLD, place, "beside")
    who = f"process {other.pid} on {os.uname().nodename} (-c {place} beside)"
    with pytest.raises(OutputError) as refused, places.hold(place, advice=places.CHOOSE_OUT):
        pass
    assert str(refused.value) == (
        f"{place} is being written by {who}; wait for it or stop it - or choose another --out"
    )
    with pytest.raises(OutputError, match=r"wait for it or stop it$"), places.hold(tmp_path / "." / "x"):
        pass
    other.kill()
    other.wait()
    with places.hold(place):
        pass
    assert names(tmp_path) == []


def test_brief_work_waits(tmp_path: Path, preamble: str, start: Start) -> None:
    place = tmp_path / "x"
    other = start(preamble + _HOLD, place, "beside")
    writing = threading.Thread(target=files.write_text, args=(place, "new"))
    writing.start()
    writing.join(timeout=0.3)
    assert writing.is_alive()
    assert not place.exists()
    other.communicate("\n")
    writing.join()
    assert place.read_text() == "new"
    assert names(tmp_path) == ["x"]


def test_what_a_dead_process_of_another_machine_left_can_be_removed_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedsup_deploy import locks

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_machine", lambda: "another")
    locks.acquire(tmp_path / "x")
    monkeypatch.undo()
    monkeypatch.setattr(fcntl, "flock", refuse)
    link = tmp_path / ".x.fedsup-holder"
    with pytest.raises(OutputError, match=rf" on .*; wait for it or stop it, or remove {link} if it runs no more$"):
        places.hold(tmp_path / "x").__enter__()
    link.unlink()
    with places.hold(tmp_path / "x"):
        pass
    assert names(tmp_path) == []


def test_who_holds_a_place_may_write_it(tmp_path: Path, preamble: str) -> None:
    place = tmp_path / "x"
    with places.hold(place), places.hold(place):
        files.write_text(place, "one")
        files.write_text(tmp_path / "y", "two")
        assert locked(tmp_path) == [".x"]
    assert names(tmp_path) == ["x", "y"]


def locked(folder: Path) -> list[str]:
    return [name.rpartition(".")[0] for name in names(folder) if name.endswith(("fedsup-lock", "fedsup-holder"))]


def test_another_thread_is_another_writer(tmp_path: Path, preamble: str) -> None:
    refusals = []

    def hold() -> None:
        try:
            with places.hold(tmp_path / "x"):
                pass
        except OutputError as error:
            refusals.append(str(error))

    with places.hold(tmp_path / "x"):
        other = threading.Thread(target=hold)
        other.start()
        other.join()
    assert len(refusals) == 1
    assert f"is being written by process {os.getpid()} on" in refusals[0]


def test_a_place_is_the_same_by_every_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with places.hold(tmp_path / "real" / "x"):
        refusals = []

        def hold() -> None:
            with pytest.raises(OutputError) as refused:
                places.hold(tmp_path / "link" / ".." / "real" / "x").__enter__()
            refusals.append(str(refused.value))

        other = threading.Thread(target=hold)
        other.start()
        other.join()
    assert len(refusals) == 1


def test_a_folder_that_is_filled_holds_its_own_lock(tmp_path: Path, preamble: str, start: Start) -> None:
    """The folder above may be one that cannot be written."""
    run = tmp_path / "runs" / "x"
    with places.hold(run, inside=True):
        assert locked(run) == [".this-folder"]
        assert locked(tmp_path / "runs") == ["x/.this-folder"]
    assert names(tmp_path) == []
    other = start(preamble + _HOLD, run, "inside")
    assert getattr(places.writer_of(run), "pid", None) == other.pid
    with pytest.raises(OutputError, match=f"^{run} is being written by process {other.pid} on"):
        places.hold(run, inside=True).__enter__()
    other.kill()
    other.wait()
    assert places.writer_of(run) is None
    with places.hold(run, inside=True):
        assert places.is_empty(run)
        files.write_text(run / "a", "b")
        assert not places.is_empty(run)
        places.clear(run)
        assert places.is_empty(run)
        assert locked(run) == [".this-folder"]


def test_folders_made_for_a_place_stay_only_if_something_came_into_them(tmp_path: Path) -> None:
    with places.hold(tmp_path / "a" / "b" / "x"):
        pass
    assert names(tmp_path) == []
    with places.hold(tmp_path / "a" / "b" / "x"):
        (tmp_path / "a" / "kept").touch()
    assert names(tmp_path) == ["a", "a/kept"]


@pytest.mark.parametrize("write", ["file", "folder"])
def test_what_killed_writers_left_goes_with_the_next_write_in_the_folder(
    tmp_path: Path, preamble: str, start: Start, write: str
) -> None:
    """Whatever it writes; what a live writer is at work on stays, and so do the files of others."""
    for name in ("killed", "live"):
        other = start(preamble + _FILL_FOLDER, tmp_path / name)
        if name == "killed":
            other.kill()
            other.wait()
    (tmp_path / ".adeadbeef0000.partial-12345678").mkdir()
    (tmp_path / ".adeadbeef0000.partial-12345678" / "model.onnx").touch()
    foreign = [".x.partial-0", "x.partial-12345678", ".x.partial-1234567G", ".partial-12345678", ".x.lock"]
    for name in foreign:
        (tmp_path / name).touch()

    if write == "file":
        files.write_text(tmp_path / "x", "new")
    else:
        with files.atomic_directory(tmp_path / "x"):
            pass

    left = [name for name in names(tmp_path) if name not in {*foreign, "x"}]
    assert all(name.startswith(".live.") for name in left)
    assert [name for name in left if name.endswith("/half")] != []
    other.communicate("\n")
    assert names(tmp_path) == sorted([*foreign, "live", "live/half", "x"])


def test_own_work_under_way_is_no_leftover(tmp_path: Path, preamble: str) -> None:
    with files.atomic_directory(tmp_path / "x") as partial:
        (partial / "a").touch()
        files.write_text(tmp_path / "y", "new")
        with places.hold(tmp_path / "x"):
            assert (partial / "a").exists()
    assert names(tmp_path) == ["x", "x/a", "y"]


def test_leftovers_that_cannot_be_removed_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of another user in a folder that everybody may write."""
    leftover = tmp_path / ".y.partial-12345678"
    leftover.touch()
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == leftover:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    files.write_text(tmp_path / "x", "new")
    assert names(tmp_path) == [".y.partial-12345678", "x"]


def test_why_a_folder_is_read_only_is_told_apart_from_what_else_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a mount: only the system call is another one."""
    assert places.read_only(tmp_path / "a" / "b") is None
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"not a directory; move away what is in the way$"):
        places.read_only(tmp_path / "file" / "a")
    for code, expected in ((errno.EROFS, "read-only file system"), (errno.EACCES, "permission denied")):

        def refuse(*_args: Any, code: int = code, **_more: Any) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "open", refuse)
        assert places.read_only(tmp_path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~", "/home/me"),
        ("~/a b", "/home/me/a b"),
        ("~root/a", "/root/a"),
        ("./~/a", "./~/a"),
        ("a/~", "a/~"),
        ("", ""),
    ],
)
def test_a_home_folder_is_what_a_shell_takes_for_one(path: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert places.expanded(path) == expected


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    places.check_writable(tmp_path / "a" / "b")
    assert names(tmp_path) == []
    (tmp_path / ".x.partial-01234567").touch()
    places.check_writable(tmp_path)
    assert names(tmp_path) == []


def test_a_bundle_cannot_be_told_from_one_written_alone(tmp_path: Path, preamble: str) -> None:
    with files.atomic_directory(tmp_path / "x") as partial:
        files.write_text(partial / "a", "new")
    assert names(tmp_path) == ["x", "x/a"]
