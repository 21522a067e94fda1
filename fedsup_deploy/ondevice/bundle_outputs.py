"""The outputs of a bundle's model: whether they are the recorded ones, for images alone and inside a batch.

Shapes: V vectors (recorded images), C channels, S height and width, B images of a batch, K classes.
"""

import contextlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional, Sequence, Tuple, Union, cast

from fedsup_deploy.ondevice.bundle_files import (
    ALTERED,
    BATCH_INVARIANCE,
    INT8_MODEL,
    INT8_VARIANT,
    MANIFEST,
    MISSING,
    PARITY,
    VARIANT,
    VECTORS,
    CheckError,
    read_text_file,
)
from fedsup_deploy.ondevice.inference import first_line
from fedsup_deploy.ondevice.instruction_set import device_here
from fedsup_deploy.ondevice.known_bad import comparisons_of
from fedsup_deploy.ondevice.reading import parse_json

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.manifest_records import KnownBadRelease, ManifestRecord, TensorRecord, Tolerances
    from fedsup_deploy.ondevice.records import DeviceHere, Floats, Int8Outputs, Outputs

#: Numbers of images that are run at once, where a model takes any number.
BATCHES = (1, 3, 8)
#: Of vectors.npz: more than 16 images of the largest resolution of any space, and what such a file may take in memory.
MOST_BYTES_OF_VECTORS = 2**30
#: Largest scaled difference: the parity gate's. A bundle that allows more was altered.
TOLERANCE = 1e-5
#: The same of int8, whose numbers are rounded to 8 bits, on one kind of processor otherwise than on another.
INT8_TOLERANCE = 0.1
#: Of vectors.npz: the outputs of the int8 file.
OUTPUTS_INT8 = "outputs_int8"


def read_manifest(folder: Path) -> "ManifestRecord":
    """Return the manifest's document.

    Raises:
        CheckError: It is missing, no JSON, without what the checks need, or kinder than the parity gate; or it names an
            int8 file that is missing.
    """
    with refusing_damage():
        manifest = cast("ManifestRecord", parse_json(read_text_file(folder, MANIFEST)))
        gate = gate_of(manifest)
        for name, allowed in (("tolerance", gate["tolerance"]), ("batch_tolerance", gate["batch_tolerance"])):
            if not 0 <= float(allowed) <= TOLERANCE:  # written so that NaN fails
                asked = f"a {name} of {allowed:g}, expected at most {TOLERANCE:g}"
                raise CheckError(ALTERED, f"{MANIFEST} was altered: {asked}")
        for tensors in (manifest["inputs"], manifest["outputs"]):
            shape_without_batch(tensors)
        batches_of(manifest["inputs"][0]["shape"])
        int8_tolerance_of(manifest)
        for each in known_bad_of(manifest):
            comparisons_of(each["versions"])
        device_of(manifest)
    if INT8_VARIANT in manifest["models"] and not (folder / INT8_MODEL).is_file():
        raise CheckError(MISSING, f"{INT8_MODEL} is missing, which {MANIFEST} names; copy the bundle again")
    return manifest


@contextlib.contextmanager
def refusing_damage() -> Iterator[None]:
    """Turn what comes of reading a manifest that is not whole into the check that did not pass."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckError(ALTERED, f"{MANIFEST} is damaged: {type(error).__name__}: {error}") from None


def gate_of(manifest: "ManifestRecord") -> "Tolerances":
    """Return what the model that is checked and timed had to pass when the bundle was made."""
    return manifest["models"][VARIANT]["gate"]


def int8_tolerance_of(manifest: "ManifestRecord") -> Optional[float]:
    """Return the allowed scaled difference of the int8 file's outputs; None where the bundle has no such file.

    Raises:
        CheckError: More is allowed than by the gate.
    """
    if INT8_VARIANT not in manifest["models"]:
        return None
    tolerance = float(manifest["models"][INT8_VARIANT]["gate"]["tolerance"])
    if not 0 <= tolerance <= INT8_TOLERANCE:  # written so that NaN fails
        asked = f"a tolerance of {tolerance:g} for int8, expected at most {INT8_TOLERANCE:g}"
        raise CheckError(ALTERED, f"{MANIFEST} was altered: {asked}")
    return tolerance


def precision_of(manifest: "ManifestRecord") -> str:
    """Return of which precision the latencies of the bundle's profile are: `int8`, or `fp32` where no int8 is there."""
    int8 = manifest["models"].get(INT8_VARIANT)
    return "fp32" if int8 is None or int8["latency"]["predicted"] is None else "int8"


