"""LiteRT: a .tflite file whose images and maps have their channels last, without a transpose, in float32 or in 8 bits.

The quantiser is that of LiteRT. It is shown no image: the ranges are those that clients have answered with, the same
that the int8 file of ONNX is made of. LiteRT knows one scheme of 8 bits: signed activations, and signed weights with a
step for each channel. Images go in and logits come out as float32.

Shapes: B batch, C channels, H W spatial.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import files
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.exporter import Batch, Facts, Layout, Runnable
from fedsup_deploy.export.silence import silence
from fedsup_deploy.ondevice import inference
from fedsup_deploy.ondevice.bundle_outputs import TOLERANCE
from fedsup_deploy.space.onnx_graph import INPUT_NAME, OUTPUT_NAME, build_model, observable, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.variant import Precision

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

    from fedsup_deploy.supernet.deployable import FoldedNetwork

_FILE: Final = "model.tflite"
_INT8_FILE: Final = "model.int8.tflite"
#: What is counted in a file.
TRANSPOSES: Final = "transposes"
# Operators, by their numbers in the format: CONV_2D and DEPTHWISE_CONV_2D, TRANSPOSE.
_CONVOLUTIONS: Final = (3, 4)
_TRANSPOSE: Final = 39
#: Images by which values are told apart.
_NUM_PROBES: Final = 4
#: Values that differ by no more are the same one, computed by two runtimes.
_SAME: Final = 1e-4


class LiteRTExporter:
    """`model.tflite`, and in int8 `model.int8.tflite`, for one image at a time; run on one thread."""

    name: ClassVar[str] = "litert"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "int8")
    needs: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"ai_edge_litert": "litert", "ai_edge_quantizer": "litert", "litert_torch": "litert"}
    )
    runtime: ClassVar[str] = "ai_edge_litert"
    batch: ClassVar[Batch] = "static"
    layout: ClassVar[Layout] = "nhwc"
    #: It holds no code. But TensorFlow's SECURITY.md calls models programs, and its runtime no place for a stranger's.
    needs_signature: ClassVar[bool] = True
    tolerance: ClassVar[float] = TOLERANCE

    def refusal(self, accepts: Accepts) -> str | None:  # noqa: ARG002
        """Refuse nothing: a runtime that takes either layout takes this one. See `Exporter.refusal`."""
        return None

    def export(self, network: "FoldedNetwork", facts: Facts, folder: Path) -> tuple[str, ...]:
        """Write a network for LiteRT. See `Exporter.export`.

        Raises:
            GateError: The file would transpose something, or compute a convolution in float32 that is to be in 8 bits.
        """
        name = _FILE if network.quantization is None else _INT8_FILE
        with silence():
            content = _described(_converted(network), facts)
            if network.quantization is not None:
                content = _quantized(content, _ranges(content, network))
        operators = _operators(content)
        num_transposes = sum(code == _TRANSPOSE for code, _ in operators)
        num_float = sum(code in _CONVOLUTIONS and not is_in_8_bits for code, is_in_8_bits in operators)
        for number, what in ((num_transposes, "transposes"), (num_float, "convolutions in float32")):
            if number and (what == "transposes" or network.quantization is not None):
                raise GateError(f"{name}: got {number} {what}, expected none; use a tested release of litert-torch")
        files.write_bytes(folder / name, content)
        return (name,)

    def load(self, path: Path) -> Runnable:
        """Return a file as a function of images B C H W, which it is handed one by one. See `Exporter.load`."""
        with silence():
            interpreter = _interpreter(path)
        ((read,), (written,)) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
            logits = []
            for image_HWC in images_BCHW.transpose(0, 2, 3, 1):
                interpreter.set_tensor(read["index"], np.ascontiguousarray(image_HWC[None]))
                interpreter.invoke()
                logits.append(interpreter.get_tensor(written["index"]))
            return np.concatenate(logits)

        return run

    def counted(self, path: Path) -> Mapping[str, int]:
        """Return how many transposes a file has. See `Counting`."""
        return {TRANSPOSES: sum(code == _TRANSPOSE for code, _ in _operators(path.read_bytes()))}


def _converted(network: "FoldedNetwork") -> bytes:
    """Return a network as LiteRT's converter writes it, with channels last."""
    import litert_torch
    import torch

    stem = network.plan.stem
    zeros_BHWC = torch.zeros(1, stem.in_size, stem.in_size, stem.in_channels)
    found = litert_torch.convert(litert_torch.to_channel_last_io(network.module(), args=[0]), (zeros_BHWC,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _FILE
        found.export(str(path))
        return path.read_bytes()


def _described(content: bytes, facts: Facts) -> bytes:
    """Return a file that says what it is told to, its values named as in other formats where they have a name there.

    The converter's names are paths through the classes of Python, several times as long as the network is large.
    """
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"t{index}".encode()
    for name, index, named in (
        (INPUT_NAME, *graph.inputs, *signature.inputs),
        (OUTPUT_NAME, *graph.outputs, *signature.outputs),
    ):
        graph.tensors[index].name = named.name = name.encode()
    for name, text in facts.items():
        entry, buffer = MetadataT(), BufferT()
        entry.name, entry.buffer, buffer.data = (
            name.encode(),
            len(model.buffers),
            np.frombuffer(text.encode(), np.uint8),
        )
        model.metadata.append(entry)
        model.buffers.append(buffer)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _quantized(content: bytes, ranges: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return a file in 8 bits; images and logits stay in float32.

    Args:
        content: Of the file in float32.
        ranges: Between which numbers each value is, by its name in the file.
    """
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    recipe.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    seen = {name: {"min": np.minimum(ends[:1], 0), "max": np.maximum(ends[1:], 0)} for name, ends in ranges.items()}
    quantizer = Quantizer(bytearray(content), recipe.get_quantization_recipe())
    return bytes(quantizer.quantize(seen, enable_progress_report=False).quantized_model)


def _ranges(content: bytes, network: "FoldedNetwork") -> dict[str, NDArray[np.float32]]:
    """Return between which numbers each value of a file in float32 is, by its name there.

    The converter merges operations and orders them anew. So values are told apart by what they hold for some images: it
    is what one or several values of the ONNX graph hold, whose ranges are known. What is padded keeps its range.

    Raises:
        GateError: A value is none of the ONNX graph.
    """
    assert network.quantization is not None, "it is to be in 8 bits"
    plan = network.plan
    images_BCHW = _probes(plan.stem.in_channels, plan.stem.in_size)
    known = list(zip(_values_of_onnx(network, images_BCHW), network.quantization.ranges(), strict=True))
    interpreter = _interpreter(content, keeps_all=True)
    operators = interpreter._get_ops_details()
    names = {each["index"]: each["name"] for each in interpreter.get_tensor_details()}
    written = [interpreter.get_input_details()[0]["index"], *(each for op in operators for each in op["outputs"])]
    found: dict[str, NDArray[np.float32]] = {}
    for index, value in _values_held(interpreter, images_BCHW, written).items():
        ends = [its for other, its in known if _is_same(value, other)]
        if ends:
            found[names[index]] = np.array([min(low for low, _ in ends), max(high for _, high in ends)])
    for op in operators:
        if op["op_name"] == "PAD":
            found[names[op["outputs"][0]]] = found[names[op["inputs"][0]]]
    unknown = [names[index] for index in written if names[index] not in found]
    if unknown:
        raise GateError(
            f"{_INT8_FILE}: got {len(unknown)} values that the network does not have; use a tested litert-torch"
        )
    return found


def _values_held(
    interpreter: "Interpreter", images_BCHW: NDArray[np.float32], indices: Iterable[int]
) -> dict[int, NDArray[np.float32]]:
    """Return what values of a file hold for images, channels first as in the ONNX graph, by their index."""
    held: dict[int, list[NDArray[np.float32]]] = {index: [] for index in indices}
    for image_HWC in images_BCHW.transpose(0, 2, 3, 1):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(image_HWC[None]))
        interpreter.invoke()
        for index, values in held.items():
            value = interpreter.get_tensor(index)
            values.append(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
    return {index: np.concatenate(values) for index, values in held.items()}


def _is_same(value: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    if value.size != other.size or len(value) != len(other):
        return False
    tolerance = _SAME * max(1.0, float(np.abs(other).max()))
    return bool(np.abs(value.reshape(-1) - other.reshape(-1)).max() <= tolerance)


def _probes(num_channels: int, size: int) -> NDArray[np.float32]:
    """Return some images of which no two parts are alike."""
    shape = (_NUM_PROBES, num_channels, size, size)
    return np.sin(np.arange(np.prod(shape), dtype=np.float64) ** 1.5).astype(np.float32).reshape(shape)


def _values_of_onnx(network: "FoldedNetwork", images_BCHW: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return what the values of a network's ONNX graph hold for images, in the order of ranges."""
    weights = {name: tensor.numpy() for name, tensor in network.weights.items()}
    watched, names = observable(build_model(parts_of(network.plan), weights))
    session = inference.open_session(to_bytes(watched), threads=1)
    return [images_BCHW, *session.run(list(names), {INPUT_NAME: images_BCHW})]


def _interpreter(model: Path | bytes, *, keeps_all: bool = False) -> "Interpreter":
    """Return what runs a file, or its content, on one thread.

    Args:
        model: The file.
        keeps_all: Whether every value can be read afterwards; slower.

    Raises:
        ArtifactError: The runtime does not accept the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    given = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
    kinds = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keeps_all else OpResolverType.AUTO
    try:
        found = Interpreter(
            **given, num_threads=1, experimental_preserve_all_tensors=keeps_all, experimental_op_resolver_type=kinds
        )
        found.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        name = model.name if isinstance(model, Path) else _FILE
        raise ArtifactError(f"{name}: not loadable by LiteRT: {inference.first_line(error)}") from error
    return found


def _operators(content: bytes) -> list[tuple[int, bool]]:
    """Return the operators of a file, each by its number in the format and whether it reads 8 bits."""
    from ai_edge_litert.schema_py_generated import TensorType
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    return [
        (model.operatorCodes[each.opcodeIndex].builtinCode, graph.tensors[each.inputs[0]].type == TensorType.INT8)
        for graph in model.subgraphs
        for each in graph.operators
    ]
