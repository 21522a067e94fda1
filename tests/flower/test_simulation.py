"""Whole commands over real Flower: a SuperLink, Ray's actors, and nothing of either left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stranger import MARK, write_foreign

from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.engines.flower.environment import QUIET
from fedsup_deploy.runs.run import EVENTS, SUPERNET

CONFIG = """
schema: 1
name: small
space: digits
data: {dataset: digits, validation_fraction: 0.03, client_validation_fraction: 0.1}
partition: {kind: iid, num_clients: 5, unseen: 1}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training: {rounds: 3, clients_per_round: 3, warmup_rounds: 1, batch_size: 32, checkpoint_every: 1, evaluate_every: 3}
calibration: {samples_per_client: 4, batch_size: 4, schedule: one-shot}
"""

FAILED = "finished:failed"
PROGRAMS = Path(sysconfig.get_path("scripts"))

pytestmark = pytest.mark.slow


class Runs:
    """Commands in a folder, each with a folder of its own for temporary files.

    Args:
        children: Starts processes.
        folder: Where configs and runs are.
    """

    def __init__(self, children: Any, folder: Path) -> None:
        self._children, self.folder = children, folder
        # Short, for there will be sockets in it.
        self.temporary = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
        (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")

    def start(self, *words: str) -> "subprocess.Popen[str]":
        program = [sys.executable, "-m", "fedsup_deploy.cli.main", *words]
        process: subprocess.Popen[str] = self._children.start(
            program,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return process

    def finished(self, *words: str) -> str:
        process = self.start(*words)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert self.survivors(process) == []
        return said

    def flower(self) -> Callable[..., dict[str, Any]]:
        """Start a SuperLink that simulates; return what does a command of Flower's."""
        home = self.folder / "home"
        home.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(settings, encoding="utf-8")
        path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
        told = {"FLWR_HOME": str(home), "PATH": path, "TMPDIR": str(self.temporary), "RAY_TMPDIR": str(self.temporary)}
        environment = {**os.environ, **QUIET, **told}
        options = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
        self._children.start([PROGRAMS / "flower-superlink", *options], env=environment)

        def command(*words: str) -> dict[str, Any]:
            line = [PROGRAMS / "flwr", *words, "--format", "json"]
            said: dict[str, Any] = {}
            while not said.get("success"):  # until the SuperLink can be reached
                ran = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
                said = json.loads(ran.stdout[ran.stdout.index("{") :])
            return said

        return command

    def survivors(self, process: "subprocess.Popen[str]") -> list[str]:
        found: list[str] = self._children.survivors(process)
        return found + [str(path) for path in self.temporary.iterdir()]


@pytest.fixture
def runs(children: Any, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(children, tmp_path)
    yield runs
    shutil.rmtree(runs.temporary)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the engine `local`."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    train(load_train_config(folder / "small.yaml", ["engine.workers=1"]), folder / "run")
    return folder / "run"


def told(temporary: Path, *words: str) -> dict[str, Any]:
    """Return what a command of Flower's says to the SuperLink that a command of ours has started."""
    (home,) = temporary.glob("fedsup-*/home")
    line = [PROGRAMS / "flwr", *words, "--format", "json"]
    environment = {**os.environ, **QUIET, "FLWR_HOME": str(home)}
    ran = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    return dict(json.loads(ran.stdout[ran.stdout.index("{") :]))


def events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run, without what a clock has said."""
    lines = (folder / EVENTS).read_text(encoding="utf-8").splitlines() if (folder / EVENTS).exists() else []
    return [
        {key: value for key, value in json.loads(line).items() if key not in {"seconds", "seconds_left", "unix_time_s"}}
        for line in lines
    ]


def test_a_simulation_is_the_run_of_any_other_engine(runs: Runs, local: Path) -> None:
    """Bytes, events, and what a later command finds on clients that take part and on one that does not.

    That is asked for over the engine that the run was not trained with.
    """
    small = ("train", "--config", "small.yaml")
    runs.finished(*small, "--out", "flower", "--engine", "flower")
    assert (runs.folder / "flower" / SUPERNET).read_bytes() == (local / SUPERNET).read_bytes()
    assert events(runs.folder / "flower") == events(local)
    found = []
    for run, engine in ((local, "flower"), (runs.folder / "flower", "local")):
        words = ("--arch", "largest", "--per-client", "--engine", engine, "--json", "--quiet")
        said = runs.finished("evaluate", str(run), *words)
        found.append({key: value for key, value in json.loads(said).items() if key not in {"run", "seconds"}})
    assert found[0] == found[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_or_killed_it_leaves_nothing_and_goes_on_to_the_same_bytes(
    runs: Runs, local: Path, number: int, eventually: Callable[..., bool]
) -> None:
    small = ("train", "--config", "small.yaml")
    process = runs.start(*small, "--out", "flower", "--engine", "flower")
    assert eventually(lambda: any(event["event"] == "round" for event in events(runs.folder / "flower")))
    process.send_signal(number)
    process.communicate()
    assert process.returncode in {130, -signal.SIGKILL}
    assert eventually(lambda: runs.survivors(process) == [])
    runs.finished(*small, "--out", "flower", "--engine", "flower", "--resume")
    assert (runs.folder / "flower" / SUPERNET).read_bytes() == (local / SUPERNET).read_bytes()


def test_killed_while_flower_starts_it_leaves_nothing(runs: Runs, eventually: Callable[..., bool]) -> None:
    process = runs.start("train", "--config", "small.yaml", "--out", "flower", "--engine", "flower")
    assert eventually(lambda: any(runs.temporary.glob("fedsup-*/home/config.toml")))
    process.kill()
    process.communicate()
    assert eventually(lambda: runs.survivors(process) == [])


def test_a_flower_run_that_dies_ends_the_command(runs: Runs, eventually: Callable[..., bool], processes: Any) -> None:
    """With the status that Flower tells, and how to go on; not after an hour. Before, no app of a stranger was run."""
    process = runs.start("train", "--config", "small.yaml", "--out", "flower", "--engine", "flower")
    assert eventually(lambda: any(event["event"] == "round" for event in events(runs.folder / "flower")))
    number = told(runs.temporary, "run", str(write_foreign(runs.folder)), "fedsup")["run-id"]
    assert eventually(lambda: told(runs.temporary, "list", "fedsup", "--run-id", number)["runs"][0]["status"] == FAILED)
    assert list(runs.temporary.rglob(MARK)) == []
    simulations = [each.pid for each in processes() if each.name.startswith("flwr-simulation")]
    for pid in simulations:
        if str(runs.temporary) in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8", errors="replace"):
            os.kill(pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 7, said
    assert "the Flower run has ended: " in said
    assert "--resume" in said
    assert runs.survivors(process) == []


def test_flwr_run_trains_a_config(runs: Runs, local: Path, repository: Path, eventually: Callable[..., bool]) -> None:
    """The command line of Flower, in a checkout: the app starts the command, and its nodes read the config's images."""
    flower = runs.flower()
    resources = "num-supernodes=5 client-resources-num-cpus=1 init-args-num-cpus=2"
    run_config = f"config='{runs.folder}/small.yaml' out='{runs.folder}/flower'"
    flower("run", str(repository), "here", "--run-config", run_config, "--federation-config", resources)
    assert eventually(lambda: any(event["event"] == "round" for event in events(runs.folder / "flower")))
    assert eventually(lambda: flower("list", "here")["runs"][0]["status"] == "finished:completed")
    assert (runs.folder / "flower" / SUPERNET).read_bytes() == (local / SUPERNET).read_bytes()
