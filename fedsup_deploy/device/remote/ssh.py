"""Running one of our programs on another machine, over the system's own `ssh`.

Owns the connection: one, which carries the program, its files and its output. What happens at the other end is in
`bootstrap.py`, which is sent over first, so nothing has to be installed there but Python. Keys, aliases and jumps are
those of the user's ssh configuration. It never asks anything, never accepts a host key, and leaves nothing behind:
when the connection ends, for whatever reason, so does the program there, and its files go.
"""

import collections
import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from fedsup_deploy.device.remote import bootstrap
from fedsup_deploy.errors import ArtifactError, ConfigError, DeviceError
from fedsup_deploy.ondevice.reading import parse_json

_URL = re.compile(
    r"ssh://(?:(?P<user>\w[\w.+-]*)@)?(?P<host>\w[\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?", re.ASCII
)

#: What a shell makes a home folder of, at the start of a path.
_HOME = re.compile(r"~[\w.-]*/(?=.)", re.ASCII)

# The command line wins over ssh's configuration: ssh must not ask, nor accept a host key, nor wait on a dead link for
# ever.
_OPTIONS = (
    *("-T", "-a", "-x", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oLogLevel=ERROR", "-oRemoteCommand=none"),
    *("-oConnectTimeout=10", "-oServerAliveInterval=15", "-oServerAliveCountMax=3"),
)
_GRACE_SECONDS = 10
_CHUNK_BYTES = 1 << 20
_FRAME_START = f'["{bootstrap.MARK}", '.encode()

# Reads `bootstrap.py` from stdin and runs it. One line without single quotes and backslashes, so that every shell takes
# it. The home folder, where it starts, is no place to import from.
_TOO_OLD = "expected Python 3.6 or later, found"
_LOADER = (
    "import sys; sys.path = [place for place in sys.path if place]; "
    f'sys.version_info >= (3, 6) or sys.exit("{_TOO_OLD} %d.%d" % sys.version_info[:2]); '
    'program = sys.stdin.buffer.read(int(sys.stdin.buffer.readline())); exec(compile(program, "bootstrap.py", "exec"))'
)

#: What ssh says when it fails, and what we say then.
_REFUSALS: Final = (
    (
        "identification has changed",
        "its host key is not the one known here: another machine may be answering; "
        "if the device was set up anew, run `ssh-keygen -R {known_as}` and connect once with `{connect}`",
    ),
    (
        "host key verification failed",
        "its host key is not known here; connect once with `{connect}` and compare the fingerprint it shows with "
        "that of the device",
    ),
    (
        "permission denied",
        "permission denied; ssh has to log in without asking: load your key with `ssh-add`, or put it there with "
        "`ssh-copy-id`",
    ),
    ("could not resolve hostname", "no such host; look for a mistake in the name"),
    ("connection refused", "connection refused; start the ssh server there, or give its port: ssh://host:port"),
    ("timed out", "no answer; is the device switched on, and can it be reached from here?"),
    ("no route to host", "cannot be reached from here; is the device switched on and in this network?"),
    ("network is unreachable", "cannot be reached from here; is this machine connected?"),
)


@dataclasses.dataclass(frozen=True)
class SshHost:
    """A machine that ssh can log in to.

    Args:
        host: Name, alias of the ssh configuration, or address.
        user: Who to log in as; None leaves it to ssh.
        port: Of the ssh server; None leaves it to ssh.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, url: str) -> "SshHost":
        """Return the machine that `ssh://[user@]host[:port]` names.

        Raises:
            ConfigError: It has another form.
        """
        found = _URL.fullmatch(url)
        port = int(found["port"]) if found and found["port"] else None
        if found is None or (port is not None and not 1 <= port <= 65535):
            hint = " (no password: ssh logs in with keys)" if re.match(r"ssh://[^@/]*:[^@/]*@", url) else ""
            shown = re.sub(r":[^@/]*@", ":***@", url.removeprefix("ssh:"))
            shown = ("ssh:" if url.startswith("ssh:") else "") + shown
            raise ConfigError(f"got the device {shown!r}, expected ssh://[user@]host[:port]{hint}")
        return cls(found["host"].strip("[]"), found["user"], port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    @property
    def words(self) -> tuple[str, ...]:
        """What ssh has to be told about it."""
        user = ("-l", self.user) if self.user else ()
        port = ("-p", str(self.port)) if self.port else ()
        return (*user, *port, "--", self.host)


@dataclasses.dataclass(frozen=True)
class Access:
    """How to get into a machine.

    Args:
        target: The machine.
        python: The Python there, 3.6 or later: a name, or a path from the home folder; `~` is a home folder there.
        can_install: Get what the program needs and the machine lacks with pip, for this one run.
        ssh_config: A configuration for ssh instead of the user's own, as `ssh -F`.
        again: What to do where the connection was cut.
    """

    target: SshHost
    python: str = "python3"
    can_install: bool = False
    ssh_config: Path | None = None
    again: str = "run this again"

    @property
    def command(self) -> list[str]:
        """The command that connects and starts what is sent first."""
        config = ["-F", str(self.ssh_config)] if self.ssh_config else []
        # The shell there expands what is not quoted.
        home = _HOME.match(self.python)
        prefix = home[0] if home else ""
        there = f"{prefix}{shlex.quote(self.python[len(prefix) :])} -c {shlex.quote(_LOADER)}"
        return ["ssh", *_OPTIONS, *config, *self.target.words, there]

    def error(self, what: str) -> DeviceError:
        """Return the error that something went wrong with this machine."""
        return DeviceError(f"{self.target}: {what}")


def run_there(
    access: Access,
    files: Mapping[str, bytes | Path],
    argv: Sequence[str],
    *,
    needs: Sequence[str] = (),
    good_exits: Sequence[int] = (0,),
) -> Iterator[str]:
    """Run a Python program on another machine and yield the lines of its stdout as they come.

    Args:
        access: The machine.
        files: What the program reads, itself included: names relative to the folder it runs in, and contents.
        argv: What follows `python` on its command line.
        needs: Packages that it imports.
        good_exits: Exit codes that are no failure.

    Returns:
        An iterator; closing it ends the program.

    Raises:
        ArtifactError: A file cannot be read here.
        DeviceError: ssh cannot log in, Python or a package is missing, the connection is cut, or the program fails.

    Side effects: While it runs, its files are in a new folder there.
    """
    header = {"argv": list(argv), "needs": list(needs), "install": access.can_install, "files": _sizes(files)}
    last_words: collections.deque[str] = collections.deque(maxlen=1)
    kind, value = "", None
    with tempfile.TemporaryFile() as complaints, _connected(access, complaints) as (to_there, from_there, ended):
        with contextlib.suppress(BrokenPipeError):  # why it went away is told below
            _send(to_there, header, files)
        for kind, value in _frames(from_there):
            if kind == "stdout":
                yield value
            elif kind == "stderr" and value.strip():
                last_words.append(value.strip())
        if kind in {"", "started", "stdout", "stderr"}:
            raise access.error(_why_cut(access, ended(), complaints, has_started=kind != ""))
    if kind != "exit" or value not in good_exits:
        raise access.error(_why_failed(access, kind, value, "".join(f": {words}" for words in last_words)))


def _sizes(files: Mapping[str, bytes | Path]) -> list[tuple[str, int]]:
    """Return names and sizes of what is to be sent, before there is a connection; every file can be opened."""
    sizes = []
    try:
        for name, content in files.items():
            if isinstance(content, bytes):
                sizes.append((name, len(content)))
            else:
                with content.open("rb") as file:
                    sizes.append((name, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise ArtifactError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return sizes


@contextlib.contextmanager
def _connected(
    access: Access, complaints: IO[bytes]
) -> Iterator[tuple[IO[bytes], IO[bytes], Callable[[], int | None]]]:
    """Yield stdin and stdout of what runs there, and what waits for the exit code of ssh; None where it hangs.

    Args:
        access: The machine.
        complaints: Takes what ssh says. A file, because a pipe that nobody reads would block it.

    Side effects: However this ends, so does ssh, and what runs there.
    """
    environ = {**os.environ, "LC_ALL": "C"}  # its messages are read
    # Ctrl-C is not for ssh: closing its stdin ends the work there in an orderly way.
    try:
        ssh = subprocess.Popen(
            access.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environ,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise DeviceError("no ssh on this machine; install OpenSSH's client") from error

    def ended() -> int | None:
        try:
            return ssh.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    assert ssh.stdin is not None
    assert ssh.stdout is not None
    try:
        yield ssh.stdin, ssh.stdout, ended
    finally:
        with contextlib.suppress(BrokenPipeError):
            ssh.stdin.close()
        ssh.stdout.close()
        if ended() is None:
            ssh.kill()
            ssh.wait()


def _send(to_there: IO[bytes], header: Mapping[str, Any], files: Mapping[str, bytes | Path]) -> None:
    """Send the program that unpacks and starts the rest, its header, and the files."""
    for part in (Path(bootstrap.__file__).read_bytes(), json.dumps(header).encode()):
        to_there.write(b"%d\n" % len(part) + part)
    for (_, num_bytes), content in zip(header["files"], files.values(), strict=True):
        if isinstance(content, bytes):
            to_there.write(content)
        else:
            _send_file(to_there, content, num_bytes)
    to_there.flush()


def _send_file(to_there: IO[bytes], path: Path, num_bytes: int) -> None:
    with path.open("rb") as file:
        while chunk := file.read(min(_CHUNK_BYTES, num_bytes)):
            to_there.write(chunk)
            num_bytes -= len(chunk)
    if num_bytes:  # the other end would wait for the rest
        raise ArtifactError(f"{path}: became shorter while it was read; run this again")


def _frames(from_there: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Yield kind and value of every frame. Anything else is what the login shell there has to say."""
    for line in from_there:
        with contextlib.suppress(ValueError):  # the last line, cut short
            frame = parse_json(line) if line.startswith(_FRAME_START) else None
            if isinstance(frame, list) and len(frame) == 3:
                yield frame[1], frame[2]


def _why_cut(access: Access, code: int | None, complaints: IO[bytes], *, has_started: bool) -> str:
    """Return why there was no last frame."""
    complaints.seek(0)
    said = [line.strip() for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
    everything, last = "\n".join(said), said[-1] if said else "ssh said nothing"
    if has_started:
        return f"the connection was cut before the work was done ({last}); {access.again}"
    if _TOO_OLD in everything:
        return f"{everything[everything.index(_TOO_OLD) :].splitlines()[0]}; name a newer one with --python"
    if code == 255:
        return _refusal(access, everything.lower()) or last
    if code in {126, 127}:
        return f"there is no {access.python}; install Python 3.6 or later there, or say where it is with --python"
    return f"{access.python} could not be started there: {last}"


def _refusal(access: Access, said: str) -> str | None:
    """Return what to do about a connection that ssh refused, or None where that is not known."""
    target = access.target
    port, config = f"-p {target.port} " if target.port else "", f"-F {access.ssh_config} " if access.ssh_config else ""
    words = {
        "connect": f"ssh {config}{port}{f'{target.user}@' if target.user else ''}{target.host}",
        "known_as": f"'[{target.host}]:{target.port}'" if target.port not in {None, 22} else target.host,
    }
    return next((what.format_map(words) for pattern, what in _REFUSALS if pattern in said), None)


def _after_signal(access: Access, number: int) -> str:
    """Return what to look at where a program was ended by a signal."""
    if number in {signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE}:
        why = "its libraries do not go together, or are for another processor"
        return f"{why}: try `{access.python} -c 'import numpy, onnxruntime'`"
    return "is there enough memory?"


def _why_failed(access: Access, kind: str, value: Any, said: str) -> str:
    """Return what the last frame means if it does not mean success; `said` is the end of stderr there."""
    if kind == "missing":
        names = " ".join(value)
        return (
            f"{' and '.join(value)} missing there; install with `{access.python} -m pip install {names}`, "
            "or for this one run with --install"
        )
    if kind == "noexec":
        place, names = value
        return (
            f"{' and '.join(names)} missing there, and nothing can be loaded from its temporary folder {place}, "
            "which is mounted noexec; set TMPDIR there to another one, or install with "
            f"`{access.python} -m pip install {' '.join(names)}`"
        )
    if kind == "not_installed":
        return f"pip could not install {' and '.join(value)}{said}"
    if kind == "problem":
        return f"the files cannot be put there: {value}"
    if value < 0:
        return f"the program was ended by signal {-value}; {_after_signal(access, -value)}{said}"
    return f"the program ended with exit code {value}{said}"