def known_bad_of(manifest: "ManifestRecord") -> "Sequence[KnownBadRelease]":
    """Return the releases of runtimes that are known to fail on the bundle's device; older bundles know of none."""
    device = manifest.get("device")
    return device["known_bad"] if device else ()


def device_of(manifest: "ManifestRecord") -> "DeviceHere":
    """Return whether this machine may be the bundle's device; older bundles do not say what theirs is."""
    device = manifest.get("device")
    return device_here(device["system"]["arch"] if device else None)


def load_vectors(folder: Path, manifest: "ManifestRecord") -> Tuple["Floats", "Floats"]:
    """Return the recorded inputs (V, C, S, S) and outputs (V, K), float32.

    Raises:
        CheckError: They are not as in the manifest, not finite, or too few.
    """
    import numpy

    if (folder / VECTORS).stat().st_size > MOST_BYTES_OF_VECTORS:
        raise CheckError(PARITY, f"{VECTORS} has more than {MOST_BYTES_OF_VECTORS:,} bytes; copy the bundle again")
    inputs = _load_float32(folder, "inputs", manifest["inputs"])
    outputs = _load_float32(folder, "outputs", manifest["outputs"])
    if not numpy.isfinite(outputs).all():
        raise CheckError(PARITY, f"{VECTORS} holds NaN or infinite outputs, expected finite ones")
    if len(inputs) != len(outputs) or len(inputs) < max(BATCHES):
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise CheckError(PARITY, f"{VECTORS} holds {counts}, expected equally many, at least {max(BATCHES)}")
    return inputs, outputs


def load_int8_outputs(folder: Path, manifest: "ManifestRecord", num_inputs: int) -> "Floats":
    """Return the recorded outputs (V, K) of the int8 file, float32.

    Raises:
        CheckError: They are not as in the manifest, not finite, or not as many as the inputs.
    """
    import numpy

    outputs = _load_float32(folder, OUTPUTS_INT8, manifest["outputs"])
    if len(outputs) != num_inputs or not numpy.isfinite(outputs).all():
        found = f"{len(outputs)} outputs of int8, or some that are not finite"
        raise CheckError(PARITY, f"{VECTORS} holds {found}; expected {num_inputs} finite ones")
    return outputs


def read_array(path: Path, name: str) -> "Floats":
    """Return an array of an archive that is not compressed, so that it is never larger than its file.

    Raises:
        CheckError: The archive is none, is compressed, or has no such array.
    """
    import numpy

    try:
        size = path.stat().st_size
        with zipfile.ZipFile(str(path)) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
        is_missing = f"{name}.npy" not in sizes
        is_compressed = sizes.get(f"{name}.npy", 0) > size
        with numpy.load(str(path), allow_pickle=False) as arrays:
            array = None if is_missing or is_compressed else numpy.atleast_1d(arrays[name])
    except Exception as error:  # NumPy and zipfile raise nearly anything for an archive that is none
        raise CheckError(PARITY, f"{path.name} cannot be used: {first_line(error)}") from error
    if is_missing:
        raise CheckError(ALTERED, f"{path.name} was altered: it has no array {name}; copy the bundle again")
    if array is None:
        raise CheckError(PARITY, f"{path.name} is compressed, expected plain arrays")
    return array


