"""The app that Flower runs at a client: it answers. Imports flwr and torch; the server's, `carrier.py`, needs no torch.

A FAB, Flower's parcel of an app, holds no code of ours: either side runs the `fedsup_deploy` that is installed there.
"""

import functools
import os
import sys
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsup_deploy.engines import worker
from fedsup_deploy.engines.flower.blobs import DiskBlobs
from fedsup_deploy.engines.flower.environment import BLOBS, OWN, WORK
from fedsup_deploy.engines.flower.grid import content_of, read_content
from fedsup_deploy.engines.flower.node import ClientNode
from fedsup_deploy.federation.simulation import CLIENTS, UNSEEN, Population


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
client_app = ClientApp()
client_app.query()(answer)
