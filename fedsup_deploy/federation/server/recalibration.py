"""Statistics and evaluations: which layers are observed when, and how many answers are right. Eq. 4."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from fedsup_deploy import rng
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import HELD_OUT, ClientId, ClientInfo
from fedsup_deploy.federation.jobs.counts import CountCorrect, Counts
from fedsup_deploy.federation.jobs.statistics import Observed, TakeStatistics
from fedsup_deploy.federation.messages import Blob, Engine
from fedsup_deploy.federation.networks import Network, SharedSubnet
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.federation import Federation, calibration_images
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.space.plan import NetworkPlan
from fedsup_deploy.supernet.model import Supernet
from fedsup_deploy.supernet.statistics import PooledStatistics, StatisticsSum

#: Candidates that clients are asked about at once: at the end of an exchange workers run idle, and a stop loses it.
_CANDIDATES_PER_EXCHANGE: Final = 16

_NOTHING = PooledStatistics({})


def collect(
    federation: Federation,
    network: Network,
    schedule: str,
    on_pass: Callable[[int, int], None] | None = None,
) -> PooledStatistics:
    """Return the pooled statistics of every normalisation of a network. Eq. 4.

    Args:
        federation: Whom to ask.
        network: Any network.
        schedule: `one-shot` observes all layers in one pass in which each normalises by its batch. `layer-wise`
            observes one layer after the other, those before normalised with what was pooled: the result is that of
            calibrating on all clients' images in one place, however they are split into clients and batches.
        on_pass: Called with (passes done, passes in all).

    Raises:
        FederationError: Too few clients have answered.
    """
    names = [layer.name for layer in network.plan.norm_layers()]
    passes = {"one-shot": [names], "layer-wise": [[name] for name in names]}[schedule]
    known = _NOTHING
    for done, observe in enumerate(passes, start=1):
        (pooled,) = _observe(federation, (network,), tuple(observe), known)
        known = known.with_layers(pooled)
        if on_pass is not None:
            on_pass(done, len(passes))
    return known


def is_complete(federation: Federation, plan: NetworkPlan, statistics: PooledStatistics) -> bool:
    """Return whether every client that was asked is part of the statistics of every layer."""
    num_images = sum(calibration_images(info, federation.calibration) for info in federation.calibrating)
    return all(statistics.layers[layer.name].count == num_images * layer.out_size**2 for layer in plan.norm_layers())


@dataclasses.dataclass(frozen=True)
class CandidateAccuracy:
    """What an evaluation of a candidate has found.

    Args:
        by_client: Of each client that has answered, ascending; of the server's own images one.
        is_complete: Whether all that were asked are part of it, and of the statistics before.
    """

    by_client: tuple[CountedAccuracy, ...]
    is_complete: bool

    @property
    def accuracy(self) -> CountedAccuracy:
        """Over all images."""
        return CountedAccuracy(
            sum(each.correct for each in self.by_client), sum(each.num_images for each in self.by_client)
        )


def evaluate(federation: Federation, network: Network, statistics: PooledStatistics, split: str) -> CountedAccuracy:
    """Return the accuracy of a network.

    Args:
        federation: Whom to ask.
        network: Any network.
        statistics: What its activations are normalised with.
        split: `validation` or `test` of a server that has images; `HELD_OUT` for what clients hold out.

    Raises:
        FederationError: Too few clients have answered.
    """
    judging = federation.judging(split)
    counts = _count(federation, judging, (network,), (statistics,), HELD_OUT, f"evaluation on {split} images")
    return _summed(counts.values())[0]


def evaluate_clients(
    federation: Federation, network: Network, statistics: PooledStatistics, images: str
) -> dict[ClientId, CountedAccuracy]:
    """Return the share of right answers on each client's own images, ascending by client.

    Args:
        federation: Whom to ask: its judges for what they hold out, those that calibrate for what they train on.
        network: Any network.
        statistics: What its activations are normalised with.
        images: `TRAINED` or `HELD_OUT`.

    Raises:
        FederationError: Too few clients have answered.
    """
    asked = federation.judges if images == HELD_OUT else federation.calibrating
    judging = federation.clients, asked, federation.terms
    counts = _count(federation, judging, (network,), (statistics,), images, "evaluation by clients")
    return {client: CountedAccuracy(count.correct[0], count.counted) for client, count in sorted(counts.items())}


def evaluate_candidates(
    federation: Federation, supernet: Supernet, architectures: Sequence[Architecture], split: str
) -> Iterator[CandidateAccuracy]:
    """Yield the accuracy of each subnet on the server's own images, after one-shot recalibration.

    Args:
        federation: Of a server that has images.
        supernet: Of which they are subnets.
        architectures: The subnets. Those that begin alike are evaluated faster beside each other.
        split: `validation` or `test`.
    """
    judging = federation.judging(split)
    for candidates, pooled in _recalibrated(federation, supernet, architectures):
        counts = _count(federation, judging, candidates, pooled, HELD_OUT, f"evaluation on {split} images")
        for index, accuracy in enumerate(_summed(counts.values())):
            yield CandidateAccuracy((accuracy,), is_complete(federation, candidates[index].plan, pooled[index]))


def evaluate_candidates_on_clients(
    federation: Federation, supernet: Supernet, architectures: Sequence[Architecture]
) -> Iterator[CandidateAccuracy]:
    """Yield for each subnet its accuracy on what each judge holds out, after one-shot recalibration.

    Two exchanges with the clients per group of subnets: their sums, which are pooled here, and their counts. No image
    of the server takes part.

    Args:
        federation: Whom to ask.
        supernet: Of which they are subnets.
        architectures: The subnets. Those that begin alike are evaluated faster beside each other.

    Raises:
        FederationError: Too few clients have answered.
    """
    judging = federation.judging(HELD_OUT)
    _, judges, _ = judging
    for candidates, pooled in _recalibrated(federation, supernet, architectures):
        counts = _count(federation, judging, candidates, pooled, HELD_OUT, "evaluation by clients")
        for index, (candidate, statistics) in enumerate(zip(candidates, pooled, strict=True)):
            by_client = [CountedAccuracy(count.correct[index], count.counted) for _, count in sorted(counts.items())]
            all_answered = len(counts) == len(judges) and is_complete(federation, candidate.plan, statistics)
            yield CandidateAccuracy(tuple(by_client), all_answered)


def _recalibrated(
    federation: Federation, supernet: Supernet, architectures: Sequence[Architecture]
) -> Iterator[tuple[tuple[SharedSubnet, ...], tuple[PooledStatistics, ...]]]:
    """Yield subnets in groups, with their one-shot statistics."""
    blob = Blob(supernet.weights)
    for some in _groups(architectures, _CANDIDATES_PER_EXCHANGE):
        candidates = tuple(SharedSubnet(supernet.layout, architecture, blob) for architecture in some)
        # A single one is observed up to its last layer: the order of the names tells which that is.
        names = [layer.name for candidate in candidates for layer in candidate.plan.norm_layers()]
        yield candidates, _observe(federation, candidates, tuple(dict.fromkeys(names)), _NOTHING)


def _observe(
    federation: Federation, networks: tuple[Network, ...], observe: tuple[str, ...], known: PooledStatistics
) -> tuple[PooledStatistics, ...]:
    """Return for each network the pooled statistics of the layers observed."""
    infos = {info.client: info for info in federation.calibrating}
    jobs = {
        client: TakeStatistics(
            networks,
            observe,
            known,
            federation.preprocessing,
            federation.calibration,
            rng.derive(federation.seed, "calibration", client),
        )
        for client in infos
    }
    sums = tuple(StatisticsSum(network.plan, frozenset(observe)) for network in networks)

    def take(client: ClientId, observed: Observed) -> str | None:
        if len(observed.statistics) != len(sums):
            return f"statistics of {len(observed.statistics)} networks, expected {len(sums)}"
        num_images = calibration_images(infos[client], federation.calibration)
        parts = list(zip(sums, observed.statistics, strict=True))
        # All or nothing: a client is part of the statistics of every network, or of none.
        reason = next((r for total, part in parts if (r := total.reason_to_reject(part, num_images)) is not None), None)
        if reason is None:
            for total, part in parts:
                total.add(part, num_images)
        return reason

    terms, on_absences = federation.terms, federation.on_absences
    cohort.ask(federation.clients, jobs, take, what="statistics", terms=terms, on_absences=on_absences)
    return tuple(total.result() for total in sums)


def _count(
    federation: Federation,
    judging: tuple[Engine, Sequence[ClientInfo], cohort.Terms],
    networks: tuple[Network, ...],
    statistics: tuple[PooledStatistics, ...],
    images: str,
    what: str,
) -> dict[ClientId, Counts]:
    """Return the counts of those that have answered."""
    engine, asked, terms = judging
    if not asked:
        raise DataError(f"{what}: no client holds images out")
    job = CountCorrect(networks, statistics, images, federation.preprocessing)
    expected = {info.client: info.num_held_out if images == HELD_OUT else info.num_samples for info in asked}
    counts: dict[ClientId, Counts] = {}

    def take(client: ClientId, found: Counts) -> str | None:
        if len(found.correct) != len(networks):
            return f"counts of {len(found.correct)} networks, expected {len(networks)}"
        if found.counted != expected[client]:
            return f"{found.counted} images, expected {expected[client]}"
        if not all(0 <= correct <= found.counted for correct in found.correct):
            return "counts that no images have"
        counts[client] = found
        return None

    jobs = dict.fromkeys(expected, job)
    cohort.ask(engine, jobs, take, what=what, terms=terms, on_absences=federation.on_absences)
    return counts


def _summed(counts: Iterable[Counts]) -> list[CountedAccuracy]:
    """Return for each network its accuracy over all images."""
    found = list(counts)
    counted = sum(count.counted for count in found)
    return [CountedAccuracy(sum(correct), counted) for correct in zip(*(count.correct for count in found), strict=True)]


def _groups(architectures: Sequence[Architecture], size: int) -> Iterator[tuple[Architecture, ...]]:
    """Yield the architectures in groups of one resolution, at most `size` each."""
    for _, alike in itertools.groupby(architectures, key=lambda architecture: architecture.resolution):
        while group := tuple(itertools.islice(alike, size)):
            yield group
