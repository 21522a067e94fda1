"""Asking clients: who must answer, and what becomes of those that do not."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from fedsup_deploy.errors import FederationError
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.moments import CountPixels
from fedsup_deploy.federation.messages import Job, Reply
from fedsup_deploy.federation.server.cohort import MAX_CALIBRATING, OnAbsences, Terms, ask, gather, sample

ALL = Terms(1.0, None)
ANY = Terms(0.0, None)


class Replies:
    """An engine that gives back the same replies whatever it is asked: also of clients that nobody asked."""

    def __init__(self, *replies: Reply[Any]) -> None:
        self.asked: list[tuple[list[ClientId], float | None]] = []
        self._replies = replies

    def clients(self) -> Sequence[ClientInfo]:
        return [ClientInfo(1, 10), ClientInfo(70, 10, name="yard"), ClientInfo(71, 10, name="roof")]

    def ask(self, jobs: Mapping[ClientId, Job[Any]], deadline_s: float | None = None) -> Iterator[Reply[Any]]:
        self.asked.append((list(jobs), deadline_s))
        yield from self._replies


class Taking:
    """Takes answers but for those told to refuse, and keeps what it was offered."""

    def __init__(self, **refused: str) -> None:
        self.offered: list[tuple[ClientId, Any]] = []
        self._refused = refused

    def __call__(self, client: ClientId, value: Any) -> str | None:
        self.offered.append((client, value))
        return self._refused.get(value)


def asked(
    *replies: Reply[Any],
    clients: Sequence[ClientId],
    terms: Terms,
    take: Taking | None = None,
    on_absences: OnAbsences = lambda *_: None,
) -> dict[ClientId, str]:
    jobs = dict.fromkeys(clients, CountPixels())
    return ask(Replies(*replies), jobs, take or Taking(), what="counting", terms=terms, on_absences=on_absences)


def test_answers_are_passed_on_as_they_come_with_who_gave_them() -> None:
    take, engine = Taking(), Replies(Reply(2, "b"), Reply(0, "a"))
    found = gather(engine, dict.fromkeys((0, 2), CountPixels()), take, Terms(1.0, 5.0))
    assert (found.absent, found.late) == ({}, ())
    assert take.offered == [(2, "b"), (0, "a")]
    assert engine.asked == [([0, 2], 5.0)]


@pytest.mark.parametrize(
    ("terms", "reason"),
    [(ANY, "no answer"), (Terms(0.0, 30.0), "no answer within 30 s"), (Terms(0.0, 0.5), "no answer within 0.5 s")],
)
def test_who_says_nothing_has_not_answered_in_time(terms: Terms, reason: str) -> None:
    assert asked(Reply(1, "a"), clients=[0, 1], terms=terms) == {0: reason}


def test_who_says_why_there_is_no_answer_is_quoted() -> None:
    """Whoever gives no reason is as good as silent, but was in time."""
    replies = (Reply(0, None, "battery"), Reply(1, None), Reply(2, "a"))
    found = asked(*replies, clients=[0, 1, 2], terms=Terms(0.0, 30.0))
    assert found == {0: "battery", 1: "no answer"}


def test_what_is_refused_is_no_answer() -> None:
    take = Taking(bad="not finite")
    found = asked(Reply(0, "bad"), Reply(1, "good"), clients=[0, 1], terms=ANY, take=take)
    assert found == {0: "not finite"}
    assert take.offered == [(0, "bad"), (1, "good")]


def test_absences_are_in_the_order_of_clients_whatever_that_of_jobs_and_replies() -> None:
    replies = (Reply(3, None, "c"), Reply(0, None, "a"), Reply(2, "fine"))
    found = asked(*replies, clients=[3, 1, 2, 0], terms=ANY)
    assert list(found.items()) == [(0, "a"), (1, "no answer"), (3, "c")]


@pytest.mark.parametrize("first", [Reply(0, "first"), Reply(0, None, "battery"), Reply(0, "bad")])
@pytest.mark.parametrize("second", [Reply(0, "second"), Reply(0, None, "memory")])
def test_a_second_answer_is_not_looked_at(first: Reply[str], second: Reply[str]) -> None:
    """Whether the first was taken, refused or none."""
    take = Taking(bad="not finite")
    found = asked(first, Reply(1, "other"), second, clients=[0, 1], terms=ANY, take=take)
    expected = {"first": {}, None: {0: "battery"}, "bad": {0: "not finite"}}[first.value]
    assert found == expected
    assert take.offered == [(reply.client, reply.value) for reply in (first, Reply(1, "other")) if reply.value]


def test_answers_of_clients_that_were_not_asked_do_not_count() -> None:
    take = Taking()
    found = asked(Reply(7, "x"), Reply(-1, None, "y"), Reply(1, "a"), clients=[0, 1], terms=ANY, take=take)
    assert found == {0: "no answer"}
    assert take.offered == [(1, "a")]
    with pytest.raises(FederationError, match="1 of 2 clients answered, 2 must"):
        asked(Reply(7, "x"), Reply(1, "a"), clients=[0, 1], terms=ALL)


@pytest.mark.parametrize(
    ("num_asked", "quorum", "needed"),
    [(4, 1.0, 4), (4, 0.75, 3), (4, 0.5, 2), (5, 0.5, 3), (3, 0.5, 2), (8, 0.125, 1), (8, 0.0, 1), (1, 0.5, 1)],
)
def test_a_share_of_those_asked_must_answer_and_at_least_one(num_asked: int, quorum: float, needed: int) -> None:
    """A share that is no whole number of clients is rounded up."""
    clients, terms = list(range(num_asked)), Terms(quorum, None)
    enough = asked(*(Reply(client, "a") for client in clients[:needed]), clients=clients, terms=terms)
    assert list(enough) == clients[needed:]
    advice = "mend that or lower federation\\.quorum" if needed > 1 else "mend that"
    message = (
        rf"^counting: {needed - 1} of {num_asked} clients answered, {needed} must "
        rf"\(client {needed - 1}: no answer\); {advice}$"
    )
    with pytest.raises(FederationError, match=message):
        asked(*(Reply(client, "a") for client in clients[: needed - 1]), clients=clients, terms=terms)


def test_more_time_is_advised_where_there_was_a_deadline() -> None:
    with pytest.raises(FederationError, match=r"mend that or raise federation\.deadline_s$"):
        asked(clients=[0, 1], terms=Terms(0.0, 0.5))


@pytest.mark.parametrize("terms", [ANY, ALL])
def test_absences_are_told_of_once_whether_or_not_the_others_are_enough(terms: Terms) -> None:
    told: list[Any] = []
    with contextlib.nullcontext() if terms is ANY else pytest.raises(FederationError):
        asked(
            Reply(1, None, "battery"),
            Reply(0, "a"),
            clients=[0, 1, 2],
            terms=terms,
            on_absences=lambda *given: told.append(given),
        )
    assert told == [("counting", 3, {1: "battery", 2: "no answer"}, {})]
    asked(Reply(0, "a"), clients=[0], terms=terms, on_absences=lambda *given: told.append(given))
    assert len(told) == 1, "nobody was absent"
    asked(Reply(1, "a"), clients=[1, 70], terms=ANY, on_absences=lambda *given: told.append(given))
    assert told[1:] == [("counting", 2, {70: "no answer"}, {70: "yard"})]


def test_a_client_with_a_name_is_called_by_it() -> None:
    message = r"0 of 1 clients answered, 1 must \(client 70, yard: battery\); mend that$"
    with pytest.raises(FederationError, match=message):
        asked(Reply(70, None, "battery"), clients=[70], terms=ALL)


def test_refused_answers_do_not_make_a_quorum() -> None:
    with pytest.raises(FederationError, match=r"1 of 2 clients answered, 2 must \(client 0: not finite\)"):
        asked(Reply(0, "bad"), Reply(1, "good"), clients=[0, 1], terms=ALL, take=Taking(bad="not finite"))


def test_nobody_to_ask_is_an_error_even_where_nobody_must_answer() -> None:
    message = r"^counting: 0 of 0 clients answered, 1 must \(nobody could be asked\)"
    with pytest.raises(FederationError, match=message):
        asked(clients=[], terms=ANY)


INFOS = [ClientInfo(3 * client, 10) for client in range(200)]


@pytest.mark.parametrize(("count", "expected"), [(None, MAX_CALIBRATING), (1, 1), (150, 150), (200, 200), (500, 200)])
def test_a_sample_has_so_many_clients_ascending(count: int | None, expected: int) -> None:
    drawn = sample(INFOS, count, 0, "calibration")
    assert len(set(drawn)) == len(drawn) == expected
    assert list(drawn) == sorted(drawn, key=lambda info: info.client)
    assert set(drawn) <= set(INFOS)


def test_a_small_federation_takes_part_as_a_whole() -> None:
    assert sample(INFOS[:MAX_CALIBRATING], None, 0, "calibration") == tuple(INFOS[:MAX_CALIBRATING])
    assert sample([], None, 0, "calibration") == ()


def test_a_sample_follows_from_seed_and_purpose() -> None:
    first = sample(INFOS, 20, 0, "calibration")
    assert sample(INFOS, 20, 0, "calibration") == first
    assert sample(INFOS, 20, 1, "calibration") != first
    assert sample(INFOS, 20, 0, "evaluation") != first
    assert first != tuple(INFOS[:20]), "at random"
