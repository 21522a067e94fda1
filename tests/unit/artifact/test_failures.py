"""What a program on a device ends with is an error here, whichever program it was."""

from pathlib import Path

import pytest

from fedsup_deploy.artifact.failures import failing_as_ours, raise_if_failed
from fedsup_deploy.errors import ArtifactError, DataError, DependencyError, GateError
from fedsup_deploy.ondevice import bundle_files

KINDS = {
    bundle_files.ALTERED: ArtifactError,
    bundle_files.USAGE: DependencyError,
    bundle_files.PARITY: GateError,
    bundle_files.BATCH_INVARIANCE: GateError,
    bundle_files.MISSING: ArtifactError,
    bundle_files.UNRUNNABLE: DependencyError,
    bundle_files.UNCLASSIFIED: DataError,
    bundle_files.KNOWN_BAD: DependencyError,
}


def test_what_run_py_can_end_with_is_an_error_of_its_own() -> None:
    assert set(KINDS) == set(bundle_files.CHECKED) - {bundle_files.OK}


@pytest.mark.parametrize(
    ("exit_code", "kind"), [*KINDS.items(), (9, ArtifactError), (-1, ArtifactError), (77, ArtifactError)]
)
def test_every_exit_code_is_an_error_of_ours(exit_code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^there: why$"):
        raise_if_failed({"schema": 1, "exit_code": exit_code, "reason": "why"}, "there")
    with pytest.raises(kind, match=r"^there: why$"), failing_as_ours(Path("there")):
        raise bundle_files.CheckError(exit_code, "why")
