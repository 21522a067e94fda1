"""Networks as Core ML has them: a model of layers in protocol buffers, in the words of coremltools' own definitions.

They are written from the ONNX graph, node by node, without a converter, and as coremltools' builder of neural networks
writes them: such layers Core ML has read since it began, but for the mean and the bounds, which iOS 13 brought.

Source: NeuralNetwork.proto of coremltools 9.0.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fedsup_deploy.errors import GateError
from fedsup_deploy.export.onnx_steps import OnnxStep, image_shape, steps_of
from fedsup_deploy.export.silence import silence
from fedsup_deploy.space.onnx_graph import INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    from onnx import ModelProto

#: The version of the format that came with iOS 13 and macOS 10.15: maps keep the dimensions that they have.
SPECIFICATION: Final = 4
#: Of an array of numbers, and how its dimensions reach the layers.
FLOAT32: Final = 65568
EXACT_SHAPE: Final = 1
_SHAPE_OF_IMAGES: Final = 1
AVERAGE: Final = 1
#: What coremltools' generated classes are: it has no types.
_Message = Any


def to_bytes(graph: "ModelProto", facts: Mapping[str, str]) -> bytes:
    """Return the content of a model's file: the same for the same graph and facts.

    Args:
        graph: Of a whole network, from images to logits.
        facts: What the file is to say of itself.

    Raises:
        GateError: It has an operation that nothing here knows.
    """
    with silence():  # it tells of releases of torch that it was not tried with; nothing of it is used here
        from coremltools.proto import Model_pb2

    model = Model_pb2.Model(specificationVersion=SPECIFICATION)
    channels, side = image_shape(graph)
    _, *logits = (size.dim_value for size in graph.graph.output[0].type.tensor_type.shape.dim)
    for end, name, shape in (
        (model.description.input, INPUT_NAME, (1, channels, side, side)),
        (model.description.output, OUTPUT_NAME, (1, *logits)),
    ):
        array = end.add(name=name).type.multiArrayType
        array.shape.extend(shape)
        array.dataType = FLOAT32
    model.description.metadata.userDefined.update(facts)
    network = model.neuralNetwork
    network.arrayInputShapeMapping, network.imageInputShapeMapping = EXACT_SHAPE, _SHAPE_OF_IMAGES
    for step in steps_of(graph, _OPERATIONS, "Core ML"):
        layer = network.layers.add(name=step.name, input=step.values, output=step.outputs)
        _OPERATIONS[step.operation](layer, step)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _convolution(layer: _Message, step: OnnxStep) -> None:
    weight, stated = step.constants[0], step.stated
    top, left, bottom, right = stated.get("pads", [0] * 4)
    made = layer.convolution
    made.outputChannels, made.kernelChannels, *sides = weight.shape
    made.kernelSize.extend(sides)
    made.stride.extend(stated.get("strides", [1, 1]))
    made.dilationFactor.extend([1, 1])
    made.nGroups = stated.get("group", 1)
    _pad(made.valid, ((top, bottom), (left, right)))
    _weigh(made, step)


def _product(layer: _Message, step: OnnxStep) -> None:
    made = layer.innerProduct
    made.outputChannels, made.inputChannels = step.constants[0].shape
    _weigh(made, step)


def _weigh(made: _Message, step: OnnxStep) -> None:
    """Set weights, in the order of their dimensions in ONNX, which is Core ML's, and biases."""
    weight, bias = step.constants
    made.hasBias = True
    made.weights.floatValue.extend(weight.ravel())
    made.bias.floatValue.extend(bias)


def _pad(valid: _Message, amounts: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Set what is added before and after a map's height, and its width."""
    for before, after in amounts:
        valid.paddingAmounts.borderAmounts.add(startEdgeSize=before, endEdgeSize=after)


def _mean_of_windows(layer: _Message, step: OnnxStep) -> None:
    sides, strides = step.stated["kernel_shape"], step.stated["strides"]
    made = layer.pooling
    made.type = AVERAGE
    made.kernelSize.extend(sides)
    made.stride.extend(strides)
    # What is padded is not counted; of an even map nothing is.
    made.avgPoolExcludePadding = True
    if not step.stated["ceil_mode"]:
        _pad(made.valid, ((0, 0), (0, 0)))
    elif sides == strides == [2, 2]:
        made.same.asymmetryMode = 0  # what is missing is added at the bottom and on the right
    else:
        what = f"got windows of {sides} every {strides}, expected [2, 2] where they overhang"
        raise GateError(f"Core ML: {step.name}: {what}")


def _mean(layer: _Message, step: OnnxStep) -> None:
    """Write the mean of each channel: a map of one pixel, as what accelerators know, or a vector."""
    if step.stated["keepdims"]:
        made = layer.pooling
        made.type = AVERAGE
        made.globalPooling = made.avgPoolExcludePadding = True
        made.kernelSize.extend([0, 0])
        made.stride.extend([0, 0])
        _pad(made.valid, ((0, 0), (0, 0)))
    else:
        layer.reduceMean.axes.extend(step.stated["axes"])


def _arithmetic(kind: str) -> Callable[[_Message, OnnxStep], None]:
    def written(layer: _Message, step: OnnxStep) -> None:
        made = getattr(layer, kind)
        made.SetInParent()
        if step.constants:
            made.alpha = float(step.constants[0])

    return written


def _clip(layer: _Message, step: OnnxStep) -> None:
    layer.clip.minVal, layer.clip.maxVal = (float(bound) for bound in step.constants)
    layer.clip.SetInParent()


_OPERATIONS: Final[Mapping[str, Callable[[_Message, OnnxStep], None]]] = MappingProxyType(
    {
        "Conv": _convolution,
        "Gemm": _product,
        "Relu": lambda layer, _: layer.activation.ReLU.SetInParent(),
        "Add": _arithmetic("add"),
        "Mul": _arithmetic("multiply"),
        "Clip": _clip,
        "AveragePool": _mean_of_windows,
        "ReduceMean": _mean,
    }
)
