"""Programs that know the files of a bundle and nothing of the project: the same pixels, outputs and classes as here."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images

from fedsup_deploy.data.idx import load_fashion_mnist
from fedsup_deploy.ondevice.bundle_files import BESIDE_SUMS, list_files, sha256sums
from fedsup_deploy.ondevice.classification import input_of
from fedsup_deploy.ondevice.preprocessing import document_of, steps_of
from fedsup_deploy.ondevice.source_resize import HOW

NUM_IMAGES = 1000
NUM_PHOTOGRAPHS = 40
ORIENTATION = 0x0112
PHOTOGRAPHS = """\
schema: 1
name: mine
space: space.yaml
data: {dataset: image-folder, root: images, image_size: 18, resize: crop}
partition: {kind: iid, num_clients: 2}
strategy: {name: fedavg}
training: {rounds: 2, clients_per_round: 2, warmup_rounds: 0, batch_size: 16, learning_rate: 0.1}
engine: {workers: 1}
calibration: {samples_per_client: 16, schedule: one-shot}
"""
#: Width and height of photographs: landscape and portrait, odd borders, smaller than the square, nearly a line.
SIZES = [(640, 427), (121, 333), (300, 300), (97, 64), (18, 18), (11, 7), (400, 9), (5, 200)]
#: How they are written: suffix, mode, options.
WRITTEN: list[tuple[str, str, dict[str, Any]]] = [
    ("png", "RGB", {}),
    ("jpg", "RGB", {"quality": 90}),
    ("png", "RGBA", {}),
    ("jpg", "L", {"quality": 80}),
    ("png", "P", {"transparency": 3}),
    ("jpg", "RGB", {"quality": 75, "progressive": True, "subsampling": 0}),
    ("png", "L", {}),
]
#: Of one of 255 steps of a pixel, what the rest may be off: it is computed in other ways.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def fashion(shell_in: Any, sample_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a brief run on grey images of 28x28 pixels, which are padded to 32x32."""
    shell = shell_in(tmp_path_factory.mktemp("fashion"))
    shell.train("fashion-mnist", data__root=sample_images)
    words = ("--arch", "largest", "--profile", "x86-laptop", "--format", "onnx")
    [made] = shell.json("export", "runs/fashion-mnist", *words)["bundles"]
    return Path(shell.folder / made["folder"])


