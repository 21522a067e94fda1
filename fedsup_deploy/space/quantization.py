"""int8: an ONNX graph with the ranges of its activations becomes one that computes in 8 bits. onnxruntime writes it.

The only place that does: networks that are exported and networks and parts that are timed go through it. Weights are
signed, with a zero point of 0; biases have 32 bits; images go in and logits come out as float32. The mean before the
classifier stays in float32, as the runtime computes it.
"""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.space.onnx_graph import value_sizes

if TYPE_CHECKING:
    from onnx import ModelProto

# Range of an activation that was 0 throughout: any will do, and none has a step of 0.
_LEAST_RANGE: Final = 1e-6


def quantized(model: "ModelProto", ranges_V2: NDArray[np.float32], scheme: Int8Scheme) -> "ModelProto":
    """Return a model that computes in int8; the names of its values stay.

    Args:
        model: Of `onnx_graph.build_model`.
        ranges_V2: Between which numbers each of its V values is, in the order of `onnx_graph.value_sizes`.
        scheme: How numbers of 8 bits stand for them.
    """
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantType
    from onnxruntime.quantization.registry import QDQRegistry

    ranges = {
        # Zero is a number of every type: padding is exact.
        name: TensorData(lowest=np.float32(min(low, 0.0)), highest=np.float32(max(high, _LEAST_RANGE)))
        for name, (low, high) in zip(value_sizes(model), ranges_V2, strict=True)
    }
    with _quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(_pooled_by_convolutions(model), strict_mode=True),
            per_channel=scheme.per_channel,
            reduce_range=scheme.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8 if scheme.activations == "u8" else QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(QDQRegistry),
            extra_options={
                "ActivationSymmetric": scheme.is_symmetric,
                "WeightSymmetric": True,
                # Logits are compared with each other: 8 bits would make some equal.
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
            },
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    found: ModelProto = quantizer.model.model
    del found.graph.value_info[:]
    # Whoever reads the file is told what the fp32 file says of itself.
    found.producer_name, found.producer_version = model.producer_name, model.producer_version
    del found.metadata_props[:]
    found.metadata_props.extend(model.metadata_props)
    return found


def is_pooled_by_convolution(op: str, attributes: Mapping[str, Any]) -> bool:
    """Return whether a node takes means of windows of which none reaches beyond the map: a convolution does the same.

    Args:
        op: Its operation.
        attributes: By their names.
    """
    return op == "AveragePool" and not attributes.get("ceil_mode") and not any(attributes.get("pads", ()))


def _pooled_by_convolutions(model: "ModelProto") -> "ModelProto":
    """Return a copy of a model in which depthwise convolutions take the means of windows that lie within the map.

    In 8 bits onnxruntime pools far slower than it convolves: the paper's largest subnet takes 1.13 times as long with
    its three pools (1.32.0, x86 with VNNI). The result is the same: 1/4 is exact in the weights' scale.
    """
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.input, *inferred.value_info)}
    for node in copy.graph.node:
        sides = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if is_pooled_by_convolution(node.op_type, sides):
            num_channels, weight = shapes[node.input[0]][1].dim_value, f"{node.name}.weight"
            shape = (num_channels, 1, *sides["kernel_shape"])
            means = np.full(shape, 1 / math.prod(sides["kernel_shape"]), dtype=np.float32)
            copy.graph.initializer.append(numpy_helper.from_array(means, weight))
            kept = {name: sides[name] for name in ("kernel_shape", "strides")}
            values = [*node.input, weight], node.output
            node.CopyFrom(helper.make_node("Conv", *values, node.name, group=num_channels, **kept))
    return copy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the quantiser logs on the root logger of the process from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
