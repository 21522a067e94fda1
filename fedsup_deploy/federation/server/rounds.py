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
from fedsup_deploy.federation.messages import Blob, num_bytes
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.schedule import learning_rate
from fedsup_deploy.federation.server.strategy import ServerState, Strategy
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
    """

    rounds: int
    clients_per_round: int | None
    learning_rate: float
    warmup_rounds: int
    final_learning_rate: float
    training: LocalTraining
    augmentation: Augmentation


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
        infos = {info.client: info for info in cohort_of(index, eligible, num_clients, federation.seed)}
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
        updates = _Updates(state, infos, plan)
        what = f"training in round {index}"
        jobs = _jobs(federation, state, params, plan, index, rate)
        absent = cohort.gather(federation.clients, jobs, updates.take, federation.terms)
        try:
            cohort.check_quorum(federation.clients, len(jobs), absent, what, federation.terms)
        except FederationError:
            # Of a round that comes to its end, the result says it.
            federation.on_absences(what, len(jobs), absent, cohort.names_of(federation.clients, absent))
            raise
        state = strategy.aggregate(index, state, updates.mean, federation.seed)
        used = [update for _, update in sorted(updates.used.items())]
        yield RoundResult(
            index,
            state,
            sum(update.loss * update.num_samples for update in used) / sum(update.num_samples for update in used),
            _loss_before(used),
            rate,
            tuple(infos),
            absent,
            sum(job.weights.num_bytes for job in jobs.values()),
            updates.num_bytes,
            sum(update.num_macs for update in used),
            time.perf_counter() - started,
        )


def cohort_of(index: int, eligible: Sequence[ClientInfo], num_clients: int, seed: int) -> list[ClientInfo]:
    """Return the clients that are asked in a round, ascending.

    Args:
        index: Of the round.
        eligible: Clients that can take part, ascending.
        num_clients: How many do, as of `cohort_size`.
        seed: Of the run.
    """
    infos = {info.client: info for info in eligible}
    drawn = rng.generator(seed, "cohort", index).choice(list(infos), num_clients, replace=False)
    return [infos[client] for client in sorted(drawn.tolist())]


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
    """Takes in the updates of a round, one at a time: none is kept."""

    def __init__(self, state: ServerState, infos: dict[ClientId, ClientInfo], plan: dict[ClientId, Assignment]) -> None:
        self.mean = CoverageMean(state.supernet.weights, sum(info.num_samples for info in infos.values()))
        self.used: dict[ClientId, ClientUpdate] = {}
        self.num_bytes = 0
        self._layout, self._infos, self._plan = state.supernet.layout, infos, plan

    def take(self, client: ClientId, update: ClientUpdate) -> str | None:
        self.num_bytes += num_bytes(update.weights)
        if update.num_samples > (announced := self._infos[client].num_samples):
            return f"{update.num_samples} samples, {announced} announced"
        reason = self.mean.add(update, _where(self._layout, self._plan[client]))
        if reason is None:
            self.used[client] = dataclasses.replace(update, weights={})
        return reason


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