def check_outputs(
    run: Callable[["Floats"], "Floats"],
    inputs: "Floats",
    outputs: "Floats",
    gate: "Tolerances",
    batches: Sequence[int] = BATCHES,
) -> "Outputs":
    """Compare what the model computes with the recorded outputs, and images alone with images in a batch.

    Args:
        run: Maps images (B, C, S, S) to logits (B, K).
        inputs: The recorded images.
        outputs: The recorded logits (V, K).
        gate: As of `gate_of`: `tolerance` is the largest scaled difference from the recorded outputs,
            `batch_tolerance` that of an image alone and inside a batch.
        batches: As of `batches_of`.

    Returns:
        JSON values: what was asked, and the largest differences, plain and scaled.

    Raises:
        CheckError: Outputs are wrong, or depend on the batch.
    """
    tolerance = float(gate["tolerance"])
    batch_tolerance = float(gate["batch_tolerance"])
    computed = {}
    from_recorded = []
    for batch in batches:
        computed[batch] = _run_in_batches(run, inputs, batch, outputs.shape)
        what = f"outputs at batch {batch}"
        from_recorded.append(check_scaled(PARITY, what, computed[batch] - outputs, outputs, tolerance))
        _check_classes(computed[batch], outputs, batch)
    from_alone = []
    for batch in batches:
        what = f"an image alone and inside a batch of {batch}"
        difference_VK = computed[batch] - computed[1]
        from_alone.append(check_scaled(BATCH_INVARIANCE, what, difference_VK, outputs, batch_tolerance))
    return {
        "num_inputs": len(inputs),
        "batches": list(batches),
        "tolerance": tolerance,
        "batch_tolerance": batch_tolerance,
        "max_abs_diff": max(plain for plain, _ in from_recorded),
        "max_scaled_diff": max(scaled for _, scaled in from_recorded),
        "argmax_agreement": 1.0,
        "batch_invariance_max_abs_diff": max(plain for plain, _ in from_alone),
        "batch_invariance_max_scaled_diff": max(scaled for _, scaled in from_alone),
    }


def check_int8_outputs(
    run: Callable[["Floats"], "Floats"],
    inputs: "Floats",
    outputs: "Floats",
    tolerance: float,
    batches: Sequence[int] = BATCHES,
) -> "Int8Outputs":
    """Compare what an int8 file computes here with what it computed where it was made.

    Args:
        run: Maps images (B, C, S, S) to logits (B, K).
        inputs: The recorded images.
        outputs: The file's recorded logits (V, K).
        tolerance: Largest scaled difference. A class must be the recorded one where that could not change it.
        batches: As of `batches_of`.

    Raises:
        CheckError: Outputs are wrong.
    """
    found = []
    for batch in batches:
        computed = _run_in_batches(run, inputs, batch, outputs.shape)
        found.append(compare_rounded(f"outputs of int8 at batch {batch}", computed, outputs, tolerance))
    return {
        "num_inputs": len(inputs),
        "batches": list(batches),
        "tolerance": tolerance,
        "max_abs_diff": max(plain for plain, _, _ in found),
        "max_scaled_diff": max(scaled for _, scaled, _ in found),
        "num_classes_compared": found[0][2],
    }


