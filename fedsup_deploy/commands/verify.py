"""`fedsup-deploy verify`: hashes, consistency, and parity against the bundled vectors. Torch-free."""

from pathlib import Path

from fedsup_deploy.artifact.store import VerifiedBundle, verify_bundle


def verify(bundle: Path) -> VerifiedBundle:
    """Return the report of a bundle that is whole, unaltered and computes what it did when it was made.

    Raises:
        ArtifactError: A file is missing, altered or not part of the bundle, or the bundle contradicts itself.
        GateError: The model computes something else.
    """
    return verify_bundle(bundle)
