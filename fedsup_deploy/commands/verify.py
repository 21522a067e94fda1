"""`fedsup-deploy verify`: hashes, consistency, signature, and parity against the bundled vectors.

Torch-free, but where a signature has proved who made files that can hold code.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedsup_deploy import registry
from fedsup_deploy.artifact.failures import failing_as_ours
from fedsup_deploy.artifact.signing import check_signed, load_public_key
from fedsup_deploy.artifact.store import ExecutedModel, VerifiedBundle, load_manifest, verify_bundle
from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.bundle_outputs import batches_of
from fedsup_deploy.ondevice.signature import hashes_to_sign


def verify(bundle: Path, key: Path | None = None) -> VerifiedBundle:
    """Return the report of a bundle that is whole, unaltered and computes what it did when it was made.

    Args:
        bundle: Its folder.
        key: A public key, in PEM, that has to have signed it; None: whoever made it, files that can hold code are
            hashed and not run.

    Raises:
        ConfigError: The key is none.
        DependencyError: A key was given, and the library `cryptography` is not installed; or onnxruntime does not do.
        ArtifactError: A file is missing, altered or not part of the bundle, the bundle contradicts itself, or the
            signature is missing, wrong, or of other files.
        GateError: A model computes something else.
    """
    if key is None:
        return verify_bundle(bundle)
    signature = check_signed(bundle, load_public_key(key))
    verified = verify_bundle(bundle)
    executed = tuple(_executed(bundle, verified.not_executed))
    run = {each.file for each in executed}
    left = tuple(name for name in verified.not_executed if name not in run)
    return dataclasses.replace(verified, signature=signature, executed=executed, not_executed=left)


def _executed(bundle: Path, names: tuple[str, ...]) -> Iterator[ExecutedModel]:
    """Run the model files whose format is one of ours, and compare what they compute with what was recorded.

    They are run as copies that nobody else can change, and whose hashes are the signed ones.
    """
    manifest = load_manifest(bundle)
    hashes = hashes_to_sign(bundle)
    for record in manifest.models.values():
        first = next(iter(record.files))
        is_ours = record.format in registry.names("exporter") and isinstance(record.gate, ParityGate)
        if first not in names or not is_ours:
            continue
        from fedsup_deploy.export.exporter import exporter_for
        from fedsup_deploy.export.parity import check_parity

        with tempfile.TemporaryDirectory() as place, failing_as_ours(bundle):
            for name in record.files:
                Path(place, name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle / name, Path(place, name))
                if bundle_files.sha256(Path(place, name)) != hashes[name]:
                    raise ArtifactError(f"{bundle}: {name} was altered while it was looked at; verify again")
            model = exporter_for(record.format).load(Path(place, first))
            with np.load(bundle / bundle_files.VECTORS, allow_pickle=False) as vectors:
                inputs, outputs = vectors["inputs"], vectors["outputs"]
            found = check_parity(outputs, {first: model}, inputs, batches_of(manifest.inputs[0].shape))[first]
        yield ExecutedModel(first, found.num_inputs, found.max_scaled_diff, found.tolerance)
