"""The gate is shown models of three logits, which are the three pixels of the input."""

from collections.abc import Callable

import numpy as np
import pytest

from fedsup_deploy.errors import GateError
from fedsup_deploy.export.parity import Logits, check_parity

# Ten inputs of shape (1, 1, 3); integers and halves, so that float32 adds to them without rounding.
INPUTS = np.stack([np.array([i, i + 0.5, 4.0]) for i in range(10)]).reshape(10, 1, 1, 3).astype(np.float32)


def pixels(x: Logits) -> Logits:
    return x.reshape(len(x), 3)


def at_batch(size: int, change: Callable[[Logits], Logits]) -> Callable[[Logits], Logits]:
    """A model that is right except in batches of one size."""
    return lambda x: change(pixels(x)) if len(x) == size else pixels(x)


def off_by(difference: float) -> Callable[[Logits], Logits]:
    return lambda y: y + np.float32(difference)


def test_equal_models_pass_with_a_json_report():
    report = check_parity(pixels, {"a": pixels, "b": lambda x: pixels(x.copy())}, INPUTS)

    zeros = {"max_abs_diff": 0.0, "argmax_agreement": 1.0, "batch_invariance_max_abs_diff": 0.0}
    expected = {
        "tolerance": 1e-5,
        "batch_tolerance": 1e-5,
        "batches": [1, 3, 8],
        "num_inputs": 10,
        "formats": {"a": zeros, "b": zeros},
    }
    assert report.to_dict() == expected


def test_reference_may_be_its_recorded_logits():
    report = check_parity(pixels(INPUTS), {"a": pixels}, INPUTS)

    assert report.formats["a"].max_abs_diff == 0.0


def test_report_holds_the_largest_difference_over_all_batches():
    report = check_parity(pixels, {"a": at_batch(3, off_by(0.25))}, INPUTS, tolerance=0.5, batch_tolerance=0.5)

    assert report.formats["a"].max_abs_diff == 0.25
    assert report.formats["a"].batch_invariance_max_abs_diff == 0.25


def test_every_input_passes_in_chunks_of_every_size():
    seen: list[int] = []

    def recording(x: Logits) -> Logits:
        seen.append(len(x))
        return pixels(x)

    check_parity(pixels(INPUTS), {"a": recording}, INPUTS)

    assert seen == [1] * 10 + [3, 3, 3, 1] + [8, 2]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_difference_above_the_tolerance_is_named(size):
    candidates = {"good": pixels, "bad": at_batch(size, off_by(0.25))}

    with pytest.raises(GateError, match=rf"^bad, batch {size}: .* got 2\.50e-01, expected <= 1e-01"):
        check_parity(pixels, candidates, INPUTS, tolerance=0.1, batch_tolerance=1.0)


def test_difference_of_the_tolerance_itself_passes():
    report = check_parity(pixels, {"a": lambda x: pixels(x) + np.float32(0.25)}, INPUTS, tolerance=0.25)

    assert report.formats["a"].max_abs_diff == 0.25


def test_another_class_fails_within_the_tolerance():
    """Inputs 4 to 9 of the ten have their largest logit in the middle; lowered by 1, it no longer is."""

    def lowers_the_middle(x: Logits) -> Logits:
        return pixels(x) - np.array([0, 1, 0], np.float32)

    with pytest.raises(GateError, match=r"^a, batch 1: .* on the class: got 40\.00%, expected 100%"):
        check_parity(pixels, {"a": lowers_the_middle}, INPUTS, tolerance=2.0)


def test_answer_that_depends_on_its_neighbours_fails_within_the_tolerance():
    def looks_around(x: Logits) -> Logits:
        return pixels(x) + np.float32(0.25 * (len(x) > 1))

    with pytest.raises(GateError, match=r"^a, batch 3: .*alone and in the batch: got 2\.50e-01, expected <= 1e-01"):
        check_parity(pixels, {"a": looks_around}, INPUTS, tolerance=0.5, batch_tolerance=0.1)


def test_invariance_is_checked_although_batch_1_is_not_asked_for():
    with pytest.raises(GateError, match=r"^a, batch 3: .*alone"):
        check_parity(pixels, {"a": at_batch(1, off_by(0.25))}, INPUTS[:9], batches=(3,))


def refuses(x: Logits) -> Logits:
    raise RuntimeError("expected 1 image\nand more")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda y: y * np.float32("nan"), "NaN or infinite"),
        (lambda y: y + np.float32("inf"), "NaN or infinite"),
        (lambda y: y.astype(np.float64), "dtype float64, expected float32"),
        (lambda y: y[:, :2], r"shape \(3, 2\), expected \(3, 3\)"),
        (lambda y: y[:1], r"shape \(1, 3\), expected \(3, 3\)"),
        (refuses, r"fails on shape \(3, 1, 1, 3\): expected 1 image$"),
    ],
    ids=["nan", "inf", "dtype", "classes", "squeezed", "error"],
)
def test_malformed_logits_fail(change, what):
    with pytest.raises(GateError, match=rf"^a, batch 3: .*{what}"):
        check_parity(pixels, {"a": at_batch(3, change)}, INPUTS)


def test_nan_in_the_reference_fails():
    with pytest.raises(GateError, match=r"^the reference: .*NaN"):
        check_parity(lambda x: pixels(x) * np.float32("nan"), {"a": pixels}, INPUTS)


def test_too_few_inputs_for_the_largest_batch_are_refused():
    with pytest.raises(AssertionError, match="every batch size"):
        check_parity(pixels, {"a": pixels}, INPUTS[:7])
