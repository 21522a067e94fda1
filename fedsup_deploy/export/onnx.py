"""ONNX: one self-contained file, opset 18, dynamic batch, no trace of the machine that wrote it.

Never quantises and never folds norms: a graph that still has a normalisation node is refused.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsup_deploy import files
from fedsup_deploy.artifact import runner
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.exporter import (
    INPUT_NAME,
    OUTPUT_NAME,
    Runnable,
    refuse_machine_paths,
    trace_input,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

# The oldest that the exporter writes natively. IR 8 came with it, and nothing of a later IR is used, so that runtimes
# of old devices load the file: tried with onnxruntime 1.15.
OPSET = 18
_IR_VERSION = 8
_REGISTRATION_LOG = "torch.onnx._internal.exporter._registration"


class OnnxExporter:
    """`model.onnx`, by torch.export and onnxscript; run by onnxruntime on one CPU thread."""

    name: ClassVar[str] = "onnx"
    filename: ClassVar[str] = "model.onnx"

    def export(self, module: nn.Module, example_BCHW: torch.Tensor, path: Path) -> None:
        """Write a module as ONNX. See `Exporter.export`."""
        import onnx

        zeros_BCHW = trace_input(module, example_BCHW)
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (zeros_BCHW,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
            )
        assert program is not None, "torch.onnx.export(dynamo=True) returns a program"
        model = program.model_proto
        _anonymise(model)
        _count_no_padding(model)
        onnx.checker.check_model(model, full_check=True)
        _check_content(model, path.name)
        files.write_bytes(path, model.SerializeToString(deterministic=True))

    def load(self, path: Path) -> Runnable:
        """Return `model.onnx` as a function, run as the bundle's own runner does. See `Exporter.load`."""
        failures = runner.runtime_errors()
        try:
            session = runner.open_session(str(path), threads=1)
        except failures as error:
            raise ArtifactError(f"{path.name}: not loadable by onnxruntime: {runner.first_line(error)}") from error

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            try:
                logits_BK: NDArray[np.float32] = runner.bind(session, images_BCHW)()
            except failures as error:
                what = f"onnxruntime fails on shape {images_BCHW.shape}: {runner.first_line(error)}"
                raise GateError(f"{path.name}: {what}") from error
            return logits_BK

        return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence two remarks of torch.onnx about itself; everything else it has to say still gets through."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    log = logging.getLogger(_REGISTRATION_LOG)
    log.addFilter(is_wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        log.removeFilter(is_wanted)


def _anonymise(model: "ModelProto") -> None:
    """Drop what differs between machines: stack traces, source names, versions of the tools."""
    model.ir_version = _IR_VERSION
    model.producer_name = "fedsup-deploy"
    for field in ("producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        model.ClearField(field)
    graph = model.graph
    for message in _annotated(graph):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    graph.name = "subnet"


def _count_no_padding(model: "ModelProto") -> None:
    """Say of average pooling without padding that padding is not counted.

    It makes no difference, except to old runtimes: where a window overhangs the image (odd sizes), onnxruntime 1.15
    divides by the whole window if padding counts.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "AveragePool" and "count_include_pad" in attributes and not any(attributes["pads"].ints):
            attributes["count_include_pad"].i = 0


def _annotated(graph: "GraphProto") -> Iterable[Any]:
    yield graph
    yield from graph.node
    yield from graph.initializer
    for values in (graph.input, graph.output, graph.value_info):
        yield from values


def _check_content(model: "ModelProto", where: str) -> None:
    import onnx

    norms = sorted({node.op_type for node in model.graph.node if node.op_type.endswith("Normalization")})
    if norms:
        raise GateError(f"{where}: got {', '.join(norms)} nodes, expected none; fold the norms before the export")
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    for tensor in skeleton.graph.initializer:
        assert tensor.data_location != onnx.TensorProto.EXTERNAL, "weights stand in the model's own file"
        tensor.ClearField("raw_data")
    refuse_machine_paths(where, skeleton.SerializeToString())
