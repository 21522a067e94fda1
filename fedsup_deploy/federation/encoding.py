"""How jobs and replies become bytes: JSON beside arrays, in a `frame`. Data, never code.

What is in a message is checked against the types that it should have before anyone looks at it.
"""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

import numpy as np
import torch
from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    SerializationInfo,
    TypeAdapter,
    ValidationInfo,
)
from torch import Tensor

from fedsup_deploy import registry
from fedsup_deploy.data.dataset import DamagedFileError
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation import frame
from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.frame import MALFORMED_ANSWER, Array, Arrays
from fedsup_deploy.federation.messages import Blob, BlobStore, HeldBlobs, Job, Reply
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.statistics import PooledStatistics

R = TypeVar("R")

#: Most channels, and longest side, of a layer of a plan.
_MAX_SIZE: Final = 2**16


# --- how values become JSON beside arrays


class _Outgoing:
    """Collects the arrays and blobs of a message while its JSON is written."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self.blobs: dict[str, Blob] = {}

    def put(self, array: Array) -> int:
        """Take an array; return its number."""
        self.arrays.append(array)
        return len(self.arrays) - 1


class _Incoming:
    """Gives the arrays and blobs of a message while its JSON is read."""

    def __init__(self, arrays: Sequence[Array], store: HeldBlobs, brought: Mapping[str, Blob] | None = None) -> None:
        self.arrays, self._store, self._brought = arrays, store, brought or {}
        self.missing: set[str] = set()

    def blob(self, name: str) -> Blob:
        """Return a blob; an empty one where it is missing, so that all that are missing are found at once."""
        # What the message brought is there in any case, even if the store is too small for all of it.
        found = self._brought.get(name) or self._store.get(name)
        if found is None:
            self.missing.add(name)
        return found or Blob({})


def _outgoing(info: SerializationInfo) -> _Outgoing:
    assert isinstance(info.context, _Outgoing)
    return info.context


def _incoming(info: ValidationInfo) -> _Incoming:
    assert isinstance(info.context, _Incoming)
    return info.context


def _tensor_out(tensor: Tensor, info: SerializationInfo) -> int:
    return _outgoing(info).put(tensor.detach().contiguous().numpy())


def _array_out(array: Array, info: SerializationInfo) -> int:
    # A list would become an array here, and be taken for one.
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{type(array).__name__}, expected an array")
    return _outgoing(info).put(np.ascontiguousarray(array))


def _array_in(number: object, info: ValidationInfo) -> Array:
    if type(number) is not int or not 0 <= number < len(_incoming(info).arrays):
        raise ValueError(f"no array {number!r}")
    array: Array = _incoming(info).arrays[number]
    return array


def _tensor_in(number: object, info: ValidationInfo) -> Tensor:
    array = _array_in(number, info)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{array.dtype}, expected real numbers")
    return torch.from_numpy(array)


def _histogram_in(number: object, info: ValidationInfo) -> Array:
    array = _array_in(number, info)
    if array.dtype != np.int64:
        raise ValueError(f"{array.dtype}, expected int64")
    return array


def _statistics_out(statistics: PooledStatistics, info: SerializationInfo) -> dict[str, int]:
    return {name: _outgoing(info).put(array) for name, array in statistics.to_arrays().items()}


def _statistics_in(numbers: Any, info: ValidationInfo) -> PooledStatistics:
    arrays = {str(name): _array_in(number, info) for name, number in dict(numbers).items()}
    return PooledStatistics.from_arrays(arrays)


def _blob_out(blob: Blob, info: SerializationInfo) -> str:
    _outgoing(info).blobs[blob.name] = blob
    return blob.name


def _blob_in(name: object, info: ValidationInfo) -> Blob:
    blob: Blob = _incoming(info).blob(str(name))
    return blob


@functools.lru_cache(maxsize=4)
def _layout(text: str) -> Layout:
    document = json.loads(text)
    return Layout(SearchSpace.model_validate(document["space"]), document["normalization"])


def _layout_out(layout: Layout) -> str:
    return json.dumps({"space": layout.space.to_dict(), "normalization": layout.normalization})


def _plain(plan: NetworkPlan) -> NetworkPlan:
    """Refuse a plan whose numbers are not those of a network."""
    for layer in plan.layers():
        for number in (layer.in_channels, layer.out_channels, layer.in_size, layer.kernel_size, layer.stride):
            if type(number) is not int or not 1 <= number <= _MAX_SIZE:
                raise ValueError(f"layer {layer.name}: {number!r}, expected 1 to {_MAX_SIZE}")
    return plan


# Types as they are in the fields of jobs and replies. (A validator given after a serializer would take its place.)
WireInt = Annotated[int, Field(ge=-(2**63), lt=2**63)]
WireTensor = Annotated[Tensor, PlainValidator(_tensor_in), PlainSerializer(_tensor_out)]
WireHistogram = Annotated[
    np.ndarray[Any, np.dtype[np.int64]], PlainValidator(_histogram_in), PlainSerializer(_array_out)
]
WireStatistics = Annotated[PooledStatistics, PlainValidator(_statistics_in), PlainSerializer(_statistics_out)]
WireBlob = Annotated[Blob, PlainValidator(_blob_in), PlainSerializer(_blob_out)]
WireLayout = Annotated[Layout, PlainValidator(_layout), PlainSerializer(_layout_out)]
WirePlan = Annotated[NetworkPlan, AfterValidator(_plain)]
WireArchitecture = Annotated[
    Architecture, PlainValidator(Architecture.from_dict), PlainSerializer(Architecture.to_dict)
]


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@functools.cache
def _job_type(kind: str) -> type:
    found: type = registry.resolve("job", kind)
    return found


# --- messages


@dataclasses.dataclass(frozen=True)
class Missing:
    """What a client answers that does not hold all blobs of a request."""

    blobs: tuple[str, ...]


def encode_request(jobs: Mapping[ClientId, Job[object]], held: Collection[str] = ()) -> tuple[bytes, set[str]]:
    """Return jobs as one message, and the names of the blobs in it.

    Args:
        jobs: For each client its job.
        held: Blobs that whoever is asked holds, so that they need not travel.
    """
    out = _Outgoing()
    asked: list[JsonValue] = [
        [client, job.kind, _adapter(_job_type(job.kind)).dump_python(job, mode="json", context=out, warnings="error")]
        for client, job in jobs.items()
    ]
    sent = {name: blob for name, blob in out.blobs.items() if name not in held}
    arrays = {str(number): array for number, array in enumerate(out.arrays)}
    for name, blob in sent.items():
        arrays |= {f"{name}/{key}": np.ascontiguousarray(tensor.numpy()) for key, tensor in blob.tensors.items()}
    return frame.pack({"asked": asked}, arrays), set(sent)


def decode_request(message: bytes, store: HeldBlobs) -> dict[ClientId, Job[object]] | Missing:
    """Return the jobs of a message, or which blobs of it are missing.

    Args:
        message: Bytes of `encode_request`.
        store: The blobs held; those in the message are added.

    Raises:
        DataError: The message is malformed.
    """
    document, arrays = _unpack(message)
    try:
        numbered, tensors = _without_blobs(arrays)
        brought = {name: Blob(of_blob) for name, of_blob in tensors.items()}
        for name, blob in brought.items():
            if blob.name != name:
                raise DataError("a blob is not what its name says")
            store.add(blob)
        incoming = _Incoming(numbered, store, brought)
        jobs = {
            int(client): _adapter(_job_type(kind)).validate_python(fields, context=incoming)
            for client, kind, fields in document["asked"]
        }
    except frame.MALFORMED as error:
        raise DataError(f"message: {frame.one_line(error)}") from error
    return Missing(tuple(sorted(incoming.missing))) if incoming.missing else jobs


def encode_replies(replies: Sequence[Reply[R]], jobs: Mapping[ClientId, Job[R]]) -> bytes:
    """Return replies as one message.

    Args:
        replies: One per job.
        jobs: What was asked; it says of which type each answer is.
    """
    out = _Outgoing()
    said: list[JsonValue] = []
    for reply in replies:
        value = None if reply.value is None else _to_document(reply.value, jobs[reply.client].reply, out)
        said.append([reply.client, value, reply.absent])
    return frame.pack({"said": said}, {str(number): array for number, array in enumerate(out.arrays)})


def encode_missing(missing: Missing) -> bytes:
    """Return the message that says which blobs are missing."""
    return frame.pack({"missing": list(missing.blobs)}, {})


def encode_refusal(error: DataError) -> bytes:
    """Return the message that says why a request cannot be read: nobody of those asked answers it."""
    return frame.pack({"refused": frame.one_line(error)}, {})


def decode_replies(message: bytes, jobs: Mapping[ClientId, Job[R]]) -> list[Reply[R]] | Missing:
    """Return the replies of a message: at most one per client that was asked, whatever it holds.

    Args:
        message: Bytes of `encode_replies`, `encode_missing` or `encode_refusal`.
        jobs: What was asked.

    Raises:
        OtherProtocolError: The message is of another protocol.
        DataError: It is malformed; the text begins with `MALFORMED_ANSWER`.
    """
    replies: dict[ClientId, Reply[R]] = {}
    try:
        document, arrays = _unpack(message)
        if "missing" in document:
            return Missing(tuple(map(str, document["missing"])))
        if "refused" in document:
            return [Reply(client, None, frame.short(str(document["refused"]))) for client in jobs]
        numbered, _ = _without_blobs(arrays)
        for client, value, absent in document["said"]:
            if type(client) is not int:
                raise ValueError(f"client {client!r}")
            if client in jobs and client not in replies:
                replies[client] = _read(client, value, absent, jobs[client], numbered)
    except frame.OtherProtocolError:
        raise
    except frame.MALFORMED as error:
        raise DataError(f"{MALFORMED_ANSWER}: {frame.one_line(error)}") from error
    return list(replies.values())


def as_received(reply: Reply[R], job: Job[R]) -> Reply[R]:
    """Return a reply as the server would have it from a network: its types checked, arrays and all.

    Nothing is copied. A value of other types becomes an absence.
    """
    if reply.value is None:
        return reply
    out = _Outgoing()
    try:
        value = _to_document(reply.value, job.reply, out)
    except frame.MALFORMED as error:
        return Reply(reply.client, None, f"{MALFORMED_ANSWER}: {frame.one_line(error)}")
    return _read(reply.client, value, None, job, out.arrays)


def absence(client: ClientId, error: Exception) -> Reply[R]:
    """Return the reply of a client whose job ended with an error."""
    reason = frame.one_line(error)
    known = isinstance(error, DataError)
    return Reply(client, None, reason if known else f"{type(error).__name__}: {reason}")


def discreet_absence(client: ClientId, error: Exception) -> Reply[R]:
    """Return the same for where the server may not see a client's images: a library's text can quote what is in them.

    Only what we have written ourselves is passed on, but for the names of files.
    """
    if isinstance(error, DamagedFileError):
        return Reply(client, None, "a file of its images is damaged or gone")
    return absence(client, error) if isinstance(error, DataError) else Reply(client, None, type(error).__name__)


def _to_document(value: object, kind: type, out: _Outgoing) -> JsonValue:
    """Return a value as JSON; its arrays go to `out`.

    Raises:
        TypeError: The value is of another type.
        ValueError: A part of it is.
    """
    if not isinstance(value, kind):
        raise TypeError(f"got {type(value).__name__}, expected {kind.__name__}")
    document: JsonValue = _adapter(kind).dump_python(value, mode="json", context=out, warnings="error")
    return document


def _read(client: ClientId, value: object, absent: object, job: Job[R], arrays: Sequence[Array]) -> Reply[R]:
    if value is None:
        return Reply(client, None, None if absent is None else frame.short(str(absent)))
    try:
        answer: R = _adapter(job.reply).validate_python(value, context=_Incoming(arrays, BlobStore()))
    except frame.MALFORMED as error:
        return Reply(client, None, f"{MALFORMED_ANSWER}: {frame.one_line(error)}")
    return Reply(client, answer)


def _unpack(message: bytes) -> tuple[dict[str, Any], Arrays]:  # Any: taken apart where `frame.MALFORMED` is caught
    return frame.unpack(message)


def _without_blobs(arrays: Arrays) -> tuple[list[Array], dict[str, dict[str, Tensor]]]:
    """Return the numbered arrays of a message, and the tensors of each blob in it."""
    blobs: dict[str, dict[str, Tensor]] = {}
    numbered: dict[int, Array] = {}
    # safetensors gives them in no order.
    for key, array in sorted(arrays.items()):
        name, slash, tensor_name = key.partition("/")
        if slash:
            blobs.setdefault(name, {})[tensor_name] = torch.from_numpy(array)
        elif len(name) <= frame.MAX_TEXT and name.isascii() and name.isdigit():
            numbered[int(name)] = array
    if numbered.keys() != set(range(len(numbered))):
        raise DataError("arrays are missing")
    return [numbered[number] for number in range(len(numbered))], blobs
