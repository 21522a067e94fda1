"""ORT format: the ONNX files as onnxruntime has optimised them, which its builds for phones load.

What is in such a file is what runs: nothing is optimised when it is loaded. So what would suit this machine's processor
alone is left out of it, and convolutions of int8 are fused here, whichever type activations have.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import GateError
from fedsup_deploy.export.exporter import Batch, Facts, Runnable
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.export.ort_order import in_one_order
from fedsup_deploy.ondevice import inference
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from fedsup_deploy.supernet.deployable import FoldedNetwork

_SUFFIX: Final = ".ort"
#: 1.16 is the first release that loads these files. It accepts opset 19, as 1.15 does, which refuses them: so the next.
_OLDEST_OPSET: Final = 20


class OrtExporter:
    """`model.ort`, and in int8 `model.int8.ort`, by onnxruntime of the files of ONNX; run by it on one CPU thread."""

    name: ClassVar[str] = "ort"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    runtime: ClassVar[str] = "onnxruntime"
    batch: ClassVar[Batch] = "either"
    needs_signature: ClassVar[bool] = False
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Say which releases load it: other ones than those that load the ONNX file. See `Exporter.refusal`."""
        if accepts.onnx_opset is not None and accepts.onnx_opset < _OLDEST_OPSET:
            return (
                f"its onnxruntime accepts ONNX opset {accepts.onnx_opset} at most, and only those that accept "
                f"{_OLDEST_OPSET} are known to load these files"
            )
        return OnnxExporter().refusal(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network in ORT format. See `Exporter.export`."""
        with tempfile.TemporaryDirectory() as place:
            (source,) = OnnxExporter().export(network, facts, Path(place))
            made = Path(place, source).with_suffix(_SUFFIX)
            _convert(Path(place, source), made)
            files.write_bytes(folder / made.name, in_one_order(made.read_bytes()))
        return (made.name,)

    def load(self, path: Path) -> Runnable:
        """Return a file as a function, as that of ONNX. See `Exporter.load`."""
        return OnnxExporter().load(path)


def _convert(source: Path, made: Path) -> None:
    import onnxruntime

    options = inference.session_options(threads=1)
    # All but what is of this processor: layouts in blocks of its vectors.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(made)
    options.add_session_config_entry("session.save_model_format", "ORT")
    # Signed activations are for ARM, and x86 computes with them where it is told to.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    try:
        inference.session_with(options, str(source))
    except inference.runtime_errors() as error:
        raise GateError(f"{made.name}: not written by onnxruntime: {inference.first_line(error)}") from error
