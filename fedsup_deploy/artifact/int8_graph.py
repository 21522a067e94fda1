"""What an int8 ONNX file is, read off its graph: by which scheme, and whether it is a given fp32 graph in 8 bits.

Nothing in it is run. Between the nodes of the fp32 graph it has QuantizeLinear and DequantizeLinear; a ReLU may be
gone where the numbers of 8 bits begin at 0, and a mean of windows may be a convolution.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.ondevice.printable import printable

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Floats = NDArray[np.float64]

_CONVERSIONS: Final = ("QuantizeLinear", "DequantizeLinear")
#: Operations that are computed in 8 bits: all their inputs are.
_IN_8_BITS: Final = ("Conv", "Gemm")
#: The largest weight of 7 bits, as onnxruntime's quantiser has it.
_LARGEST_OF_7_BITS: Final = 64
#: Of a number, what computing its step and the number itself in float32 may add to half a step.
_ROUNDING: Final = 1e-6


class Int8Graph:
    """The graph of a model with conversions to 8 bits and back.

    Args:
        model: The model.

    Raises:
        ValueError: A tensor is damaged, or values have no step and zero point that can be read.
    """

    def __init__(self, model: "ModelProto") -> None:
        from onnx import numpy_helper

        self.nodes = tuple(node for node in model.graph.node if node.op_type not in _CONVERSIONS)
        conversions = [node for node in model.graph.node if node.op_type in _CONVERSIONS]
        self._tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self._written = {node.output[0]: node for node in conversions}
        self._read_by: dict[str, set[str]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._read_by.setdefault(name, set()).add(node.op_type)
        self._steps: dict[str, Floats] = {}
        self._is_per_channel: dict[str, bool] = {}
        self._weights: dict[str, Floats] = {}
        self._zeros: dict[str, NDArray[np.generic]] = {}
        self._codes: dict[str, NDArray[np.generic]] = {}
        for node in conversions:
            step, zero = (self._tensors.get(name) for name in (*node.input[1:], "", "")[:2])
            if step is None or zero is None or not (np.isfinite(step) & (step > 0)).all():
                raise ValueError(f"{printable(node.name, 60)!r} has no step and zero point of its own")
            if node.op_type == "DequantizeLinear" and node.input[0] in self._tensors:
                self._add_weight(node, self._tensors[node.input[0]], step, zero)
            else:
                self._zeros[node.output[0]] = zero

    def _add_weight(
        self, node: "NodeProto", codes: NDArray[np.generic], step: NDArray[np.generic], zero: NDArray[np.generic]
    ) -> None:
        """Keep a weight or bias as the numbers it stands for, with the step of each."""
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [1] * codes.ndim
        if step.size > 1:
            shape[axis] = codes.shape[axis]  # so that no step is for more numbers than there are
        step_each, zero_each = (each.astype(np.float64).reshape(shape) for each in (step, zero))
        name = node.output[0]
        self._codes[name], self._zeros[name] = codes, zero
        self._steps[name], self._is_per_channel[name] = step_each, step.ndim > 0
        self._weights[name] = (codes.astype(np.float64) - zero_each) * step_each

    def scheme(self) -> Int8Scheme | None:
        """Return the scheme it was written by; None where there is none that holds throughout, as in fp32."""
        weights = {name: codes for name, codes in self._codes.items() if codes.dtype == np.int8}
        zeros = [zero for name, zero in self._zeros.items() if name not in self._codes]
        types = {zero.dtype for zero in zeros}
        kinds: Mapping[np.dtype[np.generic], str] = {np.dtype(np.uint8): "u8", np.dtype(np.int8): "s8"}
        per_channel = {self._is_per_channel[name] for name in weights}
        if len(types) != 1 or not types <= kinds.keys() or len(per_channel) != 1:
            return None
        if any(zero.size != 1 for zero in zeros) or any(self._zeros[name].any() for name in self._codes):
            return None
        kind = kinds[types.pop()]
        return Int8Scheme.model_validate(
            {
                "activations": kind,
                "is_symmetric": all(int(zero.reshape(-1)[0]) == (128 if kind == "u8" else 0) for zero in zeros),
                "per_channel": per_channel.pop(),
                "reduce_range": all(
                    np.abs(codes.astype(np.int16)).max(initial=0) <= _LARGEST_OF_7_BITS for codes in weights.values()
                ),
            }
        )

    def num_float_convolutions(self) -> int:
        """Return how many convolutions read or write what is no number of 8 bits."""
        return sum(node.op_type == "Conv" and not self._is_in_8_bits(node) for node in self.nodes)

    def _is_in_8_bits(self, node: "NodeProto") -> bool:
        is_read = all(self._is_dequantized(name) for name in node.input)
        # Logits are left in float32, and so is what a linear layer writes.
        return is_read and (node.op_type != "Conv" or self._read_by.get(node.output[0]) == {"QuantizeLinear"})

    def _is_dequantized(self, name: str) -> bool:
        return name in self._written and self._written[name].op_type == "DequantizeLinear"

    def means(self) -> frozenset[str]:
        """Return the names of convolutions that take the mean of each window of each channel: they are no layers."""
        return frozenset(node.output[0] for node in self.nodes if self._takes_means(node))

    def _takes_means(self, node: "NodeProto") -> bool:
        weight = self._weights.get(node.input[1]) if node.op_type == "Conv" and len(node.input) == 2 else None
        if weight is None or weight.ndim != 4:
            return False
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        is_like = np.full(weight.shape, 1 / max(1, math.prod(weight.shape[1:])))
        return weight.shape[:2] == (groups, 1) and self._stands_for(node.input[1], is_like)

    def _stands_for(self, name: str, numbers: NDArray[np.generic]) -> bool:
        """Return whether a weight or bias is nearest to these numbers, or is them where it has no step."""
        if name in self._weights:
            found, wanted = self._weights[name], numbers.astype(np.float64)
            if found.shape != wanted.shape:
                return False
            allowed = self._steps[name] / 2 * (1 + _ROUNDING) + _ROUNDING * np.abs(wanted)
            return bool((np.abs(found - wanted) <= allowed).all())
        return name in self._tensors and np.array_equal(self._tensors[name], numbers)

    def differences(self, fp32: "ModelProto") -> Iterator[str]:
        """Yield in what it is not an fp32 model in 8 bits; nothing where it is.

        Weights and biases must be nearest to those of the model, what convolutions read and write numbers of 8 bits,
        and every node one of the model, with the same name and attributes.
        """
        from onnx import numpy_helper

        tensors = {each.name: numpy_helper.to_array(each) for each in fp32.graph.initializer}
        named = {node.name: node for node in self.nodes}
        values = {each.name: each.name for each in fp32.graph.input}
        if len(named) < len(self.nodes):
            yield "two nodes of one name, expected one"
        for node in fp32.graph.node:
            found = named.pop(node.name, None)
            if found is not None:
                values[node.output[0]] = found.output[0]
                yield from self._of_a_node(found, node, tensors, values)
            elif node.op_type == "Relu" and self._begins_at_zero(values[node.input[0]]):
                values[node.output[0]] = values[node.input[0]]
            else:
                yield f"no node {printable(node.name, 60)}, expected all nodes"
                return
        if named:
            yield f"a node {printable(next(iter(named)), 60)}, expected none of that name"
        if [values[each.name] for each in fp32.graph.output] != [each.name for each in fp32.graph.output]:
            yield "another value as output, expected the same"

    def _of_a_node(
        self,
        found: "NodeProto",
        node: "NodeProto",
        tensors: Mapping[str, NDArray[np.generic]],
        values: Mapping[str, str],
    ) -> Iterator[str]:
        """Yield what differs between a node and that of the fp32 graph."""
        if not self._computes(found, node):
            yield f"another {printable(node.name, 60)}, expected the same operation"
        # Where a convolution takes means, these have been looked at.
        inputs = found.input[:1] if node.op_type == "AveragePool" else found.input
        if len(inputs) != len(node.input):
            yield f"{len(inputs)} inputs of {printable(node.name, 60)}, expected {len(node.input)}"
            return
        for got, expected in zip(inputs, node.input, strict=True):
            if expected in tensors:
                if not self._stands_for(got, tensors[expected]):
                    yield f"other numbers for {printable(expected, 60)}, expected those in 8 bits"
            elif self._source(got) != values[expected]:
                yield f"another input of {printable(node.name, 60)}, expected {printable(expected, 60)}"

    def _computes(self, found: "NodeProto", node: "NodeProto") -> bool:
        """Return whether a node computes what one of the fp32 graph does."""
        before, after = _attributes(node), _attributes(found)
        if found.op_type in _IN_8_BITS and not self._is_in_8_bits(found):
            return False
        if (node.op_type, found.op_type) != ("AveragePool", "Conv"):
            return node.op_type == found.op_type and before == after
        kept = {name: before[name] for name in ("kernel_shape", "strides") if name in before}
        is_within = before.keys() - kept.keys() == {"ceil_mode", "count_include_pad"} and before["ceil_mode"] == 0
        return is_within and self._takes_means(found) and after == kept | {"group": after.get("group")}

    def _source(self, name: str) -> str:
        """Return the value that was quantised and dequantised to give this one; itself where it was not."""
        after = self._written.get(name)
        before = None if after is None else self._written.get(after.input[0])
        if after is None or before is None:
            return name
        is_there_and_back = (before.op_type, after.op_type) == _CONVERSIONS and before.input[1:] == after.input[1:]
        return before.input[0] if is_there_and_back else name

    def _begins_at_zero(self, name: str) -> bool:
        """Return whether a value is only read as numbers of 8 bits of which the least stands for 0."""
        read = [node for node in self._written.values() if name in node.input]
        zeros = [self._zeros[node.output[0]] for node in read]
        is_least = all(int(zero.max()) == (-128 if zero.dtype == np.int8 else 0) for zero in zeros)
        return bool(read) and self._read_by[name] == {"QuantizeLinear"} and is_least


def _attributes(node: "NodeProto") -> dict[str, object]:
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
