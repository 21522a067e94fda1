"""`fedsup-deploy export --refine`: trims subnets that cost a little too much, for limits that no subnet meets closely.

Owns which subnets are trimmed, and when the result is better than the pick. It replaces no pick, and it writes nothing.
Imports torch.
"""

import dataclasses
import functools
from typing import Final

import numpy as np
from pydantic import JsonValue

from fedsup_deploy import registry
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.artifact.manifest import RefinementRecord
from fedsup_deploy.commands.recalibrate import calibrate
from fedsup_deploy.commands.search import target_of
from fedsup_deploy.device.profile import DeviceProfile
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.federation.networks import standalone
from fedsup_deploy.federation.server import recalibration
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.runs.run import Run
from fedsup_deploy.searchers.limits import violations
from fedsup_deploy.searchers.prices import rounded_up
from fedsup_deploy.searchers.pricing import Target, price, price_network
from fedsup_deploy.searchers.problem import is_feasible
from fedsup_deploy.searchers.result import DeviceResult
from fedsup_deploy.space import cost
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import IntArray, NetworkPlan
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.fold import fold
from fedsup_deploy.supernet.model import Subnet, Supernet
from fedsup_deploy.supernet.statistics import PooledStatistics
from fedsup_deploy.supernet.trimming import Trimmed, cut, smallest, trim

#: Subnets that are trimmed, at most, and the share by which they may exceed a limit.
NUM_SOURCES: Final = 4
MOST_OVER: Final = 0.5
#: Channels that go together where the profile does not say how many its runtime computes together.
DEFAULT_QUANTUM: Final = 8


