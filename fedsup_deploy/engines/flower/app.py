"""The apps that Flower runs: the server's carries for a command, or starts one; a client's answers. Imports flwr.

A FAB, Flower's parcel of an app, holds no code of ours: either side runs the `fedsup_deploy` that is installed there.
"""

import functools
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Client
from pathlib import Path
from typing import Final

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsup_deploy.engines import worker
from fedsup_deploy.engines.flower import relay
from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.environment import BLOBS, OWN, RELAY, WORK
from fedsup_deploy.engines.flower.grid import GridCourier, content_of, read_content
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation.simulation import CLIENTS, UNSEEN, Population

#: Seconds between looks whether a command that was started is there.
_TICK_S: Final = 0.1


def carry(grid: Grid, context: Context) -> None:
    """Carry messages for the command that has started the run. It does nothing else, whoever has submitted it.

    Raises:
        FederationError: The command is gone. To Flower the run has failed then.
    """
    _carry(str(context.run_config.get("relay", "")), grid)


def serve(grid: Grid, context: Context) -> None:
    """Start the command that trains what the run's config names, and carry for it.

    Raises:
        FederationError: The command has failed, or is gone. To Flower the run has failed then.
    """
    config, out = (str(context.run_config.get(key, "")) for key in ("config", "out"))
    if not config:
        raise FederationError("the run names no config; flwr run . --run-config \"config='FILE' out='RUN'\"")
    with tempfile.TemporaryDirectory(prefix="fedsup-") as folder:
        socket = f"{folder}/relay"
        command = ["train", "--config", config, "--engine", "flower", "--resume", *(["--out", out] if out else [])]
        program = [sys.executable, "-m", "fedsup_deploy.cli.main", *command]
        started = subprocess.Popen(program, env={**os.environ, RELAY: socket})
        try:
            while not Path(socket).exists():
                if started.poll() is not None:
                    break
                time.sleep(_TICK_S)
            else:
                _carry(socket, grid)
            code = started.wait()
        finally:
            started.kill()
            started.wait()
    if code != 0:
        raise FederationError(f"the command has ended with exit code {code}")


def _carry(socket: str, grid: Grid) -> None:
    try:
        with Client(socket, "AF_UNIX") as connection:
            if relay.user_of(connection) != os.getuid():
                raise FederationError("the command is another user's")
            relay.serve(connection, GridCourier(grid))
    except (EOFError, OSError) as gone:
        raise FederationError("the command is gone") from gone


def answer(message: Message, context: Context) -> Message:
    """Answer a message of the server's."""
    population, content = read_content(message.content)
    own, number = (str(context.node_config.get(key, "")) for key in (OWN, "partition-id"))
    node = _device(own) if own else _simulated(number, str(context.run_config.get("config", "")))
    return Message(content_of(population, node.answer(population, content)), reply_to=message)


def _device(own: str) -> ClientNode:
    """Return the device that this is, by the config that its owner has started it with."""
    from fedsup_deploy.config.client import load_client_config
    from fedsup_deploy.runs.own_images import OneDevice

    config = load_client_config(Path(own))
    torch.set_num_threads(config.threads)
    device = OneDevice(config)
    return ClientNode(
        config.name, {CLIENTS: device, UNSEEN: device}, DiskBlobs(config.blobs, config.storage_mib * 2**20)
    )


def _simulated(number: str, config: str) -> ClientNode:
    home = Path(os.environ.get("FLWR_HOME", "~/.flwr")).expanduser()
    return ClientNode(number, _populations(config), DiskBlobs(Path(os.environ.get(BLOBS, home / "fedsup-blobs"))))


@functools.lru_cache(maxsize=1)
def _populations(config: str) -> dict[str, Population]:
    """Return all clients of a simulation: those that a command has handed over, or those of a config."""
    if WORK in os.environ:
        with Path(os.environ[WORK]).open("rb") as file:
            folders, read_open_work = worker.read_work(file.fileno())
            sys.path.extend(folder for folder in folders if folder not in sys.path)
            found = read_open_work()()
            assert isinstance(found, dict)
            return found
    from fedsup_deploy.config.schema import load_train_config
    from fedsup_deploy.runs.run import load_data

    return dict(load_data(load_train_config(config)).populations())


# As many sums in one order as in every other engine.
torch.set_num_threads(1)
#: Of the parcel that commands submit.
carrier = ServerApp()
carrier.main()(carry)
#: Of a checkout, for `flwr run`.
server_app = ServerApp()
server_app.main()(serve)
client_app = ClientApp()
client_app.query()(answer)
