"""The gate is shown models of three logits, which are the three pixels of the input."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy.errors import GateError
from fedsup_deploy.export.parity import Logits, check_parity
from fedsup_deploy.ondevice import bundle_files, bundle_outputs

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
    report = check_parity(pixels(INPUTS), {"a": pixels, "b": lambda x: pixels(x.copy())}, INPUTS)

    expected = {
        "kind": "parity",
        "tolerance": 1e-5,
        "batch_tolerance": 1e-5,
        "batches": [1, 3, 8],
        "num_inputs": 10,
        "max_abs_diff": 0.0,
        "max_scaled_diff": 0.0,
        "argmax_agreement": 1.0,
        "batch_invariance_max_abs_diff": 0.0,
        "batch_invariance_max_scaled_diff": 0.0,
    }
    assert {name: gate.model_dump(mode="json") for name, gate in report.items()} == {"a": expected, "b": expected}


def test_report_holds_the_largest_difference_over_all_batches():
    """The scales are 4 (inputs 0 to 3) to 9.5."""
    report = check_parity(pixels(INPUTS), {"a": at_batch(3, off_by(0.25))}, INPUTS, tolerance=0.5, batch_tolerance=0.5)

    assert (report["a"].max_abs_diff, report["a"].max_scaled_diff) == (0.25, 0.0625)
    assert report["a"].batch_invariance_max_abs_diff == 0.25
    assert report["a"].batch_invariance_max_scaled_diff == 0.0625


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

    what = rf"^bad, batch {size}: max scaled difference .* got 6\.25e-02, expected <= 5e-02, on an image of scale 4;"
    with pytest.raises(GateError, match=what):
        check_parity(pixels(INPUTS), candidates, INPUTS, tolerance=0.05, batch_tolerance=1.0)


def test_difference_of_the_tolerance_itself_passes():
    report = check_parity(pixels(INPUTS), {"a": lambda x: pixels(x) + np.float32(0.25)}, INPUTS, tolerance=0.0625)

    assert report["a"].max_scaled_diff == 0.0625


def test_another_class_fails_within_the_tolerance():
    """Inputs 4 to 9 of the ten have their largest logit in the middle; lowered by 1, it no longer is."""

    def lowers_the_middle(x: Logits) -> Logits:
        return pixels(x) - np.array([0, 1, 0], np.float32)

    with pytest.raises(GateError, match=r"^a, batch 1: .* on the class: got 40\.00%, expected 100%"):
        check_parity(pixels(INPUTS), {"a": lowers_the_middle}, INPUTS, tolerance=2.0)


def test_answer_that_depends_on_its_neighbours_fails_within_the_tolerance():
    def looks_around(x: Logits) -> Logits:
        return pixels(x) + np.float32(0.25 * (len(x) > 1))

    what = r"^a, batch 3: .*alone and in the batch: got 6\.25e-02, expected <= 5e-02, on an image of scale 4;"
    with pytest.raises(GateError, match=what):
        check_parity(pixels(INPUTS), {"a": looks_around}, INPUTS, tolerance=0.5, batch_tolerance=0.05)


def test_invariance_is_checked_although_batch_1_is_not_asked_for():
    with pytest.raises(GateError, match=r"^a, batch 3: .*alone"):
        check_parity(pixels(INPUTS[:9]), {"a": at_batch(1, off_by(0.25))}, INPUTS[:9], batches=(3,))


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
        check_parity(pixels(INPUTS), {"a": at_batch(3, change)}, INPUTS)


def test_nan_in_the_reference_fails():
    with pytest.raises(GateError, match=r"^the reference: .*NaN"):
        check_parity(pixels(INPUTS) * np.float32("nan"), {"a": pixels}, INPUTS)


def test_too_few_inputs_for_the_largest_batch_are_refused():
    with pytest.raises(AssertionError, match="every batch size"):
        check_parity(pixels(INPUTS[:7]), {"a": pixels}, INPUTS[:7])


# The scale of an image, in the gate and in a bundle's runner. Inputs are the indices of recorded logits.


def image_of_scale(scale: float) -> Logits:
    """Eight images of which the first has the scale and the last 100, as the scale must be that of each image."""
    logits = np.tile(np.array([-scale, 0.0, scale / 2]), (8, 1))
    logits[7] = [-100.0, 0.0, 50.0]
    return logits.astype(np.float32)


def first_image_off_by(difference: float, logits_NK: Logits) -> Callable[[Logits], Logits]:
    shifted_NK = logits_NK.copy()
    shifted_NK[0, 1] += np.float32(difference)
    return lambda x: shifted_NK[indices(x)]


def indices(x: Logits) -> list[int]:
    return [int(index) for index in x.ravel()]


def numbered(count: int) -> Logits:
    return np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)


def test_what_is_allowed_grows_with_the_logits_of_the_image():
    logits_NK = image_of_scale(100.0)

    report = check_parity(logits_NK, {"a": first_image_off_by(1e-4, logits_NK)}, numbered(8))

    assert report["a"].max_abs_diff == pytest.approx(1e-4)
    assert report["a"].max_scaled_diff == pytest.approx(1e-6)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_what_is_allowed_is_absolute_for_logits_up_to_one(scale):
    logits_NK = image_of_scale(scale)

    with pytest.raises(GateError, match=r"got 1\.00e-04, expected <= 1e-05, on an image of scale 1;"):
        check_parity(logits_NK, {"a": first_image_off_by(1e-4, logits_NK)}, numbered(8))


def test_larger_logits_do_not_excuse_another_class():
    logits_NK = np.tile(np.array([100.0, 100.00001, 0.0], np.float32), (8, 1))

    with pytest.raises(GateError, match=r"^a, batch 1: agreement .* got 0\.00%, expected 100%"):
        check_parity(logits_NK, {"a": lambda x: logits_NK[indices(x)][:, [1, 0, 2]]}, numbered(8))


def verdicts(logits_NK: Logits, model: Callable[[Logits], Logits]) -> tuple[object, object]:
    """Return what the gate and a bundle's runner find: the gated figures, or None for a failure."""
    inputs, found = numbered(len(logits_NK)), []
    try:
        gate = check_parity(logits_NK, {"a": model}, inputs)["a"]
        found.append((gate.max_abs_diff, gate.max_scaled_diff, gate.batch_invariance_max_scaled_diff))
    except GateError:
        found.append(None)
    try:
        run = bundle_outputs.check_outputs(model, inputs, logits_NK, {"tolerance": 1e-5, "batch_tolerance": 1e-5})
        found.append((run["max_abs_diff"], run["max_scaled_diff"], run["batch_invariance_max_scaled_diff"]))
    except bundle_files.CheckError:
        found.append(None)
    return found[0], found[1]


