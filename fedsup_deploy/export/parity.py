"""The gate of fp32: every file computes what the subnet computes, for one image and for many.

Owns the comparison and its numbers. Never decides what a failure means for the bundle, and never loosens a tolerance.

The scale of an image is its largest absolute logit in the reference, at least 1; a scaled difference is divided by it
and must be within the tolerance, which so is absolute for logits up to 1 and relative to the image's own above. The
runner of a bundle has the same rule.

Shape suffixes: N inputs, B batch, C channels, H W spatial, K classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.errors import GateError
from fedsup_deploy.export.gate import Images, Logits, Model, guarded
from fedsup_deploy.ondevice.bundle_outputs import BATCHES, TOLERANCE


def check_parity(
    expected_NK: Logits,
    candidates: Mapping[str, Model],
    inputs_NCHW: Images,
    batches: tuple[int, ...] = BATCHES,
    tolerance: float = TOLERANCE,
    batch_tolerance: float = TOLERANCE,
) -> dict[str, ParityGate]:
    """Compare every candidate with the reference at every batch size.

    Args:
        expected_NK: What the model that is right by definition, the reference, computes for the inputs.
        candidates: What is compared, by name: formats, or the extracted subnet.
        inputs_NCHW: Preprocessed images; at least as many as the largest batch.
        batches: Batch sizes. All inputs pass in chunks of each; only the last chunk may be smaller.
        tolerance: Allowed scaled difference of a logit from the reference.
        batch_tolerance: Allowed scaled difference of a logit between an input alone and inside a batch.

    Returns:
        What was found, by the candidates' names. It exists only if everything passed.

    Raises:
        GateError: A scaled difference above its tolerance, another class, or outputs of a wrong shape, dtype or with
            NaN or infinite values. The message names the candidate and the batch size, and for a difference the scaled
            one, the tolerance and the image's scale.
    """
    assert len(inputs_NCHW) >= max(batches), "every batch size occurs at least once"
    _check_form("the reference", expected_NK, (len(inputs_NCHW), *expected_NK.shape[1:2]))
    gate = _Gate(inputs_NCHW, expected_NK, tolerance, batch_tolerance)
    return {name: gate.check(name, model, batches) for name, model in candidates.items()}


@dataclass(frozen=True)
class _Gate:
    """What all candidates are compared with."""

    inputs_NCHW: Images
    expected_NK: Logits
    tolerance: float
    batch_tolerance: float

    def check(self, name: str, model: Model, batches: tuple[int, ...]) -> ParityGate:
        alone_NK = self._outputs(name, model, 1)
        found = []
        for batch in batches:
            actual_NK = alone_NK if batch == 1 else self._outputs(name, model, batch)
            difference, agreement = self._compare(name, batch, actual_NK)
            found.append((difference, agreement, self._compare_with_alone(name, batch, actual_NK, alone_NK)))
        differences, agreements, invariances = zip(*found, strict=True)
        return ParityGate(
            tolerance=self.tolerance,
            batch_tolerance=self.batch_tolerance,
            batches=batches,
            num_inputs=len(self.inputs_NCHW),
            max_abs_diff=max(difference.max_abs for difference in differences),
            max_scaled_diff=max(difference.max_scaled for difference in differences),
            argmax_agreement=min(agreements),
            batch_invariance_max_abs_diff=max(difference.max_abs for difference in invariances),
            batch_invariance_max_scaled_diff=max(difference.max_scaled for difference in invariances),
        )

    def _outputs(self, name: str, model: Model, batch: int) -> Logits:
        where = f"{name}, batch {batch}"
        run, outputs = guarded(where, model), []
        for chunk_BCHW in _chunks(self.inputs_NCHW, batch):
            logits_BK = run(chunk_BCHW)
            _check_form(where, logits_BK, (len(chunk_BCHW), self.expected_NK.shape[1]))
            outputs.append(logits_BK)
        return np.concatenate(outputs)

    def _compare(self, name: str, batch: int, actual_NK: Logits) -> tuple["_Difference", float]:
        found = _difference(actual_NK, self.expected_NK, self.expected_NK)
        if found.max_scaled > self.tolerance:
            raise GateError(
                f"{name}, batch {batch}: max scaled difference from the reference: got {found.max_scaled:.2e}, "
                f"expected <= {self.tolerance:.0e}, on an image of scale {found.scale:.3g}; "
                "the file does not compute what the subnet computes"
            )
        agreement = float(np.mean(actual_NK.argmax(axis=1) == self.expected_NK.argmax(axis=1)))
        if agreement < 1.0:
            raise GateError(
                f"{name}, batch {batch}: agreement with the reference on the class: got {agreement:.2%}, expected 100% "
                f"(max scaled difference {found.max_scaled:.2e}, tolerance {self.tolerance:.0e}); "
                "two logits are nearly equal"
            )
        return found, agreement

    def _compare_with_alone(self, name: str, batch: int, actual_NK: Logits, alone_NK: Logits) -> "_Difference":
        found = _difference(actual_NK, alone_NK, self.expected_NK)
        if found.max_scaled > self.batch_tolerance:
            raise GateError(
                f"{name}, batch {batch}: max scaled difference between an input alone and in the batch: "
                f"got {found.max_scaled:.2e}, expected <= {self.batch_tolerance:.0e}, "
                f"on an image of scale {found.scale:.3g}; an answer must not depend on its neighbours"
            )
        return found


@dataclass(frozen=True)
class _Difference:
    """How far two sets of logits are apart; `scale` is that of the image with the largest scaled difference."""

    max_abs: float
    max_scaled: float
    scale: float


def _chunks(inputs_NCHW: Images, batch: int) -> Iterator[Images]:
    for start in range(0, len(inputs_NCHW), batch):
        yield inputs_NCHW[start : start + batch]


def _check_form(where: str, logits: Logits, shape: tuple[int, ...]) -> None:
    if logits.shape != shape or len(shape) != 2:
        raise GateError(f"{where}: got logits of shape {logits.shape}, expected {shape}")
    if logits.dtype != np.float32:
        raise GateError(f"{where}: got logits of dtype {logits.dtype}, expected float32")
    if not np.isfinite(logits).all():
        raise GateError(f"{where}: got NaN or infinite logits, expected finite ones")


def _difference(a_NK: Logits, b_NK: Logits, reference_NK: Logits) -> _Difference:
    diff_N = np.abs(a_NK.astype(np.float64) - b_NK.astype(np.float64)).max(axis=1)
    # Relative above 1, because the rounding of float32 grows with the logits. Near 40, one step is 4e-6 already.
    scale_N = np.maximum(1.0, np.abs(reference_NK.astype(np.float64)).max(axis=1))
    worst = int(np.argmax(diff_N / scale_N))
    return _Difference(float(diff_N.max()), float(diff_N[worst] / scale_N[worst]), float(scale_N[worst]))
