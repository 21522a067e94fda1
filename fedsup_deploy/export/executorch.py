"""ExecuTorch: a program for its runtime on phones, whose convolutions XNNPACK computes, in float32 or in 8 bits.

The quantiser is that of XNNPACK. It is shown no image: the ranges are those that clients have answered with, the same
that the int8 file of ONNX is made of, and so is the scheme. In 8 bits the classifier's inputs get a scale of their own
for each image, so that its logits stay float32, which 8 bits would make equal; means stay in float32.
"""

import functools
import importlib.metadata
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.exporter import Batch, Facts, Runnable, refuse_machine_paths, trace_input, unfit_layout
from fedsup_deploy.export.silence import silence
from fedsup_deploy.ondevice.bundle_outputs import BATCHES, TOLERANCE
from fedsup_deploy.ondevice.inference import first_line
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from executorch.exir import EdgeProgramManager
    from executorch.runtime import Program, Runtime
    from torch.fx import GraphModule, Node
    from torchao.quantization.pt2e.quantizer import QuantizationConfig

    from fedsup_deploy.supernet.deployable import FoldedNetwork, Quantization

_FILE: Final = "model.pte"
_INT8_FILE: Final = "model.int8.pte"
_METHOD: Final = "forward"
#: Most images at once: the runtime plans the memory for so many beforehand.
MOST_IMAGES: Final = max(BATCHES)
#: What a file says of itself: the release that it is for, and how many convolutions XNNPACK computes, which are all.
RELEASE: Final = "executorch"
DELEGATED: Final = "delegated_convolutions"
# Steps of 8 bits are no smaller: what XNNPACK's own quantiser takes for activations. With a smaller one the ratio of
# steps around a convolution could exceed what XNNPACK computes with.
_LEAST_STEP: Final = 2**-12
_LEAST_STEP_OF_WEIGHTS: Final = 2**-16


class ExecuTorchExporter:
    """`model.pte`, and in int8 `model.int8.pte`, for up to `MOST_IMAGES` at once; run on one thread."""

    name: ClassVar[str] = "executorch"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({"executorch": "executorch"})
    runtime: ClassVar[str] = "executorch"
    batch: ClassVar[Batch] = "either"
    #: It holds no code. But its runtime is no place for a stranger's file: of 60 with four changed bytes, 1.5.1
    #: refused 58 and one ended the process; reads outside of its memory are still mended (pytorch/executorch#22118).
    needs_signature: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:
        """Compare the layout only: which release an app has, no profile says. See `Exporter.refusal`."""
        return unfit_layout(accepts)

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network as a program of ExecuTorch. See `Exporter.export`.

        Raises:
            GateError: XNNPACK would not compute some of the convolutions, or in 8 bits not all of them in 8 bits.
        """
        import torch

        how, module = network.quantization, network.module()
        name = _FILE if how is None else _INT8_FILE
        num_convolutions = sum(isinstance(each, torch.nn.Conv2d) for each in module.modules())
        release = importlib.metadata.version("executorch")
        said: dict[str, str | int] = {**facts, RELEASE: release, DELEGATED: num_convolutions}
        with silence(), torch.no_grad():
            graph: torch.nn.Module = module
            if how is not None:
                graph = _quantized(_exported(module, network).module(check_guards=False), how)
            lowered = _lowered(_exported(graph, network), said)
            num_delegated = _count_delegated(lowered, in_8_bits=how is not None)
            if num_delegated != num_convolutions:
                what = "" if how is None else " in 8 bits"
                found = f"got {num_delegated} convolutions delegated to XNNPACK{what}"
                raise GateError(f"{name}: {found}, expected all {num_convolutions}; use a tested release of executorch")
            written = lowered.to_executorch()
        for plan in written.executorch_program.execution_plan:
            if plan.name == _METHOD:  # the others are what the file says of itself
                refuse_machine_paths(name, repr(plan).encode())
        files.write_bytes(folder / name, bytes(written.buffer))
        return (name,)

    def load(self, path: Path) -> Runnable:
        """Return a file as a function, run by ExecuTorch. See `Exporter.load`."""
        import torch

        program = _program(path)

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            (logits_BK,) = _computed(program, _METHOD, torch.tensor(images_BCHW))
            found: NDArray[np.float32] = logits_BK.numpy().copy()
            return found

        return run

    def counted(self, path: Path) -> Mapping[str, int]:
        """Return how many convolutions XNNPACK computes, which a file says since it was written. See `Counting`."""
        return {DELEGATED: int(*_computed(_program(path), DELEGATED))}


def _exported(module: "torch.nn.Module", network: "FoldedNetwork") -> "torch.export.ExportedProgram":
    """Return a module as a graph that takes one image, or up to `MOST_IMAGES`."""
    import torch

    zeros_BCHW = trace_input(network)
    if network.is_static:
        return torch.export.export(module, (zeros_BCHW[:1],), strict=False)
    batch = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
    return torch.export.export(module, (zeros_BCHW,), dynamic_shapes=({0: batch},), strict=False)


def _lowered(program: "torch.export.ExportedProgram", said: Mapping[str, str | int]) -> "EdgeProgramManager":
    """Return a graph of which XNNPACK computes all it can."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=dict(said))


