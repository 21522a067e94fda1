"""What an ONNX file is, read off its graph: inputs, outputs, MACs and parameters. Nothing in it is run.

Owns a count of its own, from shapes alone: it is held against what a manifest says, so it must not come from there.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsup_deploy import memory
from fedsup_deploy.artifact.external_data import locations
from fedsup_deploy.artifact.int8_graph import Int8Graph
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice.bundle_files import MOST_BYTES_OF_A_FILE
from fedsup_deploy.ondevice.reading import read_bytes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

Shape = tuple[int | str, ...]

#: Operations with weights; what an exporter writes for convolutions and linear layers.
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BYTES_OF_AN_ELEMENT = 4
#: Names of the operators of ONNX.
_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Graph:
    """What the graph of a model says; of one in int8 as of the one in fp32 that it was made from.

    Args:
        inputs: Shape of each input by name; a dimension that may be anything has its symbol, such as `batch`.
        outputs: The same of each output.
        num_macs: Multiply-accumulates of convolutions and linear layers, for one image.
        num_params: Weights and biases of these; each layer has a bias of its own, also where the file
            has one for several, or none because it is zero.
        first_width: Channels that the first convolution writes; None without one.
        opset: Version of the operators of ONNX that it asks for; None where it does not say.
        scheme: How it computes in int8; None where it does not, or by no scheme of ours.
    """

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    num_macs: int
    num_params: int
    first_width: int | None
    opset: int | None
    scheme: Int8Scheme | None


def read_graph(path: Path, *, has_all_weights: bool = True) -> Graph:
    """Return what the graph of an ONNX file says.

    Args:
        path: The file.
        has_all_weights: Whether weights in another file are refused; their sizes stand in this one.

    Raises:
        ArtifactError: The file is none, or holds what no exporter of ours writes: control flow, functions, weights in
            another file, inputs or outputs that are not float32, values whose size depends on what is computed, or that
            no memory could hold.
    """
    import onnx

    with _refusing_what_cannot_be_counted(path):
        model = _load(path, has_all_weights=has_all_weights)
        inputs, outputs = _shapes(model.graph.input), _shapes(model.graph.output)
        int8 = Int8Graph(model) if _has_conversions(model) else None
        _fix_batch(model.graph)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        weights = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
        weights |= {node.output[0]: weights[node.input[0]] for node in inferred.node if _is_weight(node, weights)}
        values = {**_shapes((*inferred.input, *inferred.value_info, *inferred.output)), **weights}
        _refuse_what_cannot_be_held(inferred.node, values)
        means = frozenset() if int8 is None else int8.means()
        nodes = [node for node in inferred.node if node.op_type in _WEIGHTED and node.output[0] not in means]
        # The exporter writes equal tensors once, such as two biases of zeros; each layer has its own all the same.
        used = [name for node in nodes for name in node.input if name in weights]
        widths = [weights[node.input[1]][0] for node in nodes if node.op_type == "Conv"]
        return Graph(
            inputs=inputs,
            outputs=outputs,
            num_macs=sum(_macs(node, values) for node in nodes),
            num_params=sum(math.prod(weights[name]) for name in used) + sum(_left_out(node, weights) for node in nodes),
            first_width=widths[0] if widths else None,
            opset=_opset(model),
            scheme=None if int8 is None else int8.scheme(),
        )


def check_int8(path: Path, fp32: Path, scheme: Int8Scheme) -> Iterator[str]:
    """Yield in what an int8 file is not an fp32 file in 8 bits by a scheme; nothing where it is.

    Args:
        path: The int8 file.
        fp32: The other.
        scheme: How numbers of 8 bits stand for those of the other.

    Raises:
        ArtifactError: As of `read_graph`.
    """
    with _refusing_what_cannot_be_counted(path):
        model, of_fp32 = _load(path), _load(fp32)
        found = Int8Graph(model)
        for name, got, expected in (
            ("num_float_convolutions", 0, found.num_float_convolutions()),
            ("scheme", scheme, found.scheme()),
        ):
            if got != expected:
                yield f"gate.{name}: got {got}, expected {expected} as in {path.name}"
        versions = [(each.ir_version, _opset(each)) for each in (model, of_fp32)]
        if versions[0] != versions[1]:
            yield f"files: got IR version and opset {versions[0]}, expected {versions[1]} as in {fp32.name}"
        yield from (f"files: got {each} as in {fp32.name}" for each in found.differences(of_fp32))


def _load(path: Path, *, has_all_weights: bool = True) -> "ModelProto":
    import onnx

    model = onnx.load_model_from_string(read_bytes(path, MOST_BYTES_OF_A_FILE))
    _refuse_what_no_exporter_writes(model)
    if has_all_weights:
        _refuse_other_files(model)
    return model


@contextlib.contextmanager
def _refusing_what_cannot_be_counted(path: Path) -> Iterator[None]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        yield
    except (DecodeError, onnx.shape_inference.InferenceError, LookupError, TypeError, ValueError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path.name}: got no graph that can be counted ({what}); copy or export it again"
        ) from error


def _has_conversions(model: "ModelProto") -> bool:
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def _is_weight(node: "NodeProto", weights: Mapping[str, Shape]) -> bool:
    """Return whether what a node writes is a weight that the file has in 8 bits."""
    return node.op_type == "DequantizeLinear" and node.input[0] in weights


def _opset(model: "ModelProto") -> int | None:
    return next((each.version for each in model.opset_import if each.domain in _DOMAINS), None)


def _refuse_what_no_exporter_writes(model: "ModelProto") -> None:
    from onnx import AttributeProto, TensorProto

    graph = model.graph
    if not graph.input or not graph.output:
        raise ValueError("it has no input or no output")
    inner = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    if model.functions or any(attribute.type in inner for node in graph.node for attribute in node.attribute):
        raise ValueError("it has functions or control flow")
    if any(node.domain not in _DOMAINS for node in graph.node):
        raise ValueError("it has operators that are not of ONNX")
    if any(value.type.tensor_type.elem_type != TensorProto.FLOAT for value in (*graph.input, *graph.output)):
        raise ValueError("its input or output is not float32")


def _refuse_other_files(model: "ModelProto") -> None:
    if any(True for _ in locations(model)):
        raise ValueError("its weights are in another file")


def _refuse_what_cannot_be_held(nodes: "Iterable[NodeProto]", values: Mapping[str, Shape]) -> None:
    """Add up the sizes of all that is computed for one image: a small graph may ask for any amount of memory."""
    num_elements, most = 0, memory.machine_bytes() // _BYTES_OF_AN_ELEMENT
    for name in (name for node in nodes for name in node.output if name):
        sizes = [size for size in values.get(name, ("",)) if not isinstance(size, str)]
        if len(sizes) < len(values.get(name, ("",))):
            raise ValueError(f"nobody can tell how large {name[:60]!r} is")
        num_elements += math.prod(sizes)
        if num_elements > most:
            raise ValueError(f"with {name[:60]!r} it has {num_elements:,} elements, more than there is memory")


def _shapes(values: "Iterable[ValueInfoProto]") -> dict[str, Shape]:
    return {
        value.name: tuple(
            size.dim_value if size.HasField("dim_value") else size.dim_param
            for size in value.type.tensor_type.shape.dim
        )
        for value in values
    }


def _fix_batch(graph: "GraphProto") -> None:
    """Make it a graph for one image, whose shapes are known by those of its inputs and weights alone."""
    del graph.value_info[:]
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _left_out(node: "NodeProto", weights: Mapping[str, Shape]) -> int:
    """Return the size of a bias that is not in the file: the exporter leaves one of zeros out."""
    return 0 if len(node.input) > 2 else int(weights[node.input[1]][0])


def _macs(node: "NodeProto", values: Mapping[str, Sequence[int | str]]) -> int:
    """Return outputs times what each sums over, from the shapes of output and weights."""
    outputs = math.prod(map(int, values[node.output[0]]))
    weights = tuple(map(int, values[node.input[1]]))
    if node.op_type == "Conv":  # (out, in / groups, height, width)
        return outputs * math.prod(weights[1:])
    is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return outputs * weights[1 if is_transposed else 0]
