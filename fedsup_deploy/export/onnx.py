"""ONNX: one self-contained file with a dynamic batch. `space.onnx_graph` writes it; torch takes no part."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.exporter import Facts, Runnable
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.onnx_graph import build_model, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.supernet.deployable import FoldedNetwork


class OnnxExporter:
    """`model.onnx`, its nodes and tensors named as in the supernet; run by onnxruntime on one CPU thread."""

    name: ClassVar[str] = "onnx"
    filename: ClassVar[str] = "model.onnx"

    def export(self, network: FoldedNetwork, facts: Facts, path: Path) -> None:
        """Write a network as ONNX. See `Exporter.export`."""
        import onnx

        weights = {name: tensor.numpy() for name, tensor in network.weights.items()}
        model = build_model(parts_of(network.plan), weights, facts)
        onnx.checker.check_model(model, full_check=True)
        files.write_bytes(path, to_bytes(model))

    def load(self, path: Path) -> Runnable:
        """Return `model.onnx` as a function, run as the bundle's own runner does. See `Exporter.load`."""
        failures = inference.runtime_errors()
        try:
            session = inference.open_session(str(path), threads=1)
        except failures as error:
            raise ArtifactError(f"{path.name}: not loadable by onnxruntime: {inference.first_line(error)}") from error

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            try:
                logits_BK: NDArray[np.float32] = inference.bind(session, images_BCHW)()
            except failures as error:
                what = f"onnxruntime fails on shape {images_BCHW.shape}: {inference.first_line(error)}"
                raise GateError(f"{path.name}: {what}") from error
            return logits_BK

        return run
