"""Classifies images by what a bundle's manifest says, and by nothing else of the project: NumPy, Pillow to decode.

As somebody would write it who ports a bundle to another language. `python by_manifest.py BUNDLE FILE...` prints a JSON
list: for each file its class. A file is a photograph, or an array of NumPy's where its name ends in .npy.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def decode(path):
    """Return the array (H, W, C) that a file holds, or the pixels of a photograph, upright, on white, (H, W, 3)."""
    if str(path).endswith(".npy"):
        array = np.load(path, allow_pickle=False)
        return array.reshape(array.shape[0], array.shape[1], -1)
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def weights_of(a, b):
    """Return the integer weights, times 2**22, that scale an axis of a pixels to b: shape (b, a)."""
    weights = np.zeros((b, a), dtype=np.int64)
    f = max(a / b, 1)
    for i in range(b):
        p = (i + 0.5) * (a / b)
        inputs = range(max(0, math.floor(p - f + 0.5)), min(a, math.floor(p + f + 0.5)))
        parts = np.array([max(0, 1 - abs(j + 0.5 - p) / f) for j in inputs])
        weights[i, inputs.start : inputs.stop] = np.floor(parts / parts.sum() * 2**22 + 0.5)
    return weights


def scale(pixels, columns, rows):
    """Return (rows, columns, C), uint8: first along the longer side, then the other, rounded after each."""

    def rounded(sums):
        return ((sums + 2**21) >> 22).clip(0, 255)

    def across(image):
        return rounded(np.einsum("oi,hic->hoc", weights_of(image.shape[1], columns), image, optimize=True))

    def down(image):
        return rounded(np.einsum("oi,iwc->owc", weights_of(image.shape[0], rows), image, optimize=True))

    image = pixels.astype(np.int64)
    has_more_rows = image.shape[0] > image.shape[1]
    return (across(down(image)) if has_more_rows else down(across(image))).astype(np.uint8)


def make_square(pixels, source):
    """Do what `source_resize` of a manifest's preprocessing says."""
    (h, w), n = pixels.shape[:2], source["size"]
    if source["how"] == "crop":
        s = min(w, h)
        top, left = (h - s) // 2, (w - s) // 2
        return scale(pixels[top : top + s, left : left + s], n, n)
    if source["how"] == "pad":
        m = max(w, h)
        c, r = max(1, (2 * w * n + m) // (2 * m)), max(1, (2 * h * n + m) // (2 * m))
        square = np.zeros((n, n, pixels.shape[2]), dtype=np.uint8)
        square[(n - r) // 2 :, (n - c) // 2 :][:r, :c] = scale(pixels, c, r)
        return square
    return scale(pixels, n, n)


def to_size(pixels, size):
    """Resize a square of floats: bilinear, half-pixel centers, no antialiasing, edges repeated."""
    side = len(pixels)
    at = ((np.arange(size) + 0.5) * side / size - 0.5).clip(0, side - 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, side - 1), (at - low)[:, np.newaxis, np.newaxis]
    pixels = pixels[low] * (1 - part) + pixels[high] * part
    part = part.swapaxes(0, 1)
    return pixels[:, low] * (1 - part) + pixels[:, high] * part


def prepare(pixels, how):
    """Do what a manifest's preprocessing says to decoded pixels."""
    assert pixels.dtype == how.get("pixel_dtype", "uint8")
    if "source_resize" in how:
        pixels = make_square(pixels, how["source_resize"])
    n, pad = how["native_size"], how["padding"]
    padded = np.empty((pad["top"] + n + pad["bottom"], pad["left"] + n + pad["right"], len(how["mean"])), np.float32)
    padded[:] = pad["value"]  # one for all channels, or one for each
    padded[pad["top"] :, pad["left"] :][:n, :n] = pixels.astype(np.float32) / np.float32(how["pixel_max"])
    pixels = to_size(padded, how["size"])
    normal = (pixels - np.array(how["mean"], np.float32)) / np.array(how["std"], np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[np.newaxis], dtype=how["dtype"])


def main(bundle, files):
    import onnxruntime

    manifest = json.loads(Path(bundle, "manifest.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(Path(bundle, "model.onnx")), providers=["CPUExecutionProvider"])
    [model_input] = manifest["inputs"]
    logits = [
        session.run(None, {model_input["name"]: prepare(decode(path), manifest["preprocessing"])})[0] for path in files
    ]
    json.dump([manifest["classes"][int(each.argmax())] for each in logits], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
