"""Who is registered at a SuperLink, by its control interface. Imports flwr.

Flower asks for no name, and lets several nodes have the same; here a name is one device's, which is why the names are
looked at before anything is changed.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fedsup_deploy.engines.flower.readiness import check_superlink
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation.frame import one_line

T = TypeVar("T")


class SuperLinkDevices:
    """The devices of a SuperLink, by their names.

    Args:
        address: Of the SuperLink: host and port.
        client: Asks it.
    """

    def __init__(self, address: str, client: ControlHttpClient) -> None:
        self._address, self._client = address, client

    def names(self) -> tuple[str, ...]:
        """Return whose keys are registered, in order.

        Raises:
            FederationError: The SuperLink cannot be asked.
        """
        return tuple(sorted(self._numbers()))

    def add(self, name: str, key: bytes) -> None:
        """Let a device in.

        Args:
            name: What it is called from then on.
            key: Its public key, of `keys.public_key`.

        Raises:
            FederationError: The SuperLink does not take it, or cannot be asked.
        """
        self._asked(functools.partial(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name)))

    def remove(self, name: str) -> None:
        """Refuse a device from now on, whatever it is at: its key is of no use any more, and is never taken again.

        Raises:
            FederationError: The SuperLink cannot be asked.
        """
        for number in self._numbers().get(name, ()):
            self._asked(functools.partial(self._client.UnregisterNode, UnregisterNodeRequest(node_id=number)))

    def _numbers(self) -> dict[str, list[int]]:
        """Return what Flower knows them by: by its own command one may have no name, or that of another."""
        found: dict[str, list[int]] = {}
        for node in self._asked(functools.partial(self._client.ListNodes, ListNodesRequest())).nodes_info:
            if node.status != NodeStatus.UNREGISTERED:
                found.setdefault(node.name or f"node {node.node_id}", []).append(node.node_id)
        return found

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except httpx.HTTPStatusError as error:
            said = FlowerError.from_json(error.response.text)
            raise FederationError(one_line(error) if said is None else f"Flower says: {said.message}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise FederationError(f"{self._address} does not answer as a SuperLink: {one_line(error)}") from error


@contextlib.contextmanager
def registered_at(address: str, root_certificates: Path | None) -> Iterator[SuperLinkDevices]:
    """Yield who is registered at a SuperLink.

    Args:
        address: Host and port.
        root_certificates: Of the authority that vouches for it; None: it is not encrypted.

    Raises:
        ConfigError: The authority cannot be read.
        FederationError: The SuperLink cannot be reached, or is not vouched for.
    """
    check_superlink(address, root_certificates)
    version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    authority = None if root_certificates is None else root_certificates.read_bytes()
    client = ControlHttpClient.from_server_address(address, authority is None, authority, [version])
    with contextlib.closing(client):
        yield SuperLinkDevices(address, client)
