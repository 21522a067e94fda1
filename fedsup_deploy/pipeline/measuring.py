"""`fedsup-deploy measure`: time a bundle or an ONNX model on this machine. Torch-free."""

from pathlib import Path
from typing import Any

from fedsup_deploy.artifact.store import MODEL, load_manifest
from fedsup_deploy.device.measure import measure_onnx
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.events import EventLog, Listener


def measure(path: Path, threads: int, protocol: str, listeners: tuple[Listener, ...] = ()) -> dict[str, Any]:
    """Return the latency, load time and memory of a model on this machine.

    Args:
        path: A bundle, or an ONNX file.
        threads: Threads of the runtime.
        protocol: `quick` or `full`.
        listeners: Called with one event before and one after.

    Returns:
        What `device.measure.measure_onnx` returns, and for a bundle its `arch_id` and `profile`.

    Raises:
        ArtifactError: The path is neither, or the model cannot be run.
    """
    log, about = EventLog(None, listeners), {}
    model = path
    if path.is_dir():
        manifest = load_manifest(path)
        about = {"arch_id": manifest.arch_id, "profile": manifest.profile.name}
        model = path / MODEL
    elif path.suffix != ".onnx":
        raise ArtifactError(f"{path}: expected a bundle's folder or an .onnx file")
    log.emit("measurement", done=0, total=1, name=protocol)
    result = measure_onnx(model, threads=threads, protocol=protocol)
    log.emit("measurement", done=1, total=1, name=protocol)
    return {**about, **result}
