"""Results on stdout."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from fedsup_deploy.cli.output import Output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], (False, False, False)),
        (["--json", "search"], (True, False, False)),
        (["search", "--quiet", "--debug"], (False, True, True)),
        (["search", "--", "--json"], (False, False, False)),
        (["search", "--jsonx"], (False, False, False)),
    ],
)
def test_flags_are_read_from_the_arguments(args: list[str], expected: tuple[bool, bool, bool]):
    output = Output.from_args(args)
    assert (output.as_json, output.is_quiet, output.is_debug) == expected
    assert output.command == ["fedsup-deploy", *args]


def test_a_result_is_one_json_document(capsys: pytest.CaptureFixture[str]):
    result = {"name": "caf\u00e9", "rows": [{"a": 1.5, "b": None}]}
    Output(as_json=True).emit(result, lambda _: "not this")
    assert json.loads(capsys.readouterr().out) == result


def test_a_result_that_json_cannot_hold_is_our_mistake():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Output(as_json=True).emit({"loss": float("nan")})


def test_a_result_is_text_for_people(capsys: pytest.CaptureFixture[str]):
    Output().emit({"name": "a"}, lambda result: f"name is {result['name']}")
    assert capsys.readouterr().out == "name is a\n"
    Output().emit({"name": "a"})
    assert capsys.readouterr().out.split() == ["name", "a"]


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_is_asked_for_its_width(width: int):
    """A real one: rows of a table at 80 columns, blocks at 40."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, width, 0, 0))
    command = [sys.executable, "-m", "fedsup_deploy.cli.main", "profile", "list"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    lines = shown.decode("utf-8").splitlines()
    assert process.returncode == 0
    assert lines[0].split()[0] == "name"
    [row] = [line.split() for line in lines if "jetson-nano" in line.split()]
    assert (row[0], len(row)) == (("jetson-nano", 6) if width == 80 else ("name", 2))
    assert max(map(len, lines)) <= width


def _read(terminal: int) -> bytes:
    """Return what a terminal shows next; nothing where its program has ended."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""
