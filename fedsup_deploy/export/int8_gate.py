"""The gate of int8: nearly as many right answers as the fp32 file gives, every convolution in 8 bits, and faster.

Two files of one network are right about other images each; how many more one of them is right about is what counts, and
what is known of it are the images that only one is right about. Whether it is faster can be told where this machine is
the device, and nowhere else.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from fedsup_deploy.accuracy import DEVIATIONS
from fedsup_deploy.artifact.measured import MeasuredSpeed
from fedsup_deploy.artifact.variants import Int8Gate
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import GateError
from fedsup_deploy.export.gate import Logits
from fedsup_deploy.ondevice import inference
from fedsup_deploy.ondevice.bundle_outputs import INT8_TOLERANCE

_DIGITS: Final = 6
_CONVOLUTIONS: Final = ("Conv", "FusedConv")


def check_int8(
    content: bytes,
    scheme: Int8Scheme,
    answers: Sequence[int],
    split: str,
    outputs: tuple[Logits, Logits],
    max_accuracy_drop: float,
) -> Int8Gate:
    """Judge an int8 file.

    Args:
        content: Of the file.
        scheme: How it was quantised.
        answers: Numbers of images that both files are right about, the fp32 file alone, the int8 file alone, neither.
        split: Of which images.
        outputs: Logits (V, K) of the fp32 network and of the int8 file for the recorded inputs.
        max_accuracy_drop: Allowed difference of the shares of right answers, in [0, 1].

    Returns:
        What was found. It exists only if it has passed.

    Raises:
        GateError: It loses more right answers than allowed, or onnxruntime would compute some of it in float32.
    """
    num_float = count_float_convolutions(content, scheme)
    if num_float:
        raise GateError(f"int8: onnxruntime would compute {num_float} convolutions in float32, expected none")
    drop, interval = accuracy_drop(answers)
    if drop > max_accuracy_drop:
        low, high = (100 * end for end in interval)
        raise GateError(
            f"int8: its share of right answers is {100 * drop:.2f} points lower than that of fp32 on {sum(answers):,} "
            f"{split} images (95 % interval {low:.2f} to {high:.2f}), expected at most {100 * max_accuracy_drop:g}"
        )
    fp32_VK, int8_VK = (each.astype(np.float64) for each in outputs)
    scale_V = np.maximum(1.0, np.abs(fp32_VK).max(axis=1))
    return Int8Gate(
        scheme=scheme,
        split=split,
        num_images=sum(answers),
        accuracy_drop=drop,
        accuracy_drop_interval=interval,
        max_accuracy_drop=max_accuracy_drop,
        num_float_convolutions=0,
        tolerance=INT8_TOLERANCE,
        max_scaled_diff=float((np.abs(int8_VK - fp32_VK).max(axis=1) / scale_V).max()),
        class_agreement=float(np.mean(fp32_VK.argmax(axis=1) == int8_VK.argmax(axis=1))),
    )


def with_speed(gate: Int8Gate, speed: MeasuredSpeed) -> Int8Gate:
    """Return what was found of an int8 file, with how fast it is on the device.

    Raises:
        GateError: It is not faster than the fp32 file, or by no more than the noise of the measurement.
    """
    if not speed.is_faster:
        raise GateError(
            f"int8: {speed.times_as_fast:.3g} times as fast as fp32 on this machine, which is the device, expected "
            f"more than {speed.faster_above:.3g}, beyond noise; use fp32 there, or a larger network"
        )
    return gate.model_copy(update={"speed": speed})


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


def accuracy_drop(answers: Sequence[int]) -> tuple[float, tuple[float, float]]:
    """Return by how much a first file's share of right answers is above a second one's, and its 95 % interval.

    Args:
        answers: Images that both are right about, the first alone, the second alone, neither.

    Source of the interval: A. Agresti and Y. Min, Statistics in Medicine 24, 2005: Wald's for paired shares, with half
    an image added to each of the four counts.
    """
    _, only_first, only_second, _ = answers
    num_images = sum(answers)
    share_1, share_2 = ((each + 0.5) / (num_images + 2) for each in (only_first, only_second))
    half = DEVIATIONS * math.sqrt((share_1 + share_2 - (share_1 - share_2) ** 2) / (num_images + 2))
    centre = share_1 - share_2
    drop = round((only_first - only_second) / num_images, _DIGITS)
    return drop, (round(centre - half, _DIGITS), round(centre + half, _DIGITS))
