"""The command line as a user meets it: a process of its own, in a folder of its own, on real images."""

import dataclasses
import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssh_server import Server, serving

# A federation that learns next to nothing, quickly: what is tested here is not how well it learns.
BRIEF = {
    "training.rounds": 3,
    "training.clients_per_round": 3,
    "training.local_epochs": 1,
    "training.warmup_rounds": 1,
    "training.checkpoint_every": 1,
    "training.evaluate_every": 3,
    "partition.num_clients": 6,
    "calibration.samples_per_client": 32,
    "engine.workers": 1,
}

SPACE = """\
schema: 1
name: mine
family: mobilenet
resolutions: [16, 20]
choices: per-stage
stem: {widths: [16], kernel_size: 3, stride: 2}
stages:
  - {name: mb1, widths: [24, 32], depths: [2], kernel_sizes: [3], stride: 2}
"""

check_document = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "documents.py"))["check"]

# No command here takes long, not even where all cores are busy. Whoever is still waiting then waits for ever.
DEADLINE_S = 600


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; whatever else stood there would be an error."""
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that say what is wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


class Started:
    """A command that is running, in a process group of its own.

    Args:
        process: Its first process, whose output is piped.
        children: What started it.
    """

    def __init__(self, process: "subprocess.Popen[str]", children: Any) -> None:
        self.process, self._children = process, children
        self._err: list[str] = []

    def wait_for(self, words: str) -> None:
        """Wait until a line on stderr holds the words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._err.append(line)
            if words in line:
                return
        pytest.fail(f"ended without saying {words!r}: {''.join(self._err)}")

    def wait_until(self, has_happened: Callable[[], object]) -> None:
        """Wait until something is true of the outside world."""
        deadline = time.monotonic() + DEADLINE_S
        while not has_happened():
            assert time.monotonic() < deadline, "still waiting"
            assert self.process.poll() is None, f"ended too early: {self.end().err}"
            time.sleep(0.002)

    def kill(self) -> None:
        """End the command's first process without a chance to clean up; nobody tells its workers."""
        self.process.kill()
        self.process.communicate()

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> Ended:
        """Do what Ctrl-C does in a terminal: signal the whole group."""
        os.killpg(self.process.pid, number)
        return self.end()

    def end(self) -> Ended:
        """Wait for the end."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return Ended(self.process.returncode, out, "".join(self._err) + err)

    def survivors(self) -> list[str]:
        """Return what still runs of the command a while after it ended."""
        return self._children.survivors(self.process)

    def workers(self) -> list[int]:
        """Return the worker processes of the command."""
        return [pid for pid, command in self._children.running(self.process).items() if "worker.py" in command]


class Shell:
    """Runs `fedsup-deploy` in one folder.

    Args:
        folder: The working folder.
        children: Starts processes, and ends those that outlive the fixture that made this.

    Attributes:
        environ: More variables of the environment.
    """

    def __init__(self, folder: Path, children: Any) -> None:
        self.folder, self._children = folder, children
        self.environ: dict[str, str] = {}

    def start(self, *words: str | Path) -> Started:
        """Start a command."""
        program, pipe = Path(sys.executable).parent / "fedsup-deploy", subprocess.PIPE
        environ = {**os.environ, **self.environ}
        options = {"cwd": self.folder, "env": environ, "stdout": pipe, "stderr": pipe, "text": True}
        return Started(self._children.start([program, *words], **options), self._children)

    def run(self, *words: str | Path) -> Ended:
        """Run a command to its end, whichever that is."""
        started = self.start(*words)
        try:
            return started.end()
        finally:
            self._children.end(started.process)

    def json(self, *words: str | Path) -> Any:
        """Run a command that must succeed, and without a complaint; return its document, which fits the record."""
        ended = self.run(*words, "--json")
        assert ended.exit_code == 0, ended.err
        for complaint in ("Traceback", "Warning", "error"):
            assert complaint not in ended.err
        check_document(words, ended.document)
        return ended.document

    def configure(self, config: str) -> None:
        """Write `mine.yaml`, and `space.yaml` for it: few subnets for photographs of 16 and 20 pixels."""
        (self.folder / "space.yaml").write_text(SPACE, encoding="utf-8")
        (self.folder / "mine.yaml").write_text(config, encoding="utf-8")

    def train(self, config: str | Path = "digits", *words: str | Path, **settings: Any) -> Any:
        """Train briefly. The settings are of the config, with `__` for a dot."""
        return self.json(*self.training(config, **settings), *words)

    def training(self, config: str | Path = "digits", **settings: Any) -> list[str]:
        """Return the words that train briefly."""
        overrides = {**BRIEF, **{name.replace("__", "."): value for name, value in settings.items()}}
        assignments = [f"{name}={value}" for name, value in overrides.items()]
        return ["train", "--config", str(config), *(word for text in assignments for word in ("--set", text))]

    def content(self) -> dict[str, str]:
        """Return every path in the folder, with the hash of what it holds."""
        return {
            path.relative_to(self.folder).as_posix(): "folder" if path.is_dir() else _sha256(path)
            for path in sorted(self.folder.rglob("*"))
        }


@pytest.fixture(scope="session")
def shell_in(children_type: Any) -> Iterator[Callable[[Path], Shell]]:
    """Make a shell in a given folder, for fixtures that several tests share."""
    with children_type() as children:
        yield lambda folder: Shell(folder, children)


@pytest.fixture
def shell(tmp_path: Path, children: Any) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path, children)


@pytest.fixture(scope="session")
def workshop(shell_in: Callable[[Path], Shell], tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in a folder with a brief training run of the shipped config, `runs/digits`. Tests leave it as it is."""
    shell = shell_in(tmp_path_factory.mktemp("workshop"))
    shell.train()
    return shell


