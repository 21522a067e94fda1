"""The gate of int8."""

import numpy as np
import pytest
from scipy import stats

from fedsup_deploy.artifact.measured import MeasuredSpeed
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import GateError
from fedsup_deploy.export import int8_gate
from fedsup_deploy.export.int8_gate import accuracy_drop, check_int8, held_to, with_speed
from fedsup_deploy.ondevice.bundle_outputs import INT8_TOLERANCE

SCHEME = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False)
FP32 = np.array([[4.0, 1.0], [0.1, 0.2]], dtype=np.float32)
INT8 = np.array([[3.6, 1.0], [0.2, 0.1]], dtype=np.float32)


@pytest.fixture(autouse=True)
def num_float_convolutions(monkeypatch):
    """What onnxruntime would compute in float32: nothing, unless a test says otherwise."""
    found = [0]
    monkeypatch.setattr(int8_gate, "count_float_convolutions", lambda *_: found[0])
    return found


def test_what_was_found_is_told():
    gate = check_int8(b"", SCHEME, (900, 12, 4, 84), "validation", (FP32, INT8), 0.01)
    assert (gate.kind, gate.split, gate.num_images, gate.accuracy_drop) == ("int8", "validation", 1000, 0.008)
    low, high = gate.accuracy_drop_interval
    assert low < 0.008 < high
    # 0.4 of 4 on the first image, 0.1 of 1 on the second, and the class of the second is another.
    assert gate.max_scaled_diff == pytest.approx(0.1)
    assert gate.class_agreement == 0.5
    assert gate.tolerance == INT8_TOLERANCE


def test_more_lost_answers_than_allowed_do_not_pass():
    counts = (900, 15, 4, 81)
    with pytest.raises(
        GateError,
        match=r"^int8: its share of right answers is 1\.10 points lower .* 1,000 test images .*1$",
    ):
        check_int8(b"", SCHEME, counts, "test", (FP32, INT8), 0.01)
    assert check_int8(b"", SCHEME, counts, "test", (FP32, INT8), 0.011).accuracy_drop == 0.011


def test_a_convolution_in_float32_does_not_pass(num_float_convolutions):
    num_float_convolutions[0] = 3
    with pytest.raises(GateError, match=r"^int8: onnxruntime would compute 3 convolutions in float32, expected none$"):
        check_int8(b"", SCHEME, (900, 0, 0, 100), "test", (FP32, INT8), 0.01)


@pytest.mark.parametrize(
    ("times_as_fast", "noise", "is_passed"),
    [(1.5, 0.0, True), (1.05, 0.04, True), (1.05, 0.06, False), (1.0, 0.0, False), (0.4, 0.01, False)],
)
def test_int8_that_is_not_faster_by_more_than_the_noise_does_not_pass(times_as_fast, noise, is_passed):
    gate = check_int8(b"", SCHEME, (900, 12, 4, 84), "validation", (FP32, INT8), 0.01)
    assert gate.speed is None, "nobody could tell by now"
    speed = MeasuredSpeed(times_as_fast=times_as_fast, noise=noise, faster_above=1 + noise, verdict="stable")
    if is_passed:
        assert with_speed(gate, speed) == gate.model_copy(update={"speed": speed})
    else:
        expected = f"expected more than {1 + noise:.3g}, beyond noise; use fp32 there, or a larger network"
        with pytest.raises(GateError, match=rf"^int8: {times_as_fast:.3g} times as fast as fp32 .*, {expected}$"):
            with_speed(gate, speed)


def test_the_interval_holds_the_drop_as_often_as_it_says():
    """10,000 draws of 500 images, of which fp32 alone gets 4 % right and int8 alone 2 %: a drop of 2 points."""
    generator = np.random.default_rng(0)
    draws = generator.multinomial(500, [0.8, 0.04, 0.02, 0.14], size=10_000)
    inside = sum(low <= 0.02 <= high for low, high in (accuracy_drop(tuple(map(int, each)))[1] for each in draws))
    assert stats.binomtest(inside, len(draws)).proportion_ci(0.999).high >= 0.945
    assert inside <= 0.97 * len(draws)


def test_of_two_files_that_are_right_about_the_same_images_nothing_is_known_to_be_lost():
    drop, (low, high) = accuracy_drop((90, 0, 0, 10))
    assert drop == 0.0
    assert low < 0.0 < high == pytest.approx(-low)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, AssertionError])
def test_a_runtime_that_fails_on_an_int8_file_is_a_gate_that_is_not_passed(kind):
    """As of a file in fp32: each runtime has errors of its own."""
    gate = check_int8(b"", SCHEME, (900, 12, 4, 84), "validation", (FP32, INT8), 0.01)

    def fail(_):
        raise kind("no kernel\nwhere it was")

    with pytest.raises(GateError, match=r"^litert-int8: fails on shape \(1, 1, 2, 2\): no kernel$"):
        held_to(gate, "litert-int8", fail, np.zeros((2, 1, 2, 2), np.float32), (FP32, INT8), (1,))
