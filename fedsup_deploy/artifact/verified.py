"""What `verify` has found of a bundle, and what it returns."""

import dataclasses
from pathlib import Path
from typing import Literal

from fedsup_deploy.artifact.measured import MeasuredBundle
from fedsup_deploy.ondevice.records import Environment, Files, Int8Outputs, Outputs
from fedsup_deploy.results import Result


@dataclasses.dataclass(frozen=True)
class CheckedSignature:
    """A signature that a key was found to have made, of the very files that are there.

    Args:
        key_sha256: SHA-256 of the public key's PEM text, as OpenSSF Model Signing has it.
        version: Of the bundle; None where another program signed it, which gives none.
    """

    key_sha256: str
    version: int | None


@dataclasses.dataclass(frozen=True)
class ExecutedModel:
    """A model that was run on the recorded images, by the runtime of its format.

    Args:
        file: The file that the runtime was given.
        ran_by: The runtime; `THIS_PROGRAM` where no runtime of the format can run it here.
        version: Its release.
        num_inputs: Number of images.
        max_scaled_diff: Largest scaled difference of a logit from the recorded one.
        tolerance: What was allowed.
    """

    file: str
    ran_by: str
    version: str
    num_inputs: int
    max_scaled_diff: float
    tolerance: float


@dataclasses.dataclass(frozen=True)
class VerifiedBundle(Result):
    """A bundle that is whole, unaltered and consistent, and whose ONNX file computes what it did.

    Args:
        bundle: Its folder.
        verdict: `ok`: nothing else is returned.
        exceeded_limits: Names of the limits of its device that it exceeds.
        arch_id: The network.
        profile: The device.
        files: Their number and bytes.
        environment: The machine that it was run on here.
        parity: What was asked of its outputs, and the largest differences.
        int8: The same of its int8 file; None where it has none.
        measured: What was measured after the bundle was made; None where nobody did.
        signature: What the signature says, where a key was given that has made it; None where none was given.
        is_signed: Whether there is a signature, checked or not.
        executed: Models beside those of ONNX that were run: by the runtime of their format, where it is installed; of
            those that need a signature, where that proves who made them.
        not_executed: Model files that were hashed only.
        not_installed: Of these, by name, those that only want a library, and the command that installs it.
        not_compared: Files that another version of this program wrote, whose text it alone could write again.
    """

    bundle: Path
    verdict: Literal["ok"]
    exceeded_limits: tuple[str, ...]
    arch_id: str
    profile: str
    files: Files
    environment: Environment
    parity: Outputs
    int8: Int8Outputs | None
    measured: MeasuredBundle | None
    signature: CheckedSignature | None
    is_signed: bool
    executed: tuple[ExecutedModel, ...]
    not_executed: tuple[str, ...]
    not_installed: dict[str, str]
    not_compared: tuple[str, ...]
