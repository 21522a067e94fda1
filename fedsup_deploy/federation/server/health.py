"""Whether rounds do what they should: five watches over the events of a run, each of which warns of one fault.

All they look at is in the `round` and `evaluation` events, and in what the run is made of; nobody else is asked, and
nothing is changed. So a resumed run, which reads its own events again, warns as one that was never interrupted.
"""

import abc
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from pydantic import BaseModel, JsonValue

from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.server.strategy import Strategy
from fedsup_deploy.run_events import Evaluation, Round, RunEvent
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.layout import Layout

#: Rounds, or evaluations, that are looked at together: one may be chance, and who is told should be told soon.
WINDOW: Final = 3
#: Rounds in a row that begin worse than they should: one may have an unlucky cohort, and the second is still soon.
BAD_STARTS: Final = 2
#: Share of what was learned, from the first start of a round to the best, that has to be lost. In ten clean runs on
#: digits with skewed labels no start lost more than a third.
MOST_LOST: Final = 0.5
#: Least rise of the loss over the best start that counts, where as good as nothing was learned yet.
LEAST_RISE: Final = 0.25
#: Share of the supernet's weights that nobody may hold for `WINDOW` rounds. Where sizes are drawn, some of the rarest
#: weights are in none of thirty draws.
MOST_WITHOUT_HOLDER: Final = 0.1
#: Share of a tier's clients that has to answer: below, the images of most of them count for nothing.
LEAST_ANSWERED: Final = 0.25
#: Answers of a tier that have to be missing at least: of one or two clients, both may be absent by chance.
LEAST_ASKED: Final = 3
#: Share of the images of some rounds that one client may have, and how many times an equal share: one of three clients
#: easily has half of the images.
MOST_OF_ONE, MOST_TIMES_EQUAL = 0.5, 2.0


class Finding(BaseModel):
    """A fault.

    Args:
        kind: Which watch has found it.
        subject: Of whom: a client, a tier; empty where it is of all. Each is warned of once in a run.
        words: What is wrong and what to do, in one line.
        figures: What it was found by.
    """

    kind: str
    subject: str
    words: str
    figures: dict[str, JsonValue]


class Watch(abc.ABC):
    """Looks for one fault.

    Attributes:
        kind: Its name in events.
    """

    kind: ClassVar[str]

    def begin_phase(self) -> None:  # noqa: B027
        """Forget what cannot be compared with what follows: clients begin to train other subnets."""

    def after_round(self, played: Round) -> Iterator[Finding]:  # noqa: ARG002
        """Yield what is wrong after a round, every time it is."""
        yield from ()

    def after_evaluation(self, evaluated: Evaluation) -> Iterator[Finding]:  # noqa: ARG002
        """Yield what is wrong after an evaluation, every time it is."""
        yield from ()

    def finding(self, words: str, subject: str = "", **figures: JsonValue) -> Finding:
        """Return a fault of this kind."""
        return Finding(kind=self.kind, subject=subject, words=words, figures=figures)


class Health:
    """Reads the events of a run, in their order, and warns of each fault once.

    Args:
        infos: What each client has announced.
        strategy: Who trains what.
        layout: Of the supernet.
        seed: Of the run.
    """

    def __init__(self, infos: Mapping[ClientId, ClientInfo], strategy: Strategy, layout: Layout, seed: int) -> None:
        self._watches: tuple[Watch, ...] = (
            AverageBehind(),
            NoHolder(infos, strategy, layout, seed),
            SmallestStalls(),
            TierStarved(infos),
            OneDominates(infos),
        )
        self._phase_begins = strategy.warm_up_again_at
        self._told: set[tuple[str, str]] = set()
        self._last_round = -1

    def read(self, event: RunEvent) -> list[Finding]:
        """Return the faults that an event shows and that none before has shown. Events of other kinds show none."""
        found: list[Finding] = []
        if isinstance(event, Round):
            found = self._after_round(event)
        elif isinstance(event, Evaluation):
            found = [finding for watch in self._watches for finding in watch.after_evaluation(event)]
        new = [finding for finding in found if (finding.kind, finding.subject) not in self._told]
        self._told.update((finding.kind, finding.subject) for finding in new)
        return new

    def _after_round(self, played: Round) -> list[Finding]:
        if self._last_round < self._phase_begins <= played.round:
            for watch in self._watches:
                watch.begin_phase()
        self._last_round = played.round
        return [finding for watch in self._watches for finding in watch.after_round(played)]


