"""OpenVINO IR: what OpenVINO reads of the ONNX files, as a graph in XML beside its weights.

Nothing is converted by its converter: that one phones home, and `read_model` does the same.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.exporter import Batch, Facts, Runnable, refuse_machine_paths, unfit_layout
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.ondevice.inference import first_line
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from openvino import CompiledModel, Model

    from fedsup_deploy.supernet.deployable import FoldedNetwork

#: One thread, as the other runtimes of the gate. Without the hint, processors that have bf16 would compute with it.
_SETTINGS: Final = MappingProxyType(
    {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": ""}
)
_FLOATS: Final = ("f32", "f16", "bf16")
#: Operations with a graph within, which may run it for ever: nothing ends OpenVINO's CPU in the middle of one.
_WITH_GRAPHS: Final = frozenset({"If", "Loop", "TensorIterator"})


class OpenVinoExporter:
    """`model.xml` and `model.bin`, and in int8 `model.int8.xml` and `model.int8.bin`; run by OpenVINO on one thread."""

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({"openvino": "openvino"})
    runtime: ClassVar[str] = "openvino"
    batch: ClassVar[Batch] = "either"
    needs_signature: ClassVar[bool] = False
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Compare the layout only: which release a device has, no profile says. See `Exporter.refusal`."""
        return unfit_layout(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network as OpenVINO IR. See `Exporter.export`.

        Raises:
            GateError: OpenVINO would compute convolutions of int8 in floats, or a path of this machine is in the graph.
        """
        import openvino

        with tempfile.TemporaryDirectory() as place:
            (source,) = OnnxExporter().export(network, facts, Path(place))
            graph = Path(place, source).with_suffix(".xml")
            try:
                model = openvino.Core().read_model(Path(place, source))
                _name_anew(model)
                openvino.save_model(model, graph, compress_to_fp16=False)
                refuse_machine_paths(graph.name, _without_facts(graph))
            except RuntimeError as error:
                raise GateError(f"{graph.name}: not written by OpenVINO: {_said(error)}") from error
            if network.quantization is not None:
                num_float = count_float_convolutions(graph)
                if num_float:
                    what = f"OpenVINO would compute {num_float} convolutions in float32, expected none"
                    raise GateError(f"{graph.name}: {what}")
            names = graph.name, graph.with_suffix(".bin").name
            for name in names:
                files.write_bytes(folder / name, Path(place, name).read_bytes())
        return names

    def load(self, path: Path) -> Runnable:
        """Return a graph and the weights beside it as a function. See `Exporter.load`."""
        model = _compiled(path)

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            try:
                logits_BK: NDArray[np.float32] = model(images_BCHW)[0].copy()
            except RuntimeError as error:
                what = f"OpenVINO fails on shape {images_BCHW.shape}: {_said(error)}"
                raise GateError(f"{path.name}: {what}") from error
            return logits_BK

        return run


def count_float_convolutions(path: Path) -> int:
    """Return how many convolutions of an int8 graph OpenVINO would compute in floats on this processor.

    Raises:
        ArtifactError: OpenVINO does not load it.
    """
    kinds = [node.get_rt_info() for node in _compiled(path).get_runtime_model().get_ops()]
    return sum(
        "Convolution" in kind["layerType"].astype(str) and kind["runtimePrecision"].astype(str) in _FLOATS
        for kind in kinds
    )


def _without_facts(graph: Path) -> bytes:
    """Return a graph without what it was told to say of itself: classes may have any name."""
    root = ElementTree.parse(graph).getroot()
    for told in root.findall("rt_info"):
        for facts in told.findall("framework"):
            told.remove(facts)
    content: bytes = ElementTree.tostring(root)
    return content


def _name_anew(model: "Model") -> None:
    """Number what OpenVINO added itself by its place: it numbers such nodes by how many this process has ever made."""
    for place, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(rf"{node.get_type_name()}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _compiled(path: Path) -> "CompiledModel":
    import openvino

    try:
        core = openvino.Core()
        model = core.read_model(path)
        if not _WITH_GRAPHS.isdisjoint(node.get_type_name() for node in model.get_ops()):
            raise ArtifactError(f"{path.name}: not loaded: it has control flow, which no file of this program has")
        return core.compile_model(model, "CPU", dict(_SETTINGS))
    except RuntimeError as error:
        raise ArtifactError(f"{path.name}: not loadable by OpenVINO: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return the last line of what OpenVINO says: those before it are where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)
