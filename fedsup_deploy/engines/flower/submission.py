"""A run of our app at a SuperLink: submitted, followed, and its true status told."""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from fedsup_deploy.engines.flower.parcel import APP, CONFIG
from fedsup_deploy.engines.flower.relay import RelayCourier
from fedsup_deploy.errors import DependencyError, FederationError, OutputError
from fedsup_deploy.federation import frame

#: What the SuperLink is called in the settings of Flower's command line.
_SUPERLINK: Final = "fedsup"
#: Longest name of the folder for temporary files: Linux allows a socket 107 letters, and Ray's use up 80.
_LONGEST_TMPDIR: Final = 24
#: Seconds for Flower to say what became of a run; before the first look at one that has not begun; and for it to begin.
#: A look costs a process that imports flwr, for which the run may have to wait: each is twice as long after the last.
_COMMAND_S: Final = 60.0
_LOOK_S: Final = 10.0
_BEGIN_S: Final = 300.0


def program(name: str) -> str:
    """Return the path of a program of Flower's, which is installed beside Python."""
    return str(Path(sysconfig.get_path("scripts")) / name)


class SuperLink:
    """A SuperLink that runs can be submitted to.

    Args:
        address: Host and port.
        home: Folder for Flower's settings and the app.
        environment: What Flower's programs are told.
        settings: Further settings of the connection, as in Flower's `config.toml`.

    Raises:
        OutputError: No room for temporary files.
    """

    def __init__(
        self, address: str, home: Path, environment: Mapping[str, str], settings: Mapping[str, str | bool]
    ) -> None:
        # Flower starts its programs by their names.
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        self._home, self.environment = home, {**os.environ, **environment, "FLWR_HOME": str(home), "PATH": path}
        lines = [f"{key} = {json.dumps(value)}" for key, value in {"address": address, **settings}.items()]
        try:
            (home / "app").mkdir(parents=True)
            (home / "app" / CONFIG).write_text(APP, encoding="utf-8")
            (home / "config.toml").write_text("\n".join([f"[superlink.{_SUPERLINK}]", *lines, ""]), encoding="utf-8")
        except OSError as error:
            raise no_room(error) from error

    def submit(self, relay: Path, options: Sequence[str] = ()) -> str:
        """Have the app run; return the number of the run.

        Raises:
            FederationError: The SuperLink does not take it.
        """
        run_config = ["--run-config", f"relay={json.dumps(str(relay))}"]
        said = self._flwr(_BEGIN_S, "run", str(self._home / "app"), _SUPERLINK, *run_config, *options)
        number = said.get("run-id")
        if not said.get("success") or number is None:
            raise FederationError(f"Flower has not taken the run: {said.get('error-message', 'it says nothing')}")
        return str(number)

    def status(self, number: str) -> str:
        """Return the status of a run in Flower's words, such as `running` or `finished:failed`, and why."""
        found = self._flwr(_COMMAND_S, "list", _SUPERLINK, "--run-id", number).get("runs")
        if isinstance(found, list) and found and isinstance(found[0], dict):
            said = [str(found[0].get(key) or "") for key in ("status", "status-details")]
            return frame.short(": ".join(filter(None, said)) or "unknown")
        return "unknown, its SuperLink does not answer"

    def _flwr(self, within_s: float, *arguments: str) -> dict[str, object]:
        """Return what a command of Flower's says within some seconds. Its exit code means nothing."""
        command = [program("flwr"), *arguments, "--format", "json"]
        try:
            ran = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, check=False, timeout=within_s
            )
            return dict(json.loads(ran.stdout[ran.stdout.index("{") :]))
        except (subprocess.TimeoutExpired, ValueError):
            return {}


def working_folder(prefix: str = "fedsup-") -> Path:
    """Return a new folder for temporary files that only this user can enter; its name is short enough for sockets.

    Args:
        prefix: Of its name.

    Raises:
        OutputError: No room for temporary files.
    """
    usual = tempfile.gettempdir()
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=usual if len(usual) <= _LONGEST_TMPDIR else "/tmp"))
    except OSError as error:
        raise no_room(error) from error


def no_room(error: OSError) -> OutputError:
    """Return the error where temporary files cannot be written."""
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"cannot write temporary files: {reason}; set TMPDIR to a folder with room")


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Yield a socket at a path where the app can reach this process.

    Raises:
        OutputError: No room for temporary files.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise no_room(error) from error
        listener.listen(1)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def connected(
    listener: socket.socket, is_alive: Callable[[], bool], why_ended: Callable[[], str]
) -> Iterator[RelayCourier]:
    """Yield a courier once the app has connected; let the app end as what became of the context.

    Args:
        listener: Of `listening`.
        is_alive: Whether the app can still come.
        why_ended: Says why the app is gone, for the message.

    Raises:
        FederationError: The app does not come.
    """
    look_s, end = _LOOK_S, time.monotonic() + _BEGIN_S
    while True:
        listener.settimeout(look_s)
        look_s *= 2
        try:
            accepted, _ = listener.accept()
        except TimeoutError:
            if not is_alive():
                raise FederationError(why_ended()) from None
            if time.monotonic() > end:
                why = "what the SuperLink prints says why, such as a certificate that is not valid for localhost"
                raise FederationError(f"Flower has not begun the run within {_BEGIN_S:g} s; {why}") from None
        else:
            break
    accepted.setblocking(True)
    with contextlib.closing(RelayCourier(Connection(accepted.detach()), why_ended)) as courier:
        yield courier
        with contextlib.suppress(FederationError):
            courier.end()


def check_installed(module: str, extra: str) -> None:
    """Fail now where a library is missing.

    Raises:
        DependencyError: It is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise DependencyError(f"the engine flower needs {module}; pip install 'fedsup-deploy[{extra}]'")