class AverageBehind(Watch):
    """The clients' networks are better than their average, for rounds.

    Compared are losses on clients' own images, under the changes that training makes to them: before a client's first
    step, which is the average of the round before, and over all its steps. Clients lower it in every round; what they
    learn should be there at the start of the next. Where most of what was learned so far is not, round after round,
    averaging undoes what they do: some send what does not fit, or all move too far.

    That clients' networks are better than the average on their own images is no fault: with skewed labels they always
    are. So the average is compared with the best there was before.
    """

    kind = "average-behind"

    def __init__(self) -> None:
        self._first: float | None = None
        self.begin_phase()

    def begin_phase(self) -> None:
        """Begin anew: other subnets have other losses."""
        self._best, self._num_bad = math.inf, 0

    def after_round(self, played: Round) -> Iterator[Finding]:
        """Compare the loss that a round began with to the best."""
        before, best = played.loss_before, self._best
        if before is None:
            return
        self._first = before if self._first is None else self._first
        most = best + max(MOST_LOST * (self._first - best), LEAST_RISE * best)
        self._num_bad = self._num_bad + 1 if before > most and played.loss <= before else 0
        self._best = min(best, before)
        if self._num_bad >= BAD_STARTS:
            yield self.finding(
                f"the average is worse than the clients' networks: {self._num_bad} rounds began with a loss of "
                f"{before:.3g} or so, which clients lowered to {played.loss:.3g}, after it had been {best:.3g}; "
                "look for clients that send what does not fit, or lower training.learning_rate",
                loss_before=before,
                loss=played.loss,
                best_loss_before=best,
            )


class NoHolder(Watch):
    """A part of the supernet is trained by nobody, for rounds.

    Where all train one subnet, as in federated averaging or in the first rounds, the rest is left out on purpose.
    """

    kind = "no-holder"

    def __init__(self, infos: Mapping[ClientId, ClientInfo], strategy: Strategy, layout: Layout, seed: int) -> None:
        self._infos, self._strategy, self._layout, self._seed = infos, strategy, layout, seed
        self._num_weights = sum(math.prod(shape) for shape in layout.shapes.values())
        self.begin_phase()

    def begin_phase(self) -> None:
        """Begin anew: the first rounds leave out most on purpose."""
        self._planned: set[Architecture | None] = set()
        self._held: deque[set[Architecture | None]] = deque(maxlen=WINDOW)

    def after_round(self, played: Round) -> Iterator[Finding]:
        """Count the weights that no used update of the last rounds had."""
        cohort = [self._infos[client] for client in played.clients if client in self._infos]
        plan = self._strategy.plan(played.round, cohort, self._seed)
        self._planned |= {assignment.architecture for assignment in plan.values()}
        self._held.append({plan[client].architecture for client in played.answered if client in plan})
        if len(self._held) < WINDOW or len(self._planned) == 1:
            return
        held = set[Architecture | None]().union(*self._held)
        if None in held:
            return
        masks = self._layout.partial_coverage(tuple(each for each in held if each is not None))
        missing = {name: int((~mask).sum()) for name, mask in masks.items()}
        share = sum(missing.values()) / self._num_weights
        if share >= MOST_WITHOUT_HOLDER:
            most = max(missing, key=lambda name: missing[name])
            yield self.finding(
                f"nobody has trained {share:.0%} of the supernet's weights in {WINDOW} rounds, most of them of {most}; "
                "larger subnets are not worth exporting: see who is absent, or give a tier of strategy.tiers "
                "larger subnets",
                share=share,
                rounds=WINDOW,
                tensor=most,
            )


