"""Clients on devices of their own: each is a node of a SuperLink that runs already, on this machine or near it.

The app that carries for a command runs beside the SuperLink, and reaches the command by a socket in the file system: so
the command is to run on the SuperLink's machine, as the same user.
"""

import contextlib
import fcntl
import functools
import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from fedsup_deploy.engines.flower.courier import Courier
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import FlowerEngine, far_of, own_of
from fedsup_deploy.engines.flower.entrance import FlowerEntrance
from fedsup_deploy.engines.flower.environment import QUIET
from fedsup_deploy.engines.flower.overdue import Overdue
from fedsup_deploy.engines.flower.readiness import check_superlink
from fedsup_deploy.engines.flower.relay import RelayCourier
from fedsup_deploy.engines.flower.submission import SuperLink, check_installed, connected, listening, working_folder
from fedsup_deploy.engines.workers import MakePopulations, open_local
from fedsup_deploy.federation.messages import Engine, Job
from fedsup_deploy.federation.simulation import CLIENTS, NEWCOMERS, Population

R = TypeVar("R")

_REGISTERED: Final = "fedsup_deploy.engines.flower.registered"

#: What folders for temporary files are called.
_PREFIX: Final = "fedsup-far-"
#: Seconds for nodes to come before what is to be done begins without them.
_GATHERING_S: Final = 60.0
#: Seconds of silence after which a device is asked whether its job is still there.
_PATIENCE_S: Final = 30.0


@contextlib.contextmanager
def open_deployment(
    make_populations: MakePopulations,
    workers: int,
    superlink: str,
    root_certificates: Path | None,
    names: Sequence[str],
) -> Iterator[dict[str, Engine]]:
    """Yield an engine for each population; its clients are asked where they are. `NEWCOMERS` is an `Entrance`.

    Begins once all are connected, or after a minute: who is not is absent until it comes.

    Args:
        make_populations: Of which those of clients only have to know what these have announced.
        workers: Processes that look at the server's own images side by side.
        superlink: Host and port of the SuperLink.
        root_certificates: Of the authority that vouches for it; None: it is not encrypted.
        names: Of the clients, in the order of their numbers.

    Raises:
        ConfigError: The authority cannot be read.
        DependencyError: Flower is not installed.
        FederationError: The SuperLink cannot be reached, or does not run the app.
        OutputError: No room for temporary files.
    """
    far = far_of(make_populations)
    with contextlib.ExitStack() as stack:
        engines = stack.enter_context(open_local(functools.partial(own_of, make_populations), workers))
        courier = stack.enter_context(open_courier(superlink, root_certificates))
        directory = Directory(courier, names)
        end = time.monotonic() + _GATHERING_S
        directory.gather(lambda there: there == len(names) or time.monotonic() > end)
        yield engines | deployed(courier, directory, far)


def deployed(
    courier: Courier,
    directory: Directory,
    far: Mapping[str, Population],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Engine]:
    """Return an engine for each population of devices, and that of those who may become clients.

    Args:
        courier: Carries the messages of all.
        directory: Of the nodes.
        far: The populations.
        clock: Tells the time in seconds, for deadlines.
    """
    overdue = Overdue()
    engines = {
        name: FlowerEngine(courier, name, each.infos(), directory, _PATIENCE_S, clock, overdue)
        for name, each in far.items()
    }
    return {**engines, NEWCOMERS: FlowerEntrance(directory, engines[CLIENTS])}


def ask_all(
    superlink: str, root_certificates: Path | None, job: Job[R], at_least: int
) -> tuple[dict[str, R], dict[str, str]]:
    """Return what every node that is connected answers to a job, and for those that do not the reason, by name.

    Args:
        superlink: As of `open_deployment`, as is `root_certificates`.
        root_certificates: See there.
        job: What to ask.
        at_least: How many nodes to wait for.

    Raises:
        ConfigError: The authority cannot be read.
        DependencyError: Flower is not installed.
        FederationError: The SuperLink cannot be reached, or does not run the app.
        OutputError: No room for temporary files.
    """
    with open_courier(superlink, root_certificates) as courier:
        directory = Directory(courier)
        directory.gather(lambda there: there >= at_least)
        names = directory.number()
        engine = FlowerEngine(courier, CLIENTS, (), directory, _PATIENCE_S)
        replies = list(engine.ask(dict.fromkeys(range(len(names)), job)))
        answers = {names[reply.client]: reply.value for reply in replies if reply.value is not None}
        absent = {names[reply.client]: reply.absent or "no answer" for reply in replies if reply.value is None}
        return answers, absent | directory.refused


@contextlib.contextmanager
def open_courier(superlink: str, root_certificates: Path | None) -> Iterator[RelayCourier]:
    """Yield what carries messages to the nodes of a SuperLink; arguments and errors as of `open_deployment`."""
    check_installed("flwr", "flower")
    check_superlink(superlink, root_certificates)
    with _held_folder() as folder:
        link = superlink_at(superlink, root_certificates, folder / "home")
        with listening(folder / "relay") as listener:
            number = link.submit(folder / "relay")

            def why_ended() -> str:
                return f"the Flower run has ended: {link.status(number)}"

            def is_alive() -> bool:
                return not link.status(number).startswith("finished")

            with connected(listener, is_alive, why_ended) as courier:
                yield courier


@contextlib.contextmanager
def _held_folder() -> Iterator[Path]:
    """Yield a folder for temporary files; remove it in the end, and now those that killed commands have left."""
    folder = working_folder(_PREFIX)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever holds one has made the socket in it after that.
        for socket in folder.parent.glob(f"{_PREFIX}*/relay"):
            _remove_unheld(socket.parent)
        yield folder
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unheld(folder: Path) -> None:
    """Remove a folder of this user's that no process holds."""
    with contextlib.suppress(OSError):
        found = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(found).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(found)


def superlink_at(address: str, root_certificates: Path | None, home: Path) -> SuperLink:
    """Return a SuperLink that runs; arguments as of `open_deployment`, and a new folder for Flower's settings."""
    settings: dict[str, str | bool] = (
        {"insecure": True} if root_certificates is None else {"root-certificates": str(root_certificates)}
    )
    return SuperLink(address, home, QUIET, settings)


class DeviceRegistry(Protocol):
    """Who is registered at a SuperLink, by names. All raise `FederationError` where it cannot be asked."""

    def names(self) -> tuple[str, ...]:
        """Return whose keys are registered, in order."""
        ...

    def add(self, name: str, key: bytes) -> None:
        """Let a device in, by a public key of `keys.public_key`."""
        ...

    def remove(self, name: str) -> None:
        """Refuse a device from now on."""
        ...


@contextlib.contextmanager
def registered_at(superlink: str, root_certificates: Path | None) -> Iterator[DeviceRegistry]:
    """Yield who is registered at a SuperLink; arguments as of `open_deployment`.

    Raises:
        ConfigError: The authority cannot be read.
        DependencyError: Flower is not installed.
    """
    check_installed("flwr", "flower")
    with importlib.import_module(_REGISTERED).registered_at(superlink, root_certificates) as devices:
        yield devices