@st.composite
def recorded_and_model(draw: st.DrawFn) -> tuple[Logits, Callable[[Logits], Logits]]:
    """Return logits of any scale, and a model that is off by about the tolerance, alone and in a batch not the same."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale_N1 = np.exp(random.uniform(np.log(0.01), np.log(1000.0), (8, 1)))
    logits_NK = (scale_N1 * random.uniform(-1, 1, (8, 3))).astype(np.float32)
    share_alone, share_in_batch = (draw(st.sampled_from([0.0, 0.4, 0.9, 1.0, 1.1])) for _ in range(2))
    off_NK = 1e-5 * np.maximum(1.0, np.abs(logits_NK).max(axis=1, keepdims=True)) * random.choice([-1, 1], (8, 3))

    def model(x: Logits) -> Logits:
        share = share_alone if len(x) == 1 else share_in_batch
        return (logits_NK + share * off_NK).astype(np.float32)[indices(x)]

    return logits_NK, model


@given(recorded_and_model())
def test_gate_and_runner_give_the_same_verdict(case):
    gate, run = verdicts(*case)

    assert gate == run


def test_both_verdicts_occur():
    """Otherwise the law above would say little."""
    for difference, passes in ((9e-4, True), (1.1e-3, False)):
        logits_NK = image_of_scale(100.0)
        gate, run = verdicts(logits_NK, first_image_off_by(difference, logits_NK))
        assert (gate is not None, run is not None) == (passes, passes)
