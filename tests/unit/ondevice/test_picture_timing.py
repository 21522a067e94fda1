"""What pictures take before the network has them: by a clock that the tests set, of real files, and in `run.py`."""

import itertools
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image
from pydantic import TypeAdapter

from fedsup_deploy.artifact.measured import MeasuredPictures
from fedsup_deploy.ondevice import bundle_files, picture_timing
from fedsup_deploy.ondevice.picture_timing import Pictures, pictures_for, time_pictures
from fedsup_deploy.ondevice.preprocessing import PreprocessingSteps, document_of
from fedsup_deploy.ondevice.records import PictureTimes, Report
from fedsup_deploy.ondevice.timing import Protocol

#: Of photographs of any size.
STEPS = PreprocessingSteps((0.5,) * 3, (0.25,) * 3, native_size=6, padded_size=8, size=8, how="crop")
#: Ends after 6 runs and 1 s at the least, and after 10 s.
PROTOCOL = Protocol("short", min_runs=6, min_seconds=1.0, settle_seconds=0.0, max_seconds=10.0)
MS = 10**6


@pytest.fixture
def for_photographs(bundle: Any) -> Any:
    """A bundle that takes photographs of any size."""
    bundle.write_sums(json.dumps({**bundle.manifest(), "preprocessing": document_of(STEPS)}))
    return bundle


