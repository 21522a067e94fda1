"""Core ML: one file for iOS 13, macOS 10.15 and later, for one image at a time. No converter takes part.

Of Core ML's two kinds of models for networks this is the older, a neural network in a `.mlmodel`: one flat file, which
every release since iOS 13 loads, on each processor of a phone. The app chooses which, and so the precision: on the CPU
alone it is float32, as the weights are. The newer kind, an ML program, is a folder of three files with random names in
them, needs iOS 15, and in float32 leaves the neural engine idle.

There is no Core ML on Linux. What holds a file to the network is `coreml_run`, which reads it back and computes what it
says; whether Core ML does the same, nobody has tried here. There is no int8: a neural network computes with floats.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.artifact.variants import THIS_PROGRAM
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export import coreml_layers, coreml_run
from fedsup_deploy.export.exporter import Batch, Facts, Runnable, unfit_layout
from fedsup_deploy.ondevice.bundle_files import MOST_BYTES_OF_A_FILE
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.ondevice.reading import read_bytes
from fedsup_deploy.space.onnx_graph import build_model
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from fedsup_deploy.supernet.deployable import FoldedNetwork

FILE: Final = "model.mlmodel"


class CoreMLExporter:
    """`model.mlmodel`, in float32; read back and computed by this program, image by image."""

    name: ClassVar[str] = "coreml"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({"coremltools": "coreml"})
    runtime: ClassVar[str] = THIS_PROGRAM
    batch: ClassVar[Batch] = "static"
    needs_signature: ClassVar[bool] = False
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Compare the layout only. See `Exporter.refusal`."""
        return unfit_layout(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network for Core ML. See `Exporter.export`."""
        weights = {name: tensor.numpy() for name, tensor in network.weights.items()}
        graph = build_model(parts_of(network.plan), weights)
        files.write_bytes(folder / FILE, coreml_layers.to_bytes(graph, facts))
        return (FILE,)

    def load(self, path: Path) -> Runnable:
        """Return what a file says as a function; it needs no library of Apple's. See `Exporter.load`."""
        from threadpoolctl import threadpool_limits

        try:
            network = coreml_run.read(read_bytes(path, MOST_BYTES_OF_A_FILE))
        except (OSError, ValueError, ArtifactError) as error:
            raise ArtifactError(f"{path.name}: not a Core ML file of ours: {error}") from error

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            with threadpool_limits(1):
                return np.concatenate([network.logits(image_CHW[None]) for image_CHW in images_BCHW])

        return run
