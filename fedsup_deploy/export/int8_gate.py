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
from fedsup_deploy.export.gate import Images, Logits, Model, guarded
from fedsup_deploy.ondevice import inference
from fedsup_deploy.ondevice.bundle_files import INT8_MODEL, CheckError
from fedsup_deploy.ondevice.bundle_outputs import INT8_TOLERANCE, check_int8_outputs

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
    scaled, agreement = _compared(*outputs)
    return Int8Gate(
        scheme=scheme,
        split=split,
        num_images=sum(answers),
        accuracy_drop=drop,
        accuracy_drop_interval=interval,
        max_accuracy_drop=max_accuracy_drop,
        num_float_convolutions=0,
        tolerance=INT8_TOLERANCE,
        max_scaled_diff=scaled,
        class_agreement=agreement,
    )


def held_to(
    gate: Int8Gate, name: str, model: Model, inputs_VCSS: Images, outputs: tuple[Logits, Logits], batches: Sequence[int]
) -> Int8Gate:
    """Return the gate of the same int8 network in a file of another format.

    How many right answers it loses is asked of clients, who have onnxruntime and the ONNX file. So another file has to
    compute what that one does, but for how its runtime rounds: as near as `verify` wants it of another processor.

    Args:
        gate: Of the ONNX file.
        name: Of the variant, for messages.
        model: The file.
        inputs_VCSS: Recorded inputs.
        outputs: Their logits (V, K) by the fp32 network and by the ONNX file in int8.
        batches: How many images the file takes at once.

    Raises:
        GateError: It computes something else, or its runtime fails.
    """
    fp32_VK, int8_VK = outputs
    run = guarded(name, model)
    try:
        check_int8_outputs(run, inputs_VCSS, int8_VK, gate.tolerance, batches)
    except CheckError as error:
        raise GateError(f"{name}: compared with {INT8_MODEL}: {error}") from error
    alone_VK = np.concatenate([run(image_CSS[None]) for image_CSS in inputs_VCSS])
    scaled, agreement = _compared(fp32_VK, alone_VK)
    return gate.model_copy(update={"max_scaled_diff": scaled, "class_agreement": agreement, "speed": None})


def _compared(fp32_VK: Logits, int8_VK: Logits) -> tuple[float, float]:
    """Return the largest scaled difference of a logit, and the share of equal classes."""
    fp32, int8 = fp32_VK.astype(np.float64), int8_VK.astype(np.float64)
    scale_V = np.maximum(1.0, np.abs(fp32).max(axis=1))
    agreement = np.mean(fp32.argmax(axis=1) == int8.argmax(axis=1))
    return float((np.abs(int8 - fp32).max(axis=1) / scale_V).max()), float(agreement)


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
