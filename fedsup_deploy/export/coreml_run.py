"""Core ML's layers, read from a file and computed by NumPy: Core ML itself is on no Linux.

What is computed is what the file says, by the words of the format's definition, and nothing that whoever wrote it knew:
weights, strides, padding, and which layer reads what. Layers, and fields of layers, that this program never writes are
refused, as is any size that does not follow from those before it, before anything is computed.

Source: NeuralNetwork.proto, FeatureTypes.proto and Model.proto of coremltools 9.0.

Shapes: of maps, (1, C, H, W), C channels, H W spatial; of vectors (1, C).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.export.coreml_layers import AVERAGE, EXACT_SHAPE, FLOAT32, SPECIFICATION
from fedsup_deploy.export.wire import Known, Message
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.space.onnx_graph import INPUT_NAME, OUTPUT_NAME

Shape = tuple[int, ...]
Value = NDArray[np.float32]
Compute = Callable[..., Value]

#: Of layers, and of numbers in all values together: more than the largest network of any space has.
_MOST_LAYERS: Final = 20_000
_MOST_NUMBERS: Final = 2**28
#: Of multiplications and additions for one image: ten times what the largest takes.
_MOST_WORK: Final = 2**37
#: Where more stands at the end than at the beginning of what is padded alike.
_BOTTOM_RIGHT_HEAVY: Final = 0

_MODEL: Final[Known] = MappingProxyType({"specificationVersion": 1, "description": 2, "neuralNetwork": 500})
_DESCRIPTION: Final[Known] = MappingProxyType({"input": 1, "output": 10, "metadata": 100})
_FEATURE: Final[Known] = MappingProxyType({"name": 1, "type": 3})
_TYPE: Final[Known] = MappingProxyType({"multiArrayType": 5})
_ARRAY: Final[Known] = MappingProxyType({"shape": 1, "dataType": 2})
_NETWORK: Final[Known] = MappingProxyType({"layers": 1, "arrayInputShapeMapping": 5, "imageInputShapeMapping": 6})
_LAYER: Final[Known] = MappingProxyType({"name": 1, "input": 2, "output": 3})
_WEIGHTS: Final[Known] = MappingProxyType({"floatValue": 1})
_VALID: Final[Known] = MappingProxyType({"paddingAmounts": 1})
_AMOUNTS: Final[Known] = MappingProxyType({"borderAmounts": 10})
_EDGES: Final[Known] = MappingProxyType({"startEdgeSize": 1, "endEdgeSize": 2})
_SAME: Final[Known] = MappingProxyType({"asymmetryMode": 1})


@dataclasses.dataclass(frozen=True)
class _Layer:
    """What computes one value: its shape, the multiplications and additions it takes, and how it is computed."""

    shape: Shape
    work: int
    compute: Compute


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as a file has it.

    Attributes:
        shape: Of an image.
        layers: In their order, each with the names of what it reads and of what it writes.
    """

    shape: Shape
    layers: tuple[tuple[tuple[str, ...], str, Compute], ...]

    def logits(self, image_1CHW: Value) -> Value:
        """Return the logits of one image, (1, K).

        Raises:
            ValueError: It is of another shape.
        """
        if image_1CHW.shape != self.shape:
            raise ValueError(f"got an image of shape {image_1CHW.shape}, expected {self.shape}")
        values = {INPUT_NAME: image_1CHW}
        with np.errstate(all="ignore"):  # whoever compares logits finds what is not finite
            for inputs, output, compute in self.layers:
                values[output] = compute(*(values[name] for name in inputs))
        return values[OUTPUT_NAME]


