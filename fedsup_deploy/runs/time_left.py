"""`TimeLeft`: how long a run still takes, by the events of it so far. Torch-free; knows no clock.

`train` records what it tells, and whoever reads a run asks it again, so a screen, a file and a resumed run agree.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from fedsup_deploy.run_events import (
    Evaluation,
    EvaluationSkipped,
    Phase,
    Round,
    RoundSkipped,
    RunEvent,
    TrainStarted,
)

#: A round's time grows with this power of its multiply-accumulates: smaller networks compute fewer per second. From the
#: first rounds, of the smallest subnet, to those of all sizes, recorded runs went by powers of 0.65 to 0.8: digits,
#: Fashion-MNIST and CIFAR-10, E-FedSup and FedSup.
POWER: Final = 0.7
#: A forward and a backward pass cost three forward ones.
FORWARD_SHARE: Final = 1 / 3
#: Rounds, or evaluations, that say how fast the machine is now.
RECENT_ROUNDS: Final = 20
RECENT_EVALUATIONS: Final = 3
#: Rounds after a start from which on those before it say nothing more: the machine may be another.
ENOUGH: Final = 3


class _Seen(NamedTuple):
    """A round that is over."""

    number: int
    seconds: float
    work: float
    """Of it, as a power of multiply-accumulates; its phase's where it does not say."""
    start: int
    """After which start of the run."""
    is_first: bool
    """Whether it is the first after it."""


class TimeLeft:
    """Reads the events of a run in their order.

    The time of a round to come is what rounds of its phase took, per work; of a phase that has not begun it follows
    from the work that is planned. The first round after a start counts only as long as there is no other: workers start
    in it.
    """

    def __init__(self) -> None:
        self._start: TrainStarted | None = None
        self._num_starts = 0
        self._rounds: list[_Seen] = []
        self._evaluations: list[float] = []
        self._done = 0
        self._awaits_evaluation = False

    def read(self, event: RunEvent) -> None:
        """Take in an event."""
        if isinstance(event, TrainStarted):
            self._start, self._done, self._awaits_evaluation = event, event.round, False
            self._num_starts += 1
        elif isinstance(event, Round):
            self._read_round(event)
        elif isinstance(event, RoundSkipped):
            # There is no evaluation of the weights before, but after the last round.
            self._done = event.round + 1
            self._awaits_evaluation = self._start is not None and self._done == self._start.rounds
        elif isinstance(event, (Evaluation, EvaluationSkipped)):
            self._awaits_evaluation = False
            if isinstance(event, Evaluation) and event.seconds is not None:
                self._evaluations.append(event.seconds)

    @property
    def seconds(self) -> float | None:
        """How long the run still takes; None where nothing of it was trained yet, or nobody knows its rounds."""
        if self._start is None or not self._rounds:
            return None
        total, begin = 0.0, 0
        for phase in self._phases:
            end = begin + phase.rounds
            left = end - max(begin, self._done)
            if left > 0:
                total += left * self._pace(begin, end) * _work(phase.client_macs)
            begin = end
        return total + self._evaluations_left() * self._evaluation_seconds()

    @property
    def _phases(self) -> Sequence[Phase]:
        assert self._start is not None
        return self._start.phases or [Phase(rounds=self._start.rounds, client_macs=0)]

    def _read_round(self, event: Round) -> None:
        phase = self._phase_of(event.round)
        macs = event.client_macs if phase is not None and phase.client_macs else 0
        work = _work(macs or (phase.client_macs if phase is not None else 0))
        is_first = not self._rounds or self._rounds[-1].start != self._num_starts
        self._rounds.append(_Seen(event.round, event.seconds, work, self._num_starts, is_first))
        self._done = event.round + 1
        every = None if self._start is None else self._start.evaluate_every
        self._awaits_evaluation = self._is_evaluated(self._done) if every is not None else False

    def _phase_of(self, index: int) -> Phase | None:
        if self._start is None:
            return None
        begin = 0
        for phase in self._phases:
            begin += phase.rounds
            if index < begin:
                return phase
        return None

    def _pace(self, begin: int, end: int) -> float:
        """Return seconds per work of rounds within bounds, or of those that there are."""
        usual = [seen for seen in self._rounds if not seen.is_first] or self._rounds
        of_phase = [seen for seen in usual if begin <= seen.number < end] or usual
        since_start = [seen for seen in of_phase if seen.start == self._num_starts]
        seen = (since_start if len(since_start) >= ENOUGH else of_phase)[-RECENT_ROUNDS:]
        return sum(each.seconds for each in seen) / sum(each.work for each in seen)

    def _is_evaluated(self, done: int) -> bool:
        assert self._start is not None
        return done % (self._start.evaluate_every or 1) == 0 or done == self._start.rounds

    def _evaluations_left(self) -> int:
        assert self._start is not None
        every, rounds = self._start.evaluate_every, self._start.rounds
        if not every:
            return 0
        multiples = rounds // every - self._done // every
        return multiples + (rounds % every != 0 and self._done < rounds) + self._awaits_evaluation

    def _evaluation_seconds(self) -> float:
        recent = self._evaluations[-RECENT_EVALUATIONS:]
        if recent:
            return sum(recent) / len(recent)
        assert self._start is not None
        macs = self._start.evaluation_macs
        return 0.0 if not macs else self._pace(0, 0) * _work(macs * FORWARD_SHARE)


def _work(macs: float) -> float:
    """Return the work of multiply-accumulates; 1 where nobody has counted them."""
    return float(macs) ** POWER if macs else 1.0
