"""Measuring on another machine: which files go there, what is started, and what it says.

How they get there is `ssh.py`'s. What runs there is `run.py` and the session of this package as they are here, each
packed into one file, so a latency from there and one from here come from the same arithmetic.
"""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from fedsup_deploy.artifact import packing, program
from fedsup_deploy.artifact.external_data import external_files
from fedsup_deploy.device import session
from fedsup_deploy.device.remote.ssh import Access, run_there
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.energy import SENSORS
from fedsup_deploy.ondevice.picture_timing import Pictures
from fedsup_deploy.ondevice.records import EnergyRecord, Report, TimedModel
from fedsup_deploy.ondevice.session_records import EnergyEvent, ErrorEvent, LatencyEvent, MachineEvent, SessionEvent

_REPORT: Final = TypeAdapter(Report)
_EVENT: Final = TypeAdapter(
    Annotated[SessionEvent | LatencyEvent | EnergyEvent | MachineEvent | ErrorEvent, Field(discriminator="event")]
)

_SESSION: Final = "session.py"
#: A report or an event.
Document = TypeVar("Document")

_NEEDS: Final = ("numpy", "onnxruntime")
_NEEDS_FOR_PICTURES: Final = (*_NEEDS, "pillow")


def measure_bundle_there(
    access: Access,
    bundle: Path,
    *,
    threads: int,
    protocol: str,
    pictures: Pictures | None = None,
    sensors: Path = SENSORS,
) -> Report:
    """Check and time a bundle on another machine.

    Only files that were found unaltered here are sent. The program is that of this package, not the copy in the bundle:
    that one is among the files to be checked.

    Args:
        access: The machine.
        bundle: The bundle's folder here.
        threads: Threads of the runtime.
        protocol: A name in `PROTOCOLS`.
        pictures: Those to time as well, found good here; they are sent under other names.
        sensors: Where the system there shows its devices.

    Returns:
        The report of `run.py --json`; its `exit_code` says whether the checks were passed.

    Raises:
        ArtifactError: A file of the bundle is missing here, altered, or not part of it.
        DeviceError: As in `run_there`.
    """
    try:
        names = bundle_files.check_files(bundle)
    except bundle_files.CheckError as error:
        raise ArtifactError(f"{bundle}: {error}") from error
    files: dict[str, bytes | Path] = {f"bundle/{name}": bundle / name for name in names}
    files[program.FILENAME] = program.program()
    argv = [program.FILENAME, "bundle", "--json", "--threads", str(threads), "--protocol", protocol]
    argv += ["--energy", f"--sensors={sensors}"]
    sent = {} if pictures is None else {f"images/{index}": path for index, path in enumerate(pictures.paths)}
    if sent:
        files |= sent
        argv += ["--images", *sent]
    needs = _NEEDS_FOR_PICTURES if sent else _NEEDS
    lines = run_there(access, files, argv, needs=needs, good_exits=bundle_files.CHECKED)
    report = _read(access, _REPORT, "\n".join(lines))
    if pictures is not None and "pictures" in report:
        report["pictures"]["num_found"] = pictures.num_found
    return report


def measure_model_there(
    access: Access, model: Path, *, threads: int, protocol: str, sensors: Path = SENSORS
) -> tuple[TimedModel, EnergyRecord | None, str | None]:
    """Time an ONNX model on another machine, and ask its sensor, where it has one.

    Args:
        access: The machine.
        model: The .onnx file here; the files that it has weights in are sent with it.
        threads: Threads of the runtime.
        protocol: A name in `PROTOCOLS`.
        sensors: Where the system there shows its devices.

    Returns:
        What `session.time_model` and `energy_of` return.

    Raises:
        ArtifactError: The file cannot be read, or names weights outside of its folder.
        DeviceError: As in `run_there`, or the model cannot be run there.
    """
    options = ["--threads", str(threads), "--protocol", protocol, "--energy", f"--sensors={sensors}"]
    latencies: list[LatencyEvent] = []
    energies: list[EnergyEvent] = []
    for event in session_there(access, {model.stem: model}, options):
        if event["event"] == "latency":
            latencies.append(event)
        elif event["event"] == "energy":
            energies.append(event)
    if (len(latencies), len(energies)) != (1, 1):
        raise access.error(f"got {len(latencies)} latencies, expected one, and its energy; {access.again}")
    [found], [energy] = latencies, energies
    latency: TimedModel = {
        "protocol": found["protocol"],
        "statistics": found["statistics"],
        "stability": found["stability"],
        "noise": found["noise"],
        "is_min_runs_met": found["is_min_runs_met"],
        "is_min_duration_met": found["is_min_duration_met"],
        "peak_rss_mib": found["peak_rss_mib"],
        "load_ms": found["load_ms"],
        "first_run_ms": found["first_run_ms"],
        "environment": found["environment"],
    }
    return latency, energy["energy"], energy["reason"]


def machine_there(access: Access, threads: int) -> MachineEvent:
    """Return what another machine says of itself.

    Args:
        access: The machine.
        threads: Threads of the runtime that it is to be asked for.

    Raises:
        DeviceError: As in `run_there`, or it cannot have so many threads.
    """
    options = ["--machine", "--threads", str(threads)]
    found = [event for event in session_there(access, {}, options) if event["event"] == "machine"]
    if len(found) != 1:
        raise access.error(f"it said {len(found)} times what it is, expected once; {access.again}")
    return found[0]


def session_there(
    access: Access, models: Mapping[str, bytes | Path], options: Sequence[str]
) -> Generator[SessionEvent | LatencyEvent | EnergyEvent | MachineEvent, None, None]:
    """Time models on another machine as `fedsup_deploy.device.session` does, and yield its events.

    Args:
        access: The machine.
        models: Their content, or their files here, by name. The files that a file has weights in are sent with it.
        options: What follows the folder of the models on the session's command line.

    Raises:
        ArtifactError: A file cannot be read, or names weights outside of its folder.
        DeviceError: As in `run_there`, or a model cannot be run there.
    """
    files: dict[str, bytes | Path] = {}
    for name, content in models.items():
        others = {} if isinstance(content, bytes) else external_files(content)
        files |= {f"models/{name}/{other}": path for other, path in others.items()}
        files[f"models/{name}/{name}.onnx"] = content
    files[_SESSION] = packing.pack(session.__name__).encode()
    argv = [_SESSION, "models", *options]
    # 2 and 3 come with an event that says why.
    for line in run_there(access, files, argv, needs=_NEEDS, good_exits=(0, 2, 3)):
        event = _read(access, _EVENT, line)
        if event["event"] == "error":
            raise access.error(event["reason"])
        yield event


def _read(access: Access, kind: TypeAdapter[Document], text: str) -> Document:
    try:
        return kind.validate_json(text, strict=True)
    except ValidationError as error:
        raise access.error(f"got {text[:60]!r}, expected a JSON document from the program there") from error