def _count_delegated(lowered: "EdgeProgramManager", *, in_8_bits: bool) -> int:
    """Return how many convolutions XNNPACK computes; where that is asked, of those with 8 bits on either side."""
    from executorch.exir.lowered_backend_module import get_lowered_backend_modules

    graphs = [
        each.original_module.graph for each in get_lowered_backend_modules(lowered.exported_program().graph_module)
    ]
    convolutions = [node for graph in graphs for node in graph.nodes if _is(node, "aten.convolution.")]
    return sum(
        not in_8_bits or all(_is(each, "quantized_decomposed.dequantize_") for each in node.args[:2])
        for node in convolutions
    )


def _is(node: "Node", operation: str) -> bool:
    return operation in str(node.target)


def _quantized(graph: "GraphModule", how: "Quantization") -> "GraphModule":
    """Return a float32 graph as one in 8 bits.

    Args:
        graph: It reads one value and computes one with each operation, but for those that only reshape, in the order of
            the ranges.
        how: Ranges and scheme.
    """
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    values = [node for node in graph.graph.nodes if node.op in {"placeholder", "call_function"}]
    values = [node.name for node in values if not _is(node, "aten.flatten.")]
    ranges = {name: torch.from_numpy(ends) for name, ends in zip(values, how.ranges(), strict=True)}
    quantizer = _quantizer()
    quantizer.set_global(_config_of(how.scheme))
    quantizer.set_module_type(torch.nn.Linear, get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(graph, quantizer)
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        observer, (seen,) = prepared.get_submodule(node.target), node.args
        if seen.op == "get_attr":  # weights and constants
            observer(operator.attrgetter(seen.target)(prepared))
        elif seen.name in ranges:  # instead of images, the ends of what was seen of them
            observer(ranges[seen.name])
    found: GraphModule = convert_pt2e(prepared)
    return found


def _quantizer() -> "XNNPACKQuantizer":
    """Return the quantiser of XNNPACK, but for means, which it leaves in float32."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    class MeansLeftAlone(XNNPACKQuantizer):  # type: ignore[misc]  # it has no types
        def annotate(self, model: "GraphModule") -> "GraphModule":
            annotated: GraphModule = super().annotate(model)
            for node in annotated.graph.nodes:
                # They would be given the steps of what they are the means of, which are larger.
                if _is(node, "aten.mean.") or _is(node, "aten.flatten."):
                    node.meta.pop(Q_ANNOTATION_KEY, None)
            return annotated

    return MeansLeftAlone()


def _config_of(scheme: Int8Scheme) -> "QuantizationConfig":
    """Return a scheme as the quantiser wants it. Unsigned activations are the signed ones less 128: the same steps."""
    import torch
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

    activations = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_symmetric if scheme.is_symmetric else torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=_LEAST_STEP),
    )
    largest = 64 if scheme.reduce_range else 127
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-largest,
        quant_max=largest,
        qscheme=torch.per_channel_symmetric if scheme.per_channel else torch.per_tensor_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=(PerChannelMinMaxObserver if scheme.per_channel else MinMaxObserver).with_args(
            eps=_LEAST_STEP_OF_WEIGHTS
        ),
    )
    return QuantizationConfig(activations, activations, weights, None)


def _program(path: Path) -> "Program":
    """Return a file's program, ready to run.

    Raises:
        ArtifactError: The runtime does not accept the file.
    """
    try:
        with silence():
            program: Program = _runtime().load_program(path)
            program.load_method(_METHOD)
    except RuntimeError as error:
        raise ArtifactError(f"{path.name}: not loadable by ExecuTorch: {first_line(error)}") from error
    return program


def _computed(program: "Program", method: str, *inputs: "torch.Tensor") -> "Sequence[torch.Tensor]":
    """Return what a method of a program computes."""
    with silence():
        found: Sequence[torch.Tensor] = program.load_method(method).execute(inputs)
    return found


@functools.cache
def _runtime() -> "Runtime":
    """Return the runtime of this process, told to compute on one thread, as the other runtimes of the gate do."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    # Once, and before anything is loaded: threads that are taken from a loaded program end the process.
    portable_lib._unsafe_reset_threadpool(1)
    return Runtime.get()
