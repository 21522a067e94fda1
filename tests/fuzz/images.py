"""Images in the forms in which they can be given, damaged. Training reads them, and then has too many clients.

And single files, for a bundle to classify.
"""

import gzip
import io
import pickle
import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from mutations import damaged, damaged_bytes, damaged_npz
from PIL import Image

_SIDE, _COUNT = 32, 4


def images(rng: random.Random, folder: Path) -> list[str]:
    """Damage a data set of any form."""
    form = rng.choice(sorted(_FORMS))
    (folder / "images").mkdir()
    _FORMS[form](rng, folder / "images")
    config = folder / "mine.yaml"
    text = config.read_text(encoding="utf-8").replace("{dataset: digits}", f"{{dataset: {form}, root: images}}")
    config.write_text(text.replace("num_clients: 4", "num_clients: 999999"), encoding="utf-8")
    return ["train", "--config", "mine.yaml", "--out", "out"]


def clients(rng: random.Random, folder: Path) -> list[str]:
    """Damage what says whose images are whose: a list, folders of clients, or a column of an archive."""
    root = folder / "images"
    form = rng.choice(("list", "folders", "npz"))
    named = ""
    if form == "npz":
        root.mkdir()
        _npz(
            rng,
            root,
            train_clients=rng.choice((list("abba"), [1, 2, 2**63 - 1, -1], ["\x1b", "", "e\u0301", "a" * 400])),
        )
    else:
        # No folder twice: what lies in its place after it was damaged may be no folder.
        other = rng.choice([name for name in _NAMES if name != "b"])
        for part in ("train", "test") if form == "list" else ("a/train", "a/test", "b", other):
            _folder(rng, root, (part,))
    if form == "list":
        files = [path.relative_to(root).as_posix() for path in sorted(root.glob("train/*/*"))]
        lines = ["file,client", *(f"{name},{rng.choice(_NAMES)}" for name in files)]
        text = "\r\n".join(lines).encode("utf-8", "surrogateescape")
        (root / "clients.csv").write_bytes(damaged_bytes(rng, text) if rng.random() < 0.8 else text)
        named = ", clients: clients.csv"
    data = "npz" if form == "npz" else "image-folder"
    config = folder / "mine.yaml"
    said = config.read_text(encoding="utf-8").replace("{dataset: digits}", f"{{dataset: {data}, root: images}}")
    said = said.replace("{kind: iid, num_clients: 4}", f"{{kind: natural{named}}}")
    config.write_text(said.replace("clients_per_round: 2", "clients_per_round: 999999"), encoding="utf-8")
    return ["train", "--config", "mine.yaml", "--out", "out"]


def photo(rng: random.Random, folder: Path) -> Path:
    """Write an image file of the size that the bundle's model takes, mostly damaged."""
    path = folder / f"photo.{rng.choice(('png', 'jpg', 'gif', 'bmp', 'tif', 'webp', 'ppm', 'npy', 'npy'))}"
    pixels = _pixels(rng, 8, rng.choice((8, 8, 8, 9)), rng.choice((1, 3)))
    if path.suffix == ".npy":
        np.save(path, pixels.astype(rng.choice(("u1", "u1", "u1", ">u2", "f4", "O"))))
    else:
        Image.fromarray(pixels.squeeze()).save(path)
    if rng.random() < 0.9:
        path.write_bytes(damaged_bytes(rng, path.read_bytes()))
    return path


def _pixels(rng: random.Random, *shape: int) -> "np.ndarray":
    return np.frombuffer(rng.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)


def _npz(rng: random.Random, root: Path, **more: object) -> None:
    dtype, shape = rng.choice(("u1", "u1", "<u2", ">u2", "f4", "f8")), (_COUNT, 8, 8, *rng.choice(((), (4,), (16,))))
    arrays = {f"{split}_images": _pixels(rng, *shape).astype(dtype) for split in ("train", "test")}
    if dtype == "f4" and rng.random() < 0.5:
        arrays["test_images"] = np.frombuffer(rng.randbytes(arrays["test_images"].nbytes), "f4").reshape(shape)
    arrays |= {f"{split}_labels": np.arange(_COUNT) % 2 for split in ("train", "test")}
    whole = io.BytesIO()
    np.savez(whole, **arrays, **more)
    (root / "set.npz").write_bytes(damaged_npz(rng, whole.getvalue()))


