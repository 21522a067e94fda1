"""TorchScript: a frozen trace for libtorch runtimes, without the source references that torch adds.

torch 2.13 deprecates torch.jit as a whole. Devices still load it, so the product still writes it, and keeps that remark
from the user's terminal.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
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
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from fedsup_deploy.supernet.deployable import FoldedNetwork

_CLASS = b"Subnet"
_CODE = "code/"
_FILE: Final = "model.ts.pt"
_SERIALIZATION_ID = ".data/serialization_id"


class TorchScriptExporter:
    """`model.ts.pt`, by torch.jit.trace and torch.jit.freeze; run by torch.jit."""

    name: ClassVar[str] = "torchscript"
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
        """Write a network as TorchScript. See `Exporter.export`."""
        import torch

        zeros_BCHW = trace_input(network)
        buffer = io.BytesIO()
        with _without_deprecation(), torch.no_grad():
            # The parity gate compares at several batch sizes; the tracer's own check runs at one.
            traced = torch.jit.trace(network.module(), zeros_BCHW, check_trace=False)
            # Without "numerics" being optimised, weights stay those of the supernet, bit for bit.
            frozen = torch.jit.freeze(traced, optimize_numerics=False)
            torch.jit.save(frozen, buffer, _extra_files=dict(facts))
        records = _anonymise(read_records(buffer.getvalue()))
        for name, content in records.items():
            if name.startswith(_CODE) or name.endswith(".pkl"):
                refuse_machine_paths(f"{_FILE}:{name}", content)
        files.write_bytes(folder / _FILE, write_records(records))
        return (_FILE,)

    def load(self, path: Path) -> Runnable:
        """Return `model.ts.pt` as a function, run by torch.jit. See `Exporter.load`."""
        import torch

        try:
            with _without_deprecation():
                module = torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"{path.name}: not loadable by torch.jit: {first_line(error)}") from error
        return runnable(module)


@contextlib.contextmanager
def _without_deprecation() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        yield


def _anonymise(records: dict[str, bytes]) -> dict[str, bytes]:
    """Drop source references, and give the one class a name that does not depend on what this process did before.

    A frozen trace has one class. Torch names it after the Python class and, when that name was taken in this process,
    a running number; the name stands in the path of its code, in the code, and in the pickled root object.
    """
    sources = [name for name in records if name.startswith(_CODE) and name.endswith(".py")]
    definitions = [re.search(rb"^class (\w+)\(Module\):", records[name], re.MULTILINE) for name in sources]
    if len(definitions) != 1 or definitions[0] is None:
        raise GateError(f"TorchScript: got the classes {sources}, expected one; use a tested torch version")
    source, name = sources[0], definitions[0].group(1)
    scope = source.removeprefix(_CODE).removesuffix(".py").replace("/", ".").encode()
    kept = {key: value for key, value in records.items() if not key.endswith(".debug_pkl") and key != _SERIALIZATION_ID}
    code = kept[source].replace(b"class %b(Module):" % name, b"class %b(Module):" % _CLASS, 1)
    kept[source] = code.replace(b"%b.%b" % (scope, name), b"__torch__.%b" % _CLASS)
    kept["data.pkl"] = kept["data.pkl"].replace(b"c%b\n%b\n" % (scope, name), b"c__torch__\n%b\n" % _CLASS)
    return {f"{_CODE}__torch__.py" if key == source else key: value for key, value in kept.items()}
