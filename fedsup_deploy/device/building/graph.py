"""Parts of networks as ONNX files with made-up weights, to be timed. Needs onnx, and no torch.

The weights are random: nothing computed by these files means anything, only how long it takes. In int8 the ranges of
activations are what these weights make of a random image; all else is as exported networks are written.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files, rng
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.layers.kind import folded_shapes
from fedsup_deploy.space.onnx_graph import INPUT_NAME, build_model, observable, to_bytes
from fedsup_deploy.space.parts import Part, layers_of
from fedsup_deploy.space.quantization import quantized

if TYPE_CHECKING:
    from onnx import ModelProto


def write_graph(parts: tuple[Part, ...], path: Path, seed: int = 0, scheme: Int8Scheme | None = None) -> None:
    """Write consecutive parts of a network as an ONNX file.

    Args:
        parts: In plain integers; each reads what the one before has written.
        path: Where to.
        seed: Of the weights, and of the image that ranges are taken on.
        scheme: How it is written in int8; None: in float32.

    Side effects: Writes the file.
    """
    model = build_model(parts, random_weights(parts, seed))
    if scheme is not None:
        model = quantized(model, ranges_on_a_random_image(model, seed), scheme)
    files.write_bytes(path, to_bytes(model))


def ranges_on_a_random_image(model: "ModelProto", seed: int) -> NDArray[np.float32]:
    """Return the smallest and the largest number of each of a model's V values, shape (V, 2), on one image."""
    _, *sizes = model.graph.input[0].type.tensor_type.shape.dim
    shape = (1, *(size.dim_value for size in sizes))
    x_BCHW = rng.generator(seed, "quantize").standard_normal(shape, dtype=np.float32)
    watched, names = observable(model)
    values = [x_BCHW, *inference.open_session(to_bytes(watched), threads=1).run(list(names), {INPUT_NAME: x_BCHW})]
    return np.array([(each.min(), each.max()) for each in values], dtype=np.float32)


def random_weights(parts: tuple[Part, ...], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return weights of a size that keeps activations of order 1, and biases, by name."""
    random = rng.generator(seed, "graph")

    def drawn(shape: tuple[int, ...]) -> NDArray[Any]:
        scale = float(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 0.1
        return random.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    layers = [layer for part in parts for layer in layers_of(part)]
    return {name: drawn(shape) for layer in layers for name, shape in folded_shapes(layer).items()}
