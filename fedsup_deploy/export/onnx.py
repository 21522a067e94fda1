"""ONNX: one self-contained file, with a dynamic batch or for one image at a time; torch takes no part.

`space.onnx_graph` writes it, and `space.quantization` its int8 form.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.exporter import Batch, Facts, Runnable, unfit_layout
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.space.onnx_graph import IR_VERSION, OPSET, build_model, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.quantization import quantized
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from fedsup_deploy.supernet.deployable import FoldedNetwork


class OnnxExporter:
    """`model.onnx`, its nodes and tensors named as in the supernet, and in int8 `model.int8.onnx`, made of it.

    Both are run by onnxruntime on one CPU thread.
    """

    name: ClassVar[str] = "onnx"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    runtime: ClassVar[str] = "onnxruntime"
    batch: ClassVar[Batch] = "either"
    needs_signature: ClassVar[bool] = False
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Compare the versions and the form written with those accepted. See `Exporter.refusal`."""
        for name, written, newest in (("opset", OPSET, accepts.onnx_opset), ("IR", IR_VERSION, accepts.onnx_ir)):
            if newest is not None and newest < written:
                return f"its runtime accepts ONNX {name} {newest} at most, and files are written with {name} {written}"
        return unfit_layout(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network as ONNX. See `Exporter.export`."""
        import onnx

        weights = {name: tensor.numpy() for name, tensor in network.weights.items()}
        model = build_model(parts_of(network.plan), weights, facts, is_static=network.is_static)
        name = bundle_files.MODEL
        if network.quantization is not None:
            how, name = network.quantization, bundle_files.INT8_MODEL
            model = quantized(model, how.ranges(), how.scheme)
        onnx.checker.check_model(model, full_check=True)
        files.write_bytes(folder / name, to_bytes(model))
        return (name,)

    def load(self, path: Path) -> Runnable:
        """Return a file as a function, run as the bundle's own runner does: one that does not end is ended.

        See `Exporter.load`.
        """
        failures = inference.runtime_errors()
        try:
            session = inference.open_session(str(path), threads=1)
        except failures as error:
            raise ArtifactError(f"{path.name}: not loadable by onnxruntime: {inference.first_line(error)}") from error

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            try:
                logits_BK: NDArray[np.float32] = inference.first_output(session, images_BCHW)
            except failures as error:
                what = f"onnxruntime fails on shape {images_BCHW.shape}: {inference.first_line(error)}"
                raise GateError(f"{path.name}: {what}") from error
            return logits_BK

        return run
