"""What a bundle's model says of image files: each is prepared as the manifest records, and run alone.

An image of any size is made a square where the manifest says how; otherwise it has the size of the training images, or
is refused. A file is a picture, or an array where its name ends in .npy.

Shapes: H W pixels, C channels, S side of the model's input, K classes.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple

from fedsup_deploy.ondevice.array_file import ARRAY_SUFFIX, pixels_of_array
from fedsup_deploy.ondevice.bundle_checks import refuse_known_bad, refusing_what_cannot_run, runtime_for
from fedsup_deploy.ondevice.bundle_files import (
    INT8_MODEL,
    INT8_VARIANT,
    MODEL,
    PARITY,
    UNCLASSIFIED,
    USAGE,
    CheckError,
    check_files,
)
from fedsup_deploy.ondevice.bundle_outputs import (
    device_of,
    precision_of,
    read_manifest,
    refusing_damage,
    shape_without_batch,
)
from fedsup_deploy.ondevice.image_file import ImageError, check_pillow, header_of, shown_image
from fedsup_deploy.ondevice.inference import first_output, open_session
from fedsup_deploy.ondevice.preprocessing import USUAL_PIXELS, PreprocessingSteps, prepare, steps_of
from fedsup_deploy.ondevice.printable import printable, reason_of
from fedsup_deploy.ondevice.reading import DEAD_LINK, is_dead_link, read_bytes
from fedsup_deploy.ondevice.source_resize import resized

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.manifest_records import ManifestRecord
    from fedsup_deploy.ondevice.records import AnyPixels, Classification, ClassifiedImage, Floats, Floats32, LikelyClass

#: Of an image file, which is held whole: a photo has a tenth of it.
MOST_BYTES_OF_AN_IMAGE = 2**28
#: Of a square image of which Pillow does not warn, pixels.
MOST_SIDE = 9459
#: Classes that are told of an image.
NUM_TOLD = 3


class Classifier(NamedTuple):
    """What a manifest says of its model's input and outputs."""

    steps: PreprocessingSteps
    classes: Tuple[str, ...]


def classify_images(folder: Path, files: List[str], precision: Optional[str], report: "Classification") -> None:
    """Add what the model says of each file to `report`; a file that cannot be used gets a reason and stops no other.

    Args:
        folder: The bundle, whose files are checked first; its outputs are not.
        files: Paths of image files.
        precision: `fp32` or `int8`: which model file; None is the one that the bundle is for.
        report: Has `threads`, those of the runtime; gets `device`, `model`, and one of `images` for each file, in their
            order.

    Raises:
        CheckError: The bundle or its model cannot be used, or an image was not classified.
    """
    check_files(folder)
    manifest = read_manifest(folder)
    device = report["device"] = device_of(manifest)
    classifier = classifier_of(manifest)
    model = report["model"] = model_of(manifest, precision)
    refuse_known_bad(runtime_for(folder, model), device, manifest)
    with refusing_what_cannot_run(folder, model):
        if classifier.steps.source is not None or not all(map(_is_array, files)):
            check_pillow()
        session = open_session(str(folder / model), report["threads"])
    for file in files:
        name = printable(file, most=None)
        try:
            x_BCHW = input_of(Path(file), name, classifier.steps)
        except ImageError as error:
            report["images"].append(_unclassified(name, str(error)))
            continue
        with refusing_what_cannot_run(folder, model):
            logits_BK = first_output(session, x_BCHW)
        report["images"].append(_classified(name, logits_BK, classifier.classes))
    num_unclassified = sum(image["reason"] is not None for image in report["images"])
    if num_unclassified:
        raise CheckError(UNCLASSIFIED, f"images that were not classified: {num_unclassified} of {len(files)}")


def model_of(manifest: "ManifestRecord", precision: Optional[str]) -> str:
    """Return the model file of a precision; of None, of that which the latencies of the bundle's profile are of.

    Raises:
        CheckError: The bundle has no such file, or its manifest is damaged.
    """
    with refusing_damage():
        wanted = precision or precision_of(manifest)
        if wanted == "fp32":
            return MODEL
        if INT8_VARIANT in manifest["models"]:
            return INT8_MODEL
    raise CheckError(USAGE, f"this bundle has no {wanted} file; leave out --precision, or export it with one")


def classifier_of(manifest: "ManifestRecord") -> Classifier:
    """Return what the manifest of a bundle says of the model's input and outputs.

    Raises:
        CheckError: It is damaged.
    """
    with refusing_damage():
        steps, classes = steps_of(manifest["preprocessing"]), manifest["classes"]
        if shape_without_batch(manifest["inputs"]) != [len(steps.mean), steps.size, steps.size]:
            raise ValueError("preprocessing: its size or its channels are not those of the input")
        if max(steps.padded_size, steps.size) > MOST_SIDE:
            raise ValueError(f"preprocessing: a size above {MOST_SIDE}")
        if shape_without_batch(manifest["outputs"]) != [len(classes)]:
            raise ValueError("classes: not one for each output")
        return Classifier(steps, tuple(printable(name) for name in classes))


