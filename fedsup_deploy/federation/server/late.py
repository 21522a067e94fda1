"""Updates that come after their round is over, and the patience of a round that may end before all have answered."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Final

from fedsup_deploy.federation.client import ClientId
from fedsup_deploy.federation.jobs.train import ClientUpdate, Train
from fedsup_deploy.federation.messages import Patience, Reply
from fedsup_deploy.supernet import slices as rule

#: An update is of no use any more after so many rounds: it counts less than half then, and is waited for no longer.
MOST_ROUNDS_LATE: Final = 4


def staleness_weight(rounds_late: int) -> float:
    """Return what an update counts that began so many rounds ago: (1 + s)^-0.5.

    Source: FedBuff, J. Nguyen et al., arXiv 2106.06639; the form is the polynomial one of FedAsync, C. Xie et al.,
    arXiv 1903.03934, with exponent 0.5.
    """
    return float((1 + rounds_late) ** -0.5)


@dataclasses.dataclass(frozen=True)
class LateUpdate:
    """An update that has come since.

    Args:
        round_index: In which round its client was asked.
        update: What it sent.
        job: What it was asked: the tensors that it began with, and what it had to train.
        where: The part of each shared tensor that these are.
        weight: What its move counts.
    """

    round_index: int
    update: ClientUpdate
    job: Train
    where: rule.Slices
    weight: float


class Discarded:
    """Updates that come after their round are not heard."""

    def begin(self, round_index: int, jobs: Mapping[ClientId, Train], where: Mapping[ClientId, rule.Slices]) -> None:
        """Learn what is asked in a round."""

    def patience(self, round_index: int, is_enough: Callable[[], bool] | None) -> Patience[ClientUpdate] | None:  # noqa: ARG002
        """Return who is waited for in a round, and heard after it; None: all, and nobody.

        Args:
            round_index: Which round.
            is_enough: Says whether as many updates are used as are wanted; None: all are waited for.
        """
        return None if is_enough is None else RoundPatience(is_enough)

    def end(self, round_index: int, late: Collection[ClientId]) -> None:
        """Learn who of a round is still expected to answer."""

    def come(self, round_index: int) -> dict[ClientId, LateUpdate]:  # noqa: ARG002
        """Return, and forget, what has come of the rounds before one: of each client the last, ascending."""
        return {}


class Accepted(Discarded):
    """Updates that come after their round are kept until the next average.

    None is waited for, or kept, for more than `MOST_ROUNDS_LATE` rounds. Kept of each are the tensors that it was sent,
    which clients with the same subnet share, and its update once it is there: at most what so many rounds send and get.

    Args:
        weight: What each counts; None is `staleness_weight`.
        deadline_s: Of a round.
    """

    def __init__(self, weight: float | None, deadline_s: float | None) -> None:
        self._weight = weight
        self._late_s = MOST_ROUNDS_LATE * (deadline_s or 0.0)
        self._expected: dict[tuple[int, ClientId], tuple[Train, rule.Slices]] = {}
        self._come: dict[tuple[int, ClientId], ClientUpdate] = {}

    def begin(self, round_index: int, jobs: Mapping[ClientId, Train], where: Mapping[ClientId, rule.Slices]) -> None:
        """Learn what is asked in a round."""
        known = {key: each for key, each in self._expected.items() if round_index - key[0] <= MOST_ROUNDS_LATE}
        asked = {(round_index, client): (job, where[client]) for client, job in jobs.items()}
        self._keep({**known, **asked})

    def patience(self, round_index: int, is_enough: Callable[[], bool] | None) -> Patience[ClientUpdate]:
        """Return who is waited for in a round, and heard after it."""
        return RoundPatience(is_enough or (lambda: False), self, round_index, self._late_s)

    def end(self, round_index: int, late: Collection[ClientId]) -> None:
        """Learn who of a round is still expected to answer."""
        self._keep({key: each for key, each in self._expected.items() if key[0] != round_index or key[1] in late})

    def come(self, round_index: int) -> dict[ClientId, LateUpdate]:
        """Return, and forget, what has come of the rounds before one: of each client the last, ascending."""
        found: dict[ClientId, LateUpdate] = {}
        for key in sorted(key for key in self._come if key[0] < round_index):
            began, client = key
            weight = staleness_weight(round_index - began) if self._weight is None else self._weight
            found[client] = LateUpdate(began, self._come.pop(key), *self._expected.pop(key), weight)
        return dict(sorted(found.items()))

    def awaits(self, round_index: int, client: ClientId) -> bool:
        """Return whether an answer would be heard: one is expected, and has not come."""
        return (round_index, client) in self._expected and (round_index, client) not in self._come

    def take(self, round_index: int, reply: Reply[ClientUpdate]) -> None:
        """Take the answer of a client after its round; whoever has failed is expected no longer."""
        key = (round_index, reply.client)
        if not self.awaits(*key):
            return
        if reply.value is None:
            del self._expected[key]
        else:
            self._come[key] = reply.value

    def _keep(self, expected: Mapping[tuple[int, ClientId], tuple[Train, rule.Slices]]) -> None:
        self._expected = dict(expected)
        self._come = {key: update for key, update in self._come.items() if key in self._expected}


class RoundPatience(Patience[ClientUpdate]):
    """Who is waited for in a round, and heard after it.

    Args:
        is_enough: Says whether as many updates are used as are wanted.
        late: Hears those that come after the end; None: nobody does.
        round_index: Which round.
        late_s: As of `Patience`.
    """

    def __init__(
        self,
        is_enough: Callable[[], bool],
        late: Accepted | None = None,
        round_index: int = 0,
        late_s: float = 0.0,
    ) -> None:
        self._is_enough, self._late, self._round_index, self.late_s = is_enough, late, round_index, late_s

    def is_enough(self) -> bool:
        """Return whether nobody else has to be waited for."""
        return self._is_enough()

    def awaits(self, client: ClientId) -> bool:
        """Return whether an answer of a client would still be heard, though the round is over."""
        return self._late is not None and self._late.awaits(self._round_index, client)

    def take_late(self, reply: Reply[ClientUpdate]) -> None:
        """Take the answer of a client that was asked, after the end of the round."""
        if self._late is not None:
            self._late.take(self._round_index, reply)
