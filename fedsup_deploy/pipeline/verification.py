"""`fedsup-deploy verify`: hashes, and parity against the bundled vectors. Torch-free."""

from pathlib import Path
from typing import Any

from fedsup_deploy.artifact.store import load_manifest, verify_bundle
from fedsup_deploy.errors import ArtifactError


def verify(bundle: Path) -> dict[str, Any]:
    """Return the report of a bundle that is whole, unaltered and computes what it did when it was made.

    `exceeded_limits` names the limits of its device that it exceeds.

    Raises:
        ArtifactError: A file is missing, altered, or not part of the bundle.
        GateError: The model computes something else.
    """
    report = verify_bundle(bundle)
    if report["unlisted_files"]:
        raise ArtifactError(f"{bundle}: holds files its manifest does not list: {', '.join(report['unlisted_files'])}")
    exceeded = list(load_manifest(bundle).exceeded_limits)
    return {"bundle": str(bundle), "verdict": "ok", "exceeded_limits": exceeded, **report}
