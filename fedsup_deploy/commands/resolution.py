"""`fedsup-deploy inspect --resolution`: what each resolution of a search space costs, before training. Torch-free."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import ValidationError

from fedsup_deploy.artifact.document import first_problem
from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.commands.search import SearchRequest, targets_of
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.ondevice.records import Percentile
from fedsup_deploy.results import Result
from fedsup_deploy.searchers.prices import Prices
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.space import cost
from fedsup_deploy.space.search_space import SearchSpace


@dataclasses.dataclass(frozen=True)
class DeviceCost:
    """What a subnet costs on a device.

    Args:
        profile: Name of the device's profile.
        percentile: Which percentile of latency is predicted.
        is_percentile_assumed: Whether that is assumed, as figures were published.
        latency_ms_predicted: At batch 1, in ms. Nobody timed it.
        latency_interval_ms: Lower and upper bound of that latency, in ms; None where the profile claims none.
        is_supported: Whether the device's runtime can run every layer.
        exceeded: Names of those limits of the profile that it exceeds.
    """

    profile: str
    percentile: Percentile
    is_percentile_assumed: bool
    latency_ms_predicted: float
    latency_interval_ms: tuple[float, float] | None
    is_supported: bool
    exceeded: tuple[str, ...]

    @property
    def is_allowed(self) -> bool:
        """Whether a search with the limits of the profile may pick it."""
        return self.is_supported and not self.exceeded


@dataclasses.dataclass(frozen=True)
class ResolutionCost:
    """What one subnet costs at one resolution.

    Args:
        resolution: Side of the input image, in pixels.
        last_map: Side of the last map of activations, which is averaged, in elements.
        subnet: `smallest` or `largest`, of those of this resolution.
        num_macs: Multiply-accumulates for one image.
        num_params: Parameters of the exported model.
        peak_activation_bytes: The most activations alive at once, in float32.
        devices: One per profile that was asked for.
    """

    resolution: int
    last_map: int
    subnet: str
    num_macs: int
    num_params: int
    peak_activation_bytes: int
    devices: tuple[DeviceCost, ...]


@dataclasses.dataclass(frozen=True)
class ResolutionCosts(Result):
    """What the resolutions of a search space cost.

    Args:
        space: Its name.
        in_channels: Channels of its images.
        num_classes: Classes.
        subnets: The smallest and the largest of each resolution, ascending.
    """

    space: str
    in_channels: int
    num_classes: int
    subnets: tuple[ResolutionCost, ...]


def resolution_costs(
    name_or_path: str, sides: Sequence[int] = (), profiles: Sequence[str | DeviceProfile] = ()
) -> ResolutionCosts:
    """Return what the smallest and the largest subnet of a search space cost at each resolution.

    Args:
        name_or_path: A shipped space, its file, or a run, whose space has channels and classes of its images.
        sides: Resolutions in pixels instead of those of the space.
        profiles: Devices whose latency is predicted: shipped names, files or profiles.

    Raises:
        ConfigError: The space or a profile is unknown or wrong, a side is none that a space can have, or a profile
            cannot predict these networks.
        ArtifactError: The run is damaged, or none.
    """
    space = _with_resolutions(load_space(name_or_path), sides)
    targets = targets_of(SearchRequest(profiles)) if profiles else []
    corners = [
        (name, dataclasses.replace(corner, resolution=side))
        for side in space.resolutions
        for name, corner in (("smallest", space.smallest), ("largest", space.largest))
    ]
    genes_NG = np.stack([space.encode(architecture) for _, architecture in corners])
    costs, last_map = cost.costs(space, genes_NG), space.plan_many(genes_NG).head[0].in_size
    on_devices = [
        list(_device_costs(prices, target))
        for prices, target in zip(price(space, genes_NG, targets), targets, strict=True)
    ]
    subnets = tuple(
        ResolutionCost(
            resolution=architecture.resolution,
            last_map=int(last_map[row]),
            subnet=name,
            num_macs=int(costs.num_macs[row]),
            num_params=int(costs.num_params[row]),
            peak_activation_bytes=int(costs.peak_activation_bytes[row]),
            devices=tuple(found[row] for found in on_devices),
        )
        for row, (name, architecture) in enumerate(corners)
    )
    return ResolutionCosts(space.name, space.in_channels, space.num_classes, subnets)


def _with_resolutions(space: SearchSpace, sides: Sequence[int]) -> SearchSpace:
    if not sides:
        return space
    try:
        return SearchSpace.model_validate({**space.to_dict(), "resolutions": sorted(set(sides))})
    except ValidationError as error:
        # The file of the space is in order: it is what was asked for that no space can have.
        raise ConfigError(f"resolution {', '.join(map(str, sides))}: {first_problem(error)}") from error


def _device_costs(prices: Prices, target: Target) -> Iterator[DeviceCost]:
    """Yield what each architecture costs on a device."""
    profile, by_limit = target.profile, prices.by_limit()
    is_above = {name: by_limit[name] > limit for name, limit in target.limits.checked(by_limit).items()}
    interval = target.interval(prices.latency_ms)
    for row, latency_ms in enumerate(prices.latency_ms):
        yield DeviceCost(
            profile=profile.name,
            percentile=profile.predicted_percentile,
            is_percentile_assumed=not profile.is_made_here,
            latency_ms_predicted=float(latency_ms),
            latency_interval_ms=None if interval is None else (float(interval[0][row]), float(interval[1][row])),
            is_supported=bool(prices.is_supported[row]),
            exceeded=tuple(name for name, is_above_N in is_above.items() if is_above_N[row]),
        )
