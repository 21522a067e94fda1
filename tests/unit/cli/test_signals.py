"""Commands stopped from outside: one way out for every signal, and nothing disturbs it."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fedsup_deploy.cli import signals

#: Says when it works and when it has begun to clean up, which takes until somebody writes a line to it.
PROGRAM = """
import sys, time
from fedsup_deploy.cli import signals
from fedsup_deploy.cli.commands import Group
from fedsup_deploy.cli.main import run

group = Group("tool")

@group.command("work")
def work():
    with signals.advising(lambda: "go on with --resume"):
        try:
            print("at work", flush=True)
            time.sleep(600)
        finally:
            print("cleaning up", flush=True)
            try:
                raise OSError("nothing there")
            except OSError:
                sys.stdin.readline()
            print("clean", flush=True)
            if "--quiet" in sys.argv:
                print("to the terminal", file=sys.stderr, flush=True)

with signals.stoppable():
    code = run(group, ["work", *sys.argv[1:]])
sys.exit(code)
"""


@contextlib.contextmanager
def at_work(*words: str, stderr: int = subprocess.PIPE, ignored: str = "") -> Iterator["subprocess.Popen[str]"]:
    """Yield the program when it works; with a signal that is ignored from the start, as with `nohup`."""
    command = [sys.executable, "-c", PROGRAM, *words]
    if ignored:
        command = ["sh", "-c", f'trap "" {ignored}; exec "$@"', "sh", *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("name", "expected"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_lets_the_command_clean_up_whatever_comes_after(name: str, expected: int) -> None:
    with at_work() as process:
        assert process.stdout is not None
        process.send_signal(signal.Signals[name])
        assert process.stdout.readline() == "cleaning up\n"
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
        out, err = process.communicate("done\n")
    assert (process.returncode, out, err) == (expected, "clean\n", "interrupted: go on with --resume\n")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    with at_work(ignored="HUP") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate("done\n")
    assert process.returncode == 143


def test_a_terminal_that_has_gone_does_not_matter() -> None:
    """Whatever is written to it is an error, in the midst of cleaning up and after."""
    ours, theirs = pty.openpty()
    with at_work("--quiet", stderr=theirs) as process:
        os.close(theirs)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate("done\n")
    assert (process.returncode, out) == (129, "cleaning up\nclean\n")


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(signals.Stopped) as stopped, signals.stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signals.exit_code(stopped.value) == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


#: A process that is sent a signal when its command is done: before Python takes anything down, and while it does.
LATE = """
import atexit, os, signal, sys
from fedsup_deploy.cli import start

number = signal.Signals[sys.argv.pop()]

class Large:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=number):
        kill(pid, number)

kept = Large()
atexit.register(os.kill, os.getpid(), number)
sys.exit(start.main())
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_after_the_result_is_written_changes_nothing(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LATE, "--version", name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fedsup-deploy ")
