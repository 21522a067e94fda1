"""Lines that processes append to one file: killed, damaged, at the same time."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from fedsup_deploy import places
from fedsup_deploy.errors import ArtifactError, OutputError
from fedsup_deploy.searchers.scoring.journal import Journal

ABOUT = {"of": "numbers"}

_WRITER = """
    import os, signal, sys
    from pathlib import Path
    from fedsup_deploy.searchers.scoring.journal import Journal

    name, count = sys.argv[2], int(sys.argv[3])
    journal = Journal(Path(sys.argv[1]), {"of": "numbers"})
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        journal.append({"by": name, "number": number, "padding": "x" * 5000})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "numbers.jsonl"


def numbers(path: Path) -> list[int]:
    return [entry["number"] for _, entry in Journal(path, ABOUT).read()]


def filled(path: Path, count: int) -> Journal:
    journal = Journal(path, ABOUT)
    for number in range(count):
        journal.append({"number": number})
    return journal


def test_entries_are_read_in_order_with_their_lines(path: Path) -> None:
    filled(path, 3)
    assert list(Journal(path, ABOUT).read()) == [(f"{path}:{line}", {"number": line - 2}) for line in (2, 3, 4)]
    first, *_ = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {"schema": 1, "about": ABOUT}


def test_without_a_file_there_are_no_entries_and_none_is_made(path: Path) -> None:
    assert numbers(path) == []
    assert not path.parent.exists()


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_can_be_gone_on_with(path: Path) -> None:
    """As after a kill in the middle of a write: cut in the last entry, in an earlier one, and in the first line."""
    filled(path, 3)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = list(range(max(whole[:size].count(b"\n") - 1, 0)))
        assert numbers(path) == expected, size
        Journal(path, ABOUT).append({"number": 9})
        assert numbers(path) == [*expected, 9], size


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"number": 1', r"damaged: .*; remove the line"),
        (b"", r"damaged: .*; remove the line"),
        (b"\xff\xfe", r"damaged: .*; remove the line"),
        (b"[1]", r"got \[1\], expected a JSON mapping; remove the line"),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: bytes, expected: str) -> None:
    filled(path, 3)
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ArtifactError, match=rf"^{path}:3: {expected}$"):
        numbers(path)


def test_a_file_about_something_else_is_refused(path: Path) -> None:
    filled(path, 1)
    with pytest.raises(ArtifactError, match=rf"^{path}:1: got another subject than its name says; remove the file$"):
        list(Journal(path, {"of": "letters"}).read())


def test_a_place_that_cannot_be_written_is_an_error(path: Path) -> None:
    path.parent.write_bytes(b"")
    with pytest.raises(OutputError, match=rf"^cannot write {path}: file exists; move away what is in the way$"):
        Journal(path, ABOUT).append({"number": 1})


def test_not_a_number_is_refused_and_leaves_no_half_line(path: Path) -> None:
    journal = filled(path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        journal.append({"number": float("nan")})
    assert numbers(path) == [0]


def test_processes_that_append_at_once_and_are_killed_lose_nothing(children: Any, path: Path) -> None:
    """Three writers begin together on a new file; each is killed after its last line."""
    writers = [
        children.start(
            [sys.executable, "-c", textwrap.dedent(_WRITER), path, name, "150"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert {writer.returncode for writer in writers} == {-signal.SIGKILL}
    entries = [entry for _, entry in Journal(path, ABOUT).read()]
    assert len(entries) == 450
    for name in "abc":
        assert [entry["number"] for entry in entries if entry["by"] == name] == list(range(150))
    assert path.stat().st_size > 450 * 5000
    assert list(path.parent.iterdir()) == [path]


def test_a_line_that_another_process_is_writing_is_waited_for(path: Path) -> None:
    """It has written half of it."""
    journal = filled(path, 1)
    with places.hold(path), path.open("ab", buffering=0) as other:
        other.write(b'{"number"')
        appending = threading.Thread(target=journal.append, args=({"number": 2},))
        appending.start()
        appending.join(timeout=0.3)
        assert appending.is_alive()
        other.write(b": 1}\n")
    appending.join()
    assert numbers(path) == [0, 1, 2]


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"number": NaN}', b"[1, \xc3", b'"\xc3\xa9' * 20 + b'"'])
def test_what_is_more_than_json_is_named(path: Path, line: bytes) -> None:
    filled(path, 1)
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ArtifactError, match=r"\.jsonl:3: .*; remove the line$"):
        numbers(path)


def test_a_pipe_is_no_journal(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(ArtifactError, match="it is no regular file; remove it"):
        numbers(path)
