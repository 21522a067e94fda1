"""What a gate is: the comparison that every variant of one precision has to pass before anybody sees it."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsup_deploy import registry
from fedsup_deploy.artifact.variants import ParityGate
from fedsup_deploy.variant import Precision

Images = NDArray[np.float32]
Logits = NDArray[np.float32]
Model = Callable[[Images], Logits]


class Gate(Protocol):
    """Compares models with the network they were made from."""

    def __call__(
        self, reference: Model | Logits, candidates: Mapping[str, Model], inputs_NCHW: Images
    ) -> Mapping[str, ParityGate]:
        """Return what was found of each candidate, by name. It exists only if all have passed.

        Args:
            reference: The model that is right by definition, or its logits (N, K) for the inputs.
            candidates: What is compared, by name.
            inputs_NCHW: Preprocessed images.

        Raises:
            GateError: A candidate has not passed; the message names it.
        """


def gate_for(precision: Precision) -> Gate:
    """Return the gate of a precision.

    Raises:
        ConfigError: There is none.
    """
    gate: Gate = registry.resolve("gate", precision)
    return gate


def gated_precisions() -> list[str]:
    """Return the precisions that have a gate."""
    return registry.names("gate")