def read(content: bytes) -> Network:
    """Return the network that a file has.

    Raises:
        ArtifactError: It is no file of ours: the message says where.
    """
    model = Message(memoryview(content), _MODEL, "the model")
    if model.integer("specificationVersion") != SPECIFICATION:
        raise model.wrong(f"got the version {model.integer('specificationVersion')}, expected {SPECIFICATION}")
    description = model.message("description", _DESCRIPTION)
    shapes = {INPUT_NAME: _described(description, "input", INPUT_NAME)}
    if len(shapes[INPUT_NAME]) != 4 or shapes[INPUT_NAME][0] != 1:
        raise description.wrong(f"got images of shape {shapes[INPUT_NAME]}, expected one of four dimensions")
    network = model.message("neuralNetwork", _NETWORK)
    if network.integer("arrayInputShapeMapping") != EXACT_SHAPE:
        raise network.wrong("its layers would read images of other dimensions")
    layers = []
    num_numbers, work = math.prod(shapes[INPUT_NAME]), 0
    for message in network.messages("layers", _ANY_LAYER):
        inputs, output, layer = _read_layer(message, shapes)
        shapes[output] = layer.shape
        layers.append((inputs, output, layer.compute))
        num_numbers, work = num_numbers + math.prod(layer.shape), work + layer.work
        if len(layers) > _MOST_LAYERS or num_numbers > _MOST_NUMBERS or work > _MOST_WORK:
            raise message.wrong("up to it, this is larger than any network")
    expected = _described(description, "output", OUTPUT_NAME)
    if shapes.get(OUTPUT_NAME) != expected:
        raise network.wrong(f"got {OUTPUT_NAME} of shape {shapes.get(OUTPUT_NAME)}, expected {expected}")
    return Network(shapes[INPUT_NAME], tuple(layers))


def _described(description: Message, end: str, name: str) -> Shape:
    """Return the shape of what a model reads or writes."""
    features = [*description.messages(end, _FEATURE)]
    if len(features) != 1 or features[0].text("name") != name:
        raise description.wrong(f"{end}: got {len(features)}, expected {name} alone")
    array = features[0].message("type", _TYPE).message("multiArrayType", _ARRAY)
    shape = array.integers("shape")
    if array.integer("dataType") != FLOAT32 or not 0 < math.prod(shape) <= _MOST_NUMBERS:
        raise array.wrong(f"got the shape {shape[:9]}, expected one of float32")
    return shape


def _read_layer(layer: Message, shapes: Mapping[str, Shape]) -> tuple[tuple[str, ...], str, _Layer]:
    """Return a layer: what it reads, what it writes, and how.

    Args:
        layer: It.
        shapes: Of the values there are before it, by name.
    """
    inputs, outputs = layer.texts("input"), layer.texts("output")
    kinds = [kind for kind in _KINDS if layer.has(kind)]
    if len(kinds) != 1 or len(outputs) != 1 or outputs[0] in shapes or not inputs or not shapes.keys() >= {*inputs}:
        raise layer.wrong(f"{printable(layer.text('name'))}: it is no layer that reads what those before it write")
    _, fields, read_kind = _KINDS[kinds[0]]
    found = read_kind(layer.message(kinds[0], fields), [shapes[name] for name in inputs])
    return inputs, outputs[0], found


def _only(params: Message, shapes: Sequence[Shape], rank: int) -> Shape:
    """Return the shape of what a layer reads that reads one value, of so many dimensions."""
    if [len(shape) for shape in shapes] != [rank]:
        raise params.wrong(f"it reads {len(shapes)} values, expected one of {rank} dimensions")
    return shapes[0]


