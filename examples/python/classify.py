"""Classifies pictures by what a bundle's manifest says: onnxruntime, NumPy and Pillow, and nothing of fedsup-deploy.

Written as somebody would who ports a bundle to another language. `python classify.py BUNDLE FILE...` checks the hashes
of the bundle's files, compares the model's outputs with the recorded ones, and prints the class of each file, a picture
or, where its name ends in .npy, an array of NumPy's. With `--json` it prints one document; `--inputs FILE` writes what
the model was given, float32, one image after another.

Shapes: V recorded images, H W pixels, C channels, K classes.
"""

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

#: What this program does; a manifest that asks for something else is refused.
KNOWN = {
    "layout": "NCHW",
    "dtype": "float32",
    "interpolation": "bilinear, half-pixel centers, no antialiasing, edges repeated",
    "order": "divide by pixel_max, pad, resize to size, subtract mean, divide by std",
}


def check_files(bundle):
    """Compare every file that SHA256SUMS lists with its hash; what it does not list is not read."""
    lines = Path(bundle, "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    hashes = {line[66:]: line[:64] for line in lines}
    for name in {"manifest.json", "model.onnx", "vectors.npz", *hashes}:
        if hashes.get(name) != hashlib.sha256(Path(bundle, name).read_bytes()).hexdigest():
            raise ValueError(f"{name} was altered: its hash is not that of SHA256SUMS")


def read_manifest(bundle):
    manifest = json.loads(Path(bundle, "manifest.json").read_text(encoding="utf-8"))
    how = manifest["preprocessing"]
    unknown = [key for key, value in KNOWN.items() if how[key] != value]
    if manifest["schema"] != 3 or unknown:
        raise ValueError(f"manifest.json has another schema or {', '.join(unknown)} than this program knows")
    return manifest


def compare(run, inputs, outputs, manifest):
    """Return how far outputs are from the recorded ones (V, K): of each image alone, and of all at once if they may be.

    A scaled difference is relative to the image's largest absolute logit above 1.
    """
    found = [np.concatenate([run(inputs[i : i + 1]) for i in range(len(inputs))])]
    if manifest["inputs"][0]["shape"][0] == "batch":
        found.append(run(inputs))
    differences = np.abs(np.stack(found) - outputs)
    scale = np.abs(outputs).max(axis=1, keepdims=True).clip(1)
    parity = {
        "num_inputs": len(inputs),
        "max_abs_diff": float(differences.max()),
        "max_scaled_diff": float((differences / scale).max()),
        "tolerance": manifest["models"]["onnx-fp32"]["gate"]["tolerance"],
        "num_same_class": int(np.all([each.argmax(1) == outputs.argmax(1) for each in found], axis=0).sum()),
    }
    # Written so that NaN fails.
    is_near = parity["max_scaled_diff"] <= parity["tolerance"]
    return {**parity, "passed": is_near and parity["num_same_class"] == len(inputs)}


def decode(path):
    """Return the array (H, W, C) that a file holds, or the pixels of a picture, upright, on white, (H, W, 3)."""
    if str(path).endswith(".npy"):
        array = np.load(path, allow_pickle=False)
        return array.reshape(array.shape[0], array.shape[1], -1)
    image = Image.open(path)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{path}: has more than 8 bits a channel")
    image = ImageOps.exif_transpose(image).convert("RGBA")
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
    if source["how"] == "stretch":
        return scale(pixels, n, n)
    raise ValueError(f"this program cannot {source['how']}")


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
    """Do what a manifest's preprocessing says to decoded pixels (H, W, C): return (1, C, size, size)."""
    n, pad, channels, dtype = how["native_size"], how["padding"], len(how["mean"]), how.get("pixel_dtype", "uint8")
    if pixels.dtype != dtype:
        raise ValueError(f"the pixels are {pixels.dtype}, expected {dtype}")
    if "source_resize" in how:
        pixels = make_square(pixels, how["source_resize"])
    if channels == 1 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    if pixels.shape != (n, n, channels):
        raise ValueError(f"the pixels have shape {pixels.shape}, expected {(n, n, channels)}, and grey ones for 1")
    padded = np.empty((pad["top"] + n + pad["bottom"], pad["left"] + n + pad["right"], channels), np.float32)
    padded[:] = pad["value"]  # one for all channels, or one for each
    padded[pad["top"] :, pad["left"] :][:n, :n] = pixels.astype(np.float32) / np.float32(how["pixel_max"])
    pixels = to_size(padded, how["size"])
    normal = (pixels - np.array(how["mean"], np.float32)) / np.array(how["std"], np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


def answer(path, logits, classes):
    """Return what is told of one image: logits (K,) in float32."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    index = int(logits.argmax())
    probability = float(exponentials[index] / exponentials.sum())
    found = {"file": path, "class": classes[index], "index": index, "probability": probability}
    return {**found, "logits": logits.tolist()}


def main(words):
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--inputs", metavar="FILE", help="write what the model was given")
    asked = parser.parse_intermixed_args(words)

    check_files(asked.bundle)
    manifest = read_manifest(asked.bundle)
    session = onnxruntime.InferenceSession(str(Path(asked.bundle, "model.onnx")), providers=["CPUExecutionProvider"])

    def run(images):
        return session.run([manifest["outputs"][0]["name"]], {manifest["inputs"][0]["name"]: images})[0]

    with np.load(Path(asked.bundle, "vectors.npz"), allow_pickle=False) as vectors:
        parity = compare(run, vectors["inputs"], vectors["outputs"], manifest)
    inputs = [prepare(decode(path), manifest["preprocessing"]) for path in asked.files]
    if asked.inputs:
        Path(asked.inputs).write_bytes(b"".join(each.tobytes() for each in inputs))
    images = [answer(path, run(x)[0], manifest["classes"]) for path, x in zip(asked.files, inputs, strict=True)]
    if asked.json:
        print(json.dumps({"parity": parity, "images": images}))
    else:
        print(
            "parity  {num_inputs} recorded images: largest difference {max_abs_diff:.1e}, scaled {max_scaled_diff:.1e}"
            " (allowed {tolerance:g}), same class of {num_same_class}".format(**parity)
        )
        for image in images:
            print(f"{image['file']}  {image['class']}  {100 * image['probability']:.1f} %")
    return 0 if parity["passed"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"classify.py: {error}")