@dataclasses.dataclass(frozen=True)
class RefinedNetwork:
    """A trimmed subnet that is within the limits.

    Args:
        source: The subnet it was.
        source_plan: The layers of that subnet.
        trimmed: What is kept of it.
        subnet: What is left, with weights of its own, not folded.
        statistics: Client statistics of what is left.
        latency_ms: Predicted.
        accuracy: On the validation images.
    """

    source: Architecture
    source_plan: NetworkPlan
    trimmed: Trimmed
    subnet: Subnet
    statistics: PooledStatistics
    latency_ms: float
    accuracy: CountedAccuracy

    @functools.cached_property
    def arch_id(self) -> str:
        """A stable name: the subnet's arch_id, and a hash of what was removed."""
        return self.source.refined_id(self.layers)

    @property
    def layers(self) -> dict[str, JsonValue]:
        """For each layer that lost channels how many it wrote before, and which of them are gone."""
        return {
            name: {"num_channels": kept.num_channels, "removed": _ranges(kept.removed)}
            for name, kept in self.trimmed.kept.items()
            if len(kept.removed)
        }

    def facts(self) -> "TrimmedFacts":
        """Return what is told of it."""
        accuracy = self.accuracy
        return TrimmedFacts(self.arch_id, self.source.arch_id, accuracy.share, accuracy.interval, self.latency_ms)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return what a manifest says in place of an architecture, which this is not."""
        channels = {name: len(kept.outputs) for name, kept in self.trimmed.kept.items()}
        return {"trimmed_from": self.source.to_dict(), "channels": {**channels}}


@dataclasses.dataclass(frozen=True)
class NotTrimmed:
    """A subnet that no trimming brings within the limits.

    Args:
        arch_id: Its name.
        reason: Why, in words.
    """

    arch_id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Refinement:
    """What came of trimming for one device.

    Args:
        target: The device, with the limits of the search.
        pick: What the search picked.
        pick_accuracy: Its own on the validation images, with the statistics it is exported with.
        split: These images.
        networks: What came of the subnets that could be trimmed, most accurate first; of equals the fastest, then the
            first by name.
        not_trimmed: Those that could not be.
    """

    target: Target
    pick: Architecture
    pick_accuracy: CountedAccuracy
    split: str
    networks: tuple[RefinedNetwork, ...]
    not_trimmed: tuple[NotTrimmed, ...]

    @property
    def better(self) -> RefinedNetwork | None:
        """The most accurate network, if it is more accurate than the pick."""
        is_better = bool(self.networks) and self.networks[0].accuracy.share > self.pick_accuracy.share
        return self.networks[0] if is_better else None

    def facts(self) -> "RefinementFacts":
        """Return what was tried and what came of it."""
        return RefinementFacts(
            profile=self.target.profile.name,
            pick=self.pick.arch_id,
            split=self.split,
            num_images=self.pick_accuracy.num_images,
            accuracy_of_pick=self.pick_accuracy.share,
            accuracy_of_pick_interval=self.pick_accuracy.interval,
            num_tried=len(self.networks) + len(self.not_trimmed),
            networks=tuple(network.facts() for network in self.networks),
            not_trimmed=self.not_trimmed,
        )

    def record(self, network: RefinedNetwork) -> RefinementRecord:
        """Return what the manifest of one of the networks says of its refinement."""
        before = price_network(network.source_plan, self.target)
        document = {
            "source_arch_id": network.source.arch_id,
            "source_costs": {**cost.costs_of_plan(network.source_plan).row(0)},
            "source_latency_ms_predicted": float(before.latency_ms[0]),
            "limits": {**self.target.limits.checked(before.by_limit())},
            "channel_quantum": channel_quantum(self.target.profile),
            "layers": network.layers,
            "pick_arch_id": self.pick.arch_id,
            "split": self.split,
            "num_samples": self.pick_accuracy.num_images,
            "accuracy": network.accuracy.share,
            "accuracy_interval": network.accuracy.interval,
            "pick_accuracy": self.pick_accuracy.share,
            "pick_accuracy_interval": self.pick_accuracy.interval,
        }
        return RefinementRecord.model_validate(document)


@dataclasses.dataclass(frozen=True)
class TrimmedFacts:
    """One trimmed network.

    Args:
        arch_id: Its name.
        trimmed_from: The subnet it was.
        accuracy: Share of the validation images classified correctly.
        accuracy_interval: Its 95 % interval.
        latency_ms_predicted: For the device, in ms.
    """

    arch_id: str
    trimmed_from: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    latency_ms_predicted: float


@dataclasses.dataclass(frozen=True)
class RefinementFacts:
    """What was tried for one device, and what came of it.

    Args:
        profile: The device.
        pick: What the search picked.
        split: The images that networks were compared on.
        num_images: How many.
        accuracy_of_pick: The pick's share of these.
        accuracy_of_pick_interval: Its 95 % interval.
        num_tried: Subnets that were to be trimmed.
        networks: Those that could be, most accurate first.
        not_trimmed: Those that could not be, and why.
    """

    profile: str
    pick: str
    split: str
    num_images: int
    accuracy_of_pick: float
    accuracy_of_pick_interval: tuple[float, float]
    num_tried: int
    networks: tuple[TrimmedFacts, ...]
    not_trimmed: tuple[NotTrimmed, ...]


def check_refinable(profile: DeviceProfile) -> None:
    """Fail if nobody can say what a trimmed network costs on a device.

    Raises:
        ConfigError: The latency model knows the parts of a search space only, and a trimmed network has others.
    """
    if not profile.latency.knows_any_network:
        others = [
            name for name in registry.names("latency") if registry.resolve("latency", name).section.knows_any_network
        ]
        raise ConfigError(
            f"--refine: profile {profile.name} has a {profile.latency.kind} latency model, which knows the parts of a "
            f"search space and no trimmed ones, expected {' or '.join(others)}; export for it without --refine"
        )


def channel_quantum(profile: DeviceProfile) -> int:
    """Return how many channels go together: those that the device's runtime computes together, by what was measured.

    Part of a block takes as long as a whole one, so to remove fewer would save nothing. Where nobody measured it, it is
    `DEFAULT_QUANTUM`: as many numbers as vector units of 256 bits hold in float32.
    """
    return profile.latency.channels_together or DEFAULT_QUANTUM


def refine(
    run: Run,
    profile: DeviceProfile,
    found: DeviceResult,
    pick: Architecture,
    supernet: Supernet,
    federation: Federation,
    log: EventLog,
) -> Refinement:
    """Trim subnets near a pick until they are within the limits of its search, and compare them with it.

    Args:
        run: The run that was searched.
        profile: The device, one of `check_refinable`.
        found: The search for it.
        pick: What it gets.
        supernet: Of the run.
        federation: Of the run.
        log: Gets `calibration` and `refinement` events.

    Side effects: Statistics of subnets are kept in the run's folder.
    """
    target = target_of(profile, found)
    split = federation.choosing_split
    sources, not_trimmed = [], []
    # What is too large however it is trimmed is known before anybody is asked for statistics.
    for source in sources_near(run.space, pick, target):
        least = smallest(run.space.plan(source), channel_quantum(profile))
        if _excess(least, target) > 0:
            not_trimmed.append(NotTrimmed(source.arch_id, f"as narrow as may be, {_beyond(least, target)}"))
        else:
            sources.append(source)
    subnet = supernet.extract(pick)
    pooled = calibrate(run, pick, subnet, run.config.calibration.schedule, federation, log).pooled
    accuracy = recalibration.evaluate(federation, standalone(subnet), pooled, split).accuracy
    networks = []
    for done, source in enumerate(sources, start=1):
        network = _refined(run, source, target, supernet, federation, log)
        if network is None:
            reason = f"no {channel_quantum(profile)} channels less of any layer cost less"
            not_trimmed.append(NotTrimmed(source.arch_id, reason))
        else:
            networks.append(network)
        log.emit("refinement", done=done, total=len(sources), profile=profile.name)
    networks.sort(key=lambda network: (-network.accuracy.share, network.latency_ms, network.arch_id))
    return Refinement(target, pick, accuracy, split, tuple(networks), tuple(not_trimmed))


def sources_near(space: SearchSpace, pick: Architecture, target: Target) -> list[Architecture]:
    """Return subnets one choice larger than the pick that exceed a limit by up to `MOST_OVER`, least first.

    There are at most `NUM_SOURCES`, and none has a layer that the device cannot run.
    """
    genes = space.encode(pick)
    larger = [gene for gene, count in enumerate(space.num_choices) if genes[gene] + 1 < count]
    if not larger:
        return []
    rows: IntArray = np.repeat(genes[None], len(larger), axis=0)
    rows[np.arange(len(larger)), larger] += 1
    # A choice of a block that is not active leads back to the pick, which exceeds nothing.
    rows = space.canonical(rows)
    (prices,) = price(space, rows, [target])
    over = violations(prices.by_limit(), target.limits)
    order = [index for index in np.argsort(over, kind="stable") if 0 < over[index] <= MOST_OVER]
    return [space.decode(rows[index]) for index in order if prices.is_supported[index]][:NUM_SOURCES]


def _refined(
    run: Run, source: Architecture, target: Target, supernet: Supernet, federation: Federation, log: EventLog
) -> RefinedNetwork | None:
    """Return a subnet trimmed to the limits and recalibrated; None if no trimming brings it there."""
    subnet = supernet.extract(source)
    # They only rank the channels: the quick schedule will do.
    known = calibrate(run, source, subnet, "one-shot", federation, log).pooled
    trimmed = trim(fold(subnet, known), channel_quantum(target.profile), functools.partial(_excess, target=target))
    if trimmed is None:
        return None
    left = cut(subnet, trimmed)
    network = standalone(left)
    pooled = recalibration.collect(federation, network, run.config.calibration.schedule)
    accuracy = recalibration.evaluate(federation, network, pooled, federation.choosing_split).accuracy
    latency_ms = float(price_network(left.plan, target).latency_ms[0])
    return RefinedNetwork(source, subnet.plan, trimmed, left, pooled, latency_ms, accuracy)


def _excess(plan: NetworkPlan, target: Target) -> float:
    """Return the share by which a network costs more than it may, 0 exactly where it is within all limits."""
    prices = price_network(plan, target)
    over = float(violations(prices.by_limit(), target.limits)[0])
    return 0.0 if is_feasible(prices, target).all() else max(over, float(np.finfo(np.float64).eps))


def _beyond(plan: NetworkPlan, target: Target) -> str:
    """Return which limits a network exceeds, in words."""
    priced = price_network(plan, target).by_limit()
    costs = {name: float(priced[name][0]) for name in target.limits.checked(priced)}
    over = [
        f"{name} is {rounded_up(costs[name]):g}, the limit {limit:g}"
        for name, limit in target.limits.checked(priced).items()
        if costs[name] > limit
    ]
    return "; ".join(over) or "it is beyond what the device can run"


def _ranges(indices: IntArray) -> str:
    """Return ascending numbers as text: `3, 8-15`."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
