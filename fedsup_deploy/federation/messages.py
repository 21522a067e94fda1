"""What travels between the server and one client: jobs and replies. How they become bytes is in `encoding`.

Large tensors travel as blobs, named by their hash, so that a client that holds one is not sent it again.
"""

import dataclasses
import functools
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

from fedsup_deploy.federation.client import Client, ClientId, ClientInfo

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Weights = Mapping[str, Tensor]
#: Bytes of the blobs that a client keeps, at most; the last one it was sent is kept in any case.
KEPT_BYTES: Final = 64 * 2**20


class Blob:
    """Tensors that are sent once.

    Args:
        tensors: By name; not to be changed any more.
    """

    def __init__(self, tensors: Weights) -> None:
        self.tensors = tensors

    @functools.cached_property
    def name(self) -> str:
        """SHA-256 of names, shapes, types and values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(json.dumps([name, str(tensor.dtype), *tensor.shape]).encode())
            digest.update(np.ascontiguousarray(tensor.detach().numpy()).data)
        return digest.hexdigest()

    @property
    def num_bytes(self) -> int:
        """Size of the tensors."""
        return num_bytes(self.tensors)


class HeldBlobs(Protocol):
    """The blobs that whoever reads messages holds."""

    def add(self, blob: Blob) -> None:
        """Keep a blob."""
        ...

    def get(self, name: str) -> Blob | None:
        """Return the blob of a name, or None where it is not held."""
        ...


class BlobStore:
    """Blobs in memory. Those that were not used for longest are given up first.

    Args:
        kept_bytes: How much is kept.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._blobs: OrderedDict[str, Blob] = OrderedDict()

    def add(self, blob: Blob) -> None:
        """Keep a blob."""
        self._blobs[blob.name] = blob
        while len(self._blobs) > 1 and sum(each.num_bytes for each in self._blobs.values()) > self._kept_bytes:
            self._blobs.popitem(last=False)

    def get(self, name: str) -> Blob | None:
        """Return the blob of a name, or None where it is not held."""
        if name in self._blobs:
            self._blobs.move_to_end(name)
        return self._blobs.get(name)


class Job(Protocol[R_co]):
    """What one client is asked for: a frozen dataclass that carries all the client needs to know.

    Attributes:
        kind: Its name in the registry.
        reply: Type of the answer.
    """

    kind: ClassVar[str]
    reply: ClassVar[type]

    def perform(self, client: Client) -> R_co:
        """Return the answer.

        Raises:
            DataError: It cannot be done with this client's images.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Reply(Generic[R]):
    """What came of a job.

    Args:
        client: Who was asked, as the engine knows it.
        value: The answer; None where there is none.
        absent: Why there is none, in one line.
    """

    client: ClientId
    value: R | None
    absent: str | None = None


class Patience(Generic[R]):
    """How long an exchange waits for the slow: for all, until its deadline, and for nobody after it.

    Who asks may be content with fewer, and may hear those that come too late: that is a class below this one.
    """

    #: Seconds after the end of the exchange in which an answer may still be of use.
    late_s: float = 0.0

    def is_enough(self) -> bool:
        """Return whether nobody else has to be waited for. What has come by then is passed on nevertheless."""
        return False

    def awaits(self, client: ClientId) -> bool:  # noqa: ARG002
        """Return whether an answer of a client would still be heard, though the exchange is over."""
        return False

    def take_late(self, reply: Reply[R]) -> None:
        """Take the answer of a client that was asked, after the end of the exchange."""


class Engine(Protocol):
    """Carries jobs to clients. The only thing the server knows of the world."""

    def clients(self) -> Sequence[ClientInfo]:
        """Return who can be asked, ascending."""
        ...

    def ask(
        self, jobs: Mapping[ClientId, Job[R]], deadline_s: float | None = None, patience: Patience[R] | None = None
    ) -> Iterator[Reply[R]]:
        """Yield the replies as they come, in any order; a client may be missing.

        Jobs are begun in their order, so that who comes first is not kept from answering by who is late. Values have
        been checked, by `encoding.decode_replies` or `encoding.as_received`.

        Args:
            jobs: For each client its job.
            deadline_s: Replies that come later are not waited for, in seconds; None waits for all.
            patience: Whether all have to be waited for, and who hears those that come after the end, from within
                this or a later `ask`; None: all, and nobody. An engine whose clients are simulated, so that none is
                slow, waits for all of them: what comes of it must not depend on how fast this machine is. One that
                cannot hear anybody after the end need not.

        Raises:
            FederationError: Nobody can be asked any more.
        """
        ...


@runtime_checkable
class Entrance(Engine, Protocol):
    """The engine of those that are there and no clients yet: they can be asked, and let in."""

    def admit(self, infos: Sequence[ClientInfo]) -> None:
        """Let some be clients: the engine of the clients has them from now on.

        Args:
            infos: With names, and numbers that follow those of the clients.
        """
        ...


def num_bytes(weights: Weights) -> int:
    """Return the size of tensors in bytes, as they travel."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
