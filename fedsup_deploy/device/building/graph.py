"""Parts of networks as ONNX files with made-up weights, to be timed. Needs onnx, and no torch.

The weights are random: nothing computed by these files means anything, only how long it takes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files, rng
from fedsup_deploy.space.layers.kind import folded_shapes
from fedsup_deploy.space.onnx_graph import build_model, to_bytes
from fedsup_deploy.space.parts import Part, layers_of


def write_graph(parts: tuple[Part, ...], path: Path, seed: int = 0) -> None:
    """Write consecutive parts of a network as an ONNX file.

    Args:
        parts: In plain integers; each reads what the one before has written.
        path: Where to.
        seed: Of the weights.

    Side effects: Writes the file.
    """
    files.write_bytes(path, to_bytes(build_model(parts, random_weights(parts, seed))))


def random_weights(parts: tuple[Part, ...], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return weights of a size that keeps activations of order 1, and biases, by name."""
    random = rng.generator(seed, "graph")

    def drawn(shape: tuple[int, ...]) -> NDArray[Any]:
        scale = float(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 0.1
        return random.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    layers = [layer for part in parts for layer in layers_of(part)]
    return {name: drawn(shape) for layer in layers for name, shape in folded_shapes(layer).items()}