def compare_rounded(
    what: str, computed_VK: "Floats", recorded_VK: "Floats", tolerance: float
) -> Tuple[float, float, int]:
    """Compare outputs of fewer digits with recorded ones.

    Args:
        what: They are, for messages.
        computed_VK: The outputs.
        recorded_VK: What they must be near.
        tolerance: Largest scaled difference. A class must be the recorded one where that could not change it.

    Returns:
        The largest difference of a logit, plain and scaled, and of how many images the class was compared.

    Raises:
        CheckError: Outputs are wrong.
    """
    plain, scaled = check_scaled(PARITY, what, computed_VK - recorded_VK, recorded_VK, tolerance)
    ordered_VK = recorded_VK.copy()
    ordered_VK.sort(axis=1)
    lead_V = ordered_VK[:, -1] - ordered_VK[:, -2] if recorded_VK.shape[1] > 1 else ordered_VK[:, -1] * 0
    is_sure_V = lead_V > 2 * tolerance * abs(recorded_VK).max(axis=1).clip(1.0)
    is_wrong_V = is_sure_V & (computed_VK.argmax(axis=1) != recorded_VK.argmax(axis=1))
    if is_wrong_V.any():
        raise CheckError(PARITY, f"{what}: {int(is_wrong_V.sum())} of {len(recorded_VK)} images get another class")
    return plain, scaled, int(is_sure_V.sum())


def check_scaled(
    exit_code: int, what: str, difference_VK: "Floats", recorded_VK: "Floats", tolerance: float
) -> Tuple[float, float]:
    """Return the largest difference of a logit, plain and scaled.

    A scaled difference is relative to the image's largest |logit| above 1, as rounding grows with it: near 40, one step
    is 4e-6 already.

    Raises:
        CheckError: A scaled difference is larger than `tolerance`, or NaN; with `exit_code`.
    """
    difference_V = abs(difference_VK).max(axis=1)
    scale_V = abs(recorded_VK).max(axis=1).clip(1.0)
    scaled_V = difference_V / scale_V
    worst = scaled_V.argmax()
    if not scaled_V[worst] <= tolerance:  # written so that NaN fails
        found = f"scaled difference {scaled_V[worst]:.2g}, allowed {tolerance:.2g}"
        raise CheckError(exit_code, f"{what}: {found}, on an image of scale {scale_V[worst]:.3g}")
    return float(difference_V.max()), float(scaled_V[worst])


def _run_in_batches(
    run: Callable[["Floats"], "Floats"], inputs: "Floats", batch: int, shape: Tuple[int, ...]
) -> "Floats":
    """Return the logits (V, K) of all images, as float64."""
    import numpy

    parts = [run(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    result_VK = numpy.concatenate(parts)
    if result_VK.shape != shape:
        raise CheckError(PARITY, f"outputs at batch {batch} have shape {result_VK.shape}, expected {shape}")
    return result_VK.astype(numpy.float64)


def _check_classes(computed_VK: "Floats", recorded_VK: "Floats", batch: int) -> None:
    num_wrong = int((computed_VK.argmax(axis=1) != recorded_VK.argmax(axis=1)).sum())
    if num_wrong:
        raise CheckError(PARITY, f"{num_wrong} of {len(recorded_VK)} images get another class at batch {batch}")


def _load_float32(folder: Path, name: str, tensors: "List[TensorRecord]") -> "Floats":
    array = read_array(folder / VECTORS, name)
    shape = shape_without_batch(tensors)
    if str(array.dtype) != "float32" or list(array.shape[1:]) != shape:
        found = f"{name} of type {array.dtype} and shape {list(array.shape[1:])}, expected float32 {shape}"
        raise CheckError(PARITY, f"{VECTORS} holds {found}")
    return array


def shape_without_batch(tensors: "List[TensorRecord]") -> List[int]:
    """Return the sizes of an input or output of the model for one image."""
    return cast("List[int]", tensors[0]["shape"][1:])


def batches_of(shape: "Sequence[Union[int, str]]") -> Tuple[int, ...]:
    """Return how many images at once a model is checked with: one alone where it takes no more.

    Args:
        shape: Of its input in a manifest. The first size is `batch` where it takes any number.

    Raises:
        ValueError: It is for another number of images; nothing writes such a model.
    """
    if shape[0] not in {"batch", 1}:
        raise ValueError(f"the model takes {shape[0]!r} images at once, expected any number or 1")
    return BATCHES if shape[0] == "batch" else (1,)
