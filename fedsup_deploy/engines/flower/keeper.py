"""Keeps a device's node running: starts Flower's program anew where it has ended.

A node of Flower's does not outlive every trouble of its network, and is not let in again while its server has not
noticed that it was gone. It is forked, as is the process of each message (`launch.py`): flwr and torch are imported
once.
"""

import contextlib
import functools
import importlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from fedsup_deploy.engines.flower.launch import NODE, NOT_VOUCHED, launch
from fedsup_deploy.errors import FederationError

#: Seconds before a node is started again: at first, and at most.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 15.0
#: Of a node that was let in; and of one that is refused and has been let in before: Flower says the same of one that is
#: taken for connected still, and of a key that nobody knows. Any other code means that it is not let in.
_AGAIN: Final = 75
_REFUSED: Final = 76
_UNKNOWN: Final = 77
_NO_KEY: Final = 78
_FOREIGN: Final = 79
_WHY: Final = {
    **dict.fromkeys(
        (_REFUSED, _UNKNOWN), "its key is not registered there, or another device that has the same key is connected"
    ),
    _NO_KEY: "it lets in devices with a key alone; set key",
    _FOREIGN: "root_certificates does not vouch for its certificate, or one of them is not valid today",
}
#: What is said of one that is refused and has been let in before.
_NOT_YET: Final = "not let in: its server has not missed it yet, or does not know its key any more"
#: Seconds within which a server misses a node that is gone, and more.
_MISSED_S: Final = 90.0
#: What Flower's node says once it is let in, and the file that is there since.
_LET_IN: Final = "SuperNode ID: "
_KNOWN: Final = "let-in"
#: Seconds between a node's looks for messages after one, and while it waits for the answer.
_FIRST_LOOK_S: Final = 0.1
_IDLE_S: Final = 3.0


def keep(home: Path, arguments: Sequence[str], address: str, tell: Callable[[str], None]) -> None:
    """Run a node until this process is told to end.

    Args:
        home: The device's folder for Flower.
        arguments: Of Flower's node.
        address: Where the node answers this process, host:port.
        tell: Takes a line for the device's owner.

    Raises:
        FederationError: The SuperLink does not let the device in.
    """
    # Once, for every start.
    _entry()
    pause_s, last_in = _FIRST_PAUSE_S, time.monotonic()
    while True:
        started = time.monotonic()
        code = launch(NODE, address, None, functools.partial(_run_node, tuple(arguments), home / _KNOWN))
        # Whom somebody has killed is missed.
        if code == _AGAIN or code < 0:
            last_in = time.monotonic()
            pause_s = _FIRST_PAUSE_S if last_in - started > _LONGEST_PAUSE_S else pause_s
        elif code != _REFUSED or time.monotonic() - last_in > _MISSED_S:
            why = _WHY.get(code, "what Flower says of it is above")
            raise FederationError(f"the SuperLink does not let this device in: {why}")
        what = _NOT_YET if code == _REFUSED else "the connection has ended"
        tell(f"{what}; again in {pause_s:g} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _entry() -> Callable[[], object]:
    """Return what Flower's program of a node runs."""
    (found,) = entry_points(group="console_scripts", name=NODE)
    run: Callable[[], object] = found.load()
    return run


def _run_node(arguments: Sequence[str], known: Path, more: Sequence[str]) -> int:
    """Be the node; return `_AGAIN` or `_REFUSED` where it may be started again, and else why it is not let in.

    Where its connection ends by an error Flower's node neither goes on nor ends: it returns, and its threads run on.

    Args:
        arguments: Of it, as are `more`.
        known: A file that is there once it was let in.
        more: See there.
    """
    watch = _Watch(known)
    logging.getLogger("flwr").addHandler(watch)
    _look_sooner()
    sys.argv = [NODE, *arguments, *more]
    try:
        _entry()()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if not watch.is_let_in:
            return watch.why or code or 1
    return _AGAIN


class _Watch(logging.Handler):
    """Hears from Flower's node whether it was let in, or why not, as one of the codes; 0: it has not said."""

    def __init__(self, known: Path) -> None:
        super().__init__()
        self._known, self.is_let_in, self.why = known, False, 0

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said.startswith(_LET_IN):
            self.is_let_in = True
            with contextlib.suppress(OSError):
                self._known.touch()
        codes = importlib.import_module("flwr.supercore.error").ApiErrorCode
        for words, code in (
            (f"[code: {codes.FLEET_NODE_ACTIVATION_FAILED.value}]", _REFUSED if self._known.exists() else _UNKNOWN),
            (f"[code: {codes.FLEET_SUPERNODE_REGISTRATION_DISABLED.value}]", _NO_KEY),
            (NOT_VOUCHED, _FOREIGN),
        ):
            self.why = code if words in said else self.why


class Looks:
    """Stands for `time` in Flower's loop: after a message the next is looked for at once, then less often."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_LOOK_S

    def sleep(self, seconds: float) -> None:
        """Wait as long as is due now."""
        if seconds < _IDLE_S:
            # It waits for an answer of its own app.
            self._pause_s = _FIRST_LOOK_S
            time.sleep(min(seconds, _FIRST_LOOK_S))
        else:
            time.sleep(min(seconds, self._pause_s))
            self._pause_s *= 1.5


def _look_sooner() -> None:
    """Have Flower's loop, which waits 3 s between looks and half a second for each answer, wait less after messages."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    if getattr(loop, "time", None) is time:
        vars(loop)["time"] = Looks()
