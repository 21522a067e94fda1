"""Networks as ncnn has them: layers as lines of text (`.param`), and their numbers one after another (`.bin`).

They are written from the ONNX graph, node by node, without a converter, and read back by the same rules: ncnn believes
what a file says of itself, so one is given to it only if each layer has the numbers that ours have and no others, its
sizes follow from those before it, and its weights are marked as float32.

Sources: ncnn's docs/developer-guide/param-and-model-file-structure.md and operators.md.

Shapes: C channels, S side of a square feature map; (C, 0) is a vector of C numbers.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import memory
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.export.onnx_steps import OnnxStep, image_shape, steps_of
from fedsup_deploy.ondevice.printable import printable
from fedsup_deploy.space.onnx_graph import INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    from onnx import ModelProto

Shape = tuple[int, int]
Numbers = Mapping[int, int | float]

_MAGIC: Final = "7767517"
#: What ncnn takes apart as we do: other white space, and longer words, it reads as several words.
_TEXT: Final = re.compile(r"(?:[!-~]{1,255}[ \n])+")
_BYTES_OF_FLOAT: Final = 4
#: Before the weights of a layer: anything else has ncnn read them as numbers of another size.
_IS_FLOAT32: Final = bytes(4)
#: Of layers and their values: more than the largest network of any space has.
_MOST_LAYERS: Final = 20_000
_MOST_SIDE: Final = 4_096
_RELU: Final = 1
_MEAN: Final = 1
_ADD, _MULTIPLY = 0, 2


@dataclasses.dataclass(frozen=True)
class NcnnLayer:
    """One line: a kind, a name, names of what it reads and writes, and numbers by their places."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Numbers = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """Return the line. ncnn reads 15 characters of a number, and takes it for whole without a point."""
        numbers = (
            f"{at}={value:.8e}" if isinstance(value, float) else f"{at}={value}" for at, value in self.numbers.items()
        )
        names = (*self.inputs, *self.outputs)
        return " ".join([self.kind, self.name, str(len(self.inputs)), str(len(self.outputs)), *names, *numbers])


def layers_of(model: "ModelProto") -> tuple[list[NcnnLayer], list[NDArray[np.float32]]]:
    """Return the layers of an ONNX model, and the numbers of those that have some, in their order.

    Raises:
        GateError: It has an operation that nothing here knows.
    """
    channels, side = image_shape(model)
    layers = [NcnnLayer("Input", INPUT_NAME, (), (INPUT_NAME,), {0: side, 1: side, 2: channels})]
    weights: list[NDArray[np.float32]] = []
    for step in steps_of(model, _OPERATIONS, "ncnn"):
        kind, numbers = _OPERATIONS[step.operation](step)
        layers.append(NcnnLayer(kind, step.name, step.values, step.outputs, numbers))
        if kind in _WEIGHTED:
            weights += step.constants
    return _split(_activated(_with_products(layers))), weights


def to_text(layers: Sequence[NcnnLayer]) -> str:
    """Return the content of the `.param` file."""
    num_values = sum(len(layer.outputs) for layer in layers)
    return "\n".join([_MAGIC, f"{len(layers)} {num_values}", *map(str, layers), ""])


def to_bytes(layers: Sequence[NcnnLayer], weights: Sequence[NDArray[np.float32]]) -> bytes:
    """Return the content of the `.bin` file: of each layer its weights, after 4 bytes that say float32, and biases."""
    content, left = [], iter(weights)
    for layer in layers:
        if layer.kind in _WEIGHTED:
            content += [_IS_FLOAT32, next(left).astype("<f4").tobytes(), next(left).astype("<f4").tobytes()]
    return b"".join(content)


def check(text: str, content: bytes) -> Shape:
    """Return the shape of the images that a network takes, if its files are ours; fail where one is not.

    Args:
        text: Of the `.param` file.
        content: Of the `.bin` file: has to be just the numbers that the other speaks of.

    Raises:
        ArtifactError: They are not: the message says where.
    """
    lines = text.split("\n")
    try:
        layers = [_parsed(line) for line in lines[2:-1]]
        if len(layers) > _MOST_LAYERS or to_text(layers) != text or not _TEXT.fullmatch(text):
            raise ArtifactError("it is not as this program writes it")
        shape, places, expected = _checked_sizes(layers)
    except (ValueError, LookupError, OverflowError) as error:
        raise ArtifactError(f"a line of it cannot be read: {printable(str(error))}") from error
    if len(content) != expected:
        raise ArtifactError(f"it has numbers of {expected:,} bytes, and the file beside it {len(content):,}")
    if any(content[at : at + len(_IS_FLOAT32)] != _IS_FLOAT32 for at in places):
        raise ArtifactError("the numbers in the file beside it are not all float32")
    return shape


def _parsed(line: str) -> NcnnLayer:
    kind, name, num_inputs, num_outputs, *rest = line.split(" ")
    first, last = int(num_inputs), int(num_inputs) + int(num_outputs)
    numbers: dict[int, int | float] = {}
    for word in rest[last:]:
        at, _, value = word.partition("=")
        numbers[int(at)] = float(value) if "." in value else int(value)
    return NcnnLayer(kind, name, tuple(rest[:first]), tuple(rest[first:last]), numbers)


def _checked_sizes(layers: Sequence[NcnnLayer]) -> tuple[Shape, list[int], int]:
    """Return the shape of the input, where in the numbers the weights of each layer begin, and where they end.

    Each layer reads what one before it alone has written.
    """
    known: dict[str, Shape] = {}
    names: set[str] = set()
    places, num_bytes, num_elements = [], 0, 0
    for index, layer in enumerate(layers):
        if not _is_of_ours(layer) or (layer.kind == "Input") != (index == 0) or names.intersection(layer.outputs):
            raise ArtifactError(f"got a layer {printable(layer.kind)} in line {index + 3}, expected one of ours")
        shapes = [known.pop(name) for name in layer.inputs]  # ncnn wants each read once
        written, num_weights = _SHAPES[layer.kind](shapes, layer.numbers)
        if not (0 < written[0] <= _MOST_LAYERS and 0 <= written[1] <= _MOST_SIDE):
            raise ArtifactError(f"{printable(layer.name)}: it writes {written}, expected sizes of a network")
        if layer.kind in _WEIGHTED:
            if num_weights != layer.numbers[6 if layer.kind != "InnerProduct" else 2]:
                raise ArtifactError(f"{printable(layer.name)}: it has other weights than {num_weights:,}")
            places.append(num_bytes)
            num_bytes += _BYTES_OF_FLOAT * (1 + num_weights + written[0])
        num_elements += written[0] * max(written[1], 1) ** 2 * len(layer.outputs)
        known |= dict.fromkeys(layer.outputs, written)
        names |= set(layer.outputs)
    if set(known) != {OUTPUT_NAME}:
        raise ArtifactError(f"got the outputs {printable(', '.join(known))}, expected {OUTPUT_NAME} alone")
    if num_elements > memory.machine_bytes() // _BYTES_OF_FLOAT:
        raise ArtifactError(f"its layers write {num_elements:,} numbers, more than there is memory")
    return _input_shape(layers[0].numbers), places, num_bytes


def _is_of_ours(layer: NcnnLayer) -> bool:
    """Return whether a layer has as many inputs and outputs as ours of its kind, and just their numbers."""
    num_inputs, num_outputs = len(layer.inputs), len(layer.outputs)
    is_linked = {"Input": num_inputs == 0, "BinaryOp": 1 <= num_inputs <= 2}.get(layer.kind, num_inputs == 1)
    is_linked &= num_outputs > 1 if layer.kind == "Split" else num_outputs == 1
    return is_linked and any(
        layer.numbers.keys() == form.keys() and all(_is_number(layer.numbers[at], form[at]) for at in form)
        for form in _NUMBERS.get(layer.kind, ())
    )


def _is_number(value: float, expected: int | type) -> bool:
    """Return whether a number is the one expected, or of the type expected and one that ncnn can hold."""
    if isinstance(expected, int):
        return type(value) is int and value == expected
    return type(value) is expected and (0 <= value < 2**31 if expected is int else abs(value) < 2.0**127)


def _with_products(layers: Sequence[NcnnLayer]) -> list[NcnnLayer]:
    """Return the layers with a product of matrices in the place of each convolution of a mean, which is a vector."""
    vectors: set[str] = set()
    found = []
    for layer in layers:
        if layer.kind == "Convolution" and layer.inputs[0] in vectors:
            numbers = {0: layer.numbers[0], 1: 1, 2: layer.numbers[6]}
            found.append(dataclasses.replace(layer, kind="InnerProduct", numbers=numbers))
        else:
            found.append(layer)
        if (4 in layer.numbers and layer.kind == "Pooling") or (layer.inputs and vectors.issuperset(layer.inputs)):
            vectors.update(layer.outputs)
    return found


def _activated(layers: Sequence[NcnnLayer]) -> list[NcnnLayer]:
    """Return the layers with each ReLU inside the convolution or product before it, where nobody else reads that."""
    reads = Counter(name for layer in layers for name in layer.inputs)
    found: list[NcnnLayer] = []
    for layer in layers:
        before = found[-1] if found else None
        if (
            layer.kind == "ReLU"
            and before is not None
            and before.kind in _WEIGHTED
            and before.outputs == layer.inputs
            and reads[layer.inputs[0]] == 1
        ):
            found[-1] = dataclasses.replace(before, outputs=layer.outputs, numbers={**before.numbers, 9: _RELU})
        else:
            found.append(layer)
    return found


def _split(layers: Sequence[NcnnLayer]) -> list[NcnnLayer]:
    """Return the layers with a copy of each value for everybody who reads it, as ncnn wants it."""
    reads = Counter(name for layer in layers for name in layer.inputs)
    copies: dict[str, Iterator[str]] = {}
    found = []
    for layer in layers:
        names = tuple(next(copies[name]) if name in copies else name for name in layer.inputs)
        found.append(dataclasses.replace(layer, inputs=names))
        for name in layer.outputs:
            if reads[name] > 1:
                of_it = tuple(f"{name}.{number}" for number in range(reads[name]))
                found.append(NcnnLayer("Split", f"{name}.split", (name,), of_it))
                copies[name] = iter(of_it)
    return found


_Written = tuple[str, dict[int, int | float]]


def _convolution(step: OnnxStep) -> _Written:
    weight, stated = step.constants[0], step.stated
    side, stride = stated["kernel_shape"][0], stated.get("strides", [1])[0]
    padding, groups = stated.get("pads", [0])[0], stated.get("group", 1)
    numbers = {0: weight.shape[0], 1: side, 3: stride, 4: padding, 5: 1, 6: weight.size}
    if groups == 1:
        return "Convolution", numbers
    return "ConvolutionDepthWise", {**numbers, 7: groups}


def _product(step: OnnxStep) -> _Written:
    weight = step.constants[0]
    return "InnerProduct", {0: weight.shape[0], 1: 1, 2: weight.size}


def _arithmetic(operation: int) -> Callable[[OnnxStep], _Written]:
    def written(step: OnnxStep) -> _Written:
        return "BinaryOp", {0: operation, **({1: 1, 2: float(step.constants[0])} if step.constants else {})}

    return written


def _mean_of_windows(step: OnnxStep) -> _Written:
    # Where a window overhangs the map, ncnn's first way of padding (5=0) goes on to its end and counts what is within.
    return "Pooling", {0: _MEAN, 1: step.stated["kernel_shape"][0], 2: step.stated["strides"][0], 5: 0, 6: 0}


_OPERATIONS: Final[Mapping[str, Callable[[OnnxStep], _Written]]] = MappingProxyType(
    {
        "Conv": _convolution,
        "Gemm": _product,
        "Relu": lambda _: ("ReLU", {}),
        "Add": _arithmetic(_ADD),
        "Mul": _arithmetic(_MULTIPLY),
        "Clip": lambda step: ("Clip", {0: float(step.constants[0]), 1: float(step.constants[1])}),
        "AveragePool": _mean_of_windows,
        "ReduceMean": lambda _: ("Pooling", {0: _MEAN, 4: 1}),
    }
)


def _after_convolution(shapes: Sequence[Shape], numbers: Numbers) -> tuple[Shape, int]:
    """Return what a convolution writes, and how many weights it has."""
    (channels, side), out, kernel = shapes[0], int(numbers[0]), int(numbers[1])
    stride, padding, groups = int(numbers[3]), int(numbers[4]), int(numbers.get(7, 1))
    is_possible = min(out, kernel, stride, groups, side) > 0 and 0 <= padding <= kernel <= side + 2 * padding
    if not is_possible or channels % groups or out % groups:
        raise ValueError("a convolution that nothing can compute")
    return (out, (side + 2 * padding - kernel) // stride + 1), out * (channels // groups) * kernel**2


def _after_arithmetic(shapes: Sequence[Shape], numbers: Numbers) -> tuple[Shape, int]:
    maps, *others = shapes
    if len(shapes) != 2 - int(numbers.get(1, 0)) or any(each not in {maps, (maps[0], 0)} for each in others):
        raise ValueError("numbers of other sizes")
    return maps, 0


def _after_pooling(shapes: Sequence[Shape], numbers: Numbers) -> tuple[Shape, int]:
    (channels, side) = shapes[0]
    if numbers.get(4) == 1:
        return (channels, 0), 0
    kernel, stride = int(numbers[1]), int(numbers[2])
    if not 0 < stride <= kernel <= side:
        raise ValueError("a window that nothing fills")
    return (channels, math.ceil((side - kernel) / stride) + 1), 0


def _after_product(shapes: Sequence[Shape], numbers: Numbers) -> tuple[Shape, int]:
    (channels, side), out = shapes[0], int(numbers[0])
    return (out, 0), out * channels * max(side, 1) ** 2


def _input_shape(numbers: Numbers) -> Shape:
    if numbers[0] != numbers[1] or not numbers[0]:
        raise ValueError("an image that is not square")
    return int(numbers[2]), int(numbers[0])


_SHAPES: Final[Mapping[str, Callable[[Sequence[Shape], Numbers], tuple[Shape, int]]]] = MappingProxyType(
    {
        "Input": lambda _, numbers: (_input_shape(numbers), 0),
        "Split": lambda shapes, _: (shapes[0], 0),
        "Convolution": _after_convolution,
        "ConvolutionDepthWise": _after_convolution,
        "InnerProduct": _after_product,
        "ReLU": lambda shapes, _: (shapes[0], 0),
        "Clip": lambda shapes, _: (shapes[0], 0),
        "BinaryOp": _after_arithmetic,
        "Pooling": _after_pooling,
    }
)
_CONVOLUTIONS: Final = ("Convolution", "ConvolutionDepthWise")
_WEIGHTED: Final = (*_CONVOLUTIONS, "InnerProduct")
_OF_CONVOLUTION: Final[Mapping[int, int | type]] = {0: int, 1: int, 3: int, 4: int, 5: 1, 6: int}
#: What numbers layers of each kind have, in one of these forms: any one of a type, or the very one that ours have.
_NUMBERS: Final[Mapping[str, Sequence[Mapping[int, int | type]]]] = MappingProxyType(
    {
        "Input": ({0: int, 1: int, 2: int},),
        "Convolution": (_OF_CONVOLUTION, {**_OF_CONVOLUTION, 9: _RELU}),
        "ConvolutionDepthWise": ({**_OF_CONVOLUTION, 7: int}, {**_OF_CONVOLUTION, 7: int, 9: _RELU}),
        "InnerProduct": ({0: int, 1: 1, 2: int}, {0: int, 1: 1, 2: int, 9: _RELU}),
        "Clip": ({0: float, 1: float},),
        "BinaryOp": ({0: _ADD}, {0: _MULTIPLY}, {0: _ADD, 1: 1, 2: float}, {0: _MULTIPLY, 1: 1, 2: float}),
        "Pooling": ({0: _MEAN, 4: 1}, {0: _MEAN, 1: int, 2: int, 5: 0, 6: 0}),
        **dict.fromkeys(("Split", "ReLU"), ({},)),
    }
)
