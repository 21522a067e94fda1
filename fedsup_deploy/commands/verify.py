"""`fedsup-deploy verify`: hashes, consistency, and parity against the bundled vectors. Torch-free."""

import dataclasses
from pathlib import Path

from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import load_manifest, verify_bundle
from fedsup_deploy.ondevice.records import Environment, Files, Outputs
from fedsup_deploy.results import Result


@dataclasses.dataclass(frozen=True)
class Verified(Result):
    """A bundle that passed. The rest of the fields are those of `artifact.store.VerifiedBundle`.

    Args:
        bundle: Its folder.
        verdict: `ok`: nothing else is returned.
        exceeded_limits: Names of the limits of its device that it exceeds.
    """

    bundle: Path
    verdict: str
    exceeded_limits: tuple[str, ...]
    arch_id: str
    profile: str
    files: Files
    environment: Environment
    parity: Outputs
    measured: MeasuredLatency | None
    not_executed: tuple[str, ...]
    not_compared: tuple[str, ...]


def verify(bundle: Path) -> Verified:
    """Return the report of a bundle that is whole, unaltered and computes what it did when it was made.

    Raises:
        ArtifactError: A file is missing, altered or not part of the bundle, or the bundle contradicts itself.
        GateError: The model computes something else.
    """
    report = verify_bundle(bundle)
    return Verified(bundle=bundle, verdict="ok", exceeded_limits=load_manifest(bundle).exceeded_limits, **vars(report))