#: Programs of a few bytes that ask for much: of levels, of memory, of the reader's trust.
_PICKLES = (
    *(b"\x80\x02})" + b"\x85" * levels + b"Ns." for levels in (20, 1_000, 2_000_000)),
    *(b"\x80\x02Nr" + struct.pack("<I", index) + b"." for index in (2**16, 2**27, 2**29)),
    b"\x80\x04\x96" + struct.pack("<Q", 2**62) + b"}.",
    b"\x80\x02cos\nsystem\n.",
    b"\x80\x02}.",
)


def _pickled(rng: random.Random, root: Path) -> None:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
    worse = rng.choice(names)
    for name in names:
        document = {"data": _pixels(rng, _COUNT, 3 * _SIDE**2), "labels": [0, 1, 2, 3]}
        if name == "batches.meta":
            document = {"label_names": [f"class {number}" for number in range(10)]}
        content = pickle.dumps(document, rng.randrange(5))
        if name == worse:
            match rng.randrange(3):
                case 0:
                    content = rng.choice(_PICKLES)
                case 1:
                    content = pickle.dumps(damaged(rng, document), 2)
                case _:
                    content = damaged_bytes(rng, content)
        (root / name).write_bytes(content)


def _binary(rng: random.Random, root: Path) -> None:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    worse = rng.choice(names)
    for name in names:
        content = b"".join(bytes([label]) + rng.randbytes(3 * _SIDE**2) for label in range(_COUNT))
        (root / name).write_bytes(damaged_bytes(rng, content) if name == worse else content)


def _cifar(rng: random.Random, root: Path) -> None:
    rng.choice((_pickled, _pickled, _binary))(rng, root)


def _idx(rng: random.Random, root: Path) -> None:
    names = [f"{split}-{kind}" for split in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    worse = rng.choice(names)
    for name in names:
        sizes = [_COUNT, 28, 28] if "images" in name else [_COUNT]
        rest = rng.randbytes(_COUNT * 28 * 28) if "images" in name else bytes(range(_COUNT))
        repeated = 1
        if name == worse and rng.random() < 0.5:
            sizes = [rng.choice((size, 0, 2**14, 2**20, 2**32 - 1)) for size in sizes]
            rest, repeated = rng.choice(((rest, 1), (b"", 1), (bytes(2**24), 200)))
        content = struct.pack(f">{1 + len(sizes)}I", 0x0800 + len(sizes), *sizes) + rest
        if name == worse and rng.random() < 0.5:
            content = damaged_bytes(rng, content)
        if repeated > 1 or rng.random() < 0.5:
            packed = gzip.compress(content, 1) + gzip.compress(rest, 1) * (repeated - 1)
            (root / f"{name}.gz").write_bytes(damaged_bytes(rng, packed) if rng.random() < 0.3 else packed)
        else:
            (root / name).write_bytes(content)


#: Of clients, or of folders.
_NAMES = ("a", "b", "caf\u00e9", "cafe\u0301", "train", "test", "\u202e", "a\x1b[2J", "a" * 200, " ", "caf\udce9")


def _folder(rng: random.Random, root: Path, splits: tuple[str, ...] = ("train", "test")) -> None:
    paths = []
    for split in splits:
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                path = root / split / label / f"{number}.{rng.choice(('png', 'jpg', 'gif', 'bmp', 'tif'))}"
                Image.fromarray(_pixels(rng, 8, 8, 3)).save(path)
                paths.append(path)
    path = rng.choice(paths)
    match rng.randrange(5):
        case 0 | 1:
            path.write_bytes(damaged_bytes(rng, path.read_bytes()))
        case 2:
            Image.fromarray(_pixels(rng, 8, rng.choice((1, 8, 9)), rng.choice((3, 4)))).save(path.with_suffix(".png"))
        case 3:
            path.rename(path.with_name(rng.choice(("\x1b[2J.png", "caf\udce9.png", "\u202e.png", "x.txt", ".x", "\n"))))
        case _:
            path.unlink()
            rng.choice((path.mkdir, lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path.name)))()


_FORMS: Mapping[str, Callable[[random.Random, Path], None]] = MappingProxyType(
    {"npz": _npz, "medmnist": _npz, "cifar10": _cifar, "fashion-mnist": _idx, "image-folder": _folder}
)