def input_of(path: Path, name: str, steps: PreprocessingSteps) -> "Floats32":
    """Return an image file as a model takes it, (1, C, S, S).

    Args:
        path: The file.
        name: What to call it.
        steps: What is done to its pixels.

    Raises:
        ImageError: It is none that can be used, or has another size than the training images.
    """
    return prepared(decoded(content_of(path, name), name, steps), name, steps)


def content_of(path: Path, name: str) -> bytes:
    """Return the bytes of an image file, which is called `name`.

    Raises:
        ImageError: It cannot be read, or has too many.
    """
    try:
        return read_bytes(path, MOST_BYTES_OF_AN_IMAGE)
    except (OSError, ValueError) as error:
        reason = DEAD_LINK if is_dead_link(path) else reason_of(error)
        raise ImageError(f"cannot read {name}: {reason}") from None


def decoded(content: bytes, name: str, steps: PreprocessingSteps) -> "AnyPixels":
    """Return the pixels of a file: of an array (H, W, C); of a picture (H, W) or (H, W, 3), as a viewer shows them.

    Raises:
        ImageError: It is none that can be used, has another type or size than the training images, or no picture is
            what the model takes.
    """
    side, num_channels = steps.native_size if steps.source is None else None, len(steps.mean)
    if _is_array(name):
        return pixels_of_array(content, name, steps.pixel_dtype, num_channels, side)
    if steps.pixel_dtype != USUAL_PIXELS or num_channels not in {1, 3}:
        takes = f"{num_channels} channels of {steps.pixel_dtype}"
        raise ImageError(f"{name}: the model takes {takes}, and no picture has them; save an array as .npy")
    header = header_of(io.BytesIO(content), name)
    if side is not None and (header.width, header.height) != (side, side):
        got, expected = f"{header.width}x{header.height}", f"{side}x{side}"
        raise ImageError(f"{name}: is {got} pixels, expected {expected} as in training; crop or resize it first")
    return shown_image(io.BytesIO(content), name).pixels


def prepared(pixels: "AnyPixels", name: str, steps: PreprocessingSteps) -> "Floats32":
    """Return decoded pixels as a model takes them, (1, C, S, S).

    Raises:
        ImageError: The model takes other channels.
    """
    import numpy

    try:
        if steps.source is not None:
            pixels = resized(numpy.asarray(pixels, numpy.uint8), steps.source)
        pixels_HWC = _with_channels(pixels, len(steps.mean), name)
        with numpy.errstate(all="ignore"):  # of a forged mean or deviation; the outputs are looked at
            return prepare(pixels_HWC[numpy.newaxis], steps)
    except ImageError:
        raise
    except (ValueError, MemoryError) as error:
        raise ImageError(f"cannot read {name}: {reason_of(error)}; get the file again") from None


def _is_array(name: str) -> bool:
    return name.lower().endswith(ARRAY_SUFFIX)


def _with_channels(pixels: "AnyPixels", num_channels: int, name: str) -> "AnyPixels":
    """Return the pixels (H, W, C) of an image: a grey picture is grey in colour, too.

    Raises:
        ImageError: It would have to become another image for that.
    """
    if pixels.ndim == 2:
        return pixels[..., None].repeat(num_channels, axis=2)
    if num_channels == 1 and not (pixels == pixels[..., :1]).all():
        raise ImageError(f"{name}: has colours, expected grey as in training; convert it")
    return pixels[..., :num_channels]


def _classified(name: str, logits_BK: "Floats", classes: Tuple[str, ...]) -> "ClassifiedImage":
    import numpy

    if logits_BK.shape != (1, len(classes)):
        raise CheckError(PARITY, f"outputs have shape {logits_BK.shape}, expected {(1, len(classes))}")
    logits_K = logits_BK[0].astype(numpy.float64)
    if not numpy.isfinite(logits_K).all():
        raise CheckError(PARITY, f"outputs for {name} are NaN or infinite, expected finite ones")
    exponentials_K = numpy.exp(logits_K - logits_K.max())
    probability_K = exponentials_K / exponentials_K.sum()
    order = numpy.argsort(-logits_K, kind="mergesort")[:NUM_TOLD]  # of equal ones the first, as argmax
    top = [_likely(int(index), float(probability_K[index]), classes) for index in order]
    return {"file": name, **top[0], "top": top, "reason": None}


def _likely(index: int, probability: float, classes: Tuple[str, ...]) -> "LikelyClass":
    return {"class": classes[index], "index": index, "probability": probability}


def _unclassified(name: str, reason: str) -> "ClassifiedImage":
    return {"file": name, "class": None, "index": None, "probability": None, "top": [], "reason": reason}
