"""The program that `fedsup_deploy.device.remote.ssh` sends to another machine over SSH and runs there.

On stdin it gets a line with the length of a JSON header, the header (`argv`; `files`, pairs of name and bytes; `needs`,
names of packages; `install`), and then the content of the files, one after the other. It puts the files into a new
folder that only its user can enter, and runs `python argv` inside. On stdout it writes one frame per line, a JSON list
of `MARK`, a kind and a value: `started` first, `stdout` and `stderr` for each line of the program, and at the end one
of `exit`, `missing`, `noexec`, `not_installed` and `problem`.

A closed stdin means that nobody waits for the result any more: the program is killed. However it ends, the folder is
removed before the last frame is written, and nothing stays behind.

It needs Python 3.6 and the standard library, and nothing of fedsup_deploy.
"""

import contextlib
import importlib.util
import json
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Dict, List, Tuple

MARK = "fedsup-deploy"
_CHUNK_BYTES = 1 << 20
#: Packages whose modules have another name.
_MODULES = {"pillow": "PIL"}


class Abandoned(Exception):  # noqa: N818 - it is an event, not a mistake
    """Nobody is at the other end of stdin any more."""


def main() -> int:
    """Do what stdin asks for and return an exit code. Side effects: Runs a program; writes frames on stdout."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        say("started", platform.python_version())
        header = json.loads(_take(int(sys.stdin.buffer.readline() or b"0")))
        kind, value = in_new_folder(header)
        say(kind, value)
    except (Abandoned, BrokenPipeError):
        return 1
    return 0


def in_new_folder(header: Dict[str, Any]) -> Tuple[str, object]:
    """Return the last frame. Side effects: Makes a folder, and removes it."""
    folder = Path(tempfile.mkdtemp(prefix=MARK + "-"))
    try:
        inside = folder / "files"
        unpack(header["files"], inside)
        return attempt(header, inside, folder / "packages")
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return "problem", str(error)
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(str(folder), ignore_errors=True)


def unpack(entries: List[Tuple[str, int]], folder: Path) -> None:
    """Write the files whose content comes from stdin. No name may lead out of the folder."""
    folder.mkdir()
    for name, num_bytes in entries:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise OSError(f"got the file name {name!r}, expected one below the folder")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, num_bytes, _CHUNK_BYTES):
                file.write(_take(min(_CHUNK_BYTES, num_bytes - start)))


def attempt(header: Dict[str, Any], folder: Path, packages: Path) -> Tuple[str, object]:
    """Install what is missing, if that was asked for, run the program, and return the last frame."""
    # What it writes for the moment goes into the folder as well.
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder.parent)}
    missing = [name for name in header["needs"] if importlib.util.find_spec(_MODULES.get(name, name)) is None]
    if missing and not header["install"]:
        return "missing", missing
    if missing and os.statvfs(str(folder)).f_flag & getattr(os, "ST_NOEXEC", 0):
        return "noexec", [str(Path(tempfile.gettempdir())), missing]
    if missing:
        # Source builds take hours on a small device, and a cache would stay behind.
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(packages), *missing]
        if run(command, folder, environ, stdout="stderr"):
            return "not_installed", missing
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    return "exit", run([sys.executable, *header["argv"]], folder, environ)


def run(command: List[str], folder: Path, environ: Dict[str, str], stdout: str = "stdout") -> int:
    """Run a command to its end and pass its lines on; return its exit code, negative for a signal.

    Raises:
        Abandoned: Nobody waits for it any more.

    Side effects: If that or a signal happens, the command is killed with all it started.
    """
    child = subprocess.Popen(
        command,
        cwd=str(folder),
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        assert child.stderr is not None
        relay({child.stdout: stdout, child.stderr: "stderr"})
        return child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def relay(kinds: Dict[IO[bytes], str]) -> None:
    """Pass lines on until all streams have ended.

    Raises:
        Abandoned: Stdin has ended before.
    """
    rest = dict.fromkeys(kinds, b"")
    with selectors.DefaultSelector() as selector:
        for stream in (sys.stdin.buffer, *kinds):
            selector.register(stream, selectors.EVENT_READ, stream)
        while rest:
            for key, _ in selector.select():
                content = os.read(key.fd, _CHUNK_BYTES)
                if key.data is sys.stdin.buffer:
                    if not content:
                        raise Abandoned
                    continue
                *whole, rest[key.data] = (rest[key.data] + content).split(b"\n")
                if not content:
                    whole = list(filter(None, [rest.pop(key.data)]))
                    selector.unregister(key.data)
                for line in whole:
                    say(kinds[key.data], line.decode("utf-8", "replace"))


def say(kind: str, value: object) -> None:
    """Write one frame."""
    sys.stdout.write(json.dumps([MARK, kind, value]) + "\n")
    sys.stdout.flush()


def _take(num_bytes: int) -> bytes:
    content = sys.stdin.buffer.read(num_bytes)
    if not num_bytes or len(content) < num_bytes:
        raise Abandoned
    return content


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
