"""Statistics and evaluations: which layers are observed when, and what is answered to images. Eq. 4."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from fedsup_deploy import rng
from fedsup_deploy.accuracy import CountedAccuracy
from fedsup_deploy.answers import Answers
from fedsup_deploy.errors import DataError, FederationError
from fedsup_deploy.federation.client import HELD_OUT, IMAGES, TESTED, TRAINED, ClientId, ClientInfo
from fedsup_deploy.federation.jobs.counts import CountAnswers, Counts, num_classes_of
from fedsup_deploy.federation.jobs.statistics import Observed, TakeStatistics
from fedsup_deploy.federation.messages import Blob, Engine
from fedsup_deploy.federation.networks import Network, SharedSubnet
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.federation import Federation, calibration_images, images_of
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
class CandidateAnswers:
    """What an evaluation of a candidate has found.

    Args:
        by_client: Of each client that has answered, ascending; of the server's own images one.
        is_complete: Whether all that were asked are part of it, and of the statistics before.
    """

    by_client: tuple[Answers, ...]
    is_complete: bool

    @property
    def answers(self) -> Answers:
        """To all images."""
        return Answers.sum(self.by_client)

    @property
    def accuracy(self) -> CountedAccuracy:
        """Over all images."""
        return CountedAccuracy(
            sum(each.num_correct for each in self.by_client), sum(each.num_images for each in self.by_client)
        )


def evaluate(federation: Federation, network: Network, statistics: PooledStatistics, split: str) -> Answers:
    """Return the answers of a network.

    Args:
        federation: Whom to ask.
        network: Any network.
        statistics: What its activations are normalised with.
        split: As of `Federation.judging`.

    Raises:
        FederationError: Too few clients have answered.
    """
    judging, what = federation.judging(split), f"evaluation on {split} images"
    found = _count(federation, judging, (network,), (statistics,), images_of(split), what)
    return _summed(found)[0]


def evaluate_clients(
    federation: Federation, network: Network, statistics: PooledStatistics, images: str
) -> dict[ClientId, Answers]:
    """Return the answers to each client's own images, ascending by client.

    Args:
        federation: Whom to ask: its judges for what they hold out, those with test images of their own for these, those
            that calibrate for what they train on.
        network: Any network.
        statistics: What its activations are normalised with.
        images: One of `IMAGES`.

    Raises:
        FederationError: Too few clients have answered.
    """
    asked = {HELD_OUT: federation.judges, TESTED: federation.testing, TRAINED: federation.calibrating}[images]
    judging = federation.clients, asked, federation.terms
    found = _count(federation, judging, (network,), (statistics,), images, "evaluation by clients")
    return {client: answers for client, (answers,) in found.items()}


def evaluate_unseen(federation: Federation, network: Network, statistics: PooledStatistics) -> dict[ClientId, Answers]:
    """Return the answers to all images of each client that takes no part, ascending by client.

    Args:
        federation: With such clients.
        network: Any network.
        statistics: What its activations are normalised with: taken of the clients that take part.

    Raises:
        FederationError: Too few of them have answered.
    """
    if federation.unseen is None:
        return {}
    infos = federation.unseen.clients()
    found: dict[ClientId, list[Answers]] = {info.client: [] for info in infos}
    for images in IMAGES:
        judging = federation.unseen, [info for info in infos if info.num_images(images)], federation.terms
        if judging[1]:
            what = "evaluation by unseen clients"
            for client, answers in _count(federation, judging, (network,), (statistics,), images, what).items():
                found[client] += answers
    summed = {info: Answers.sum(found[info.client]) for info in infos if found[info.client]}
    # Of a client that has answered for one kind of its images and not for another nothing is said.
    whole = {info.client: answers for info, answers in summed.items() if answers.num_images == info.num_of_all}
    if not whole:
        raise FederationError("evaluation by unseen clients: none has answered for all of its images; mend that")
    return whole


def evaluate_candidates(
    federation: Federation, supernet: Supernet, architectures: Sequence[Architecture], split: str
) -> Iterator[CandidateAnswers]:
    """Yield the answers of each subnet to the server's own images, after one-shot recalibration.

    Args:
        federation: Of a server that has images.
        supernet: Of which they are subnets.
        architectures: The subnets. Those that begin alike are evaluated faster beside each other.
        split: `validation` or `test`.
    """
    judging = federation.judging(split)
    for candidates, pooled in _recalibrated(federation, supernet, architectures):
        found = _count(federation, judging, candidates, pooled, HELD_OUT, f"evaluation on {split} images")
        for index, answers in enumerate(_summed(found)):
            yield CandidateAnswers((answers,), is_complete(federation, candidates[index].plan, pooled[index]))


def evaluate_candidates_on_clients(
    federation: Federation, supernet: Supernet, architectures: Sequence[Architecture]
) -> Iterator[CandidateAnswers]:
    """Yield for each subnet its answers to what each judge holds out, after one-shot recalibration.

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
        found = _count(federation, judging, candidates, pooled, HELD_OUT, "evaluation by clients")
        for index, (candidate, statistics) in enumerate(zip(candidates, pooled, strict=True)):
            all_answered = len(found) == len(judges) and is_complete(federation, candidate.plan, statistics)
            yield CandidateAnswers(tuple(answers[index] for answers in found.values()), all_answered)


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
) -> dict[ClientId, list[Answers]]:
    """Return the answers of each network, by those that have answered, ascending."""
    engine, asked, terms = judging
    if not asked:
        raise DataError(f"{what}: no client holds images out")
    job = CountAnswers(networks, statistics, images, federation.preprocessing)
    expected = {info.client: info.num_images(images) for info in asked}
    num_classes = num_classes_of(networks[0])
    found: dict[ClientId, list[Answers]] = {}

    def take(client: ClientId, counts: Counts) -> str | None:
        reason = counts.reason_to_reject(len(networks), num_classes, expected[client])
        if reason is None:
            found[client] = counts.by_network(len(networks), num_classes)
        return reason

    jobs = dict.fromkeys(expected, job)
    cohort.ask(engine, jobs, take, what=what, terms=terms, on_absences=federation.on_absences)
    return dict(sorted(found.items()))


def _summed(found: Mapping[ClientId, Sequence[Answers]]) -> list[Answers]:
    """Return the answers of each network to all images."""
    return [Answers.sum(of_network) for of_network in zip(*found.values(), strict=True)]


def _groups(architectures: Sequence[Architecture], size: int) -> Iterator[tuple[Architecture, ...]]:
    """Yield the architectures in groups of one resolution, at most `size` each."""
    for _, alike in itertools.groupby(architectures, key=lambda architecture: architecture.resolution):
        while group := tuple(itertools.islice(alike, size)):
            yield group