def _weights(params: Message, shape: Shape, out: int) -> tuple[Value, Value]:
    """Return weights of a shape, and a bias of each output: 0 where the layer has none."""
    weights, bias = (params.message(name, _WEIGHTS).reals("floatValue") for name in ("weights", "bias"))
    num_biases = out if params.integer("hasBias") else 0
    if len(weights) != math.prod(shape) or len(bias) != num_biases:
        what = f"got {len(weights):,} weights and {len(bias):,} biases"
        raise params.wrong(f"{what}, expected {math.prod(shape):,} and {num_biases:,}")
    return weights.reshape(shape), bias if num_biases else np.zeros(1, np.float32)


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Windows on maps, for height and width: their sides, how far apart they are, and what maps are padded by."""

    sides: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    def written(self, sizes: Shape) -> Shape:
        """Return how many there are."""
        each = zip(sizes, self.sides, self.strides, self.padding, strict=True)
        return tuple((size + sum(pad) - side) // stride + 1 for size, side, stride, pad in each)

    def on(self, maps_CHW: Value) -> Value:
        """Return what is seen through them, (C, H, W, rows, columns), without a copy of it."""
        padded_CHW = np.pad(maps_CHW, ((0, 0), *self.padding))
        seen = np.lib.stride_tricks.sliding_window_view(padded_CHW, self.sides, axis=(1, 2))
        return seen[:, :: self.strides[0], :: self.strides[1]]


def _windows(params: Message, maps: Shape) -> _Windows:
    """Return the windows of a convolution, or of pooling, on maps of a shape."""
    _, channels, *sizes = maps
    sides, strides = params.integers("kernelSize"), params.integers("stride")
    if not len(sides) == len(strides) == 2 or min(*sides, *strides) < 1:
        raise params.wrong(f"got windows of {sides[:9]} every {strides[:9]}, expected two numbers of each")
    found = _Windows(sides, strides, _padding(params, tuple(sizes), sides, strides))
    padded = [size + sum(pad) for size, pad in zip(sizes, found.padding, strict=True)]
    each = zip(padded, sides, found.padding, strict=True)
    if any(max(pad) >= side or side > size for size, side, pad in each) or channels * math.prod(padded) > _MOST_NUMBERS:
        raise params.wrong(f"got windows of {sides} that {sizes} does not fill, padded by {found.padding}")
    return found


def _padding(params: Message, sizes: Shape, sides: Shape, strides: Shape) -> tuple[tuple[int, int], ...]:
    """Return what is padded before and after."""
    if params.has("valid") == params.has("same"):
        raise params.wrong("it does not say how it is padded")
    if params.has("valid"):
        amounts = params.message("valid", _VALID).message("paddingAmounts", _AMOUNTS)
        stated = [*amounts.messages("borderAmounts", _EDGES)]
        if len(stated) != len(sizes):
            raise amounts.wrong(f"got {len(stated)}, expected {len(sizes)}")
        return tuple((edges.integer("startEdgeSize"), edges.integer("endEdgeSize")) for edges in stated)
    if params.message("same", _SAME).integer("asymmetryMode") != _BOTTOM_RIGHT_HEAVY:
        raise params.wrong("it is padded at the top and on the left")
    padding = []
    for size, side, stride in zip(sizes, sides, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + side - size)
        padding.append((total // 2, total - total // 2))
    return tuple(padding)


def _convolution(params: Message, shapes: Sequence[Shape]) -> _Layer:
    _, channels, *sizes = _only(params, shapes, 4)
    out, of_each, groups = (params.integer(name) for name in ("outputChannels", "kernelChannels", "nGroups"))
    windows = _windows(params, shapes[0])
    is_plain = params.integers("dilationFactor") in {(), (1, 1)} and not params.integer("isDeconvolution")
    if not is_plain or min(out, groups) < 1 or out % groups or of_each * groups != channels:
        raise params.wrong(f"got {out} outputs of {channels} inputs in {groups} groups of {of_each}, or no plain one")
    weights, bias = _weights(params, (out, of_each, *windows.sides), out)
    shape = (1, out, *windows.written(tuple(sizes)))
    # Groups, then outputs and inputs of each, for each place in the window.
    by_place = weights.reshape(groups, out // groups, of_each, -1).transpose(3, 0, 1, 2).copy()

    def compute(maps_1CHW: Value) -> Value:
        seen = windows.on(maps_1CHW[0])
        sums = np.zeros((groups, out // groups, shape[2] * shape[3]), np.float32)
        for place, weight in enumerate(by_place):
            row, column = divmod(place, windows.sides[1])
            sums += weight @ seen[..., row, column].reshape(groups, of_each, -1)
        return sums.reshape(shape) + bias[:, None, None]

    return _Layer(shape, math.prod(shape) * of_each * math.prod(windows.sides), compute)


def _pooling(params: Message, shapes: Sequence[Shape]) -> _Layer:
    _, channels, *sizes = _only(params, shapes, 4)
    if params.integer("type") != AVERAGE:
        raise params.wrong("it is no average")
    if params.integer("globalPooling"):
        return _means((1, channels, 1, 1), shapes[0])
    windows = _windows(params, shapes[0])
    is_counted = not params.integer("avgPoolExcludePadding")
    shape = (1, channels, *windows.written(tuple(sizes)))

    def compute(maps_1CHW: Value) -> Value:
        ones = np.ones((1, *sizes), np.float32)
        num_seen = math.prod(windows.sides) if is_counted else windows.on(ones).sum((-2, -1))
        means: Value = windows.on(maps_1CHW[0]).sum((-2, -1)) / num_seen
        return means[None]

    return _Layer(shape, math.prod(shape) * math.prod(windows.sides), compute)


def _mean(params: Message, shapes: Sequence[Shape]) -> _Layer:
    read = _only(params, shapes, 4)
    if params.integers("axes") != (2, 3) or params.integer("reduceAll"):
        raise params.wrong("it is no mean of each channel")
    return _means((*read[:2], *([1, 1] if params.integer("keepDims") else [])), read)


def _means(shape: Shape, read: Shape) -> _Layer:
    return _Layer(shape, math.prod(read), lambda maps_1CHW: maps_1CHW.mean((2, 3)).reshape(shape))


def _product(params: Message, shapes: Sequence[Shape]) -> _Layer:
    _, channels = _only(params, shapes, 2)
    out = params.integer("outputChannels")
    if params.integer("inputChannels") != channels or out < 1:
        raise params.wrong(f"got {params.integer('inputChannels')} inputs, expected {channels}")
    weights, bias = _weights(params, (out, channels), out)
    return _Layer((1, out), out * channels, lambda vector_1C: vector_1C @ weights.T + bias)


def _activation(params: Message, shapes: Sequence[Shape]) -> _Layer:
    if not params.has("ReLU") or len(shapes) != 1:
        raise params.wrong("it is no ReLU of one value")
    params.message("ReLU", {})
    return _Layer(shapes[0], math.prod(shapes[0]), lambda value: np.maximum(value, np.float32(0)))


def _arithmetic(compute: Compute) -> Callable[[Message, Sequence[Shape]], _Layer]:
    """Return the reader of layers that combine each number with another: of a second value, or the layer's own."""

    def read_one(params: Message, shapes: Sequence[Shape]) -> _Layer:
        first, *others = shapes
        alpha, has_alpha = params.real("alpha"), params.has("alpha")
        # Of those that the format allows: the same sizes, or a number for each channel of the first.
        if len(shapes) > 2 or (others and (has_alpha or others[0] not in (first, (*first[:2], 1, 1)))):
            raise params.wrong(f"it combines {len(shapes)} values, expected one, or two that fit")
        return _Layer(first, math.prod(first), compute if others else lambda value: compute(value, alpha))

    return read_one


