"""Tensors on disk: safetensors with one JSON document about them. Nothing here can run code from a file.

The document stands under a single key, because the order of several is not kept from one writing to the next and equal
content must give equal bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedsup_deploy import files, memory
from fedsup_deploy.artifact.document import JsonObject, first_problem
from fedsup_deploy.config.section import Section
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.reading import parse_json

_KEY = "fedsup-deploy"
_SCHEMA = 2
#: Of names, types, shapes and the document of a file: a supernet of ten thousand tensors has less.
_MOST_BYTES_OF_HEADER: Final = 2**24
_BYTES_BEFORE_HEADER: Final = 8

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

#: By name. Any: of whatever element type the tensor has.
Arrays = dict[str, NDArray[Any]]


class SupernetRecord(Section):
    """What a supernet's file says of itself."""

    schema_version: Literal[2] = Field(alias="schema")
    """Version of the files of tensors."""
    kind: Literal["supernet", "checkpoint"]
    """What it is."""
    space_hash: _Sha256
    """SHA-256 of its search space."""
    normalization: Literal["batch", "parametric"]
    """As of `config.schema.SupernetConfig`."""
    rounds: Annotated[int, Field(ge=0)] | None = None
    """Rounds after which it was, where it is not the last."""
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """What it was kept by: the mean of those of the largest and the smallest subnet."""


class CheckpointRecord(SupernetRecord):
    """What a checkpoint says of itself."""

    rounds: Annotated[int, Field(ge=0)]
    """Rounds that are done."""
    config_hash: _Sha256
    """SHA-256 of the settings that decide the weights."""
    tensors: str
    """Name of its tensors as a blob: their hash."""


Record = TypeVar("Record", bound=Section)


def write_arrays(path: Path, kind: str, arrays: Mapping[str, NDArray[Any]], document: Mapping[str, JsonValue]) -> None:
    """Write what `to_bytes` returns, atomically."""
    files.write_bytes(path, to_bytes(kind, arrays, document))


def to_bytes(kind: str, arrays: Mapping[str, NDArray[Any]], document: Mapping[str, JsonValue]) -> bytes:
    """Return the content of a file of arrays and a JSON document about them.

    Args:
        kind: What it is: `supernet`, `checkpoint`, `subnet` or `statistics`.
        arrays: Values by name.
        document: A JSON mapping.
    """
    text = json.dumps({"schema": _SCHEMA, "kind": kind, **document}, sort_keys=True, allow_nan=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    return save(contiguous, metadata={_KEY: text})


def read_document(path: Path, kind: str | None = None) -> JsonObject:
    """Return the JSON document of a file without reading its arrays.

    Args:
        path: Where from.
        kind: What it must be; None accepts any kind.

    Raises:
        ArtifactError: The file is missing, damaged, not ours, or of another kind or version.
    """
    return _read(path, kind, with_arrays=False)[0]


def checked(path: Path, document: JsonObject, record: type[Record]) -> Record:
    """Return the document of a file as what it must be.

    Raises:
        ArtifactError: A key is missing, unknown or wrong.
    """
    try:
        return record.model_validate(document)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_problem(error)}; make it again") from error


def read_arrays(path: Path, kind: str) -> tuple[Arrays, JsonObject]:
    """Return the arrays and the JSON document of a file.

    Raises:
        ArtifactError: The file is missing, damaged, not ours, or of another kind or version.
    """
    document, arrays = _read(path, kind, with_arrays=True)
    return arrays, document


def _read(path: Path, kind: str | None, *, with_arrays: bool) -> tuple[JsonObject, Arrays]:
    what = kind or "safetensors file"
    if not path.is_file():
        raise ArtifactError(f"no {what} at {path}")
    try:
        _check_size(path, with_arrays=with_arrays)
        with safe_open(path, framework="numpy") as file:
            document = parse_json((file.metadata() or {}).get(_KEY, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()} if with_arrays else {}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, OSError) as error:
        raise ArtifactError(f"{path}: not a whole safetensors file ({error}); make it again") from error
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA or not isinstance(document.get("kind"), str):
        raise ArtifactError(f"{path}: not written by this version of fedsup-deploy")
    if kind is not None and document.get("kind") != kind:
        raise ArtifactError(f"{path}: is a {document.get('kind')}, expected a {kind}")
    return document, arrays


def _check_size(path: Path, *, with_arrays: bool) -> None:
    with path.open("rb") as file:
        num_bytes = int.from_bytes(file.read(_BYTES_BEFORE_HEADER), "little")
    if num_bytes > _MOST_BYTES_OF_HEADER:
        raise ValueError(f"its header has more than {_MOST_BYTES_OF_HEADER:,} bytes")
    if with_arrays and path.stat().st_size > memory.machine_bytes():
        raise ValueError("it has more bytes than there is memory")
