"""ncnn: layers as text and their numbers beside it, for one image at a time. No converter takes part.

There is no int8: ncnn quantises by tables of its own tool, which its package lacks, and reads no ranges of ours.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export import ncnn_layers
from fedsup_deploy.export.exporter import Batch, Facts, Runnable, unfit_layout
from fedsup_deploy.ondevice.bundle_files import MOST_BYTES_OF_A_FILE
from fedsup_deploy.ondevice.reading import read_bytes
from fedsup_deploy.space.onnx_graph import INPUT_NAME, OUTPUT_NAME, build_model
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    import ncnn

    from fedsup_deploy.supernet.deployable import FoldedNetwork

LAYERS: Final = "model.ncnn.param"
NUMBERS: Final = "model.ncnn.bin"
#: Far more than the text of the largest network.
_MOST_BYTES_OF_TEXT: Final = 2**23


class NcnnExporter:
    """`model.ncnn.param` and `model.ncnn.bin`, in float32; run by ncnn on one CPU thread, image by image."""

    name: ClassVar[str] = "ncnn"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({"ncnn": "ncnn"})
    runtime: ClassVar[str] = "ncnn"
    batch: ClassVar[Batch] = "static"
    needs_signature: ClassVar[bool] = False
    # It convolves 3x3 by Winograd's transforms, whose sums cancel: 10 to 100 times the rounding of the others.
    tolerance: ClassVar[float] = 1e-4

    def refusal(self, accepts: Accepts) -> str | None:
        """Compare the layout only. See `Exporter.refusal`."""
        return unfit_layout(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:  # noqa: ARG002  no place for facts
        """Write a network for ncnn. See `Exporter.export`. The files have no place for facts: the manifest has them."""
        weights = {name: tensor.numpy() for name, tensor in network.weights.items()}
        layers, numbers = ncnn_layers.layers_of(build_model(parts_of(network.plan), weights))
        content = {
            LAYERS: ncnn_layers.to_text(layers).encode(),
            NUMBERS: ncnn_layers.to_bytes(layers, numbers),
        }
        for name, each in content.items():
            files.write_bytes(folder / name, each)
        return tuple(content)

    def load(self, path: Path) -> Runnable:
        """Return the network as a function, after a check of what ncnn believes a file. See `Exporter.load`."""
        try:
            text, content = read_bytes(path, _MOST_BYTES_OF_TEXT), read_bytes(_beside(path), MOST_BYTES_OF_A_FILE)
            channels, side = ncnn_layers.check(text.decode(), content)
        except (OSError, ValueError, ArtifactError) as error:
            raise ArtifactError(f"{path.name}: not loadable by ncnn: {error}") from error
        network = _opened(path)

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            if images_BCHW.shape[1:] != (channels, side, side):  # ncnn would read beyond the weights
                expected = f"expected images of {channels} channels and {side} x {side}"
                raise GateError(f"{path.name}: got images of shape {images_BCHW.shape}, {expected}")
            return np.stack([_logits(network, image_CHW) for image_CHW in images_BCHW])

        return run


def _beside(path: Path) -> Path:
    return path.with_suffix(".bin")


def _opened(path: Path) -> "ncnn.Net":
    import ncnn

    network = ncnn.Net()
    options = network.opt
    options.num_threads = 1
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.use_bf16_storage = options.use_vulkan_compute = False
    for code in (network.load_param(str(path)), network.load_model(str(_beside(path)))):
        if code != 0:
            raise ArtifactError(f"{path.name}: not loadable by ncnn: it returns {code}")
    return network


def _logits(network: "ncnn.Net", image_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
    import ncnn

    extractor = network.create_extractor()
    extractor.input(INPUT_NAME, ncnn.Mat(np.ascontiguousarray(image_CHW)))
    code, logits = extractor.extract(OUTPUT_NAME)
    if code != 0:
        raise GateError(f"{LAYERS}: ncnn fails on shape {image_CHW.shape}: it returns {code}")
    return np.array(logits, dtype=np.float32)
