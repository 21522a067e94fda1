"""Photographs of any size, from a folder to a device: nothing is dropped in silence, and the manifest says it all."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from fedsup_deploy import rng
from fedsup_deploy.commands.measure import measure
from fedsup_deploy.errors import DataError
from fedsup_deploy.ondevice.bundle_outputs import read_manifest
from fedsup_deploy.ondevice.classification import classifier_of, input_of

ORIENTATION = 0x0112
NUM_TRAIN, NUM_TEST = 220, 80
CONFIG = """\
schema: 1
name: mine
space: space.yaml
data: {dataset: image-folder, root: images, image_size: 18, resize: %s}
partition: {kind: iid, num_clients: 4}
strategy: {name: fedavg}
training: {rounds: 5, clients_per_round: 4, warmup_rounds: 0, batch_size: 16, learning_rate: 0.1}
engine: {workers: 2}
calibration: {samples_per_client: 32, schedule: one-shot}
"""
#: How photographs are written, in turn: suffix, mode, options.
WRITTEN: list[tuple[str, str, dict[str, Any]]] = [
    ("jpg", "RGB", {"quality": 90}),
    ("png", "RGB", {}),
    ("png", "RGBA", {}),
    ("webp", "RGB", {"quality": 80}),
    ("jpg", "L", {"quality": 90}),
]


class Exported(NamedTuple):
    """A bundle and the test photographs that its manifest's accuracy is of; what was said in training."""

    bundle: Path
    root: Path
    files: list[Path]
    notes: list[str]


def photograph(number: int, split: str) -> tuple[str, "Image.Image"]:
    """Return a class and a part of one of two photographs, 160x120 to 640x480 pixels, upright or not."""
    generator = rng.generator(0, split, number)
    label = number % 2
    whole = Image.fromarray(load_sample_images().images[label])
    width = int(generator.integers(160, 641))
    height = min(max(120, width * int(generator.integers(60, 90)) // 100), 480)
    side = int(generator.integers(200, 420))
    left, top = (int(generator.integers(0, border - side + 1)) for border in whole.size)
    part = whole.crop((left, top, left + side, top + side)).resize((width, height))
    return ("china", "flower")[label], part.rotate(90, expand=True) if number % 7 == 0 else part


def write(folder: Path, number: int, image: "Image.Image") -> None:
    suffix, mode, options = WRITTEN[number % len(WRITTEN)]
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = 1 + number // len(WRITTEN) % 8
    image = image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.tile(np.arange(image.width) % 256, (image.height, 1)).astype(np.uint8)))
    image.save(folder / f"{number:03}.{suffix}", exif=exif, **options)


@pytest.fixture(scope="module", params=["crop", pytest.param("pad", marks=pytest.mark.slow)])
def exported(request: pytest.FixtureRequest, shell_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    shell = shell_in(tmp_path_factory.mktemp(request.param))
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        for number in range(count):
            label, image = photograph(number, split)
            write(shell.folder / "images" / split / label, number, image)
    shell.configure(CONFIG % request.param)
    shell.json("train", "--config", "mine.yaml")
    shell.json("search", "--run", "runs/mine", "--profile", "x86-laptop")
    made, *_ = shell.json("export", "--search", "runs/mine/search.json", "--format", "onnx")["bundles"]
    root = shell.folder / "images"
    events = (shell.folder / "runs/mine/events.jsonl").read_text().splitlines()
    [notes] = [event["notes"] for event in map(json.loads, events) if event["event"] == "train_started"]
    return Exported(shell.folder / made["folder"], root, sorted((root / "test").glob("*/*")), notes)


def said_by(folder: Path, *program: str) -> Any:
    """Return what a program prints as JSON."""
    command = [sys.executable, "-B", *program]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def test_training_says_what_it_made_of_the_photographs(exported: Exported) -> None:
    [note] = exported.notes
    assert note.startswith("300 images made 18x18 pixels (")
    assert "smaller and so enlarged 0, more than 4 times larger 300, set upright 2" in note
    assert ", grey 60, with transparency, on white now 60" in note


def test_a_program_that_knows_the_manifest_alone_is_as_often_right(exported: Exported, repository: Path) -> None:
    """As `run.py` in the bundle, and as the manifest says; it shares no line with the project."""
    names = [str(file) for file in exported.files]
    other = str(repository / "examples" / "python" / "classify.py")
    by_manifest = [image["class"] for image in said_by(exported.bundle, other, ".", "--json", *names)["images"]]
    images = said_by(exported.bundle, "run.py", "--json", "--classify", *names)["images"]
    assert by_manifest == [image["class"] for image in images]
    right = [label == file.parent.name for label, file in zip(by_manifest, exported.files, strict=True)]
    accuracy = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))["accuracy"]
    assert accuracy["num_samples"] == len(right) == NUM_TEST
    assert sum(right) / len(right) == accuracy["recalibrated"] > 0.75


def test_what_photographs_take_before_the_network_is_measured_and_kept(
    exported: Exported, shell_in: Any, tmp_path: Path
) -> None:
    """Of a part of them, from both classes; a later measurement without pictures claims nothing of any."""
    shutil.copytree(exported.bundle, tmp_path / "bundle")
    shell = shell_in(tmp_path)
    found = shell.json("measure", "bundle", "--images", str(exported.root / "test"))["pictures"]
    assert (found["num_pictures"], found["num_found"]) == (32, NUM_TEST)
    pixels = [found[end]["width"] * found[end]["height"] for end in ("smallest", "largest")]
    assert 160 * 120 <= pixels[0] < pixels[1] <= 640 * 480
    decode_ms, prepare_ms = (found[step]["statistics"]["p50_ms"] for step in ("decode", "prepare"))
    assert decode_ms > 0
    assert prepare_ms > 0
    assert shell.json("inspect", "bundle")["measured"]["pictures"] == found
    assert shell.json("verify", "bundle")["measured"]["pictures"] == found
    shown = " ".join(shell.run("inspect", "bundle").out.split())
    assert f"pictures since decode {decode_ms:.4g} ms, prepare {prepare_ms:.4g} ms in the median, before the" in shown
    assert shell.json("measure", "bundle")["pictures"] is None
    assert shell.json("inspect", "bundle")["measured"]["pictures"] is None


def test_a_photograph_that_is_gone_while_the_network_is_timed_is_named(exported: Exported, tmp_path: Path) -> None:
    """And nothing is recorded."""
    bundle, photo = shutil.copytree(exported.bundle, tmp_path / "bundle"), tmp_path / "photo.png"
    shutil.copy(next(file for file in exported.files if file.suffix == ".png"), photo)

    def remove(event: dict[str, Any]) -> None:
        photo.unlink()

    with pytest.raises(DataError, match=r"cannot read .*photo\.png: No such file"):
        measure(bundle, 1, "quick", (remove,), images=photo)
    assert not (bundle / "measured.json").exists()


def test_its_inputs_are_those_of_training(exported: Exported, repository: Path) -> None:
    program = runpy.run_path(str(repository / "examples" / "python" / "classify.py"))
    manifest = json.loads((exported.bundle / "manifest.json").read_text(encoding="utf-8"))
    steps = classifier_of(read_manifest(exported.bundle)).steps
    for file in exported.files[::4]:
        made = program["prepare"](program["decode"](file), manifest["preprocessing"])
        found = input_of(file, file.name, steps)
        # Far less than one of 255 steps, which is 0.01 here.
        np.testing.assert_allclose(found, made, rtol=0, atol=1e-5, err_msg=file.name)
