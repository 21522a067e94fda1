"""Predictions of a profile against published latencies of known networks: `fedsup-deploy profile check`.

It judges nothing but rows whose conditions are those of the profile's costs. A published time that was measured with
other threads, another runtime or another element type is shown beside the prediction, and decides nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from fedsup_deploy.device.heldout import HeldOutError, held_out_error
from fedsup_deploy.device.predictor import predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.device.published import networks as reference_networks
from fedsup_deploy.device.published.tables import PublishedRow, PublishedTable, is_deduced, published_tables
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.results import Result
from fedsup_deploy.variant import Dtype

DEFAULT_FACTOR: Final = 1.5


@dataclasses.dataclass(frozen=True)
class CheckedRow:
    """A published latency beside the prediction.

    Args:
        network: What was timed.
        runtime: What ran it.
        threads: That shared one inference; None where the source does not say.
        dtype: Element type of weights and activations.
        device: What it ran on.
        published_ms: As printed.
        scaled_by: What the printed time is multiplied by before it is compared.
        predicted_ms: None where the profile has no cost for a layer.
        ratio: Predicted / published; None without prediction.
        role: `deduced from` where a cost of the profile came from it, else `held out`.
        verdict: `inside`, `outside`, or why it was not judged.
        reason: Why it is not judged, or why the profile misses it, where that is known.
        source: Who printed it.
    """

    network: str
    runtime: str
    threads: int | None
    dtype: Dtype
    device: str
    published_ms: float
    scaled_by: float
    predicted_ms: float | None
    ratio: float | None
    role: str
    verdict: str
    reason: str | None
    source: str


@dataclasses.dataclass(frozen=True)
class CheckedProfile:
    """One profile against all that was published about its device.

    Args:
        name: Of the profile.
        is_inside: Whether no row that counts is outside; None where nothing counts.
        num_judged: Rows that count.
        heldout: The error over the rows no cost was deduced from, as a profile states it; None without such.
        rows: All there are.
    """

    name: str
    is_inside: bool | None
    num_judged: int
    heldout: HeldOutError | None
    rows: tuple[CheckedRow, ...]


@dataclasses.dataclass(frozen=True)
class ProfileCheck(Result):
    """Profiles against what was published.

    Args:
        factor: How far a prediction may be off.
        is_inside: Whether no row that counts is outside.
        profiles: Each of them.
    """

    factor: float
    is_inside: bool
    profiles: tuple[CheckedProfile, ...]


def check_profiles(profiles: Sequence[str], factor: float = DEFAULT_FACTOR) -> ProfileCheck:
    """Compare profiles with what others published about their devices.

    Args:
        profiles: Shipped names, or files.
        factor: How far a prediction may be from a published time under the same conditions: a factor of at least 1.

    Raises:
        ConfigError: There is no such profile, it is wrong, or the factor is below 1.
    """
    if not factor >= 1:
        raise ConfigError(f"got factor {factor:g}, expected at least 1; 1.5 lets a prediction be off by half")
    checked = tuple(_check(load_profile(name), factor) for name in profiles)
    return ProfileCheck(factor, all(entry.is_inside is not False for entry in checked), checked)


def published_error(profile: DeviceProfile) -> HeldOutError | None:
    """Return how far the profile is off on rows that count and that no cost was deduced from; None if there are none.

    It is what the `error` of a profile deduced from published figures has to say.
    """
    pairs = [
        (predicted_ms, row.ms * table.factor)
        for table in published_tables(profile.name)
        for row in table.rows
        if _counts(profile, table, row)
        and not _is_deduced_from(profile, row)
        and (predicted_ms := _predicted_ms(profile, row.network)) is not None
    ]
    if not pairs:
        return None
    predicted_N, published_N = np.array(pairs, np.float64).T
    return held_out_error(predicted_N, published_N, "published")


def _check(profile: DeviceProfile, factor: float) -> CheckedProfile:
    rows = tuple(_row(profile, table, row, factor) for table in published_tables(profile.name) for row in table.rows)
    verdicts = [row.verdict for row in rows if row.verdict in {"inside", "outside"}]
    return CheckedProfile(
        name=profile.name,
        is_inside="outside" not in verdicts if verdicts else None,
        num_judged=len(verdicts),
        heldout=published_error(profile),
        rows=rows,
    )


def _row(profile: DeviceProfile, table: PublishedTable, row: PublishedRow, factor: float) -> CheckedRow:
    predicted_ms = _predicted_ms(profile, row.network)
    ratio = None if predicted_ms is None else predicted_ms / (row.ms * table.factor)
    return CheckedRow(
        network=row.network,
        runtime=table.runtime,
        threads=table.threads,
        dtype=table.dtype,
        device=table.device,
        published_ms=row.ms,
        scaled_by=table.factor,
        predicted_ms=predicted_ms,
        ratio=ratio,
        role="deduced from" if _is_deduced_from(profile, row) else "held out",
        verdict=_verdict(profile, table, row, ratio, factor),
        reason=row.beyond or row.known_miss,
        source=table.source,
    )


def _verdict(
    profile: DeviceProfile, table: PublishedTable, row: PublishedRow, ratio: float | None, factor: float
) -> str:
    if not table.runs_like(profile):
        return "other conditions"
    if row.beyond is not None:
        return "beyond the profile"
    if ratio is None:
        return "no prediction"
    if 1 / factor <= ratio <= factor:
        return "inside"
    return "outside" if row.known_miss is None else "known miss"


def _counts(profile: DeviceProfile, table: PublishedTable, row: PublishedRow) -> bool:
    return row.beyond is None and table.runs_like(profile)


def _is_deduced_from(profile: DeviceProfile, row: PublishedRow) -> bool:
    """Return whether costs came from the row: never where all of them were measured, whatever a shipped one did."""
    return row.is_deduced_from and is_deduced(profile)


def _predicted_ms(profile: DeviceProfile, network: str) -> float | None:
    """Return the prediction, or None where the profile is about other networks: it has no cost for a layer."""
    try:
        return float(predictor_for(profile).predict(reference_networks.layer_costs(network))[0])
    except ConfigError:
        return None
