"""ONNX graphs in int8, to be timed. The ranges are made up like the weights; for accuracy, ranges come from images.

What onnxruntime quantises best on a CPU, tried with 1.31 on a processor with VNNI: QDQ nodes around every operation,
activations uint8, weights int8 per channel. It then fuses all of them into integer operations, with two conversions at
the ends. Signed activations fall back to slower kernels, and weights per tensor are no faster. Its integer operations
cost more to start than the blocked float ones, so that a small network can take longer than in fp32.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files, rng
from fedsup_deploy.space.onnx_graph import INPUT_NAME


def quantize(path: Path, seed: int = 0) -> None:
    """Replace an ONNX file by its int8 variant.

    Args:
        path: The file, in fp32.
        seed: Of the input that gives the ranges of activations.

    Side effects: Replaces the file.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _, *sizes = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    shape = (1, *(size.dim_value for size in sizes))
    x_BCHW = rng.generator(seed, "quantize").standard_normal(shape, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            _OneInput(x_BCHW),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        files.write_bytes(path, quantized.read_bytes())


class _OneInput:
    """Hands out one input, as the quantiser asks for them."""

    def __init__(self, x_BCHW: NDArray[np.float32]) -> None:
        self._left = [{INPUT_NAME: x_BCHW}]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next input, or None."""
        return self._left.pop() if self._left else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice off the log: it is about accuracy, and there is none here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
