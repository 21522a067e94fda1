"""Clients simulated by Flower on this machine: each is a node, whose messages Ray's actors answer side by side.

Starts a SuperLink of its own for the time of a command, and has it run the app that carries for that command.
"""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedsup_deploy.engines import worker
from fedsup_deploy.engines.flower import guard, launch
from fedsup_deploy.engines.flower.directory import SimulatedNodes
from fedsup_deploy.engines.flower.engine import FlowerEngine, far_of, own_of
from fedsup_deploy.engines.flower.environment import BLOBS, QUIET, RELAY, WORK
from fedsup_deploy.engines.flower.overdue import Overdue
from fedsup_deploy.engines.flower.relay import RelayCourier
from fedsup_deploy.engines.flower.submission import (
    SuperLink,
    check_installed,
    connected,
    listening,
    no_room,
    program,
    working_folder,
)
from fedsup_deploy.engines.pool import module_folders
from fedsup_deploy.engines.workers import MakePopulations, open_local
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation import frame
from fedsup_deploy.federation.messages import Engine

_LOCALHOST: Final = "127.0.0.1"
#: Seconds for the SuperLink to start, and between looks whether it has.
_START_S: Final = 120.0
_TICK_S: Final = 0.1


@contextlib.contextmanager
def open_simulation(make_populations: MakePopulations, workers: int) -> Iterator[dict[str, Engine]]:
    """Yield an engine for each population, and end the simulation afterwards.

    The server's own images are looked at as by the engine `local`.

    Args:
        make_populations: As of `open_local`.
        workers: Actors that answer messages side by side.

    Raises:
        DependencyError: Flower or Ray is not installed.
        FederationError: Flower does not run the app.
        OutputError: No room for temporary files.

    Side effects: Starts processes, which end with the context or with this process, however it ends.
    """
    check_installed("flwr", "flower-sim")
    check_installed("ray", "flower-sim")
    far = far_of(make_populations)
    num_nodes = 1 + max(info.client for each in far.values() for info in each.infos())
    with contextlib.ExitStack() as stack:
        engines = stack.enter_context(open_local(functools.partial(own_of, make_populations), workers))
        courier = stack.enter_context(_open_courier(make_populations, num_nodes, workers))
        end = time.monotonic() + _START_S
        directory = SimulatedNodes(courier, num_nodes, lambda: time.monotonic() > end)
        overdue = Overdue()
        yield engines | {
            name: FlowerEngine(courier, name, each.infos(), directory, overdue=overdue) for name, each in far.items()
        }


@contextlib.contextmanager
def _open_courier(make_populations: MakePopulations, num_nodes: int, workers: int) -> Iterator[RelayCourier]:
    """Yield what carries messages to the nodes of a simulation that is started for it, or that waits for it."""
    if RELAY in os.environ:
        with (
            listening(Path(os.environ[RELAY])) as listener,
            connected(listener, lambda: os.getppid() > 1, lambda: "the Flower run has ended") as courier,
        ):
            yield courier
        return
    resources = f"num-supernodes={num_nodes} client-resources-num-cpus=1 init-args-num-cpus={workers}"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_temporary())
        listener = stack.enter_context(listening(folder / "relay"))
        address = f"{_LOCALHOST}:{_free_port()}"
        told = {**QUIET, WORK: str(folder / "work"), BLOBS: str(folder / "blobs"), "RAY_TMPDIR": str(folder)}
        superlink = SuperLink(address, folder / "home", told, {"insecure": True})
        started = stack.enter_context(_guarded(superlink, address, folder))
        # Not before: whatever ends this process, the guard removes the images.
        _write_work(folder, make_populations)
        _await(started, address, folder)
        number = superlink.submit(folder / "relay", ["--federation-config", resources])

        def why_ended() -> str:
            status = "its SuperLink has died" if started.poll() is not None else superlink.status(number)
            return f"the Flower run has ended: {status}"

        def is_alive() -> bool:
            return started.poll() is None and not superlink.status(number).startswith("finished")

        yield stack.enter_context(connected(listener, is_alive, why_ended))


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    """Yield a new folder that only this user can enter; remove it in the end."""
    folder = working_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_work(folder: Path, make_populations: MakePopulations) -> None:
    """Write the file that says who the clients are, and has their images."""
    try:
        with (folder / "work").open("wb") as file:
            worker.write_work(file, make_populations, module_folders())
    except OSError as error:
        raise no_room(error) from error


@contextlib.contextmanager
def _guarded(superlink: SuperLink, address: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a SuperLink under a guard: in the end nothing of it runs; where this process is killed, the folder goes."""
    port = address.rpartition(":")[2]
    options = ["--insecure", "--simulation", "--disable-runtime-dependency-installation"]
    plain = [program("flower-superlink"), *options, "--host", _LOCALHOST, "--port", port]
    launcher = [sys.executable, "-m", launch.__name__]
    theirs, ours = os.pipe()
    command = [sys.executable, "-I", guard.__file__, str(theirs), str(folder), *launcher, address, *plain]
    try:
        process = subprocess.Popen(
            command,
            env=superlink.environment,
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        os.close(ours)
        raise FederationError(f"Flower's SuperLink does not start: {frame.one_line(error)}") from error
    finally:
        os.close(theirs)
    try:
        yield process
    finally:
        os.close(ours)
        process.wait()


def _await(process: "subprocess.Popen[bytes]", address: str, folder: Path) -> None:
    """Wait until the SuperLink can be reached.

    Raises:
        FederationError: It has died, or does not come.
    """
    end = time.monotonic() + _START_S
    where = (_LOCALHOST, int(address.rpartition(":")[2]))
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(where, _TICK_S):
            return
        time.sleep(_TICK_S)
    lines = (folder / "flower.log").read_text(encoding="utf-8", errors="replace").split("\n")
    said = frame.short(next((line for line in reversed(lines) if line.strip()), "it says nothing"))
    raise FederationError(f"Flower's SuperLink does not start: {said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOCALHOST, 0))
        port: int = probe.getsockname()[1]
    return port
