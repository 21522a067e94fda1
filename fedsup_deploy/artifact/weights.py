"""Tensors on disk: safetensors with one JSON document about them. Nothing here can run code from a file.

The document stands under a single key, because the order of several is not kept from one writing to the next and equal
content must give equal bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedsup_deploy import files
from fedsup_deploy.errors import ArtifactError

_KEY = "fedsup-deploy"
_SCHEMA = 2

#: By name. Any: of whatever element type the tensor has.
Arrays = dict[str, NDArray[Any]]


def write_arrays(path: Path, kind: str, arrays: Mapping[str, NDArray[Any]], document: Mapping[str, JsonValue]) -> None:
    """Write arrays and a JSON document about them, atomically.

    Args:
        path: Where to.
        kind: What it is: `supernet`, `checkpoint`, `subnet` or `statistics`.
        arrays: Values by name.
        document: A JSON mapping.
    """
    text = json.dumps({"schema": _SCHEMA, "kind": kind, **document}, sort_keys=True, allow_nan=False)
    contiguous = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    files.write_bytes(path, save(contiguous, metadata={_KEY: text}))


def read_document(path: Path, kind: str | None = None) -> dict[str, JsonValue]:
    """Return the JSON document of a file without reading its arrays.

    Args:
        path: Where from.
        kind: What it must be; None accepts any kind.

    Raises:
        ArtifactError: The file is missing, damaged, not ours, or of another kind or version.
    """
    return _read(path, kind, with_arrays=False)[0]


def read_arrays(path: Path, kind: str) -> tuple[Arrays, dict[str, JsonValue]]:
    """Return the arrays and the JSON document of a file.

    Raises:
        ArtifactError: The file is missing, damaged, not ours, or of another kind or version.
    """
    document, arrays = _read(path, kind, with_arrays=True)
    return arrays, document


def _read(path: Path, kind: str | None, *, with_arrays: bool) -> tuple[dict[str, JsonValue], Arrays]:
    what = kind or "safetensors file"
    if not path.is_file():
        raise ArtifactError(f"no {what} at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            document = json.loads((file.metadata() or {}).get(_KEY, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()} if with_arrays else {}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise ArtifactError(f"{path}: not a whole safetensors file ({error}); make it again") from error
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        raise ArtifactError(f"{path}: not written by this version of fedsup-deploy")
    if kind is not None and document.get("kind") != kind:
        raise ArtifactError(f"{path}: is a {document.get('kind')}, expected a {kind}")
    return document, arrays