class SmallestStalls(Watch):
    """The smallest subnet is behind the largest and learns nothing more, while the largest still does.

    The largest has to have risen, and to lie above the smallest, by more than its interval: so a smallest subnet that
    has learned all that it can is no fault, as the largest is rarely that fast then.
    """

    kind = "smallest-stalls"

    def __init__(self) -> None:
        self.begin_phase()

    def begin_phase(self) -> None:
        """Begin anew: until now the largest was a grown copy of the smallest."""
        self._last: deque[Evaluation] = deque(maxlen=WINDOW + 1)

    def after_evaluation(self, evaluated: Evaluation) -> Iterator[Finding]:
        """Compare the last evaluations with the one before them."""
        self._last.append(evaluated)
        first, *later = self._last
        if len(later) < WINDOW:
            return
        before, largest, smallest = first.interval("largest"), *map(evaluated.interval, ("largest", "smallest"))
        if before is None or largest is None or smallest is None:  # of a run that an older version began
            return
        lowest_of_largest = largest[0]
        stalls = max(each.accuracy_smallest for each in later) <= first.accuracy_smallest
        others_learn = lowest_of_largest > before[1]
        if stalls and others_learn and lowest_of_largest > smallest[1]:
            yield self.finding(
                f"the smallest subnet has learned nothing in {WINDOW} evaluations: from {first.accuracy_smallest:.1%} "
                f"to {evaluated.accuracy_smallest:.1%}, the largest from {first.accuracy_largest:.1%} to "
                f"{evaluated.accuracy_largest:.1%}; see that its tier answers, or raise strategy.smallest_first",
                since_round=first.round,
                accuracy_smallest=[first.accuracy_smallest, evaluated.accuracy_smallest],
                accuracy_largest=[first.accuracy_largest, evaluated.accuracy_largest],
            )


class TierStarved(Watch):
    """Of the clients of a tier too few answer, for rounds, while the quorum is met by the others."""

    kind = "tier-starved"

    def __init__(self, infos: Mapping[ClientId, ClientInfo]) -> None:
        self._tiers = {client: info.tier for client, info in infos.items()}
        self._last: dict[int, deque[tuple[int, int]]] = {}
        # Of each tier the first client that was absent in the last round in which one was, and why.
        self._absent: dict[int, tuple[ClientId, str]] = {}

    def after_round(self, played: Round) -> Iterator[Finding]:
        """Count the answers of each tier that was asked, in the last rounds in which it was."""
        asked, answered = (self._by_tier(clients) for clients in (played.clients, played.answered))
        for client, reason in reversed(played.absent.items()):
            if (found := self._tiers.get(int(client))) is not None:
                self._absent[found] = int(client), reason
        for tier in sorted(asked):
            last = self._last.setdefault(tier, deque(maxlen=WINDOW))
            last.append((asked[tier], answered[tier]))
            num_asked, num_answered = (sum(counts) for counts in zip(*last, strict=True))
            if num_asked >= LEAST_ASKED and len(last) == WINDOW and num_answered < LEAST_ANSWERED * num_asked:
                absent, why = self._absent[tier]
                yield self.finding(
                    f"tier {tier}: {num_answered} of {num_asked} updates came in {WINDOW} rounds "
                    f"(client {absent}: {why}); its subnets and images count for nothing: "
                    "mend that, or raise federation.deadline_s",
                    str(tier),
                    tier=tier,
                    asked=num_asked,
                    answered=num_answered,
                )

    def _by_tier(self, clients: Sequence[ClientId]) -> Counter[int]:
        return Counter(self._tiers[client] for client in clients if client in self._tiers)


class OneDominates(Watch):
    """One client has most of the weight of the averages of the last rounds: they are its network, more or less."""

    kind = "one-dominates"

    def __init__(self, infos: Mapping[ClientId, ClientInfo]) -> None:
        self._infos = infos
        self._last: deque[list[ClientId]] = deque(maxlen=WINDOW)

    def after_round(self, played: Round) -> Iterator[Finding]:
        """Add up the images of the last rounds by client, as announced: what an update weighs."""
        self._last.append([client for client in played.answered if client in self._infos])
        images: Counter[ClientId] = Counter()
        for clients in self._last:
            images.update({client: self._infos[client].num_samples for client in clients})
        client, most = max(images.items(), key=lambda item: (item[1], -item[0]), default=(-1, 0))
        share = most / max(images.total(), 1)
        if share > max(MOST_OF_ONE, MOST_TIMES_EQUAL / max(len(images), 1)):
            yield self.finding(
                f"{self._infos[client]} has {share:.0%} of the weight of the last averages, of {len(images)} clients; "
                "divide its images among several clients, or have it hold fewer",
                str(client),
                client=client,
                share=share,
                clients=len(images),
            )
