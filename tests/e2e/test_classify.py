"""What a device makes of image files is what evaluation made of them: real images, a real run, its bundle."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy.data.digits import load_digits
from fedsup_deploy.data.image_folder import load_image_folder
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.ondevice.bundle_outputs import read_manifest
from fedsup_deploy.ondevice.classification import classifier_of, input_of

NUM_TRAIN, NUM_TEST = 600, 320
ORIENTATION = 0x0112
#: How the files of one federation are written, in turn: suffix, mode and options.
WRITTEN: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "grey": [("png", "L", {}), ("jpg", "L", {"quality": 90}), ("tif", "L", {}), ("pgm", "L", {})],
    "colours": [
        ("png", "L", {}),
        ("png", "RGB", {}),
        ("png", "RGBA", {}),
        ("png", "P", {"transparency": 3}),
        ("jpg", "RGB", {"quality": 90}),
        ("webp", "RGB", {"lossless": True}),
        ("tif", "RGBA", {"compression": "tiff_lzw"}),
        ("bmp", "RGB", {}),
        ("gif", "P", {}),
    ],
}
#: Pixels of one side, and sides of inputs: of colours the smallest subnet's images are padded to 9 and resized to 6.
SIDES = {"grey": (8, [8]), "colours": (7, [6, 9])}
SPACE = """\
schema: 1
name: mine
family: mobilenet
resolutions: {resolutions}
choices: per-stage
stem: {{widths: [16], kernel_size: 3, stride: 1}}
stages:
  - {{name: mb1, widths: [32], depths: [2], kernel_sizes: [3], stride: 2}}
"""
CONFIG = """\
schema: 1
name: mine
space: space.yaml
data: {dataset: image-folder, root: images, validation_fraction: 0.1}
partition: {kind: iid, num_clients: 4}
strategy: {name: fedavg}
training: {rounds: 15, clients_per_round: 4, warmup_rounds: 0, batch_size: 16, learning_rate: 0.1}
engine: {workers: 1}
calibration: {samples_per_client: 32, schedule: one-shot}
"""


class Exported(NamedTuple):
    """A bundle, and the test images that its manifest's accuracy is of."""

    bundle: Path
    root: Path
    files: list[Path]


@pytest.fixture(scope="module", params=["grey", "colours"])
def exported(request: pytest.FixtureRequest, shell_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    kind = request.param
    side, resolutions = SIDES[kind]
    shell = shell_in(tmp_path_factory.mktemp(kind))
    digits = load_digits(None)
    for split, images, num_images in (("train", digits.train, NUM_TRAIN), ("test", digits.test, NUM_TEST)):
        for number in range(num_images):
            folder = shell.folder / "images" / split / digits.train.classes[images.labels_N[number]]
            folder.mkdir(parents=True, exist_ok=True)
            write(folder, number, images.images_NHWC[number, :side, :side, 0], WRITTEN[kind])
    (shell.folder / "space.yaml").write_text(SPACE.format(resolutions=resolutions))
    (shell.folder / "mine.yaml").write_text(CONFIG)
    shell.json("train", "--config", "mine.yaml")
    words = ("export", "runs/mine", "--arch", "smallest", "--profile", "x86-laptop", "--format", "onnx", "--over-limit")
    [made] = shell.json(*words)["bundles"]
    root = shell.folder / "images"
    return Exported(shell.folder / made["folder"], root, sorted((root / "test").glob("*/*")))


def write(folder: Path, number: int, digit_HW: Any, ways: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Write an image in one of the ways, lying in one of eight."""
    suffix, mode, options = ways[number % len(ways)]
    rgba = np.dstack([digit_HW, digit_HW // 2, 255 - digit_HW, 255 - digit_HW // 3])
    image = Image.fromarray(digit_HW if mode == "L" else rgba)
    if suffix in {"png", "jpg", "tif"}:
        exif = Image.Exif()
        exif[ORIENTATION] = 1 + number // len(ways) % 8
        options = {**options, "exif": exif}
    by_way_of = {"P": "RGB"}.get(mode, mode)
    image.convert(by_way_of).convert(mode).save(folder / f"{number:03}.{suffix}", **options)


def test_inputs_are_those_of_evaluation_to_the_byte(exported: Exported) -> None:
    """Of every test image: decoded by the loader of the data set, prepared by the manifest's preprocessing."""
    manifest = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))
    test = load_image_folder(exported.root).test
    expected_NCHW = Preprocessing.from_dict(manifest["preprocessing"]).apply(test.images_NHWC)
    steps = classifier_of(read_manifest(exported.bundle)).steps
    assert len(exported.files) == len(expected_NCHW) == NUM_TEST
    for file, expected_CHW in zip(exported.files, expected_NCHW, strict=True):
        assert input_of(file, file.name, steps).tobytes() == expected_CHW.tobytes(), file.name


def test_classes_are_as_often_right_as_the_manifest_says(exported: Exported) -> None:
    """By the program in the bundle, which is given the files and nothing else."""
    names = [str(file.relative_to(exported.root)) for file in exported.files]
    command = [sys.executable, str(exported.bundle / "run.py"), "--json", "--classify", *names]
    ended = subprocess.run(command, cwd=exported.root, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    images = json.loads(ended.stdout)["images"]
    assert [image["file"] for image in images] == names
    right = [image["class"] == Path(image["file"]).parent.name for image in images]
    accuracy = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))["accuracy"]
    assert accuracy["num_samples"] == len(right)
    assert sum(right) / len(right) == accuracy["recalibrated"] > 0.2
