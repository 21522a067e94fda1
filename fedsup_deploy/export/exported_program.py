"""torch.export: the graph that ExecuTorch, AOTInductor and other torch-based compilers start from."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.archive import read_records, write_records
from fedsup_deploy.export.exporter import (
    Batch,
    Facts,
    Runnable,
    refuse_machine_paths,
    runnable,
    trace_input,
    unfit_layout,
)
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.ondevice.inference import first_line
from fedsup_deploy.space.onnx_graph import OUTPUT_NAME
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    import torch

    from fedsup_deploy.supernet.deployable import FoldedNetwork

#: What torch has no words of its own in: tensors, and the facts that it is given.
_GIVEN = ("data/weights/weight_", "extra/")
_FILE: Final = "model.pt2"
_SERIALIZATION_ID = ".data/serialization_id"


class ExportedProgramExporter:
    """`model.pt2`, by torch.export with any batch size; run by torch as the loaded graph."""

    name: ClassVar[str] = "pt2"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    runtime: ClassVar[str] = "torch"
    batch: ClassVar[Batch] = "dynamic"
    needs_signature: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Compare the layout only: no profile says which torch its device has. See `Exporter.refusal`."""
        return unfit_layout(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network as an exported program. See `Exporter.export`."""
        import torch

        zeros_BCHW = trace_input(network)
        with torch.no_grad():
            program = torch.export.export(
                network.module(), (zeros_BCHW,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
            )
        program.example_inputs = None
        _name_output(program)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files=dict(facts))
        records = read_records(buffer.getvalue())
        records.pop(_SERIALIZATION_ID, None)
        for name, content in records.items():
            if not name.startswith(_GIVEN):
                refuse_machine_paths(f"{_FILE}:{name}", content)
        files.write_bytes(folder / _FILE, write_records(records))
        return (_FILE,)

    def load(self, path: Path) -> Runnable:
        """Return `model.pt2` as a function, run by torch. See `Exporter.load`."""
        import torch

        if not zipfile.is_zipfile(path):  # torch would log a traceback before it raises
            raise ArtifactError(f"{path.name}: not loadable by torch.export: the file is missing, cut short or altered")
        try:
            module = torch.export.load(path).module()
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"{path.name}: not loadable by torch.export: {first_line(error)}") from error
        return runnable(module)


def _name_output(program: "torch.export.ExportedProgram") -> None:
    """Name what the program returns as the other formats do; torch names it after the last operation."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    ((logits,),) = output.args
    program.graph_signature.replace_all_uses(logits.name, OUTPUT_NAME)
    logits.name = OUTPUT_NAME
