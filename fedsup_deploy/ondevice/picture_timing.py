"""How long a picture takes before the network has it: to decode, and to be made what the model takes in.

Apart from the network's latency, of pictures that the user has. They are decoded and prepared as those that a device
classifies, by the same limits; one is held at a time.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Sequence, Tuple

from fedsup_deploy.ondevice.bundle_files import UNCLASSIFIED, USAGE, CheckError, check_files
from fedsup_deploy.ondevice.bundle_outputs import read_manifest
from fedsup_deploy.ondevice.classification import classifier_of, content_of, decoded, prepared
from fedsup_deploy.ondevice.image_file import SUFFIXES, ImageError, check_pillow
from fedsup_deploy.ondevice.inference import why_not_imported
from fedsup_deploy.ondevice.latency_statistics import SPREAD_WITHIN, pooled_p10, stability, summarize
from fedsup_deploy.ondevice.preprocessing import PreprocessingSteps
from fedsup_deploy.ondevice.printable import printable, reason_of
from fedsup_deploy.ondevice.timing import NS_PER_S, Clock, Protocol, now_ns, time_visit, visit_seconds_of

if TYPE_CHECKING:
    from fedsup_deploy.ondevice.records import AnyPixels, PictureSize, PictureStep, PictureTimes

#: Pictures that are timed; of more, these, spread evenly.
MOST_PICTURES = 32
#: Of image files below one folder.
MOST_FOUND = 100000


class Pictures(NamedTuple):
    """Pictures that were found good.

    Args:
        paths: Those to time.
        num_found: How many there are.
        smallest: Size of the one with the fewest pixels.
        largest: Size of the one with the most.
        steps: How each becomes the model's input.
    """

    paths: Tuple[Path, ...]
    num_found: int
    smallest: "PictureSize"
    largest: "PictureSize"
    steps: PreprocessingSteps


def pictures_for(bundle: Path, places: Sequence[Path]) -> Pictures:
    """Return the pictures to time with a bundle, whose files are checked first; each is prepared once.

    Args:
        bundle: Its folder.
        places: Image files, and folders: of these all files below that are called as images are.

    Raises:
        CheckError: The bundle is not whole, NumPy or Pillow cannot be used, or a picture cannot, or there is none.
    """
    check_files(bundle)
    steps = classifier_of(read_manifest(bundle)).steps
    try:
        check_pillow()
        found = [path for place in places for path in _image_files(place)]
        paths = tuple(_spread_evenly(found))
        sizes = sorted((_size_of(path, steps) for path in paths), key=lambda size: size["width"] * size["height"])
    except ImportError as error:
        raise CheckError(USAGE, why_not_imported(error)) from None
    except ImageError as error:
        raise CheckError(UNCLASSIFIED, str(error)) from None
    return Pictures(paths, len(found), sizes[0], sizes[-1], steps)


def time_pictures(pictures: Pictures, protocol: Protocol, clock: Clock = now_ns) -> "PictureTimes":
    """Time both steps of all pictures, in rounds, so that each picture counts alike; reading files is not timed.

    Args:
        pictures: As they were found.
        protocol: Its runs are of each step, its seconds of both.
        clock: What is timed with.

    Raises:
        CheckError: A picture was changed meanwhile and cannot be used any more.
    """
    import PIL

    visits: List[_Visit] = []
    num_runs = took_ns = 0
    while len(visits) < 2 or not _may_end(num_runs, took_ns, protocol):
        visit, end_ns = _Visit([], []), took_ns + visit_seconds_of(protocol) * NS_PER_S
        while not visit.decode_ns or took_ns < end_ns:
            for path in pictures.paths:
                took_ns += _time_picture(path, pictures.steps, visit, clock)
        num_runs += len(visit.decode_ns)
        visits.append(visit)
    return {
        "num_pictures": len(pictures.paths),
        "num_found": pictures.num_found,
        "smallest": pictures.smallest,
        "largest": pictures.largest,
        "pillow": str(PIL.__version__),
        "decode": _step_of([visit.decode_ns for visit in visits]),
        "prepare": _step_of([visit.prepare_ns for visit in visits]),
    }


def size_words(times: "PictureTimes") -> str:
    """Return how many pictures were timed, and of which sizes."""
    smallest, largest = ("{width}x{height}".format(**times[end]) for end in ("smallest", "largest"))
    sizes = smallest if smallest == largest else f"{smallest} to {largest}"
    of_all = "" if times["num_found"] == times["num_pictures"] else f" of {times['num_found']:,}"
    return f"{times['num_pictures']}{of_all}, {sizes} pixels"


def step_words(step: "PictureStep") -> str:
    """Return what a step takes, and whether to trust that."""
    found = step["statistics"]
    times = f"p50 {found['p50_ms']:.4g} ms, p90 {found['p90_ms']:.4g} ms"
    return f"{times} a picture, {found['num_runs']:,} runs, {step['stability']['verdict']}"


def _image_files(place: Path) -> List[Path]:
    """Return a file, or the image files below a folder, in a fixed order; links to folders are not followed."""
    if not place.is_dir():
        return [place]
    found: List[Path] = []
    for folder, folders, names in os.walk(str(place), onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        are_images = (name for name in sorted(names) if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [Path(folder) / name for name in are_images]
        if len(found) > MOST_FOUND:
            raise ImageError(f"{printable(str(place))}: more than {MOST_FOUND:,} image files; name fewer")
    if not found:
        raise ImageError(f"{printable(str(place))}: no image files, expected *{' or *'.join(SUFFIXES)}")
    return found


def _refuse(error: OSError) -> None:
    raise ImageError(f"cannot read {printable(str(error.filename))}: {reason_of(error)}") from None


def _spread_evenly(paths: Sequence[Path]) -> List[Path]:
    number = min(len(paths), MOST_PICTURES)
    return [paths[index * len(paths) // number] for index in range(number)]


def _size_of(path: Path, steps: PreprocessingSteps) -> "PictureSize":
    """Return the size of a picture that can be prepared, as it is shown."""
    name = printable(str(path))
    pixels = decoded(content_of(path, name), name, steps)
    prepared(pixels, name, steps)
    return {"width": pixels.shape[1], "height": pixels.shape[0]}


class _Visit(NamedTuple):
    """Times of some rounds, in ns."""

    decode_ns: List[int]
    prepare_ns: List[int]


def _time_picture(path: Path, steps: PreprocessingSteps, visit: _Visit, clock: Clock) -> int:
    """Add what decoding and preparing a picture take to a visit; return both, in ns."""
    name = printable(str(path))
    kept: List[AnyPixels] = []
    try:
        content = content_of(path, name)
        visit.decode_ns.extend(time_visit(lambda: kept.append(decoded(content, name, steps)), 1, 0.0, 0.0, clock))
        visit.prepare_ns.extend(time_visit(lambda: prepared(kept[0], name, steps), 1, 0.0, 0.0, clock))
    except ImageError as error:
        raise CheckError(UNCLASSIFIED, str(error)) from None
    return visit.decode_ns[-1] + visit.prepare_ns[-1]


def _may_end(num_runs: int, took_ns: int, protocol: Protocol) -> bool:
    took_s = took_ns / NS_PER_S
    return took_s >= protocol.max_seconds or (num_runs >= protocol.min_runs and took_s >= protocol.min_seconds)


def _step_of(visits_ns: List[List[int]]) -> "PictureStep":
    samples_ns = [ns for visit_ns in visits_ns for ns in visit_ns]
    return {"statistics": summarize(samples_ns), "stability": stability(visits_ns, pooled_p10, "p10", SPREAD_WITHIN)}
