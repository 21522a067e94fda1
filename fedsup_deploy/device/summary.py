"""What lists of device profiles say of each: typed results, made of profiles."""

import dataclasses
from typing import Literal

from fedsup_deploy.config.device import KnownBad, System
from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.device.heldout import SummarizedError
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.results import Result
from fedsup_deploy.variant import Precision


@dataclasses.dataclass(frozen=True)
class PercentileSummary:
    """Which percentiles of latency a profile is about.

    Args:
        limit: What a limit on latency means.
        predicted: What predictions are.
        is_assumed: Whether that is assumed, as figures were published.
        ratios: Of the higher percentiles to what is predicted, where they were measured.
    """

    limit: Percentile
    predicted: Percentile
    is_assumed: bool
    ratios: dict[str, float] | None


@dataclasses.dataclass(frozen=True)
class ProfileSummary(Result):
    """What a list of profiles says of one.

    Args:
        name: Its name.
        description: In a sentence.
        latency_kind: Kind of its latency model.
        is_measured: Whether every cost was measured.
        provenance: How the costs in time are known.
        error: How far predictions were off, where that is known.
        limits: Default limits of a search, by name.
        percentile: Which percentiles of latency its limit and its predictions are.
        formats: File formats of a bundle.
        also_loads: Formats that other runtimes there load.
        precisions: Of its weights.
        accepts: What its runtime loads.
        system: What the device has beside it.
        known_bad: Releases of the runtime that fail there.
        build_on_device: A command that makes an engine there, where there is one; we have run none.
    """

    name: str
    description: str
    latency_kind: str
    is_measured: bool
    provenance: tuple[str, ...]
    error: SummarizedError | Literal["none"]
    limits: dict[str, float]
    percentile: PercentileSummary
    formats: tuple[str, ...]
    also_loads: tuple[str, ...]
    precisions: tuple[Precision, ...]
    accepts: Accepts
    system: System
    known_bad: tuple[KnownBad, ...]
    build_on_device: str | None


@dataclasses.dataclass(frozen=True)
class ProfileList(Result):
    """Summaries of profiles."""

    profiles: tuple[ProfileSummary, ...]


def summary_of(profile: DeviceProfile) -> ProfileSummary:
    """Return what a list of profiles says of one."""
    return ProfileSummary(
        name=profile.name,
        description=profile.description,
        latency_kind=profile.latency.kind,
        is_measured=profile.is_measured,
        provenance=profile.provenance_kinds,
        error="none" if profile.error == "none" else profile.error.summary(),
        limits=profile.limits.given(),
        percentile=PercentileSummary(
            limit=profile.limit_percentile,
            predicted=profile.predicted_percentile,
            is_assumed=not profile.is_made_here,
            ratios=None if profile.percentiles is None else profile.percentiles.by_name(),
        ),
        formats=profile.formats,
        also_loads=profile.also_loads,
        precisions=profile.precisions,
        accepts=profile.accepts,
        system=profile.system,
        known_bad=profile.known_bad,
        build_on_device=profile.build_on_device,
    )
