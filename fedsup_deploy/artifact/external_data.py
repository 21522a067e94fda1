"""Weights that an ONNX file has in other files: which these are. None may lead out of the model's folder."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.bundle_files import MOST_BYTES_OF_A_FILE
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.ondevice.reading import read_bytes

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import TensorProto


def external_files(model: Path) -> dict[str, Path]:
    """Return the other files that a model consists of, by their names relative to its folder.

    Args:
        model: The .onnx file. One that is no model has none: whoever runs it says so.

    Raises:
        ArtifactError: It cannot be read, or names a file that is missing or lies outside of its folder. Where the model
            is a link, as in a cache of downloads, it may also lie where that leads.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        names = set(locations(onnx.load_model_from_string(read_bytes(model, MOST_BYTES_OF_A_FILE))))
        folders = {model.parent.resolve(), model.resolve().parent}
    except DecodeError:
        return {}
    except ValueError as error:
        raise ArtifactError(f"{model}: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{model}: cannot be read: {error.strerror}") from error
    return {name: _within(model, name, folders) for name in sorted(names)}


def locations(model: "Message") -> Iterator[str]:
    """Yield where each tensor of an ONNX model is that lies in another file, wherever in the model it stands."""
    from onnx import TensorProto

    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield {entry.key: entry.value for entry in tensor.external_data}.get("location", "")


def _tensors(model: "Message") -> "Iterator[TensorProto]":
    """Yield all tensors: weights, constants, those of inner graphs and of functions."""
    from google.protobuf.message import Message
    from onnx import TensorProto

    stack = [model]
    while stack:
        message = stack.pop()
        if isinstance(message, TensorProto):
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                stack.extend([value] if isinstance(value, Message) else value)


def _within(model: Path, name: str, folders: set[Path]) -> Path:
    """Return the file that a model names, which must lie in one of the folders."""
    named, path = PurePosixPath(name), model.parent / name
    shown = printable(name)
    try:
        is_inside = any(path.resolve().is_relative_to(folder) for folder in folders)
        is_file = path.is_file()
    except (OSError, ValueError):  # such as a name of 5,000 letters, or with a zero byte
        is_inside = is_file = False
    if not name or named.is_absolute() or ".." in named.parts or not is_inside:
        raise ArtifactError(f"{model}: has weights in {shown!r}, expected a file in its own folder or below")
    if not is_file:
        raise ArtifactError(f"{model}: has weights in {shown}, which is not there; copy it beside the model")
    return path