@pytest.fixture(scope="module")
def garments(sample_images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """1,000 images of Fashion-MNIST as files."""
    folder = tmp_path_factory.mktemp("garments")
    images = load_fashion_mnist(sample_images).train.images_NHWC[:NUM_IMAGES, :, :, 0]
    files = [folder / f"{number:04}.png" for number in range(NUM_IMAGES)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    return files


def photograph(number: int, size: tuple[int, int]) -> Image.Image:
    """Return a part of one of two photographs, of a size in pixels."""
    whole = Image.fromarray(load_sample_images().images[number % 2])
    left, top = 7 * number % 200, 5 * number % 100
    return whole.crop((left, top, left + 400, top + 300)).resize(size)


@pytest.fixture(scope="module")
def photographed(shell_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a brief run on photographs, whose device takes one image at a time."""
    shell = shell_in(tmp_path_factory.mktemp("photographed"))
    for number in range(NUM_PHOTOGRAPHS):
        folder = shell.folder / "images" / ("train" if number % 4 else "test") / ("china", "flower")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        photograph(number, (60, 40)).save(folder / f"{number}.png")
    for split in ("train", "test"):
        (shell.folder / "images" / split / "flower").mkdir(parents=True, exist_ok=True)
        photograph(1, (60, 40)).save(shell.folder / "images" / split / "flower" / f"of-{split}.png")
    shell.configure(PHOTOGRAPHS)
    shell.json("train", "--config", "mine.yaml")
    shipped = Path(__file__).parents[3] / "profiles" / "raspberry-pi-4.yaml"
    profile = yaml.safe_load(shipped.read_text(encoding="utf-8")) | {"name": "static"}
    profile["accepts"]["batch"] = "static"
    (shell.folder / "static.yaml").write_text(yaml.safe_dump(profile, sort_keys=False), encoding="utf-8")
    words = ("--arch", "smallest", "--profile", "static.yaml", "--format", "onnx", "--precision", "fp32")
    [made] = shell.json("export", "runs/mine", *words)["bundles"]
    return Path(shell.folder / made["folder"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs of all sizes in all ways of writing, JPEG files in all orientations."""
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for number in range(len(SIZES) * len(WRITTEN)):
        suffix, mode, options = WRITTEN[number % len(WRITTEN)]
        image = photograph(number, SIZES[number % len(SIZES)]).convert(mode)
        if mode == "RGBA":
            alpha = np.tile(np.arange(image.width) * 5 % 256, (image.height, 1)).astype(np.uint8)
            image.putalpha(Image.fromarray(alpha))
        exif = Image.Exif()
        if suffix == "jpg":
            exif[ORIENTATION] = 1 + number // len(WRITTEN)
        files.append(folder / f"{number:02}-{mode}.{suffix}")
        image.save(files[-1], exif=exif, **options)
    return files


def copy_of(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "bundle"))


def sign_off(bundle: Path) -> None:
    """Write the hashes of a bundle's files again."""
    sums = "".join(sha256sums(bundle, list_files(bundle).keys() - BESIDE_SUMS))
    (bundle / "SHA256SUMS").write_text(sums, encoding="utf-8")


def manifest_of(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def with_steps(bundle: Path, folder: Path, **steps: Any) -> Path:
    """Return a copy whose pictures are to be prepared in another way."""
    altered, manifest = copy_of(bundle, folder), manifest_of(bundle)
    manifest["preprocessing"] = document_of(steps_of(manifest["preprocessing"])._replace(**steps))
    (altered / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign_off(altered)
    return altered


def inputs_here(bundle: Path, pictures: list[Path]) -> Any:
    """Return what `run.py` gives the model, (N, C, S, S)."""
    steps = steps_of(manifest_of(bundle)["preprocessing"])
    return np.concatenate([input_of(picture, picture.name, steps) for picture in pictures])


def test_the_classes_of_a_thousand_images_are_those_of_onnxruntime_in_python(
    example: Any, in_python: Any, fashion: Path, garments: list[Path]
) -> None:
    expected, found = (each.ask(fashion, garments) for each in (in_python, example))
    assert found.parity["passed"]
    assert found.parity["num_same_class"] == found.parity["num_inputs"] == expected.parity["num_inputs"] > 8
    assert 0 < found.parity["max_scaled_diff"] <= found.parity["tolerance"] == 1e-5
    assert len(found.images) == NUM_IMAGES
    assert [each["class"] for each in found.images] == [each["class"] for each in expected.images]
    assert len({each["class"] for each in found.images}) > 3
    logits, of_python = (np.array([each["logits"] for each in said.images]) for said in (found, expected))
    assert (abs(logits - of_python).max(axis=1) <= 1e-5 * abs(of_python).max(axis=1).clip(1)).all()
    probabilities = ([each["probability"] for each in said.images] for said in (found, expected))
    np.testing.assert_allclose(*probabilities, rtol=0, atol=1e-5)


def test_they_are_those_of_run_py_as_well(in_python: Any, fashion: Path, garments: list[Path]) -> None:
    command = ["python3", "run.py", "--json", "--classify", *map(str, garments[:100])]
    words = [in_python.words[0], *command[1:]]
    ended = subprocess.run(words, cwd=fashion, capture_output=True, text=True, check=True)
    found = in_python.ask(fashion, garments[:100]).images
    assert [each["class"] for each in json.loads(ended.stdout)["images"]] == [each["class"] for each in found]


@pytest.mark.parametrize("steps", [*({"how": how} for how in HOW), {"how": "pad", "padded_size": 25}], ids=str)
def test_photographs_of_all_sizes_are_prepared_as_run_py_does(
    example: Any, photographed: Path, pictures: list[Path], tmp_path: Path, steps: dict[str, Any]
) -> None:
    """Where decoders differ, by one of 255 steps; else by rounding."""
    bundle = with_steps(photographed, tmp_path, **steps)
    found = example.ask(bundle, pictures).inputs
    expected_NCHW = inputs_here(bundle, pictures)
    std_C = np.array(manifest_of(bundle)["preprocessing"]["std"])[:, np.newaxis, np.newaxis]
    off_NCHW = abs(found.reshape(expected_NCHW.shape) - expected_NCHW) * std_C * 255
    off = {picture.name: float(off_HW.max()) for picture, off_HW in zip(pictures, off_NCHW, strict=True)}
    assert max(off.values()) <= 1 + 255 * ROUNDING
    # Of a PNG that hides nothing every program decodes the same.
    opaque = [most for name, most in off.items() if name.endswith(("RGB.png", "L.png"))]
    assert max(opaque) <= 255 * ROUNDING


def test_a_picture_that_the_model_cannot_take_is_refused(
    example: Any, fashion: Path, photographed: Path, pictures: list[Path], tmp_path: Path
) -> None:
    coloured, small, text = (tmp_path / name for name in ("coloured.png", "small.png", "text.png"))
    photograph(0, (28, 28)).save(coloured)
    Image.new("L", (27, 28)).save(small)
    text.write_text("no picture")
    assert "grey" in example.refusal(fashion, coloured)
    assert "expected" in example.refusal(fashion, small)
    assert example.refusal(photographed, text) != ""
    floats = with_steps(fashion, tmp_path, pixel_dtype="float32")
    assert "float32" in example.refusal(floats, coloured)


def test_a_folder_that_is_no_bundle_is_refused(example: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no bundle")
    assert re.search(r"SHA256SUMS|manifest\.json", example.refusal(tmp_path))


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "vectors.npz", "MODEL_CARD.md"])
def test_a_file_that_was_altered_is_named(example: Any, fashion: Path, tmp_path: Path, name: str) -> None:
    altered = copy_of(fashion, tmp_path)
    content = bytearray((altered / name).read_bytes())
    content[len(content) // 2] ^= 1
    (altered / name).write_bytes(content)
    assert f"{name} was altered" in example.refusal(altered)


def test_a_file_that_nobody_vouches_for_is_not_used(example: Any, fashion: Path, tmp_path: Path) -> None:
    altered = copy_of(fashion, tmp_path)
    sums = (altered / "SHA256SUMS").read_text(encoding="utf-8").splitlines(keepends=True)
    (altered / "SHA256SUMS").write_text("".join(line for line in sums if not line.endswith("model.onnx\n")))
    assert "model.onnx was altered" in example.refusal(altered)


def test_outputs_that_are_not_the_recorded_ones_are_no_parity(example: Any, fashion: Path, tmp_path: Path) -> None:
    altered = copy_of(fashion, tmp_path)
    with np.load(altered / "vectors.npz") as vectors:
        arrays = dict(vectors)
    scale = max(1, abs(arrays["outputs"][-1]).max())
    arrays["outputs"][-1, 0] += 1e-3 * scale
    np.savez(altered / "vectors.npz", **arrays)
    sign_off(altered)
    said = example.refusal(altered)
    assert re.search("parity", said, re.IGNORECASE)
    assert re.search("scaled 1.0e-0?3 ", said)


def test_what_a_later_manifest_asks_for_is_refused(example: Any, fashion: Path, tmp_path: Path) -> None:
    altered, manifest = copy_of(fashion, tmp_path), manifest_of(fashion)
    manifest["preprocessing"]["interpolation"] = "bicubic"
    (altered / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign_off(altered)
    said = example.refusal(altered)
    assert "interpolation" in said
    assert "than this program knows" in said
