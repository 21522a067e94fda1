"""The round loop: plan, train, aggregate. It knows no engine, no files and no screen."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import Assignment, ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.federation.server import cohort
from fedsup_deploy.federation.server.aggregation import CoverageMean
from fedsup_deploy.federation.server.client_sampling import cohort_size, draw_cohort
from fedsup_deploy.federation.server.cohort import QuorumError
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.late import MOST_ROUNDS_LATE, Accepted, Discarded
from fedsup_deploy.federation.server.norms import NO_LIMITS, NormGate, NormLimits
from fedsup_deploy.federation.server.schedule import learning_rate
from fedsup_deploy.federation.server.strategy import ServerState, Strategy
from fedsup_deploy.federation.server.trimmed_mean import TrimmedMean
from fedsup_deploy.federation.server.updates import RoundUpdates, part_of
from fedsup_deploy.supernet import slices as rule


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
    trim: float | None = None
    norm_limits: NormLimits = NO_LIMITS
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
        rejected: Those of them whose update came and was not used.
        late: Those of them that were still expected to answer when the round ended.
        bytes_down: Size of the tensors sent to clients.
        bytes_up: Size of the tensors they sent back.
        seconds: Wall-clock time.
    """

    round_index: int
    state: ServerState
    sampled: tuple[ClientId, ...]
    absent: dict[ClientId, str]
    rejected: tuple[ClientId, ...]
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


def late_updates(params: RoundParams, federation: Federation) -> Discarded:
    """Return what hears updates that come after their round, for all rounds of a run: nothing is expected yet."""
    return Accepted(params.late_weight, federation.terms.deadline_s) if params.accepts_late else Discarded()


def run_rounds(
    federation: Federation,
    state: ServerState,
    strategy: Strategy,
    params: RoundParams,
    first_round: int = 0,
    pause: Callable[[float], None] = lambda _: None,
    late: Discarded | None = None,
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
        late: Has what is expected of rounds before `first_round`; None: nothing is.

    Raises:
        ConfigError: Fewer clients can take part than a round has.
        QuorumError: Too few clients have returned a usable update, in more rounds in a row than may be skipped.
        FederationError: Nobody can be asked any more.
    """
    eligible = strategy.eligible(list(federation.infos.values()))
    num_clients = cohort_size(params.clients_per_round, len(eligible))
    late = late_updates(params, federation) if late is None else late
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
        if num_skipped > 0 and index + 1 < params.rounds and federation.terms.deadline_s is not None:
            pause(max(federation.terms.deadline_s - result.seconds, 0.0))


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
        self._mean = _no_update_yet(federation, state, plan, params)
        before, training = state.supernet.weights, params.training
        gate = NormGate(self._mean, before, params.norm_limits, state.norms, len(plan), training, self._rate)
        self._updates = RoundUpdates(gate, state.supernet.layout, federation.infos, plan, training.epochs)
        self._late: tuple[ClientId, ...] = ()
        self._absent: dict[ClientId, str] = {}

    def play(self, late: Discarded, num_wanted: int) -> RoundResult:
        """Return what the round leads to.

        Raises:
            QuorumError: Too few clients have returned a usable update.
        """
        federation, updates = self._federation, self._updates
        late.begin(self._index, self._jobs, updates.where)
        may_end_early = len(self._jobs) > num_wanted
        patience = late.patience(self._index, (lambda: len(updates.used) >= num_wanted) if may_end_early else None)
        try:
            gathered = cohort.gather(federation.clients, self._jobs, updates.take, federation.terms, patience)
        except BaseException:
            updates.drop()
            raise
        late.end(self._index, gathered.late)
        self._late, self._absent = gathered.late, dict(sorted((gathered.absent | updates.close()).items()))
        cohort.check_quorum(federation.clients, len(self._jobs), self._absent, self._what, federation.terms, num_wanted)
        used = [update for _, update in sorted(updates.used.items())]
        came = late.come(self._index)
        refused = {client: updates.take_late(client, each) for client, each in came.items()}
        state = self._strategy.aggregate(self._index, self._state, self._mean, federation.seed)
        state = dataclasses.replace(state, norms=updates.norms)
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
        clients, absent = self._federation.clients, self._absent
        names = cohort.names_of(clients, absent)
        self._federation.on_absences(self._what, len(self._jobs), absent, names, self._index)

    def _facts(self, state: ServerState) -> RoundFacts:
        return RoundFacts(
            self._index,
            state,
            tuple(self._jobs),
            self._absent,
            tuple(client for client, reason in self._absent.items() if self._updates.has_rejected(client, reason)),
            self._late,
            bytes_down=sum(job.weights.num_bytes for job in self._jobs.values()),
            bytes_up=self._updates.num_bytes,
            seconds=time.perf_counter() - self._started,
        )


def _loss_before(used: Sequence[ClientUpdate]) -> float | None:
    """Return the mean of the losses before training, weighted by images, of the clients that have said it."""
    said = [(update.loss_before, update.num_samples) for update in used if update.loss_before is not None]
    return sum(loss * num for loss, num in said) / sum(num for _, num in said) if said else None


def _no_update_yet(
    federation: Federation, state: ServerState, plan: dict[ClientId, Assignment], params: RoundParams
) -> CoverageMean | TrimmedMean:
    """Return the average of a round, of nothing so far."""
    # Late updates may be of any client, of each one.
    counted = federation.infos if params.accepts_late else plan
    max_samples = sum(federation.infos[client].num_samples for client in counted)
    if params.trim is None:
        return CoverageMean(state.supernet.weights, max_samples)
    most = min(len(counted), len(plan) * (1 + MOST_ROUNDS_LATE))
    return TrimmedMean(state.supernet.weights, max_samples, most, params.trim)


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
            {n: t.clone() for n, t in rule.gather(state.supernet.weights, part_of(layout, assignment)).items()}
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
