"""Everything that can go wrong for a user, as one tree.

FedsupError                  1
├── ConfigError              2   a config, space, profile or option says something impossible
├── DataError                3   images or labels are missing or malformed
├── ArtifactError            4   a run, checkpoint or bundle is incomplete, altered or of another version
├── InfeasibleError          5   no subnet meets the limits
├── GateError                6   an exported model has not passed a gate, by what it computes or how fast it is
├── FederationError          7   too few clients answered
├── OutputError              8   the result cannot be written where it was asked for
├── DependencyError          9   a library is missing, too old, or cannot do what is needed
├── DeviceError             10   another machine cannot be reached, or the work there failed
└── SlowError               11   a model was measured to take longer than `measure --fail-above` allows

The number is the exit code of the command line. A message reads: what: got X, expected Y - where - what to do.
Errors that are ours (broken invariants) are `AssertionError` and show a traceback.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final


class FedsupError(Exception):
    """Base of every error a user can cause or mend."""

    exit_code = 1


class ConfigError(FedsupError):
    """A config, space, profile or option says something impossible."""

    exit_code = 2


class DataError(FedsupError):
    """Images or labels are missing or malformed."""

    exit_code = 3


class ArtifactError(FedsupError):
    """A run, checkpoint or bundle is incomplete, altered or of another version."""

    exit_code = 4


class InfeasibleError(FedsupError):
    """No subnet meets the limits."""

    exit_code = 5


class GateError(FedsupError):
    """An exported model has not passed a gate, by what it computes or how fast it is."""

    exit_code = 6


class FederationError(FedsupError):
    """Too few clients answered."""

    exit_code = 7


class OutputError(FedsupError):
    """The result cannot be written where it was asked for."""

    exit_code = 8


class DependencyError(FedsupError):
    """A library is missing, too old, or cannot do what is needed."""

    exit_code = 9


class DeviceError(FedsupError):
    """Another machine cannot be reached, or the work there failed."""

    exit_code = 10


class SlowError(FedsupError):
    """A model was measured to take longer than `measure --fail-above` allows."""

    exit_code = 11


#: What helps against what the system says when something cannot be written; else it is to make the folder writable.
_ADVICE: Final = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EEXIST: "move away what is in the way",
    errno.EISDIR: "move away what is in the way",
    errno.ENOTDIR: "move away what is in the way",
    errno.ELOOP: "move away what is in the way",
    errno.ENAMETOOLONG: "give it a shorter name",
}


@contextlib.contextmanager
def as_output_error(path: Path, advice: str | None = None) -> Iterator[None]:
    """Let what the system says against writing something become an `OutputError`.

    Args:
        path: What is written.
        advice: What the user can do, if the caller knows it; None is what helps against the cause.

    Raises:
        OutputError: In place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()
        what_to_do = advice or _ADVICE.get(error.errno or 0, "make its folder writable")
        raise OutputError(f"cannot write {path}: {reason}; {what_to_do}") from error
