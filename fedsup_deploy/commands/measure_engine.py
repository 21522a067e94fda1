"""`fedsup-deploy measure --trtexec`: keep in a bundle what trtexec said of an engine of its model. Torch-free."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Final

import numpy as np

from fedsup_deploy.artifact.engine import LimitVerdict, MeasuredEngine
from fedsup_deploy.artifact.manifest import Manifest
from fedsup_deploy.artifact.store import check_can_keep, load_manifest, record_engine, verify_bundle
from fedsup_deploy.device.trtexec import MOST_BYTES_OF_LOG, compared_outputs, engine_of
from fedsup_deploy.device.trtexec_command import ENGINE, sizes_of
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice import bundle_files, bundle_outputs
from fedsup_deploy.ondevice.reading import MOST_BYTES_OF_JSON, read_bytes
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.results import LEFT_OUT_IF_NONE, Result

#: Standard input, as a path.
STDIN: Final = Path("-")
_LIMIT: Final = "latency_ms"
# What a shell's <(...) stands for: it is open already, so nothing waits for someone to write into it.
_DESCRIPTORS: Final = frozenset({Path("/dev/fd"), Path("/proc/self/fd")})


@dataclasses.dataclass(frozen=True)
class EngineLimit:
    """Whether an engine keeps the limit on latency that the network was picked for.

    Args:
        limit_ms: The limit.
        percentile: Which percentile of latency it means.
        measured_ms: What that percentile is, or cannot exceed; None where trtexec printed nothing that says it.
        verdict: As of `MeasuredEngine.verdict`.
    """

    limit_ms: float
    percentile: Percentile
    measured_ms: float | None
    verdict: LimitVerdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedEngine(Result):
    """What is kept now of an engine.

    Args:
        arch_id: The network.
        profile: The device that it was exported for.
        engine: What trtexec said.
        limit: Whether it keeps the limit on latency; None where there is none.
        build_on_device: The command with which its profile makes an engine; None where it names none: the device is not
            known to have TensorRT.
        to_compare: Commands for the device that write what `--outputs` compares; none where that was compared.
        out: The file that holds it in place of the bundle, where that was asked for.
    """

    arch_id: str
    profile: str
    engine: MeasuredEngine
    limit: EngineLimit | None
    build_on_device: str | None
    to_compare: tuple[str, ...]
    out: Path | None = dataclasses.field(default=None, metadata=LEFT_OUT_IF_NONE)


def measure_engine(bundle: Path, log: Path, outputs: Path | None = None, *, out: Path | None = None) -> RecordedEngine:
    """Keep what trtexec printed about an engine of a bundle's model, and compare its outputs with the recorded ones.

    Args:
        bundle: The bundle, which is checked first.
        log: What trtexec printed; `STDIN` reads it there.
        outputs: What `trtexec --exportOutput` wrote for recorded inputs; None compares nothing.
        out: A file that is to hold it in place of the bundle; None: the bundle does.

    Raises:
        ArtifactError: A file of the bundle is missing or altered, or the log or the outputs are not of its model.
        GateError: The bundle does not compute here what it must, or the engine something else.
        DeviceError: trtexec failed on the device.
        OutputError: The bundle, or `out`, cannot be written.

    Side effects: Reads standard input, if told to. The bundle's `measured.json`, or `out`, is replaced.
    """
    if not bundle.is_dir():
        raise ArtifactError(f"{bundle}: expected the folder of a bundle, whose measured.json keeps what trtexec said")
    manifest = load_manifest(bundle)
    engine = engine_of(_content(log, MOST_BYTES_OF_LOG), _name(log), manifest.inputs[0])
    check_can_keep(bundle, out)
    verify_bundle(bundle)
    if outputs is not None:
        recorded_NK = bundle_outputs.read_array(bundle / bundle_files.VECTORS, "outputs").astype(np.float32)
        content = _content(outputs, MOST_BYTES_OF_JSON)
        found = compared_outputs(content, _name(outputs), manifest.outputs[0], recorded_NK)
        engine = engine.model_copy(update={"outputs": found})
    record_engine(bundle, engine, out)
    return RecordedEngine(
        arch_id=manifest.arch_id,
        profile=manifest.profile.name,
        engine=engine,
        limit=_limit(manifest, engine),
        build_on_device=None if manifest.device is None else manifest.device.build_on_device,
        out=out,
        to_compare=() if outputs is not None else _to_compare(manifest, engine.command),
    )


def _content(path: Path, most_bytes: int) -> bytes:
    """Return the content of a file, standard input or a shell's pipe; of a pipe one byte more than allowed, at most."""
    if path == STDIN:
        return sys.stdin.buffer.read(most_bytes + 1)
    try:
        if path.parent in _DESCRIPTORS and path.is_fifo():
            with path.open("rb") as pipe:
                return pipe.read(most_bytes + 1)
        return read_bytes(path, most_bytes)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from error


def _name(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


def _limit(manifest: Manifest, engine: MeasuredEngine) -> EngineLimit | None:
    record = manifest.limits.get(_LIMIT)
    if record is None:
        return None
    percentile = "p50" if record.percentile is None else record.percentile.name
    bound_ms, _ = engine.bound_ms(percentile)
    return EngineLimit(record.limit, percentile, bound_ms, engine.verdict(record.limit, percentile))


def _to_compare(manifest: Manifest, command: str) -> tuple[str, ...]:
    """Return what to run on the device: as many images at once as the engine was made for, as far as that is told."""
    name, sizes = manifest.inputs[0].name, sizes_of(manifest.inputs[0])
    most = re.search(rf"--maxShapes=(?:\S*,)?{re.escape(name)}:(\d{{1,4}})x", command)
    num_images = min(int(most[1]), manifest.parity.num_inputs) if most else 1
    return (
        f"python3 -c \"import numpy; numpy.load('vectors.npz')['inputs'][:{num_images}].tofile('input.bin')\"",
        f"trtexec --loadEngine={ENGINE} --shapes={name}:{num_images}x{sizes} "
        f"--loadInputs={name}:input.bin --exportOutput=outputs.json",
    )
