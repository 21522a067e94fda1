"""Atomic writing: whatever interrupts a writer, a reader finds the old content or the new, whole."""

import ctypes
import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsup_deploy import files, places
from fedsup_deploy.errors import OutputError, as_output_error

# Both scripts write versions of a file or a folder: version v is 200 lines, or 3 files of them, that all say v.
_WRITER = """
    import os, signal, sys
    from pathlib import Path
    from fedsup_deploy import files, locks, places

    def write(kind, path, version):
        content = f"{version}\\n" * 200
        if kind == "file":
            with files.atomic_file(path) as partial:
                with partial.open("w") as file:
                    for start in range(0, len(content), 150):
                        file.write(content[start : start + 150])
                        file.flush()
        else:
            with files.atomic_directory(path) as partial:
                for name in ("a", "b", "c"):
                    (partial / name).write_text(content)
"""

# Dies before the n-th line of the modules that write, and the functions below, for n = 1, 2, ... until one is done.
_DIE_AT_EVERY_LINE = (
    _WRITER
    + """
    def die_at(line, kind, path, version):
        count, traced = 0, [__file__, *(module.__file__ for module in (files, locks, places))]
        def trace(frame, event, argument):
            nonlocal count
            if frame.f_code.co_filename not in traced:
                return None
            if event == "line":
                count += 1
                if count == line:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        write(kind, path, version)
        sys.settrace(None)

    kind, path = sys.argv[1], Path(sys.argv[2])
    old, line, status = 1, 0, 1
    write(kind, path, old)
    while status != 0:
        line += 1
        child = os.fork()
        if child == 0:
            die_at(line, kind, path, old + 1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        found = {tuple(part.read_text().split()) for part in ([path] if kind == "file" else sorted(path.iterdir()))}
        assert len(found) == 1, (line, found)
        (words,) = found
        assert words in [(str(version),) * 200 for version in (old, old + 1)], (line, words)
        assert kind == "file" or len(list(path.iterdir())) == 3
        leftovers = list(path.parent.glob(".*"))
        assert len(leftovers) <= 2, (line, leftovers)
        old = int(words[0])
    print(line)
"""
)

_WRITE_FOR_EVER = (
    _WRITER
    + """
    kind, path = sys.argv[1], Path(sys.argv[2])
    for version in range(1, int(sys.argv[3]) if sys.argv[3:] else 1_000_000):
        write(kind, path, version)
        if version == 1:
            print("writing", flush=True)
"""
)


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that cannot be written to, not even by the superuser, who becomes somebody else for the test."""
    # Not below tmp_path, whose parents only their owner may enter.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    is_superuser = os.geteuid() == 0
    if is_superuser:
        os.seteuid(65534)
    yield folder
    if is_superuser:
        os.seteuid(0)
    folder.rmdir()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_at_any_line_leaves_old_or_new_and_the_next_writer_cleans_up(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(_DIE_AT_EVERY_LINE))
    place = tmp_path / "place"
    place.mkdir()
    result = subprocess.run([sys.executable, script, kind, place / "x"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20
    assert [path.name for path in place.iterdir()] == ["x"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_from_outside_leaves_old_or_new(children: Any, tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(_WRITE_FOR_EVER))
    target = tmp_path / "place" / "x"
    for attempt in range(4):
        writer = children.start([sys.executable, script, kind, target], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "writing\n"
        time.sleep(0.01 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        parts = [target] if kind == "file" else sorted(target.iterdir())
        words = [word for part in parts for word in part.read_text().split()]
        assert len(words) == 200 * len(parts)
        assert len(parts) == (1 if kind == "file" else 3)
        assert len(set(words)) == 1


def test_exception_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_text(path, "old")

    def write_half() -> None:
        with files.atomic_file(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_exception_while_filling_keeps_the_old_folder_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with files.atomic_directory(path) as partial:
        (partial / "old").touch()

    def fill_half() -> None:
        with files.atomic_directory(path) as partial:
            (partial / "new").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fill_half()
    assert [entry.name for entry in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_folder_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x"
    for name in ("old", "new"):
        with files.atomic_directory(path) as partial:
            (partial / "sub").mkdir()
            (partial / "sub" / name).touch()
    assert [entry.relative_to(path) for entry in path.rglob("*")] == [Path("sub"), Path("sub/new")]
    assert list(path.parent.iterdir()) == [path]


def test_without_an_exchange_of_folders_the_old_one_steps_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other systems than Linux do."""
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_args, **_options: SimpleNamespace())
    path = tmp_path / "x"
    for name in ("old", "new"):
        with files.atomic_directory(path) as partial:
            (partial / name).touch()
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"cannot write .*x: a file is there"), files.atomic_directory(path):
        pass
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*x: is a directory"):
        files.write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def put_folder(path: Path) -> None:
    with files.atomic_directory(path) as partial:
        (partial / "new").touch()


def put_file(path: Path) -> None:
    files.write_text(path, "new")


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("put", [put_folder, put_file])
def test_a_link_stays_and_what_it_leads_to_is_replaced_or_made(
    tmp_path: Path, put: Callable[[Path], None], is_there: bool
) -> None:
    """By way of a second link, relative to a folder of its own; nothing unfinished is beside either."""
    end, path = tmp_path / "elsewhere" / "x", tmp_path / "x"
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "y").symlink_to("../elsewhere/x")
    path.symlink_to("links/y")
    if is_there:
        put(end)
        content = end / "new" if end.is_dir() else end
        content.write_text("old")
    put(path)
    assert path.is_symlink()
    assert (tmp_path / "links" / "y").is_symlink()
    assert not end.is_symlink()
    content = end / "new" if end.is_dir() else end
    assert content.read_text() == ("" if put is put_folder else "new")
    found = {entry.relative_to(tmp_path).as_posix() for entry in tmp_path.rglob("*")}
    assert found - {"elsewhere/x/new"} == {"x", "links", "links/y", "elsewhere", "elsewhere/x"}


