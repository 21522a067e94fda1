"""The connection over which a SuperNode or a SuperLink tells its tasks. Imports flwr."""

from pathlib import Path

from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient


def connected(address: str, root: Path | None, *interceptors: ProtobufClientInterceptor) -> RuntimeHttpClient:
    """Return a connection to what tells tasks.

    Args:
        address: Host and port.
        root: Of the authority that vouches for it; None: it is not encrypted.
        interceptors: Say who asks.
    """
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    authority = None if root is None else root.read_bytes()
    return RuntimeHttpClient.from_server_address(address, root is None, authority, [version, *interceptors])
