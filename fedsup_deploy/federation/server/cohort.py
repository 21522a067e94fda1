"""Asking clients: who is asked, how many must answer, and how long they have. The same for every kind of job."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from fedsup_deploy import rng
from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation.client import ClientId, ClientInfo, called
from fedsup_deploy.federation.messages import Engine, Job, Patience

R = TypeVar("R")

#: Clients that take part in calibrations and evaluations where a config does not say: with more, others add little.
MAX_CALIBRATING: Final = 100


class OnAbsences(Protocol):
    """Called once per exchange in which somebody was absent."""

    def __call__(
        self,
        what: str,
        num_asked: int,
        absent: Mapping[ClientId, str],
        names: Mapping[ClientId, str],
        round_index: int | None = None,
        /,
    ) -> None:
        """Take note of an exchange.

        Args:
            what: What clients were asked for.
            num_asked: How many were.
            absent: Those without a usable answer, with the reason.
            names: Of those of them that have one.
            round_index: Of the round of training that it was; None for any other exchange.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Terms:
    """What is expected of those that are asked.

    Args:
        quorum: Share of them that must answer, in [0, 1]; at least one must.
        deadline_s: How long they have, in seconds; None waits for all.
    """

    quorum: float
    deadline_s: float | None


class QuorumError(FederationError):
    """Fewer clients have answered than must: the fault of no engine, so that others may be asked."""


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What became of an exchange.

    Args:
        absent: Clients without an answer that was taken, ascending, with the reason.
        late: Those of them that were still expected to answer when it ended, ascending.
    """

    absent: dict[ClientId, str]
    late: tuple[ClientId, ...]


def ask(
    engine: Engine,
    jobs: Mapping[ClientId, Job[R]],
    take: Callable[[ClientId, R], str | None],
    *,
    what: str,
    terms: Terms,
    on_absences: OnAbsences,
) -> dict[ClientId, str]:
    """Ask clients, pass on their answers as they come, and refuse too few: `gather`, then `report`.

    Raises:
        QuorumError: Fewer clients have answered than must.
    """
    absent = gather(engine, jobs, take, terms).absent
    report(engine, len(jobs), absent, what=what, terms=terms, on_absences=on_absences)
    return absent


def gather(
    engine: Engine,
    jobs: Mapping[ClientId, Job[R]],
    take: Callable[[ClientId, R], str | None],
    terms: Terms,
    patience: Patience[R] | None = None,
) -> Gathered:
    """Ask clients and pass on their answers as they come.

    An answer counts for the client that was asked, and for no other; a second one is not looked at.

    Args:
        engine: Carries the jobs.
        jobs: For each client its job.
        take: Takes an answer; returns None, or why it is refused.
        terms: What is expected.
        patience: Who need not be waited for; None: all are.
    """
    absent = dict.fromkeys(sorted(jobs), "no answer")
    heard: set[ClientId] = set()
    for reply in engine.ask(jobs, terms.deadline_s, *(() if patience is None else (patience,))):
        if reply.client in heard or reply.client not in jobs:
            continue
        heard.add(reply.client)
        reason = (reply.absent or "no answer") if reply.value is None else take(reply.client, reply.value)
        if reason is None:
            del absent[reply.client]
        else:
            absent[reply.client] = reason
    silent = tuple(client for client in absent if client not in heard)
    if patience is not None and patience.is_enough():
        return Gathered(absent | dict.fromkeys(silent, "no answer before enough others had come"), silent)
    if terms.deadline_s is None:
        return Gathered(absent, ())
    return Gathered(absent | dict.fromkeys(silent, f"no answer within {terms.deadline_s:g} s"), silent)


def names_of(engine: Engine, clients: Collection[ClientId]) -> dict[ClientId, str]:
    """Return the names of those of some clients that have one."""
    infos = engine.clients() if clients else ()
    return {info.client: info.name for info in infos if info.name is not None and info.client in clients}


def report(
    engine: Engine,
    num_asked: int,
    absent: Mapping[ClientId, str],
    *,
    what: str,
    terms: Terms,
    on_absences: OnAbsences,
) -> None:
    """Tell who is absent, and then `check_quorum`.

    Raises:
        QuorumError: Fewer clients have answered than must.
    """
    if absent:
        on_absences(what, num_asked, absent, names_of(engine, absent))
    check_quorum(engine, num_asked, absent, what, terms)


def num_needed(quorum: float, num_clients: int) -> int:
    """Return how many of some clients a quorum is."""
    # Rounded first: 0.07 * 100 is a little more than 7.
    return max(1, math.ceil(round(quorum * num_clients, 9)))


def check_quorum(
    engine: Engine,
    num_asked: int,
    absent: Mapping[ClientId, str],
    what: str,
    terms: Terms,
    num_wanted: int | None = None,
) -> None:
    """Refuse to go on with too few answers.

    Args:
        engine: Has carried the jobs.
        num_asked: Clients asked.
        absent: Those of them that have not answered, with the reason.
        what: What was asked for: `training in round 3`.
        terms: What is expected.
        num_wanted: Whom the quorum is a share of, where more were asked than are wanted.

    Raises:
        QuorumError: Fewer clients have answered than must.
    """
    needed = num_needed(terms.quorum, num_asked if num_wanted is None else num_wanted)
    answered = num_asked - len(absent)
    if answered < needed:
        names = names_of(engine, absent)
        said = (f"{called(client, names.get(client))}: {reason}" for client, reason in absent.items())
        why = next(said, "nobody could be asked")
        ways = ["mend that"]
        if terms.deadline_s is not None:
            ways.append("raise federation.deadline_s")
        if answered > 0:
            ways.append("lower federation.quorum")
        raise QuorumError(
            f"{what}: {answered} of {num_asked} clients answered, {needed} must ({why}); {' or '.join(ways)}"
        )


def sample(infos: Sequence[ClientInfo], count: int | None, seed: int, purpose: str) -> tuple[ClientInfo, ...]:
    """Return the clients that take part in what not all are needed for, ascending: the same ones for one seed.

    Args:
        infos: All that could.
        count: How many; None is up to `MAX_CALIBRATING`.
        seed: Seed of the run.
        purpose: What for: other purposes have other samples.
    """
    count = MAX_CALIBRATING if count is None else count
    if len(infos) <= count:
        return tuple(infos)
    drawn = rng.generator(seed, "sample", purpose).choice(len(infos), count, replace=False)
    return tuple(infos[index] for index in sorted(drawn.tolist()))