def test_what_a_killed_writer_left_where_a_link_leads_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".y.partial-12345678").touch()
    (tmp_path / "x").symlink_to("elsewhere/y")
    put_file(tmp_path / "x")
    assert [entry.name for entry in (tmp_path / "elsewhere").iterdir()] == ["y"]


@pytest.mark.parametrize("put", [put_folder, put_file])
def test_links_in_a_circle_are_said_in_one_line_and_stay(tmp_path: Path, put: Callable[[Path], None]) -> None:
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    expected = r"^cannot write .*x: too many levels of symbolic links; move away what is in the way$"
    with pytest.raises(OutputError, match=expected):
        put(tmp_path / "x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x", "y"]


@pytest.mark.parametrize("name", ["x[1].json", "a*b", "what?"])
def test_leftovers_of_names_with_wildcards_are_removed_and_only_they(tmp_path: Path, name: str) -> None:
    own, other = tmp_path / f".{name}.partial-01234567", tmp_path / f"{name}.partial-01234567"
    for path in (own, other):
        path.touch()
    files.write_text(tmp_path / name, "new")
    assert not own.exists()
    assert other.exists()


def test_leftover_folder_of_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.partial-01234567" / "deep").mkdir(parents=True)
    files.write_text(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_written_bytes_are_exact(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "ünï\r\n")
    assert (tmp_path / "a").read_bytes() == "ünï\r\n".encode()
    files.write_json(tmp_path / "b", {"z": [1, 2.5], "a": "é"})
    assert (tmp_path / "b").read_text(encoding="utf-8") == '{\n  "z": [\n    1,\n    2.5\n  ],\n  "a": "é"\n}\n'


def test_json_has_no_nan_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, float("inf"))
    assert path.read_text() == "1\n"


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert files.sha256(path) == expected
    path.write_bytes(bytes(3_000_000))
    assert files.sha256(path) == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_sha256_of_a_document_ignores_the_order_of_keys_but_not_of_lists() -> None:
    assert files.sha256_of({"a": 1, "b": [1, 2]}) == files.sha256_of({"b": [1, 2], "a": 1})
    assert files.sha256_of([1, 2]) != files.sha256_of([2, 1])
    assert files.sha256_of({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_read_only_folder_is_said_in_one_line(read_only_folder: Path) -> None:
    with pytest.raises(OutputError, match=r"^cannot write .*/x: permission denied; make its folder writable$"):
        files.write_text(read_only_folder / "x", "new")
    with pytest.raises(OutputError, match="permission denied"), files.atomic_directory(read_only_folder / "x"):
        pass
    with pytest.raises(OutputError, match="permission denied"):
        places.check_writable(read_only_folder)
    assert list(read_only_folder.iterdir()) == []


@pytest.mark.parametrize("write", [lambda path: files.write_text(path, "new"), places.check_writable])
def test_a_file_where_a_folder_should_be_is_said_in_one_line(tmp_path: Path, write) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^cannot write .*file.*: (not a directory|file exists); move away"):
        write(tmp_path / "file" / "x")


@pytest.mark.parametrize("write", [files.atomic_file, files.atomic_directory])
def test_folders_made_for_what_then_failed_are_removed(tmp_path: Path, write) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), write(tmp_path / "old" / "a" / "b" / "x"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, "the disk is full; make room there"),
        (errno.EACCES, "permission denied; make its folder writable"),
        (errno.ENAMETOOLONG, "file name too long; give it a shorter name"),
    ],
)
def test_what_the_system_says_becomes_one_line_with_advice(tmp_path: Path, code: int, expected: str) -> None:
    with pytest.raises(OutputError, match=rf"^cannot write .*x: {expected}$"), as_output_error(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(OutputError, match=r"; go$"), as_output_error(tmp_path / "x", "go"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_under_way_stays_when_another_writes_the_same(tmp_path: Path, kind: str) -> None:
    """A second writer used to remove what the first was writing."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(_WRITE_FOR_EVER))
    target = tmp_path / "place" / "x"
    command = [sys.executable, script, kind, target, "20"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        errors = [writer.communicate()[1] for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    assert errors == ["", "", ""]
    assert [path.name for path in target.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_exchange_folders_or_flush_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As some at a distance."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    def refuse_exchange(*_args: object) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_args, **_options: SimpleNamespace(renameat2=refuse_exchange))
    for name in ("old", "new"):
        with files.atomic_directory(tmp_path / "x") as partial:
            (partial / name).touch()
    assert [entry.name for entry in (tmp_path / "x").iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_secret_is_its_owners_alone_and_nothing_is_written_over(tmp_path: Path) -> None:
    with files.new_private_directory(tmp_path / "kit") as folder:
        files.write_secret(folder / "key", b"secret")
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "key")] == [0o700, 0o600]
        with pytest.raises(OutputError):
            files.write_secret(folder / "key", b"another")
    assert (tmp_path / "kit" / "key").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "kit").stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("kit", "link"):
        with pytest.raises(OutputError, match="is there already"), files.new_private_directory(tmp_path / name):
            raise AssertionError("not to be filled")
    assert [path.name for path in tmp_path.iterdir() if not path.is_symlink()] == ["kit"]


def test_what_fails_leaves_no_private_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError),
        files.new_private_directory(tmp_path / "kit") as folder,
    ):
        files.write_secret(folder / "no" / "key", b"secret")
    assert list(tmp_path.iterdir()) == []
