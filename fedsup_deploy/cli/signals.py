"""How a command is stopped from outside: Ctrl-C, SIGTERM and a closed terminal (SIGHUP) are one thing.

Each raises `Stopped`, a KeyboardInterrupt: on its way out, whatever is under way cleans up.
"""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def stoppable(*, until_exit: bool = False) -> Iterator[None]:
    """Let signals raise `Stopped`. One that was ignored before stays ignored: `nohup` asks for that.

    Args:
        until_exit: Whether the process ends with the context. What comes then, such as taking large libraries down,
            is disturbed by no signal: all is written, and how the process ends is decided.

    Side effects: Handlers of signals, for the time of the context, or until the process ends. For the main thread.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) in usual}
    is_over = False

    def stop(number: int, _frame: FrameType | None) -> None:
        # A second signal often comes with the first, as SIGTERM with SIGHUP. It does not disturb the cleaning up.
        if not is_over and stop_behind(sys.exc_info()[1]) is None:
            raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        is_over = True
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if until_exit else handler)


@contextlib.contextmanager
def advising(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Let the message say how to go on, if what happens here is stopped; it is asked when all is cleaned up."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (how_to_go_on(),)
        raise


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that an error is, or that was being handled when it was raised; None if there is none."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a command that was stopped: 128 and the signal's number, 130 after Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