@pytest.fixture(scope="module")
def own_workshop(workshop: Shell, shell_in: Callable[[Path], Shell], tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell with a copy of the run, for a module that searches it otherwise."""
    shell = shell_in(tmp_path_factory.mktemp("own"))
    shutil.copytree(workshop.folder / "runs" / "digits", shell.folder / "runs" / "digits")
    return shell


@pytest.fixture(scope="session")
def searched(workshop: Shell) -> Iterator[Any]:
    """The document of a search that was told nothing but a device; there is an older run, which is not meant."""
    older = workshop.folder / "runs" / "older"
    shutil.copytree(workshop.folder / "runs" / "digits", older)
    os.utime(older / "supernet.safetensors", (0, 0))
    document = workshop.json("search", "--profile", "jetson-nano")
    written = (workshop.folder / document["out"]).read_bytes()
    yield document
    assert (workshop.folder / document["out"]).read_bytes() == written, "a test searched the run that others share"


@pytest.fixture(scope="session")
def exported(workshop: Shell, searched: Any) -> Any:
    """What `export` says of the one bundle made from that search, with a format that holds code beside ONNX."""
    return workshop.json("export", "--search", searched["out"], "--format", "torchscript")["bundles"][0]


@pytest.fixture(scope="session")
def bundle(workshop: Shell, exported: Any) -> Path:
    """The bundle's folder."""
    return workshop.folder / exported["folder"]


@pytest.fixture(scope="module")
def server(
    sshd: Path, children_type: Any, eventually: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """An ssh server on this machine."""
    folder, temporary = tmp_path_factory.mktemp("ssh"), tmp_path_factory.mktemp("there")
    with children_type() as children, serving(sshd, children, eventually, folder, temporary) as server:
        yield server


@pytest.fixture
def device_python(tmp_path: Path) -> Callable[..., str]:
    """Return a Python that has what this one has, but for what is named, and nothing of this package."""

    def make(*lacks: str) -> str:
        libraries, python = tmp_path / "libraries", tmp_path / "python-of-device"
        libraries.mkdir()
        for path in Path(np.__file__).parents[1].iterdir():
            if path.name not in lacks and path.suffix != ".pth":
                (libraries / path.name).symlink_to(path)
        python.write_text(f'#!/bin/sh\nPYTHONPATH={libraries} exec {sys.executable} -S "$@"\n')
        python.chmod(0o755)
        return str(python)

    return make


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
