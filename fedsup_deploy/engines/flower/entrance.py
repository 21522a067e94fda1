"""Nodes that are there and no clients: they can be asked who they are, and let in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from fedsup_deploy.engines.flower.courier import Delivery, NodeId
from fedsup_deploy.engines.flower.directory import Directory
from fedsup_deploy.engines.flower.engine import FlowerEngine
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.messages import Job, Patience, Reply

R = TypeVar("R")


class FlowerEntrance:
    """An `Entrance` to the clients of an engine.

    Args:
        directory: Of the nodes.
        engine: Carries jobs to the clients.
    """

    def __init__(self, directory: Directory, engine: FlowerEngine) -> None:
        self._directory, self._engine = directory, engine
        self._names: tuple[str, ...] = ()

    def clients(self) -> Sequence[ClientInfo]:
        """Return who is there and no client. Their numbers hold until this is called again."""
        self._directory.refresh()
        self._names = self._directory.strangers
        return [ClientInfo(number, 0, name=name) for number, name in enumerate(self._names)]

    def ask(
        self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None, patience: Patience[R] | None = None
    ) -> Iterator[Reply[R]]:
        """Yield the replies as they come.

        Raises:
            FederationError: The Flower run has ended.
        """
        yield from self._engine.beside(_Named(self._directory, self._names)).ask(jobs, deadline_s, patience)

    def admit(self, infos: Sequence[ClientInfo]) -> None:
        """Let some be clients, by their names."""
        self._directory.admit([str(info.name) for info in infos])
        self._engine.admit(infos)


class _Named:
    """Whereabouts of some nodes by their names, whoever the clients are."""

    def __init__(self, directory: Directory, names: Sequence[str]) -> None:
        self._directory, self._names = directory, names

    def refresh(self) -> None:
        self._directory.refresh()

    def take(self, delivery: Delivery) -> None:
        self._directory.take(delivery)

    def node_of(self, client: ClientId) -> NodeId | None:
        return self._directory.place_of(self._names[client])

    def why_absent(self) -> str:
        return self._directory.why_absent()