def photo(path: Path, width: int = 12, height: int = 9, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def clock_of(*pairs_ms: tuple[float, float]) -> Any:
    """A clock by which pictures, one after the other, take so long to decode and to prepare, again and again."""
    waits = itertools.cycle([round(ms * MS) for pair in pairs_ms for took_ms in pair for ms in (0, took_ms)])
    times = itertools.accumulate(waits)
    return lambda: next(times)


def timed(paths: Sequence[Path], *pairs_ms: tuple[float, float], protocol: Protocol = PROTOCOL) -> PictureTimes:
    size = {"width": 12, "height": 9}
    found = Pictures(tuple(paths), 7, size, size, STEPS)  # type: ignore[arg-type]
    return time_pictures(found, protocol, clock_of(*pairs_ms))


def test_both_steps_of_every_picture_are_timed_apart_and_each_counts_alike(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{index}.png") for index in range(3)]
    found = timed(paths, (10.0, 1.0), (20.0, 2.0), (30.0, 3.0))
    decode, prepare = found["decode"]["statistics"], found["prepare"]["statistics"]
    assert (decode["min_ms"], decode["p50_ms"], decode["p90_ms"]) == (10.0, 20.0, 30.0)
    assert (prepare["min_ms"], prepare["p50_ms"], prepare["p90_ms"]) == (1.0, 2.0, 3.0)
    # A round takes 66 ms, and a visit ends after the first that ends it beyond 100 ms: 8 visits of two make 1 s.
    assert decode["num_runs"] == prepare["num_runs"] == 8 * 2 * 3
    assert (decode["mean_ms"], prepare["mean_ms"]) == (pytest.approx(20.0), pytest.approx(2.0))
    assert (found["num_pictures"], found["num_found"], found["pillow"]) == (3, 7, PIL.__version__)
    for step in (found["decode"], found["prepare"]):
        assert (step["stability"]["verdict"], step["stability"]["disagreement"]) == ("stable", 0.0)


@pytest.mark.parametrize(
    ("took_ms", "num_runs"),
    [
        # 6 runs are the least, here after more than 1 s; below that 1 s is.
        (400.0, 6),
        (150.0, 7),
        # Longer than 10 s: whole visits, two at the least.
        (4000.0, 3),
        (60_000.0, 2),
    ],
)
def test_it_ends_as_the_protocol_says(tmp_path: Path, took_ms: float, num_runs: int) -> None:
    found = timed([photo(tmp_path / "a.png")], (took_ms, 0.0))
    assert found["decode"]["statistics"]["num_runs"] == num_runs


def test_times_that_change_are_unstable(tmp_path: Path) -> None:
    found = timed([photo(tmp_path / "a.png")], (200.0, 1.0), (400.0, 1.0))
    assert found["decode"]["stability"]["verdict"] == "unstable"
    assert found["prepare"]["stability"]["verdict"] == "stable"


def test_a_picture_that_is_gone_meanwhile_is_named(tmp_path: Path) -> None:
    with pytest.raises(bundle_files.CheckError, match=r"cannot read .*gone\.png: No such file") as caught:
        timed([tmp_path / "gone.png"], (1.0, 1.0))
    assert caught.value.exit_code == bundle_files.UNCLASSIFIED


# Which pictures.


def test_a_folder_stands_for_the_image_files_below_it(for_photographs: Any, tmp_path: Path) -> None:
    """In a fixed order; the rest is passed over, and a file that is named is one whatever it is called."""
    names = ["b/2.JPG", "b/1.png", "a.webp"]
    for name in (*names, ".hidden.png", ".thumbs/c.png"):
        photo(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").touch()
    shutil.copy(photo(tmp_path / "large.png", 40, 30), tmp_path / "named")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = pictures_for(for_photographs.folder, [tmp_path / "photos", tmp_path / "named"])
    expected = [*(tmp_path / "photos" / name for name in ("a.webp", "b/1.png", "b/2.JPG")), tmp_path / "named"]
    assert (list(found.paths), found.num_found, found.steps) == (expected, 4, STEPS)
    assert found.smallest == {"width": 12, "height": 9}
    assert found.largest == {"width": 40, "height": 30}


def test_a_size_is_that_of_the_picture_as_it_is_shown(for_photographs: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pictures_for(for_photographs.folder, [photo(tmp_path / "lying.png", 40, 30, exif=exif)])
    assert found.smallest == found.largest == {"width": 30, "height": 40}


def test_of_many_pictures_some_are_timed_from_all_parts_of_the_list(for_photographs: Any, tmp_path: Path) -> None:
    one = photo(tmp_path / "photos" / "000.png")
    for number in range(1, 100):
        (tmp_path / "photos" / f"{number:03}.png").symlink_to(one)
    found = pictures_for(for_photographs.folder, [tmp_path / "photos"])
    numbers = [int(path.stem) for path in found.paths]
    assert (len(numbers), found.num_found) == (picture_timing.MOST_PICTURES, 100)
    assert {after - before for before, after in itertools.pairwise(numbers)} == {3, 4}
    assert (numbers[0], numbers[-1]) == (0, 96)


def bomb(path: Path) -> Path:
    """A PNG that claims 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def refused(bundle: Any, *places: Path, code: int = 7) -> str:
    """Return why `run.py` times nothing of these, not even the network."""
    found, output = bundle.run_here("--json", "--images", *map(str, places))
    report = json.loads(output)
    assert (found, report["exit_code"]) == (code, code)
    assert report.keys() & {"latency", "pictures"} == set()
    return str(report["reason"])


def test_a_picture_that_cannot_be_used_is_named_before_anything_is_timed(
    for_photographs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = photo(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    for place, reason in (
        (tmp_path / "empty", "empty: no image files, expected *.bmp or *.gif"),
        (tmp_path / "none.png", "none.png: No such file or directory"),
        (tmp_path / "text.png", "text.png: it is none of BMP, GIF, JPEG"),
        (tmp_path / "pipe.png", "pipe.png: "),
        (bomb(tmp_path / "bomb.png"), "bomb.png: has 10,000,000,000 pixels, expected at most"),
    ):
        assert reason in refused(for_photographs, good, place)
    monkeypatch.setattr(picture_timing, "MOST_FOUND", 2)
    assert "photos: more than 2 image files; name fewer" in refused(
        for_photographs, *(photo(tmp_path / "photos" / f"{index}.png").parent for index in range(3))
    )


def test_a_bundle_whose_files_have_one_size_takes_pictures_of_that_size(bundle: Any, tmp_path: Path) -> None:
    assert "is 12x9 pixels, expected 6x6 as in training" in refused(bundle, photo(tmp_path / "a.png"))
    assert pictures_for(bundle.folder, [photo(tmp_path / "b.png", 6, 6)]).num_found == 1


def test_an_altered_bundle_prepares_nothing(for_photographs: Any, tmp_path: Path) -> None:
    (for_photographs.folder / "vectors.npz").write_bytes(b"others")
    assert "vectors.npz was altered" in refused(for_photographs, tmp_path / "none.png", code=1)


# In `run.py`.


def test_the_program_in_a_bundle_times_pictures_beside_the_network(for_photographs: Any, tmp_path: Path) -> None:
    """And its report names no place; it holds what a bundle can keep."""
    photo(tmp_path / "photos" / "secret.jpg", 64, 48)
    words = ("--images", str(tmp_path / "photos"), "--seconds", "0.05")
    ended = for_photographs.run("--json", *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    report = TypeAdapter(Report).validate_json(ended.stdout, strict=True)
    pictures = report["pictures"]
    assert (pictures["num_pictures"], pictures["num_found"]) == (1, 1)
    assert pictures["smallest"] == pictures["largest"] == {"width": 64, "height": 48}
    for step in (pictures["decode"], pictures["prepare"]):
        assert step["statistics"]["num_runs"] >= 200
        assert 0 < step["statistics"]["p50_ms"] <= step["statistics"]["p90_ms"]
    assert "secret" not in ended.stdout
    kept = MeasuredPictures.model_validate_json(json.dumps(pictures)).model_dump(mode="json")
    assert kept == json.loads(ended.stdout)["pictures"]
    lines = for_photographs.run(*words).stdout.splitlines()
    heads = [line.split()[0] for line in lines]
    assert heads[-5:] == ["pictures", "decode", "prepare", "device", "PASS"]
    assert lines[-5] == f"pictures  1, 64x48 pixels; before the network, by Pillow {PIL.__version__}"


def test_without_pictures_nothing_is_claimed_of_them(for_photographs: Any) -> None:
    _, output = for_photographs.run_here("--json", "--seconds", "0.05")
    assert "pictures" not in json.loads(output)


@pytest.mark.parametrize("missing", ["numpy", "PIL"])
def test_what_pictures_need_is_named_where_it_is_missing(for_photographs: Any, tmp_path: Path, missing: str) -> None:
    libraries, place = tmp_path / "libraries", Path(np.__file__).parents[1]
    libraries.mkdir()
    for path in place.iterdir():
        if path.name != missing and path.suffix != ".pth":
            (libraries / path.name).symlink_to(path)
    words = ("--images", str(photo(tmp_path / "a.png")))
    ended = for_photographs.run(*words, python=(sys.executable, "-S", "-B"), PYTHONPATH=str(libraries))
    expected = "Pillow cannot be imported; run: pip install pillow"
    expected = expected if missing == "PIL" else "numpy cannot be imported; run: pip install numpy onnxruntime"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, f"FAIL: {expected}\n", "")


@pytest.mark.parametrize(
    "words", [["--images"], ["--images", "a", "--skip-latency"], ["--images", "a", "--classify", "b"]]
)
def test_wrong_usage_is_told(for_photographs: Any, words: list[str]) -> None:
    ended = for_photographs.run(*words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "usage: run.py" in ended.stderr
