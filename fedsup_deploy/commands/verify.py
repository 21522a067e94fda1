"""`fedsup-deploy verify`: hashes, consistency, signature, and parity against the bundled vectors.

Torch-free, but where a signature has proved who made files that need one.
"""

import dataclasses
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedsup_deploy import registry
from fedsup_deploy.artifact.failures import failing_as_ours
from fedsup_deploy.artifact.manifest import FILENAME, Manifest
from fedsup_deploy.artifact.signing import check_signed, checked_hashes, load_public_key
from fedsup_deploy.artifact.store import load_manifest, verify_bundle
from fedsup_deploy.artifact.variants import Int8Gate, VariantRecord
from fedsup_deploy.artifact.verified import ExecutedModel, VerifiedBundle
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.exporter import Exporter, batches_for, how_to_run
from fedsup_deploy.export.gate import guarded
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.ondevice import bundle_files
from fedsup_deploy.ondevice.bundle_outputs import OUTPUTS_INT8, check_int8_outputs, read_array


def verify(bundle: Path, key: Path | None = None) -> VerifiedBundle:
    """Return the report of a bundle that is whole, unaltered and computes what it did when it was made.

    Files of formats beside ONNX are run where their runtime is installed, as copies that nobody else can change: of
    what the key has signed, or of what was looked at first.

    Args:
        bundle: Its folder.
        key: A public key, in PEM, that has to have signed it; None: whoever made it, files that need
            a signature, as they can hold code or their runtime is no place for a stranger's, are hashed and not run.

    Raises:
        ConfigError: The key is none.
        DependencyError: A key was given, and the library `cryptography` is not installed; or onnxruntime does not do.
        ArtifactError: A file is missing, altered or not part of the bundle, the bundle contradicts itself, or the
            signature is missing, wrong, or of other files.
        GateError: A model computes something else.
    """
    signature, hashes = (None, checked_hashes(bundle)) if key is None else check_signed(bundle, load_public_key(key))
    verified = verify_bundle(bundle)
    executed: list[ExecutedModel] = []
    left = list(verified.not_executed)
    not_installed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _copy(bundle, place, (FILENAME, bundle_files.VECTORS), hashes)
        manifest = load_manifest(place)
        for record in _others(manifest, verified.not_executed):
            exporter: Exporter = registry.resolve("exporter", record.format)()
            if exporter.needs_signature and signature is None:
                continue
            how = how_to_run(exporter)
            if how is not None:
                not_installed |= dict.fromkeys(record.files, how)
                continue
            _copy(bundle, place, record.files, hashes)
            with failing_as_ours(bundle):
                executed.append(_executed(place, manifest, record, exporter))
            left = [name for name in left if name not in record.files]
    return dataclasses.replace(
        verified,
        signature=signature,
        executed=tuple(executed),
        not_executed=tuple(left),
        not_installed=not_installed,
    )


def _others(manifest: Manifest, names: tuple[str, ...]) -> Iterator[VariantRecord]:
    """Yield the variants that these files belong to and whose format is one of ours."""
    for record in manifest.models.values():
        if next(iter(record.files)) in names and record.format in registry.names("exporter"):
            yield record


def _copy(bundle: Path, place: Path, names: Iterable[str], hashes: Mapping[str, str]) -> None:
    """Copy files to a place where nobody else can change them, if they are those whose hashes were looked at."""
    for name in names:
        copy = place / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(bundle / name, copy)
            is_same = bundle_files.sha256(copy) == hashes.get(name)
        except (OSError, bundle_files.CheckError):
            is_same = False
        if not is_same:
            raise ArtifactError(f"{bundle}: {name} was altered while it was looked at; verify again")


def _executed(place: Path, manifest: Manifest, record: VariantRecord, exporter: Exporter) -> ExecutedModel:
    """Run a model by the runtime of its format, and compare what it computes with what was recorded."""
    first = next(iter(record.files))
    model = guarded(first, exporter.load(place / first))
    names = ("inputs", OUTPUTS_INT8 if isinstance(record.gate, Int8Gate) else "outputs")
    inputs, outputs = (read_array(place / bundle_files.VECTORS, name) for name in names)
    batches = batches_for(exporter, is_asked=manifest.is_static)
    if isinstance(record.gate, Int8Gate):
        tolerance = record.gate.tolerance
        scaled = check_int8_outputs(model, inputs, outputs, tolerance, batches)["max_scaled_diff"]
    else:
        tolerance = exporter.tolerance
        scaled = check_parity(outputs, {first: model}, inputs, batches, tolerance, tolerance)[first].max_scaled_diff
    version = importlib.metadata.version(exporter.runtime)
    return ExecutedModel(first, exporter.runtime, version, len(inputs), scaled, tolerance)
