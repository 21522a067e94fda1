"""The round loop: plan, train, aggregate. It knows no engine, no files and no screen."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob, num_bytes
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.cohort import QuorumError
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.late import Accepted, Discarded, LateUpdate
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
        oversample: Share of `clients_per_round` that is asked beyond it, so that a round need not wait for the slowest.
        accepts_late: Whether an update that comes after its round joins the next average.
        late_weight: What it counts then, in (0, 1]; None is `late.staleness_weight`.
        most_skipped: Rounds in a row that may miss the quorum; one more ends the run.
    """

    rounds: int
    clients_per_round: int | None
    learning_rate: float
    warmup_rounds: int
    final_learning_rate: float
    training: LocalTraining
    augmentation: Augmentation
    oversample: float = 0.0
    accepts_late: bool = False
    late_weight: float | None = None
    most_skipped: int = 0


@dataclasses.dataclass(frozen=True)
class RoundFacts:
    """What is known of every round.

    Args:
        round_index: Counted from 0.
        state: What the next begins with.
        sampled: Clients asked.
        absent: Clients without an update that was used, with the reason.
        late: Those of them that were still expected to answer when the round ended.
        bytes_down: Size of the tensors sent to clients.
        bytes_up: Size of the tensors they sent back.
        seconds: Wall-clock time.
    """

    round_index: int
    state: ServerState
    sampled: tuple[ClientId, ...]
    absent: dict[ClientId, str]
    late: tuple[ClientId, ...]
    bytes_down: int
    bytes_up: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class SkippedRound(RoundFacts):
    """A round in which too few have answered: the weights stay as they were.

    Args:
        reason: What was missing.
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class RoundResult(RoundFacts):
    """What a round led to.

    Args:
        loss: Mean of the clients' losses, weighted by their images; of those that were in time.
        loss_before: The same of their losses before training; None where nobody has said it.
        learning_rate: Step size the clients used.
        client_macs: Multiply-accumulates of the forward passes of the clients whose update was used.
        joined: Of the clients whose update was of an earlier round and was used, how many rounds ago that was.
        refused: Of those whose late update was not used, the reason.
    """

    loss: float
    loss_before: float | None
    learning_rate: float
    client_macs: int
    joined: dict[ClientId, int]
    refused: dict[ClientId, str]


def run_rounds(
    federation: Federation,
    state: ServerState,
    strategy: Strategy,
    params: RoundParams,
    first_round: int = 0,
    pause: Callable[[float], None] = lambda _: None,
) -> Iterator[RoundResult | SkippedRound]:
    """Yield the result of each round from `first_round` on; the caller decides when to save or stop.

    A round depends on the state before it, its index and the seed only, and on who answers: so a run continued from a
    saved state is the same as one that was never interrupted, where nobody is late. Late updates are no part of the
    state.

    Args:
        federation: Whom to ask.
        state: What to start from.
        strategy: Who trains what, and what becomes of it.
        params: How rounds run.
        first_round: Rounds already done.
        pause: Waits for some seconds: what is left of the deadline of a round that is skipped. Whoever is not connected
            is known to be absent at once, and rounds in a row would all find the same.

    Raises:
        ConfigError: Fewer clients can take part than a round has.
        QuorumError: Too few clients have returned a usable update, in more rounds in a row than may be skipped.
        FederationError: Nobody can be asked any more.
    """
    eligible = strategy.eligible(list(federation.infos.values()))
    num_clients = cohort_size(params.clients_per_round, len(eligible))
    late = Accepted(params.late_weight, federation.terms.deadline_s) if params.accepts_late else Discarded()
    num_skipped = 0
    for index in range(first_round, params.rounds):
        drawn = draw_cohort(eligible, num_clients, params.oversample, federation.seed, index)
        current = _Round(federation, state, strategy, params, index, {info.client: info for info in drawn})
        try:
            result: RoundResult | SkippedRound = current.play(late, num_clients)
            num_skipped = 0
        except QuorumError as error:
            num_skipped += 1
            # A run in which nobody has ever trained anything has not come to its end.
            if num_skipped > params.most_skipped or num_skipped == params.rounds:
                # Of a round that comes to its end, the result says it.
                current.tell_absences()
                if num_skipped == 1:
                    raise
                raise QuorumError(f"{error}; so it was in {num_skipped} rounds in a row") from error
            result = current.skipped(str(error))
        state = result.state
        yield result
        if num_skipped > 0 and federation.terms.deadline_s is not None:
            pause(max(federation.terms.deadline_s - result.seconds, 0.0))


def draw_cohort(
    eligible: Sequence[ClientInfo], num_clients: int, oversample: float, seed: int, round_index: int
) -> list[ClientInfo]:
    """Return who is asked in a round, ascending.

    Whoever is asked beyond `num_clients` is drawn after the others, which are the same with and without.

    Args:
        eligible: Clients that can take part.
        num_clients: How many are wanted.
        oversample: Share of them that is asked beyond, rounded up to whole clients; all, where there are no more.
        seed: Seed of the run.
        round_index: Counted from 0.
    """
    infos = {info.client: info for info in eligible}
    drawn = rng.generator(seed, "cohort", round_index).choice(list(infos), num_clients, replace=False).tolist()
    others = [client for client in infos if client not in set(drawn)]
    # Rounded first: 0.07 * 100 is a little more than 7.
    num_beyond = min(math.ceil(round(oversample * num_clients, 9)), len(others))
    if num_beyond > 0:
        drawn += rng.generator(seed, "reserve", round_index).choice(others, num_beyond, replace=False).tolist()
    return [infos[client] for client in sorted(drawn)]


class _Round:
    """One round: who is asked for what, and what comes of it."""

    def __init__(
        self,
        federation: Federation,
        state: ServerState,
        strategy: Strategy,
        params: RoundParams,
        index: int,
        infos: dict[ClientId, ClientInfo],
    ) -> None:
        self._federation, self._state, self._strategy, self._index = federation, state, strategy, index
        self._what = f"training in round {index}"
        self._started = time.perf_counter()
        plan = strategy.plan(index, list(infos.values()), federation.seed)
        if plan.keys() != infos.keys():
            raise ValueError(f"strategy: got a plan for clients {sorted(plan)}, expected one for {sorted(infos)}")
        self._rate = learning_rate(
            index,
            params.rounds,
            params.warmup_rounds,
            params.learning_rate,
            params.final_learning_rate,
            strategy.warm_up_again_at,
        )
        self._jobs = _jobs(federation, state, params, plan, index, self._rate)
        # Late updates may be of any client, of each one.
        counted = federation.infos if params.accepts_late else infos
        self._updates = _Updates(state, federation.infos, plan, sum(info.num_samples for info in counted.values()))
        self._gathered = cohort.Gathered({}, ())

    def play(self, late: Discarded, num_wanted: int) -> RoundResult:
        """Return what the round leads to.

        Raises:
            QuorumError: Too few clients have returned a usable update.
        """
        federation, updates = self._federation, self._updates
        late.begin(self._index, self._jobs, updates.where)
        may_end_early = len(self._jobs) > num_wanted
        patience = late.patience(self._index, (lambda: len(updates.used) >= num_wanted) if may_end_early else None)
        self._gathered = cohort.gather(federation.clients, self._jobs, updates.take, federation.terms, patience)
        late.end(self._index, self._gathered.late)
        absent = self._gathered.absent
        cohort.check_quorum(federation.clients, len(self._jobs), absent, self._what, federation.terms, num_wanted)
        used = [update for _, update in sorted(updates.used.items())]
        came = late.come(self._index)
        refused = {client: updates.take_late(client, each) for client, each in came.items()}
        state = self._strategy.aggregate(self._index, self._state, updates.mean, federation.seed)
        return RoundResult(
            **vars(self._facts(state)),
            loss=sum(update.loss * update.num_samples for update in used) / sum(update.num_samples for update in used),
            loss_before=_loss_before(used),
            learning_rate=self._rate,
            client_macs=sum(update.num_macs for update in updates.used.values()),
            joined={client: self._index - came[client].round_index for client in came if refused[client] is None},
            refused={client: reason for client, reason in refused.items() if reason is not None},
        )

    def skipped(self, reason: str) -> SkippedRound:
        """Return that too few have answered."""
        return SkippedRound(**vars(self._facts(self._state)), reason=reason)

    def tell_absences(self) -> None:
        """Tell who is absent."""
        clients, absent = self._federation.clients, self._gathered.absent
        self._federation.on_absences(self._what, len(self._jobs), absent, cohort.names_of(clients, absent))

    def _facts(self, state: ServerState) -> RoundFacts:
        return RoundFacts(
            self._index,
            state,
            tuple(self._jobs),
            self._gathered.absent,
            self._gathered.late,
            bytes_down=sum(job.weights.num_bytes for job in self._jobs.values()),
            bytes_up=self._updates.num_bytes,
            seconds=time.perf_counter() - self._started,
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

    def __init__(
        self,
        state: ServerState,
        infos: dict[ClientId, ClientInfo],
        plan: dict[ClientId, Assignment],
        max_samples: int,
    ) -> None:
        self.mean = CoverageMean(state.supernet.weights, max_samples)
        self.used: dict[ClientId, ClientUpdate] = {}
        self.num_bytes = 0
        self.where = {client: _where(state.supernet.layout, assignment) for client, assignment in plan.items()}
        self._infos = infos

    def take(self, client: ClientId, update: ClientUpdate) -> str | None:
        self.num_bytes += num_bytes(update.weights)
        reason = self._too_many(client, update) or self.mean.add(update, self.where[client])
        if reason is None:
            self.used[client] = dataclasses.replace(update, weights={})
        return reason

    def take_late(self, client: ClientId, late: LateUpdate) -> str | None:
        update = late.update
        self.num_bytes += num_bytes(update.weights)
        if client in self.used:
            return "has answered in time since"
        if (problem := self._too_many(client, update)) is not None:
            return problem
        reason = self.mean.add_late(update, late.where, late.began_with, late.weight)
        if reason is None:
            self.used[client] = dataclasses.replace(update, weights={})
        return reason

    def _too_many(self, client: ClientId, update: ClientUpdate) -> str | None:
        announced = self._infos[client].num_samples
        return f"{update.num_samples} samples, {announced} announced" if update.num_samples > announced else None


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
