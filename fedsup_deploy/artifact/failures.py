"""What a program on a device found wrong, as the error that it is here."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from fedsup_deploy.errors import ArtifactError, DataError, DependencyError, FedsupError, GateError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.records import Verdict

_ERRORS: Mapping[int, type[FedsupError]] = MappingProxyType(
    {
        bundle_files.ALTERED: ArtifactError,
        bundle_files.MISSING: ArtifactError,
        bundle_files.USAGE: DependencyError,
        bundle_files.UNRUNNABLE: DependencyError,
        bundle_files.KNOWN_BAD: DependencyError,
        bundle_files.UNCLASSIFIED: DataError,
        bundle_files.PARITY: GateError,
        bundle_files.BATCH_INVARIANCE: GateError,
    }
)


def raise_if_failed(report: Verdict, where: str) -> None:
    """Turn the report of a runner that found something wrong into the error that it is.

    Args:
        report: What `run.py --json` prints.
        where: The bundle, for the message.

    Raises:
        ArtifactError: A file is missing or altered, or the exit code is none of ours.
        GateError: The outputs differ from the recorded ones, or depend on the batch.
        DependencyError: NumPy or onnxruntime cannot be imported, is too old, or cannot run the model.
        DataError: A picture to be timed cannot be used.
    """
    if report["exit_code"] != bundle_files.OK:
        raise _error_of(report["exit_code"])(f"{where}: {report['reason']}")


@contextlib.contextmanager
def failing_as_ours(place: Path) -> Iterator[None]:
    """Turn what the runner raises into the error that it is; `place` stands for the bundle in messages."""
    try:
        yield
    except bundle_files.CheckError as error:
        raise _error_of(error.exit_code)(f"{place}: {error}") from error


def _error_of(exit_code: int) -> type[FedsupError]:
    """Return the error that an exit code is: a report comes from a bundle's own program, which may not be ours."""
    return _ERRORS.get(exit_code, ArtifactError)
