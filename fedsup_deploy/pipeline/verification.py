"""`fedsup-deploy verify`: hashes, consistency, and parity against the bundled vectors. Torch-free."""

from pathlib import Path
from typing import Any

from fedsup_deploy.artifact.store import load_manifest, verify_bundle


def verify(bundle: Path) -> dict[str, Any]:
    """Return the report of a bundle that is whole, unaltered and computes what it did when it was made.

    `exceeded_limits` names the limits of its device that it exceeds.

    Raises:
        ArtifactError: A file is missing, altered or not part of the bundle, or the bundle contradicts itself.
        GateError: The model computes something else.
    """
    report = verify_bundle(bundle)
    exceeded = list(load_manifest(bundle).exceeded_limits)
    return {"bundle": str(bundle), "verdict": "ok", "exceeded_limits": exceeded, **report}
