"""`run.py --classify`: what a model says of image files, and what becomes of files that it can say nothing of."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from fedsup_deploy.ondevice import classification
from fedsup_deploy.ondevice.bundle_outputs import read_manifest
from fedsup_deploy.ondevice.image_file import ImageError
from fedsup_deploy.ondevice.preprocessing import document_of, prepare

ORIENTATION = 0x0112
SIDE = 6


def pixels(seed: int, side: int = SIDE, channels: int = 3) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def written(folder: Path, name: str, image: Image.Image, **options: Any) -> str:
    image.save(folder / name, **options)
    return str(folder / name)


def png(folder: Path, name: str = "a.png", seed: int = 0) -> str:
    return written(folder, name, Image.fromarray(pixels(seed)))


def classified(bundle: Any, *words: str, code: int = 0) -> Any:
    found, output = bundle.run_here("--json", "--classify", *words)
    document = json.loads(output)
    assert (found, document["exit_code"]) == (code, code)
    assert list(document) == ["schema", "device", "model", "threads", "images", "exit_code", "reason"]
    return document


def logits_of(bundle: Any, x_BCHW: Any) -> Any:
    (logits_BK,) = ReferenceEvaluator(onnx.load(bundle.folder / "model.onnx")).run(None, {"input": x_BCHW})
    return logits_BK


def steps_of(bundle: Any) -> Any:
    return classification.classifier_of(read_manifest(bundle.folder)).steps


def test_an_image_gets_the_classes_that_the_model_computes(bundle: Any, tmp_path: Path) -> None:
    """Prepared by the manifest, by itself; the probabilities are the softmax of all logits."""
    files = [png(tmp_path, f"{seed}.png", seed) for seed in range(4)]
    images = classified(bundle, *files)["images"]
    inputs = prepare(np.stack([pixels(seed) for seed in range(4)]), steps_of(bundle))
    logits_BK = logits_of(bundle, inputs).astype(np.float64)
    probability_BK = np.exp(logits_BK) / np.exp(logits_BK).sum(axis=1, keepdims=True)
    assert [image["file"] for image in images] == files
    for image, probability_K in zip(images, probability_BK, strict=True):
        best = np.argsort(-probability_K)[:3]
        assert [each["index"] for each in image["top"]] == best.tolist()
        assert [each["class"] for each in image["top"]] == [f"class {index}" for index in best]
        np.testing.assert_allclose([each["probability"] for each in image["top"]], probability_K[best], rtol=1e-5)
        assert {key: image[key] for key in ("class", "index", "probability")} == image["top"][0]
        assert image["reason"] is None


@pytest.mark.parametrize(
    ("has_int8", "is_for_int8", "words", "expected"),
    [
        (False, False, (), "model.onnx"),
        (False, False, ("--precision", "fp32"), "model.onnx"),
        (True, False, (), "model.onnx"),
        (True, False, ("--precision", "int8"), "model.int8.onnx"),
        (True, True, (), "model.int8.onnx"),
        (True, True, ("--precision", "fp32", "--threads", "2"), "model.onnx"),
    ],
)
def test_the_file_that_classifies_is_what_the_bundle_is_for_or_what_is_asked_for(
    bundle: Any, tmp_path: Path, has_int8: bool, is_for_int8: bool, words: tuple[str, ...], expected: str
) -> None:
    """The other file has logits of the other sign, so it takes no image for what this one takes it for."""
    if has_int8:
        bundle.write_int8(is_what_it_is_for=is_for_int8)
    document = classified(bundle, png(tmp_path), *words)
    logits_BK = logits_of(bundle, prepare(pixels(0)[None], steps_of(bundle)))
    best = int((logits_BK if expected == "model.onnx" else -logits_BK).argmax())
    assert (document["model"], document["images"][0]["index"]) == (expected, best)
    assert document["threads"] == (2 if "--threads" in words else 1)


def test_a_bundle_without_the_file_that_is_asked_for_says_so_in_one_line(bundle: Any, tmp_path: Path) -> None:
    document = classified(bundle, png(tmp_path), "--precision", "int8", code=2)
    reason = "this bundle has no int8 file; leave out --precision, or export it with one"
    assert (document["model"], document["images"], document["reason"]) == (None, [], reason)
    ended = bundle.run("--classify", png(tmp_path), "--precision", "int8")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, f"FAIL: {reason}\n", "")


def test_people_read_one_line_for_each_image(bundle: Any, tmp_path: Path) -> None:
    files = [png(tmp_path, "a.png"), png(tmp_path, "b.png", 1)]
    images = classified(bundle, *files)["images"]
    code, output = bundle.run_here("--classify", *files)
    assert code == 0
    assert output.splitlines() == ["by model.onnx, threads used: 1"] + [
        f"{image['file']}  " + ", ".join(f"{each['class']} {each['probability']:.1%}" for each in image["top"])
        for image in images
    ]


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True})])
def test_the_input_is_what_training_makes_of_the_same_file(
    bundle: Any, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    file = Path(written(tmp_path, name, Image.fromarray(pixels(3)), **options))
    made = classification.input_of(file, name, steps_of(bundle))
    assert made.tobytes() == prepare(pixels(3)[np.newaxis], steps_of(bundle)).tobytes()


def test_an_image_is_set_upright_and_laid_on_white(bundle: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying = Path(written(tmp_path, "a.png", Image.fromarray(pixels(0)), exif=exif))
    upright = prepare(np.rot90(pixels(0), -1)[np.newaxis], steps_of(bundle))
    np.testing.assert_array_equal(classification.input_of(lying, "a", steps_of(bundle)), upright)
    rgba = np.dstack([pixels(0), np.zeros((SIDE, SIDE), np.uint8)])
    clear = Path(written(tmp_path, "b.png", Image.fromarray(rgba)))
    white = prepare(np.full((1, SIDE, SIDE, 3), 255, np.uint8), steps_of(bundle))
    np.testing.assert_array_equal(classification.input_of(clear, "b", steps_of(bundle)), white)


def test_a_grey_image_is_grey_to_a_model_of_colours(bundle: Any, tmp_path: Path) -> None:
    grey = pixels(0, channels=1)
    file = Path(written(tmp_path, "a.png", Image.fromarray(grey[..., 0])))
    expected = prepare(np.repeat(grey, 3, axis=2)[np.newaxis], steps_of(bundle))
    np.testing.assert_array_equal(classification.input_of(file, "a", steps_of(bundle)), expected)


def test_a_model_of_grey_images_takes_no_colours(bundle: Any, tmp_path: Path) -> None:
    steps = steps_of(bundle)._replace(mean=(0.5,), std=(0.25,))
    grey = pixels(0, channels=1)
    for name, array in {"l.png": grey[..., 0], "rgb.png": np.repeat(grey, 3, axis=2)}.items():
        made = classification.input_of(Path(written(tmp_path, name, Image.fromarray(array))), name, steps)
        np.testing.assert_array_equal(made, prepare(grey[np.newaxis], steps))
    with pytest.raises(ValueError, match=r"^a\.png: has colours, expected grey as in training; convert it$"):
        classification.input_of(Path(png(tmp_path)), "a.png", steps)


@pytest.mark.parametrize(("channels", "dtype"), [(4, "uint8"), (3, "uint16"), (1, "float32")])
def test_no_picture_has_four_channels_or_numbers_of_other_types(
    bundle: Any, tmp_path: Path, channels: int, dtype: str
) -> None:
    steps = steps_of(bundle)._replace(mean=(0.5,) * channels, std=(0.25,) * channels, pixel_dtype=dtype)
    with pytest.raises(ImageError) as caught:
        classification.input_of(Path(png(tmp_path)), "a.png", steps)
    takes = f"the model takes {channels} channels of {dtype}, and no picture has them"
    assert str(caught.value) == f"a.png: {takes}; save an array as .npy"


def saved(folder: Path, array: Any, name: str = "a.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<f4", ">f4"])
@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_prepared_as_training_prepares_it(
    bundle: Any, tmp_path: Path, dtype: str, channels: int, order: Any
) -> None:
    steps = steps_of(bundle)._replace(
        mean=(0.5,) * channels, std=(0.25,) * channels, pixel_dtype=np.dtype(dtype).name, padded_size=8, size=7
    )
    image = pixels(1, channels=channels).astype(dtype)
    expected = prepare(image.astype(np.dtype(dtype).newbyteorder("="))[np.newaxis], steps)
    made = classification.input_of(saved(tmp_path, np.asarray(image, order=order)), "a.npy", steps)
    assert made.tobytes() == expected.tobytes()
    if channels == 1:
        grey = classification.input_of(saved(tmp_path, image[..., 0], "b.npy"), "b.npy", steps)
        assert grey.tobytes() == expected.tobytes()


def test_an_array_of_bytes_of_any_size_is_made_square(bundle: Any, tmp_path: Path) -> None:
    steps = steps_of(bundle)._replace(how="crop")
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    file = Path(written(tmp_path, "a.png", Image.fromarray(image)))
    made = classification.input_of(saved(tmp_path, image), "a.npy", steps)
    assert made.tobytes() == classification.input_of(file, "a.png", steps).tobytes()


def test_arrays_need_no_pillow_and_are_classified_beside_pictures(bundle: Any, tmp_path: Path) -> None:
    image = pixels(0)
    [array, picture] = classified(bundle, str(saved(tmp_path, image)), png(tmp_path))["images"]
    assert {**array, "file": None} == {**picture, "file": None}
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "PIL.py").write_text("raise ImportError('no Pillow', name='PIL')")
    ended = bundle.run("--json", "--classify", str(tmp_path / "a.npy"), PYTHONPATH=str(tmp_path / "without"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["images"] == [array]


def bytes_of(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(0)).save(file, kind)
    return file.getvalue()


def header_of_array(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def content_of(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 6, 1000000000000), }"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a.npy is no array of NumPy's format 1.0; save one image with numpy.save"),
        (bytes_of("PNG"), "a.npy is no array of NumPy's format 1.0; save"),
        (header_of_array("{'descr': '<f4'"), "a.npy has a garbled header; save"),
        (header_of_array(HUGE), "a.npy: has shape (6, 6, 1000000000000), expected (6, 6, 3) as in training"),
        (content_of(np.array([{}])), "a.npy holds Python objects, and allow_pickle=False; save"),
        (content_of(np.zeros((6, 6, 3))), "a.npy: is float64, expected float32 as in training; convert it"),
        (content_of(np.zeros((6, 6, 3), "i4")), "a.npy: is int32, expected float32 as in training; convert it"),
        (content_of(np.zeros((6, 6), "f4")), "a.npy: has shape (6, 6), expected (6, 6, 3) as in training"),
        (content_of(np.zeros((1, 6, 6, 3), "f4")), "a.npy: has shape (1, 6, 6, 3), expected (6, 6, 3) as in"),
        (content_of(np.zeros((0, 6, 3), "f4")), "a.npy: has shape (0, 6, 3), expected (6, 6, 3) as in training"),
        (content_of(np.zeros((6, 6, 3), "f4"))[:-1], "a.npy: has 431 bytes of pixels, expected 432; get the file"),
        (content_of(np.zeros((6, 6, 3), "f4")) + b"\0", "a.npy: has 433 bytes of pixels, expected 432; get the file"),
        (content_of(np.full((6, 6, 3), np.nan, "f4")), "a.npy: has a pixel that is NaN, infinite or beyond 1e+15;"),
    ],
)
def test_what_is_no_array_that_the_model_takes_is_one_line(
    bundle: Any, tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        classification.input_of(tmp_path / "a.npy", "a.npy", steps_of(bundle)._replace(pixel_dtype="float32"))
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("size", [(7, 7), (6, 5), (12, 12), (2000, 1000)])
def test_an_image_of_another_size_is_refused_with_both_sizes(
    bundle: Any, tmp_path: Path, size: tuple[int, int]
) -> None:
    file = written(tmp_path, "a.png", Image.new("RGB", size))
    [image] = classified(bundle, file, code=7)["images"]
    got = f"is {size[0]}x{size[1]} pixels, expected 6x6 as in training; crop or resize it first"
    assert image["reason"] == f"{file}: {got}"


def test_a_bad_image_stops_no_other_and_has_its_own_exit_code(bundle: Any, tmp_path: Path) -> None:
    good, gone = [png(tmp_path, f"{seed}.png", seed) for seed in range(2)], str(tmp_path / "gone.png")
    alone = [classified(bundle, file)["images"][0] for file in good]
    document = classified(bundle, good[0], gone, good[1], code=7)
    assert [document["images"][0], document["images"][2]] == alone
    assert document["images"][1] == {
        "file": gone,
        "class": None,
        "index": None,
        "probability": None,
        "top": [],
        "reason": f"cannot read {gone}: No such file or directory",
    }
    assert document["reason"] == "images that were not classified: 1 of 3"
    text = bundle.run("--classify", good[0], gone, good[1])
    assert (text.returncode, text.stderr) == (7, "")
    _, *lines = text.stdout.splitlines()
    assert [lines[0].startswith(f"{good[0]}  class "), lines[2].startswith(f"{good[1]}  class ")] == [True, True]
    assert lines[1:2] + lines[3:] == [
        f"cannot read {gone}: No such file or directory",
        "FAIL: images that were not classified: 1 of 3",
    ]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width: int, height: int, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP; get the file again"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n", "it is none of BMP, GIF"),
        (bytes_of("PNG")[:70], "; get the file again"),
        (bytes_of("JPEG")[:-12], "image file is truncated"),
        (png_that_claims(SIDE, SIDE), "; get the file again"),
        (png_that_claims(20_000, 20_000), ": has 400,000,000 pixels, expected at most 89,478,485; shrink it or leave"),
        (png_that_claims(9_000, 9_000), "is 9000x9000 pixels, expected 6x6 as in training"),
    ],
    ids=["empty", "eps", "half a png", "half a jpeg", "no pixels", "bomb", "large"],
)
def test_what_is_no_whole_image_is_one_line(bundle: Any, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    ended = bundle.run("--classify", str(tmp_path / "a.png"))
    assert (ended.returncode, ended.stderr) == (7, "")
    _, first, last = ended.stdout.splitlines()
    assert (str(tmp_path / "a.png") in first, reason in first) == (True, True)
    assert last == "FAIL: images that were not classified: 1 of 1"


@pytest.mark.parametrize("end", ["gone.png", "a.png"])
def test_a_link_that_leads_nowhere_is_one_line(bundle: Any, tmp_path: Path, end: str) -> None:
    (tmp_path / "a.png").symlink_to(end)
    ended = bundle.run("--classify", str(tmp_path / "a.png"))
    assert (ended.returncode, ended.stderr) == (7, "")
    expected = f"cannot read {tmp_path / 'a.png'}: it is a link that leads nowhere; remove it"
    assert ended.stdout.splitlines()[1] == expected


def test_damaged_images_of_every_kind_are_lines(bundle: Any, tmp_path: Path) -> None:
    """Bytes changed at random: some still show an image, and none is a traceback."""
    draw = np.random.default_rng(0)
    files = []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        for number in range(40):
            content = np.frombuffer(bytes_of(kind), np.uint8).copy()
            content[draw.integers(0, len(content), 3)] = draw.integers(0, 256, 3)
            files.append(str(tmp_path / f"{number}.{kind}"))
            Path(files[-1]).write_bytes(content[: draw.integers(1, len(content) + 1)] if number % 2 else content)
    ended = bundle.run("--json", "--classify", *files)
    assert (ended.returncode, ended.stderr) == (7, "")
    images = json.loads(ended.stdout)["images"]
    assert [image["file"] for image in images] == files
    assert 0 < sum(image["reason"] is None for image in images) < len(files)
    for image in images:
        assert (image["reason"] is None) == (image["class"] is not None)
        assert len((image["reason"] or "").splitlines()) <= 1


def test_a_folder_a_pipe_and_a_huge_file_are_not_read(
    bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(classification, "MOST_BYTES_OF_AN_IMAGE", 100)
    names = {
        str(tmp_path): "it is no regular file",
        str(tmp_path / "pipe"): "it is no regular file",
        png(tmp_path): "it has more than 100 bytes",
    }
    reasons = [image["reason"] for image in classified(bundle, *names, code=7)["images"]]
    assert reasons == [f"cannot read {name}: {reason}" for name, reason in names.items()]


def test_no_terminal_obeys_a_name(bundle: Any, tmp_path: Path) -> None:
    file = png(tmp_path, "\x1b]0;title\a.png")
    code, output = bundle.run_here("--classify", file)
    assert (code, "\\x1b]0;title\\x07.png  class " in output, "\x1b" in output) == (0, True, False)
    manifest = {**bundle.manifest(), "classes": [f"\x1b[31m{index}" for index in range(5)]}
    bundle.write_sums(json.dumps(manifest))
    assert "\x1b" not in bundle.run_here("--classify", png(tmp_path))[1]


def test_names_are_written_in_any_locale(bundle: Any, tmp_path: Path) -> None:
    manifest = {**bundle.manifest(), "classes": [f"clé {index}" for index in range(5)]}
    bundle.write_sums(json.dumps(manifest))
    environment = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}
    ended = bundle.run("--classify", png(tmp_path), **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "cl\\xe9 " in ended.stdout
    (bundle.folder / "é").touch()
    ended = bundle.run("--skip-latency", **environment)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.endswith(" is no file of the bundle; remove it\n")


def test_an_altered_bundle_classifies_nothing(bundle: Any, tmp_path: Path) -> None:
    (bundle.folder / "vectors.npz").write_bytes(b"others")
    ended = bundle.run("--classify", png(tmp_path))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout == "FAIL: vectors.npz was altered: its sha256 is not that of SHA256SUMS\n"


def test_outputs_are_not_compared(bundle: Any, tmp_path: Path) -> None:
    """That takes as long as many images; who wants it runs it without --classify."""
    bundle.write_vectors(bundle.inputs, bundle.outputs + np.float32(1))
    bundle.write_manifest()
    assert bundle.run_here("--skip-latency")[0] == 3
    assert bundle.run_here("--classify", png(tmp_path))[0] == 0


def changed(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda manifest: {**manifest, **values}


def with_steps(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda manifest: {**manifest, "preprocessing": {**manifest["preprocessing"], **values}}


def without_classes(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "classes"}


def of_sides(padded_size: int, size: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        steps = document_of(classification.steps_of(manifest["preprocessing"])._replace(padded_size=padded_size))
        return {**manifest, "preprocessing": {**steps, "size": size}}

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_classes, "KeyError: 'classes'"),
        (changed(classes=["one"]), "ValueError: classes: not one for each output"),
        (changed(classes=[1] * 5), "TypeError: "),
        (changed(classes=None), "TypeError: "),
        (changed(preprocessing=[]), "AttributeError: "),
        (changed(preprocessing={}), "ValueError: preprocessing: missing or unknown dtype, interpolation, layout"),
        (with_steps(interpolation="nearest"), "ValueError: preprocessing: interpolation is 'nearest', expected 'bil"),
        (with_steps(std=[0, 1, 1]), "ValueError: preprocessing: the document holds no valid values"),
        (with_steps(mean=[0.5], std=[0.5]), "ValueError: preprocessing: its size or its channels are not those of"),
        (with_steps(size=9), "ValueError: preprocessing: its size or its channels are not those of the input"),
        (of_sides(10**9, 8), "ValueError: preprocessing: a size above 9459"),
    ],
)
def test_a_damaged_manifest_is_refused(
    bundle: Any, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], reason: str
) -> None:
    bundle.write_sums(json.dumps(change(bundle.manifest())))
    document = classified(bundle, png(tmp_path), code=1)
    assert document["images"] == []
    assert document["reason"].startswith(f"manifest.json is damaged: {reason}")


@pytest.mark.parametrize("values", [{"mean": [1e300] * 3}, {"std": [1e-300] * 3}])
def test_outputs_that_are_no_numbers_are_no_classes(bundle: Any, tmp_path: Path, values: dict[str, Any]) -> None:
    bundle.write_sums(json.dumps(with_steps(**values)(bundle.manifest())))
    ended = bundle.run("--classify", png(tmp_path))
    assert (ended.returncode, ended.stderr) == (3, "")
    assert ended.stdout.endswith("a.png are NaN or infinite, expected finite ones\n")


def test_a_model_of_other_outputs_is_refused(bundle: Any, tmp_path: Path) -> None:
    model = onnx.load(bundle.folder / "model.onnx")
    model.graph.node[-1].output[0] = "all"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1]), "two"))
    model.graph.node.append(helper.make_node("Gather", ["all", "two"], ["logits"], axis=1))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(model, bundle.folder / "model.onnx")
    bundle.write_manifest()
    document = classified(bundle, png(tmp_path), code=3)
    assert document["reason"] == "outputs have shape (1, 2), expected (1, 5)"


def test_a_model_that_cannot_be_run_is_one_line(bundle: Any, tmp_path: Path) -> None:
    (bundle.folder / "model.onnx").write_bytes(b"not a model")
    bundle.write_manifest()
    ended = bundle.run("--classify", png(tmp_path))
    assert (ended.returncode, ended.stderr) == (6, "")
    assert " cannot run model.onnx: " in ended.stdout


PILLOW = "Pillow cannot be imported"


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (None, f"{PILLOW}; run: pip install pillow"),
        ("__version__ = '8.0.1'", f"{PILLOW}: version 8.0.1 is older than 8.1; run: pip install --upgrade pillow"),
        ("PILLOW_VERSION = '5.1.0'", f"{PILLOW}: version of long ago is older than 8.1; run: pip install --upgrade"),
        ("raise ImportError('/a/_imaging.so: libjpeg.so.8: no such file', name='PIL')", f"{PILLOW}: _imaging.so: lib"),
    ],
)
def test_a_pillow_that_cannot_be_used_is_one_line(
    bundle: Any, tmp_path: Path, package: str | None, reason: str
) -> None:
    libraries, place = tmp_path / "libraries", Path(np.__file__).parents[1]
    libraries.mkdir()
    for path in place.iterdir():
        if path.name.lower() not in {"pil", "pillow.libs"} and not path.name.endswith(".pth"):
            (libraries / path.name).symlink_to(path)
    if package is not None:
        (libraries / "PIL").mkdir()
        (libraries / "PIL" / "__init__.py").write_text(package)
        (libraries / "PIL" / "Image.py").touch()
    python = (sys.executable, "-S", "-B")
    ended = bundle.run("--classify", png(tmp_path), python=python, PYTHONPATH=str(libraries))
    assert (ended.returncode, ended.stderr) == (2, "")
    assert ended.stdout.startswith(f"FAIL: {reason}")
    checked = bundle.run("--skip-latency", python=python, PYTHONPATH=str(libraries))
    assert (checked.returncode, checked.stderr) == (0, ""), "only images need it"


def test_ctrl_c_ends_it_without_a_trace(bundle: Any, tmp_path: Path) -> None:
    """While it waits for its reader, who takes nothing: the report is larger than a pipe holds."""
    files = [png(tmp_path)] * 1000
    command = [sys.executable, "run.py", "--json", "--classify", *files]
    process = subprocess.Popen(command, cwd=bundle.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["--classify"],
        ["--classify", "a.png", "--threads", "0"],
        ["--classify", "a.png", "--seconds", "1"],
        ["--protocol", "quick", "--classify", "a.png"],
        ["--classify", "a.png", "--precision", "fp16"],
    ],
)
def test_wrong_usage_is_told(bundle: Any, words: list[str]) -> None:
    ended = bundle.run(*words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "usage: run.py" in ended.stderr
