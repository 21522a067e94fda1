"""int8: an ONNX graph with the ranges of its activations becomes one that computes in 8 bits. onnxruntime writes it.

Weights are signed, with a zero point of 0; biases have 32 bits; images go in and logits come out as float32. The mean
before the classifier stays in float32, as the runtime computes it.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import GateError
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.onnx_graph import value_sizes
from fedsup_deploy.supernet.deployable import Quantization

if TYPE_CHECKING:
    from onnx import ModelProto

#: Of an activation's numbers at either end, the share that may be cut off: 1 of 20,000. Measured, docs/int8.md.
CLIPPED_SHARE: Final = 5e-5
# Range of an activation that was 0 throughout: any will do, and none has a step of 0.
_LEAST_RANGE: Final = 1e-6
_CONVOLUTIONS: Final = ("Conv", "FusedConv")


def quantized(model: "ModelProto", quantization: Quantization) -> "ModelProto":
    """Return a model that computes in int8; the names of its values stay.

    Args:
        model: Of `onnx_graph.build_model`.
        quantization: How.
    """
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import QuantType
    from onnxruntime.quantization.registry import QDQRegistry

    scheme = quantization.scheme
    names, ranges_V2 = list(value_sizes(model)), quantization.counts.ranges(CLIPPED_SHARE)
    assert len(names) == len(ranges_V2), "counts of this model's values"
    ranges = {
        # Zero is a number of every type: padding is exact.
        name: TensorData(lowest=np.float32(min(low, 0.0)), highest=np.float32(max(high, _LEAST_RANGE)))
        for name, (low, high) in zip(names, ranges_V2, strict=True)
    }
    with _quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(model, strict_mode=True),
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


def count_float_convolutions(content: bytes, scheme: Int8Scheme) -> int:
    """Return how many convolutions of an int8 file onnxruntime would compute in float32 on a device.

    Args:
        content: Of the file.
        scheme: How it was quantised.

    Raises:
        GateError: onnxruntime does not load it.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = inference.session_options(threads=1)
        options.optimized_model_filepath = str(optimized)
        # Signed activations are for ARM, where onnxruntime computes with them; on x86 it does where it is told to.
        options.add_session_config_entry("session.qdqisint8allowed", str(int(scheme.activations == "s8")))
        try:
            inference.session_with(options, content)
        except inference.runtime_errors() as error:
            raise GateError(f"int8: not loadable by onnxruntime: {inference.first_line(error)}") from error
        nodes = onnx.load(optimized).graph.node
    return sum(node.op_type in _CONVOLUTIONS for node in nodes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the quantiser logs on the root logger of the process from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