def _clip(params: Message, shapes: Sequence[Shape]) -> _Layer:
    low, high = params.real("minVal"), params.real("maxVal")
    if len(shapes) != 1 or not low <= high:
        raise params.wrong(f"got {len(shapes)} values between {low} and {high}, expected one")
    return _Layer(shapes[0], math.prod(shapes[0]), lambda value: np.clip(value, low, high))


#: Each kind of layer: its number among a layer's fields, its own fields, and what reads it.
_KINDS: Final[Mapping[str, tuple[int, Known, Callable[[Message, Sequence[Shape]], _Layer]]]] = MappingProxyType(
    {
        "convolution": (
            100,
            {
                "outputChannels": 1,
                "kernelChannels": 2,
                "nGroups": 10,
                "kernelSize": 20,
                "stride": 30,
                "dilationFactor": 40,
                "valid": 50,
                "same": 51,
                "isDeconvolution": 60,
                "hasBias": 70,
                "weights": 90,
                "bias": 91,
            },
            _convolution,
        ),
        "pooling": (
            120,
            {
                "type": 1,
                "kernelSize": 10,
                "stride": 20,
                "valid": 30,
                "same": 31,
                "avgPoolExcludePadding": 50,
                "globalPooling": 60,
            },
            _pooling,
        ),
        "activation": (130, {"ReLU": 10}, _activation),
        "innerProduct": (
            140,
            {"inputChannels": 1, "outputChannels": 2, "hasBias": 10, "weights": 20, "bias": 21},
            _product,
        ),
        "add": (230, {"alpha": 1}, _arithmetic(np.add)),
        "multiply": (231, {"alpha": 1}, _arithmetic(np.multiply)),
        "clip": (660, {"minVal": 1, "maxVal": 2}, _clip),
        "reduceMean": (1280, {"axes": 1, "keepDims": 2, "reduceAll": 3}, _mean),
    }
)
_ANY_LAYER: Final[Known] = MappingProxyType({**_LAYER, **{name: number for name, (number, _, _) in _KINDS.items()}})
