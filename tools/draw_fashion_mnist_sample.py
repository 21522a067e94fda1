#!/usr/bin/env python3
"""Draw the sample of Fashion-MNIST that the tests read, from the four official files.

    python tools/draw_fashion_mnist_sample.py SOURCE DESTINATION

SOURCE holds the four official IDX files. DESTINATION gets four files of the same names and format with fewer images:
100 of each class for training and 50 for testing, drawn with a fixed seed, in their official order. The same images end
in the same bytes: a compressed file carries no time and no name.
"""

import argparse
import gzip
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedsup_deploy import files
from fedsup_deploy.data.idx import read_idx
from fedsup_deploy.errors import FedsupError
from fedsup_deploy.rng import generator

SEED = 0
IMAGES_PER_CLASS = {"train": 100, "t10k": 50}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Side effects: Writes four files; prints each, or one line of error."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("source", type=Path, help="folder with the four official IDX files")
    parser.add_argument("destination", type=Path, help="folder that gets the sample")
    options = parser.parse_args(arguments)
    try:
        for part, images_per_class in IMAGES_PER_CLASS.items():
            images_name, labels_name = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
            images_NHW = read_idx(options.source / images_name, 3)
            labels_N = read_idx(options.source / labels_name, 1)
            chosen = draw(labels_N, images_per_class, part)
            for name, values in ((images_name, images_NHW[chosen]), (labels_name, labels_N[chosen])):
                write_idx(options.destination / name, values)
                print(options.destination / name)
    except FedsupError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def draw(labels_N: npt.NDArray[np.uint8], images_per_class: int, part: str) -> npt.NDArray[np.int64]:
    """Return the positions of as many random images of every class, ascending."""
    drawn = []
    for label in np.unique(labels_N).tolist():
        random = generator(SEED, "sample", part, label)
        drawn.append(random.choice(np.flatnonzero(labels_N == label), images_per_class, replace=False))
    return np.sort(np.concatenate(drawn))


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    """Write unsigned bytes as a compressed IDX file. Side effects: Creates or replaces the file."""
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
    with (
        files.atomic_file(path) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as compressed,
    ):
        compressed.write(header + values.tobytes())


if __name__ == "__main__":
    sys.exit(main())
