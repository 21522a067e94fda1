"""The gate: every file computes what the subnet computes, for one image and for many.

Owns the comparison and its numbers. Never decides what a failure means for the bundle, and never loosens a tolerance.

Shape suffixes: N inputs, B batch, C channels, H W spatial, K classes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy.artifact.runner import first_line
from fedsup_deploy.errors import GateError

BATCHES = (1, 3, 8)
TOLERANCE = 1e-5

Images = NDArray[np.float32]
Logits = NDArray[np.float32]
Model = Callable[[Images], Logits]


@dataclass(frozen=True)
class FormatParity:
    """How far one format is from the reference.

    Attributes:
        max_abs_diff: Largest difference of a logit, over all inputs and batch sizes.
        argmax_agreement: Share of inputs with the reference's class, the lowest over the batch sizes. In [0, 1].
        batch_invariance_max_abs_diff: Largest difference of a logit between an input alone and inside a batch.
    """

    max_abs_diff: float
    argmax_agreement: float
    batch_invariance_max_abs_diff: float


@dataclass(frozen=True)
class ParityReport:
    """What the gate compared, and what it found. It exists only if everything passed.

    Attributes:
        tolerance: Allowed difference of a logit from the reference.
        batch_tolerance: Allowed difference of a logit between an input alone and inside a batch.
        batches: Batch sizes; every input passed in chunks of each.
        num_inputs: Number of inputs.
        formats: The findings per candidate.
    """

    tolerance: float
    batch_tolerance: float
    batches: tuple[int, ...]
    num_inputs: int
    formats: Mapping[str, FormatParity]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return {**asdict(self), "batches": list(self.batches)}


def check_parity(
    reference: Model | Logits,
    candidates: Mapping[str, Model],
    inputs_NCHW: Images,
    batches: tuple[int, ...] = BATCHES,
    tolerance: float = TOLERANCE,
    batch_tolerance: float = TOLERANCE,
) -> ParityReport:
    """Compare every candidate with the reference at every batch size.

    Args:
        reference: The model that is right by definition, or its logits (N, K) for the inputs.
        candidates: What is compared, by name: formats, or the extracted subnet.
        inputs_NCHW: Preprocessed images; at least as many as the largest batch.
        batches: Batch sizes. All inputs pass in chunks of each; only the last chunk may be smaller.
        tolerance: Allowed absolute difference of a logit from the reference.
        batch_tolerance: Allowed absolute difference of a logit between an input alone and inside a batch.

    Raises:
        GateError: A difference above its tolerance, another class, or outputs of a wrong shape, dtype or with NaN or
            infinite values. The message names the candidate, the batch size, the difference and the tolerance.
    """
    assert len(inputs_NCHW) >= max(batches), "every batch size occurs at least once"
    if callable(reference):
        expected_NK = np.concatenate([_call("the reference", reference, x) for x in _chunks(inputs_NCHW, max(batches))])
    else:
        expected_NK = reference
    _check_form("the reference", expected_NK, (len(inputs_NCHW), *expected_NK.shape[1:2]))
    gate = _Gate(inputs_NCHW, expected_NK, tolerance, batch_tolerance)
    formats = {name: gate.check(name, model, batches) for name, model in candidates.items()}
    return ParityReport(tolerance, batch_tolerance, tuple(batches), len(inputs_NCHW), formats)


@dataclass(frozen=True)
class _Gate:
    """What all candidates are compared with."""

    inputs_NCHW: Images
    expected_NK: Logits
    tolerance: float
    batch_tolerance: float

    def check(self, name: str, model: Model, batches: tuple[int, ...]) -> FormatParity:
        alone_NK = self._outputs(name, model, 1)
        found = []
        for batch in batches:
            actual_NK = alone_NK if batch == 1 else self._outputs(name, model, batch)
            diff, agreement = self._compare(name, batch, actual_NK)
            found.append((diff, agreement, self._compare_with_alone(name, batch, actual_NK, alone_NK)))
        diffs, agreements, invariances = zip(*found, strict=True)
        return FormatParity(max(diffs), min(agreements), max(invariances))

    def _outputs(self, name: str, model: Model, batch: int) -> Logits:
        where = f"{name}, batch {batch}"
        outputs = []
        for chunk_BCHW in _chunks(self.inputs_NCHW, batch):
            logits_BK = _call(where, model, chunk_BCHW)
            _check_form(where, logits_BK, (len(chunk_BCHW), self.expected_NK.shape[1]))
            outputs.append(logits_BK)
        return np.concatenate(outputs)

    def _compare(self, name: str, batch: int, actual_NK: Logits) -> tuple[float, float]:
        diff = _max_abs_diff(actual_NK, self.expected_NK)
        if diff > self.tolerance:
            raise GateError(
                f"{name}, batch {batch}: max abs difference from the reference: got {diff:.2e}, "
                f"expected <= {self.tolerance:.0e}; the file does not compute what the subnet computes"
            )
        agreement = float(np.mean(actual_NK.argmax(axis=1) == self.expected_NK.argmax(axis=1)))
        if agreement < 1.0:
            raise GateError(
                f"{name}, batch {batch}: agreement with the reference on the class: got {agreement:.2%}, expected 100% "
                f"(max abs difference {diff:.2e}, tolerance {self.tolerance:.0e}); two logits are nearly equal"
            )
        return diff, agreement

    def _compare_with_alone(self, name: str, batch: int, actual_NK: Logits, alone_NK: Logits) -> float:
        diff = _max_abs_diff(actual_NK, alone_NK)
        if diff > self.batch_tolerance:
            raise GateError(
                f"{name}, batch {batch}: max abs difference between an input alone and in the batch: got {diff:.2e}, "
                f"expected <= {self.batch_tolerance:.0e}; an answer must not depend on its neighbours"
            )
        return diff


def _chunks(inputs_NCHW: Images, batch: int) -> Iterator[Images]:
    for start in range(0, len(inputs_NCHW), batch):
        yield inputs_NCHW[start : start + batch]


def _call(where: str, model: Model, images_BCHW: Images) -> Logits:
    try:
        return model(images_BCHW)
    except (RuntimeError, ValueError, AssertionError) as error:  # what runtimes raise for a shape they do not take
        raise GateError(f"{where}: fails on shape {images_BCHW.shape}: {first_line(error)}") from error


def _check_form(where: str, logits: Logits, shape: tuple[int, ...]) -> None:
    if logits.shape != shape or len(shape) != 2:
        raise GateError(f"{where}: got logits of shape {logits.shape}, expected {shape}")
    if logits.dtype != np.float32:
        raise GateError(f"{where}: got logits of dtype {logits.dtype}, expected float32")
    if not np.isfinite(logits).all():
        raise GateError(f"{where}: got NaN or infinite logits, expected finite ones")


def _max_abs_diff(a_NK: Logits, b_NK: Logits) -> float:
    return float(np.max(np.abs(a_NK.astype(np.float64) - b_NK.astype(np.float64))))
