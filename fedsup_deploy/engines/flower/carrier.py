"""The apps that Flower runs at the server: they carry messages for a command, or start one. Imports flwr, not torch."""

import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Client
from pathlib import Path
from typing import Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsup_deploy.engines.flower import relay
from fedsup_deploy.engines.flower.environment import RELAY
from fedsup_deploy.engines.flower.grid import GridCourier
from fedsup_deploy.errors import FederationError

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


#: Of the parcel that commands submit.
carrier = ServerApp()
carrier.main()(carry)
#: Of a checkout, for `flwr run`.
server_app = ServerApp()
server_app.main()(serve)
