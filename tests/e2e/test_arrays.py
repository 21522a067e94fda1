"""Arrays of 16 bits and of floats, from an archive to a device: digits as instruments would record them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedsup_deploy.data.digits import load_digits

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 800, 200, 300
SPACE = """\
schema: 1
name: mine
family: mobilenet
resolutions: %s
choices: per-stage
stem: {widths: [16], kernel_size: 3, stride: 1}
stages:
  - {name: mb1, widths: [24, 32], depths: [2], kernel_sizes: [3], stride: 2}
"""
CONFIG = """\
schema: 1
name: mine
space: space.yaml
data: {dataset: npz, root: images.npz, server_images: true, augmentation: {crop_padding: 1}}
partition: {kind: natural}
strategy: {name: fedavg}
training: {rounds: 15, clients_per_round: 4, warmup_rounds: 0, batch_size: 16, learning_rate: 0.1}
engine: {workers: 2}
calibration: {samples_per_client: 32, schedule: one-shot}
"""


class Exported(NamedTuple):
    """A bundle, its folder's shell, its test images as files, their labels, and what was exported."""

    shell: Any
    bundle: Path
    files: list[str]
    labels: list[str]
    dtype: str


def measured(images_NHW: Any, dtype: str) -> Any:
    """Return digits as 12 bits of a grey camera, or as four bands in units of their own: two are temperatures."""
    grey = images_NHW.astype(np.float32)
    if dtype == "uint16":
        return (grey * 16 + 100).astype(np.uint16)
    slope = np.gradient(grey, axis=2)
    return np.stack([290 + grey / 20, 1e-6 * grey, -slope, 250 - grey / 9], axis=3).astype(np.float32)


#: Resolutions: of the floats the smallest subnet's images are padded to 9 and resized to 6.
KINDS = {"uint16": "[8]", "float32": "[6, 9]"}


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, shell_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    dtype = request.param
    shell = shell_in(tmp_path_factory.mktemp(dtype))
    digits = load_digits(None).train
    images, labels = measured(digits.images_NHWC[..., 0], dtype), digits.labels_N
    ends = np.cumsum([NUM_TRAIN, NUM_VALIDATION, NUM_TEST])
    arrays = {}
    for split, stop, count in zip(("train", "val", "test"), ends, (NUM_TRAIN, NUM_VALIDATION, NUM_TEST), strict=True):
        arrays |= {f"{split}_images": images[stop - count : stop], f"{split}_labels": labels[stop - count : stop]}
    wards = np.array([f"ward-{number % 5}" for number in range(NUM_TRAIN)])
    np.savez_compressed(shell.folder / "images.npz", **arrays, train_clients=wards)
    (shell.folder / "space.yaml").write_text(SPACE % KINDS[dtype])
    (shell.folder / "mine.yaml").write_text(CONFIG)
    shell.json("train", "--config", "mine.yaml")
    shell.json("search", "--run", "runs/mine", "--profile", "x86-laptop", "--evaluations", "4")
    words = ("--format", "onnx", "--precision", "fp32", "--precision", "int8")
    made, *_ = shell.json("export", "--search", "runs/mine/search.json", *words)["bundles"]
    files = [str(shell.folder / f"{number:03}.npy") for number in range(NUM_TEST)]
    for file, image in zip(files, arrays["test_images"], strict=True):
        np.save(file, image)
    return Exported(shell, shell.folder / made["folder"], files, list(map(str, arrays["test_labels"])), dtype)


def said_by(folder: Path, *program: str) -> Any:
    """Return what a program prints as JSON."""
    command = [sys.executable, "-B", *program]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout[-1000:]
    return json.loads(ended.stdout)


def test_a_program_that_knows_the_manifest_alone_is_as_often_right(exported: Exported, repository: Path) -> None:
    """As `run.py` in the bundle, and as the manifest says."""
    other = str(repository / "examples" / "python" / "classify.py")
    by_manifest = [each["class"] for each in said_by(exported.bundle, other, ".", "--json", *exported.files)["images"]]
    images = said_by(exported.bundle, "run.py", "--json", "--precision", "fp32", "--classify", *exported.files)
    assert by_manifest == [image["class"] for image in images["images"]]
    right = [found == label for found, label in zip(by_manifest, exported.labels, strict=True)]
    manifest = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["accuracy"]["num_samples"] == len(right) == NUM_TEST
    assert sum(right) / len(right) == manifest["accuracy"]["recalibrated"] > 0.5


def test_the_manifest_says_how_pixels_are_prepared(exported: Exported) -> None:
    manifest = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))
    how = manifest["preprocessing"]
    channels, pixel_max = {"uint16": (1, 65535), "float32": (4, 1)}[exported.dtype]
    assert (how["pixel_dtype"], how["pixel_max"], how["dtype"]) == (exported.dtype, pixel_max, "float32")
    assert len(how["mean"]) == manifest["inputs"][0]["shape"][1] == channels
    assert how["padding"]["value"] == (how["mean"] if exported.dtype == "float32" else 0.0)
    with np.load(exported.shell.folder / "images.npz") as arrays:
        pixels = arrays["train_images"].reshape(-1, channels).astype(np.float64) / pixel_max
    np.testing.assert_allclose(how["mean"], pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(how["std"], pixels.std(axis=0), rtol=1e-9)


def test_the_bundle_is_checked_measured_and_shown_like_any_other(exported: Exported) -> None:
    shell, folder = exported.shell, str(exported.bundle)
    shell.json("verify", folder)
    shell.json("measure", folder)
    assert f"arrays of {exported.dtype}" in shell.run("inspect", folder).out
    shell.json("inspect", "runs/mine")
    report = said_by(exported.bundle, "run.py", "--json", "--skip-latency")
    assert report["exit_code"] == 0
    assert report["int8"]["num_classes_compared"] > 0
    card = (exported.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "`python run.py --classify image.npy`" in card


def test_pictures_are_refused_in_a_line(exported: Exported) -> None:
    Path(exported.bundle.parent, "a.png").write_bytes(b"")
    command = [sys.executable, "-B", "run.py", "--classify", "../a.png"]
    ended = subprocess.run(command, cwd=exported.bundle, capture_output=True, text=True, check=False)
    assert ended.returncode == 7
    channels = 1 if exported.dtype == "uint16" else 4
    takes = f"the model takes {channels} channels of {exported.dtype}, and no picture has them; save an array as .npy"
    assert ended.stdout.splitlines()[1] == f"../a.png: {takes}"
