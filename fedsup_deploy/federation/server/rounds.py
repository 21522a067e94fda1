"""The round loop: plan, train, aggregate. It knows no engine, no files and no screen."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Final

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import MALFORMED_ANSWER, Blob, num_bytes
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.norms import NO_LIMITS, NormGate, NormLimits, Norms
from fedsup_deploy.federation.server.schedule import learning_rate
from fedsup_deploy.federation.server.strategy import ServerState, Strategy
from fedsup_deploy.federation.server.trimmed_mean import TrimmedMean
from fedsup_deploy.supernet import slices as rule
from fedsup_deploy.supernet.layout import Layout

#: Clients of a round where a config does not say, if there are so many.
USUAL_CLIENTS: Final = 10


@dataclasses.dataclass(frozen=True)
class RoundParams:
    """How rounds run.

    Args:
        rounds: Rounds in all.
        clients_per_round: Clients sampled per round, without repetition; None is a stated number, or all.
        learning_rate: Highest step size.
        warmup_rounds: Rounds of linear warm-up, at first and where the strategy asks for it again.
        final_learning_rate: Step size at the end of the cosine.
        training: How clients train.
        augmentation: Random changes of clients' images.
        trim: Share of the clients that hold an entry that its average leaves out on either side; None leaves out none.
        norm_limits: What becomes of updates that have moved far.
    """

    rounds: int
    clients_per_round: int | None
    learning_rate: float
    warmup_rounds: int
    final_learning_rate: float
    training: LocalTraining
    augmentation: Augmentation
    trim: float | None = None
    norm_limits: NormLimits = NO_LIMITS


@dataclasses.dataclass(frozen=True)
class RoundResult:
    """What a round led to.

    Args:
        round_index: Counted from 0.
        state: With the new weights.
        loss: Mean of the clients' losses, weighted by their images.
        loss_before: The same of their losses before training; None where nobody has said it.
        learning_rate: Step size the clients used.
        sampled: Clients asked.
        absent: Clients without an update that was used, with the reason.
        rejected: Those of them whose update came and was not used.
        bytes_down: Size of the tensors sent to clients.
        bytes_up: Size of the tensors they sent back.
        client_macs: Multiply-accumulates of the forward passes of the clients whose update was used.
        seconds: Wall-clock time.
    """

    round_index: int
    state: ServerState
    loss: float
    loss_before: float | None
    learning_rate: float
    sampled: tuple[ClientId, ...]
    absent: dict[ClientId, str]
    rejected: tuple[ClientId, ...]
    bytes_down: int
    bytes_up: int
    client_macs: int
    seconds: float


def run_rounds(
    federation: Federation, state: ServerState, strategy: Strategy, params: RoundParams, first_round: int = 0
) -> Iterator[RoundResult]:
    """Yield the result of each round from `first_round` on; the caller decides when to save or stop.

    A round depends on the state before it, its index and the seed only, so a run continued from a saved state is the
    same as one that was never interrupted.

    Args:
        federation: Whom to ask.
        state: What to start from.
        strategy: Who trains what, and what becomes of it.
        params: How rounds run.
        first_round: Rounds already done.

    Raises:
        ConfigError: Fewer clients can take part than a round has.
        FederationError: Too few clients of a round have returned a usable update.
    """
    eligible = strategy.eligible(list(federation.infos.values()))
    num_clients = cohort_size(params.clients_per_round, len(eligible))
    for index in range(first_round, params.rounds):
        started = time.perf_counter()
        drawn = rng.generator(federation.seed, "cohort", index).choice(
            [info.client for info in eligible], num_clients, replace=False
        )
        infos = {client: federation.infos[client] for client in sorted(drawn.tolist())}
        rate = learning_rate(
            index,
            params.rounds,
            params.warmup_rounds,
            params.learning_rate,
            params.final_learning_rate,
            strategy.warm_up_again_at,
        )
        plan = strategy.plan(index, list(infos.values()), federation.seed)
        if plan.keys() != infos.keys():
            raise ValueError(f"strategy: got a plan for clients {sorted(plan)}, expected one for {sorted(infos)}")
        updates = _Updates(state, infos, plan, params, rate)
        what = f"training in round {index}"
        jobs = _jobs(federation, state, params, plan, index, rate)
        absent = cohort.gather(federation.clients, jobs, updates.take, federation.terms)
        absent = dict(sorted((absent | updates.close()).items()))
        try:
            cohort.check_quorum(federation.clients, len(jobs), absent, what, federation.terms)
        except FederationError:
            # Of a round that comes to its end, the result says it.
            federation.on_absences(what, len(jobs), absent, cohort.names_of(federation.clients, absent))
            raise
        state = strategy.aggregate(index, state, updates.mean, federation.seed)
        state = dataclasses.replace(state, norms=updates.norms)
        used = [update for _, update in sorted(updates.used.items())]
        yield RoundResult(
            index,
            state,
            sum(update.loss * update.num_samples for update in used) / sum(update.num_samples for update in used),
            _loss_before(used),
            rate,
            tuple(infos),
            absent,
            tuple(client for client, reason in absent.items() if updates.has_rejected(client, reason)),
            sum(job.weights.num_bytes for job in jobs.values()),
            updates.num_bytes,
            sum(update.num_macs for update in used),
            time.perf_counter() - started,
        )


def cohort_size(wanted: int | None, num_eligible: int) -> int:
    """Return how many clients train in a round.

    Args:
        wanted: `RoundParams.clients_per_round`.
        num_eligible: Clients that can take part.

    Raises:
        ConfigError: Those are fewer.
    """
    if wanted is None and num_eligible > 0:
        return min(USUAL_CLIENTS, num_eligible)
    if wanted is None or num_eligible < wanted:
        raise ConfigError(f"training.clients_per_round: got {wanted or 'null'}, {num_eligible} can take part")
    return wanted


def _loss_before(used: Sequence[ClientUpdate]) -> float | None:
    """Return the mean of the losses before training, weighted by images, of the clients that have said it."""
    said = [(update.loss_before, update.num_samples) for update in used if update.loss_before is not None]
    return sum(loss * num for loss, num in said) / sum(num for _, num in said) if said else None


class _Updates:
    """Takes in the updates of a round, one at a time: none is kept, but of those that wait for the others."""

    def __init__(
        self,
        state: ServerState,
        infos: dict[ClientId, ClientInfo],
        plan: dict[ClientId, Assignment],
        params: RoundParams,
        rate: float,
    ) -> None:
        before, max_samples = state.supernet.weights, sum(info.num_samples for info in infos.values())
        self.mean = (
            CoverageMean(before, max_samples)
            if params.trim is None
            else TrimmedMean(before, max_samples, len(plan), params.trim)
        )
        self.used: dict[ClientId, ClientUpdate] = {}
        self.num_bytes = 0
        self._gate = NormGate(self.mean, before, params.norm_limits, state.norms, len(plan), rate)
        self._layout, self._infos, self._plan = state.supernet.layout, infos, plan
        self._epochs = params.training.epochs
        self._rejected: set[ClientId] = set()

    @property
    def norms(self) -> Norms:
        return self._gate.norms

    def take(self, client: ClientId, update: ClientUpdate) -> str | None:
        self.num_bytes += num_bytes(update.weights)
        reason = self._miscounted(client, update)
        if reason is None:
            reason = self._gate.add(client, update, _where(self._layout, self._plan[client]))
        if reason is None:
            self.used[client] = dataclasses.replace(update, weights={})
        else:
            self._rejected.add(client)
        return reason

    def close(self) -> dict[ClientId, str]:
        """Return those whose update is rejected now that all have come, with the reason."""
        rejected = self._gate.close()
        self._rejected |= rejected.keys()
        for client in rejected:
            del self.used[client]
        return rejected

    def has_rejected(self, client: ClientId, reason: str) -> bool:
        """Return whether it was an update that an absent client lacks, and not an answer."""
        return client in self._rejected or reason.startswith(MALFORMED_ANSWER)

    def _miscounted(self, client: ClientId, update: ClientUpdate) -> str | None:
        """Return what a client counts that it cannot have, by what it has announced."""
        if update.num_samples > self._infos[client].num_samples:
            return "more images than it has announced"
        assignment, macs = self._plan[client], self._layout.num_macs
        if assignment.architecture is None:
            of_image = assignment.num_subnets * self._layout.most_macs
        else:
            of_image = sum(map(macs, (assignment.architecture, *assignment.inner)))
        if update.num_macs > self._epochs * self._infos[client].num_samples * of_image:
            return "more multiply-accumulates than its images take"
        return None


def _jobs(
    federation: Federation,
    state: ServerState,
    params: RoundParams,
    plan: dict[ClientId, Assignment],
    index: int,
    rate: float,
) -> dict[ClientId, Train]:
    """Return what each client is asked; clients with the same subnet get the same blob."""
    layout = state.supernet.layout
    blobs = {
        # Copies: a client of this process could change what views are of.
        architecture: Blob(
            {n: t.clone() for n, t in rule.gather(state.supernet.weights, _where(layout, assignment)).items()}
        )
        for architecture, assignment in {each.architecture: each for each in plan.values()}.items()
    }
    return {
        client: Train(
            layout,
            assignment,
            blobs[assignment.architecture],
            rate,
            params.training,
            federation.preprocessing,
            params.augmentation,
            rng.derive(federation.seed, "client", index, client),
        )
        for client, assignment in plan.items()
    }


def _where(layout: Layout, assignment: Assignment) -> rule.Slices:
    """Return the part of the supernet that a client is sent."""
    return layout.slices(assignment.architecture) if assignment.architecture else layout.whole
