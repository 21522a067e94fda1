"""The command `fedsup-deploy`: its list of commands, and how any of them ends.

Owns exit codes and error messages. A command's module is imported only when the command is asked for, so that help
needs neither torch nor the time to load it.
"""

import contextlib
import errno
import io
import os
import select
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from fedsup_deploy.cli import signals
from fedsup_deploy.cli.commands import LazyGroup
from fedsup_deploy.cli.output import Output
from fedsup_deploy.errors import FedsupError, OutputError
from fedsup_deploy.libraries import ENVIRONMENT
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.resources import InPlaceOfShipped, check_name

EXIT_USAGE: Final = 2
EXIT_INTERNAL: Final = 70
#: What the system says where stdout takes no more. A file of ours that takes no more is an `OutputError` already.
_STDOUT_ENDS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
EXIT_BROKEN_PIPE: Final = 141

cli = LazyGroup(
    "fedsup-deploy",
    {
        "demo": "Run the whole way on bundled images: train, search, export, measure, show what came of it.",
        "train": "Train a supernet over federated clients.",
        "watch": "Watch a run while it trains: how far, how long still, what it learns, who fails.",
        "evaluate": "Measure how right one subnet is after recalibration.",
        "fit-accuracy": "Measure some subnets of a run and predict the accuracy of all others.",
        "search": "Find the best subnet within the limits of each device profile.",
        "extract": "Write one subnet's own weights and its architecture.",
        "recalibrate": "Take a subnet's normalisation statistics from the clients.",
        "export": "Make one verified bundle of model files per device profile.",
        "deploy": "Search and export for a whole fleet in one call.",
        "measure": "Time a bundle or an ONNX model, on this machine or another.",
        "sign": "Sign a bundle, so that whoever has the public key can tell who made it.",
        "verify": "Check that a bundle is unaltered and computes what it must.",
        "report": "Show runs, searches and bundles as one page to look at.",
        "inspect": "Say what a file or folder of ours is and what made it.",
        "profile": "Build, adapt, check and compare device profiles.",
        "fleet": "Set up a federation of devices, serve it, and see which can take part.",
        "client": "Join a federation as a device, with its own images.",
    },
    help="One federated supernet training run, the right model for every device class.",
)


class Failure(NamedTuple):
    """How a command that did not succeed ends."""

    kind: str
    """Name of the error, for scripts."""
    message: str
    exit_code: int


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        args: The words after the program's name; None takes those of this process.

    Side effects: Whatever the command does. Writes results to stdout and everything else to stderr. Sets variables of
        the environment (`libraries.ENVIRONMENT`).
    """
    os.environ.update(ENVIRONMENT)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us, who wants nothing of it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals.stoppable():
            return run(cli, sys.argv[1:] if args is None else args)
    except signals.Stopped as stop:  # before there was a command, or when it was done
        return signals.exit_code(stop)
    except BrokenPipeError:  # whoever read our output has gone
        _forget_stdout()
        return EXIT_BROKEN_PIPE


def run(group: click.Group, args: Sequence[str]) -> int:
    """Run one command of a group and return its exit code; every exception becomes one line on stderr.

    Raises:
        BrokenPipeError: Nobody reads stdout any more.
    """
    output = Output.from_args(args)
    try:
        for word in args:
            check_name(word)
        with _notes(), group.make_context(group.name, list(args), obj=output) as context:
            group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except (Exception, KeyboardInterrupt) as error:  # the outermost frame: whatever it is, it ends here
        if (stop := signals.stop_behind(error)) is not None:
            with contextlib.suppress(OSError):  # the terminal may be what has gone
                _report(stop, output)
            return signals.exit_code(stop)
        if isinstance(error, BrokenPipeError) and _is_stdout_closed():
            raise
        if isinstance(error, OSError) and error.filename is None and error.errno in _STDOUT_ENDS:
            _forget_stdout()
            reason = os.strerror(error.errno).lower()
            return _report(OutputError(f"cannot write to the standard output: {reason}"), output)
        return _report(error, output)
    return 0


def _forget_stdout() -> None:
    """Send what is still to be written nowhere: Python would fail again when it flushes stdout at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Say each warning about a file that stands in for a shipped one, once, on a line of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", InPlaceOfShipped)
        show_others, said = warnings.showwarning, set()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, InPlaceOfShipped):
                show_others(message, category, *where, **more)
            elif (line := _one_line(message)) not in said:
                said.add(line)
                click.echo(f"note: {line}", err=True)

        warnings.showwarning = show
        yield


def _report(error: BaseException, output: Output) -> int:
    """Say how a command failed. Returns the exit code."""
    failure = _failure(error)
    is_stop = isinstance(error, KeyboardInterrupt)
    if output.is_debug and not (is_stop or isinstance(error, click.ClickException)):
        traceback.print_exception(error)
    has_own_word = is_stop or failure.exit_code == EXIT_INTERNAL
    click.echo(failure.message if has_own_word else f"error: {failure.message}", err=True)
    if output.as_json:
        output.emit({"error": failure._asdict()})
    return failure.exit_code


def _failure(error: BaseException) -> Failure:
    if isinstance(error, FedsupError):
        return Failure(type(error).__name__, _one_line(error), error.exit_code)
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see '{context.command_path} --help'" if context else ""
        return Failure("UsageError", _one_line(error.format_message()).rstrip(".") + hint, EXIT_USAGE)
    if isinstance(error, KeyboardInterrupt):
        message = f"interrupted{': ' if str(error) else ''}{_one_line(error)}"
        return Failure("Interrupted", message, signals.exit_code(error))
    what = f"{type(error).__name__}: {_one_line(error)}"
    return Failure("InternalError", f"internal error: {what} (run again with --debug)", EXIT_INTERNAL)


def _one_line(text: object) -> str:
    return printable(" ".join(line.strip() for line in str(text).splitlines() if line.strip()))


def _is_stdout_closed() -> bool:
    """Return whether a broken pipe is that of stdout, not that of, say, a worker process."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


if __name__ == "__main__":
    sys.exit(main())
