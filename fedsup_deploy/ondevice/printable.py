"""Text that others chose, as it can be shown anywhere: no terminal obeys it, and it is one line of bounded length."""

import contextlib
import errno
import os
import sys
from typing import Optional, Union

#: Characters of a message or table cell. What is cut stands in the middle: the end of a message says what to do.
MOST_CHARACTERS = 1900

_MOST_CHARACTERS_OF_A_REASON = 200
_ELLIPSIS = " ... "


def printable(text: str, most: Optional[int] = MOST_CHARACTERS) -> str:
    """Return a text with all that is neither a sign nor a space written as an escape.

    Such are controls, which terminals obey, line ends, changes of the writing direction, and half surrogate pairs.

    Args:
        text: The text.
        most: The most characters that are returned; None cuts nothing.
    """
    if most is not None and len(text) > most:  # first, so that a huge text costs nothing
        text = _cut(text, most)
    if text.isprintable():
        return text
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return shown if most is None else _cut(shown, most)


def reason_of(error: Union[Exception, str]) -> str:
    """Return what an exception or warning says, for a message: in one line, and not all of what it may quote."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(said.split()), _MOST_CHARACTERS_OF_A_REASON)


def as_written(text: str, encoding: Optional[str]) -> str:
    """Return a text with all that an encoding lacks written as an escape, so that printing it cannot fail."""
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def print_report(text: str) -> bool:
    """Print a report on standard output; return whether it could be written. If not, standard error has the reason.

    Whoever has closed a pipe has gone, and knows.
    """
    if sys.stdout is None:  # so Python has it where whoever started this closed it
        return _told_that_it_is_not_written(os.strerror(errno.EBADF))
    try:
        print(as_written(text, sys.stdout.encoding), flush=True)
    except OSError as error:
        # Python would complain again when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return _told_that_it_is_not_written(str(error.strerror))
    return True


def _told_that_it_is_not_written(reason: str) -> bool:
    with contextlib.suppress(OSError):
        print(f"the report cannot be written: {reason}", file=sys.stderr, flush=True)
    return False


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 4
    return text[: most - end - len(_ELLIPSIS)] + _ELLIPSIS + text[-end:]
