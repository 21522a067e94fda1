"""The engine of this process, with jobs that say what they saw."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch

from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.partition import partition
from fedsup_deploy.engines.inprocess import InProcess
from fedsup_deploy.errors import DataError
from fedsup_deploy.federation.client import TRAINED, Client, ClientId
from fedsup_deploy.federation.jobs.agreement import Agreement
from fedsup_deploy.federation.messages import Patience, Reply
from fedsup_deploy.federation.simulation import CLIENTS, FederatedData, Population


@dataclasses.dataclass(frozen=True)
class Look:
    """Return what a function makes of a client."""

    kind: ClassVar[str] = "counts"
    reply: ClassVar[type] = Agreement

    look: Callable[[Client], Agreement]

    def perform(self, client: Client) -> Agreement:
        return self.look(client)


@pytest.fixture(scope="module")
def population() -> Population:
    """Three clients of ten digits each."""
    train = load_dataset("digits", None).train.take(np.arange(30))
    return FederatedData(train, tuple(partition(train.labels_N, "iid", 3, 0)), None, None).populations()[CLIENTS]


def counted(client: Client) -> Agreement:
    return Agreement(0, 0, 0, len(client.images(TRAINED)))


def failing(error: Exception) -> Look:
    def fail(client: Client) -> Agreement:
        raise error

    return Look(fail)


def test_a_job_is_done_when_its_reply_is_asked_for_in_the_order_of_jobs(population: Population) -> None:
    """So a round may be stopped in between."""
    done: list[int] = []

    def look(client: Client) -> Agreement:
        done.append(len(done))
        return counted(client)

    replies = InProcess(population).ask(dict.fromkeys((2, 0, 1), Look(look)))
    assert done == []
    assert next(replies) == Reply(2, Agreement(0, 0, 0, 10))
    assert done == [0]
    assert [reply.client for reply in replies] == [0, 1]
    assert done == [0, 1, 2]


def test_it_can_ask_those_of_its_population(population: Population) -> None:
    assert InProcess(population).clients() == population.infos()


def test_a_job_has_one_thread_and_the_others_are_given_back(population: Population) -> None:
    """The order of a sum, and so its last bit, depends on the number of threads."""
    seen: list[int] = []

    def look(client: Client) -> Agreement:
        seen.append(torch.get_num_threads())
        return counted(client)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        replies = InProcess(population).ask({0: Look(look), 1: failing(ValueError("fail"))})
        for _ in replies:
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_a_client_that_fails_says_why_and_the_others_go_on(population: Population) -> None:
    """What a client is known to say is quoted; anything else is named, and a client that is not there as well."""
    jobs = {
        0: failing(DataError("no such images")),
        1: failing(ZeroDivisionError("by zero\nin a line")),
        2: Look(counted),
    }
    assert list(InProcess(population).ask(jobs)) == [
        Reply(0, None, "no such images"),
        Reply(1, None, "ZeroDivisionError: by zero in a line"),
        Reply(2, Agreement(0, 0, 0, 10)),
    ]
    (reply,) = InProcess(population).ask({9: Look(counted)})
    assert (reply.client, reply.value, (reply.absent or "")[:11]) == (9, None, "IndexError:")


def test_an_answer_of_another_type_is_none(population: Population) -> None:
    job = Look(lambda client: len(client.images(TRAINED)))  # type: ignore[arg-type, return-value]
    (reply,) = InProcess(population).ask({0: job})
    assert reply == Reply(0, None, "malformed answer: got int, expected Agreement")


@pytest.mark.parametrize(("deadline_s", "in_time"), [(None, 3), (25.0, 2), (20.0, 2), (9.0, 0)])
def test_what_is_finished_after_the_deadline_is_not_heard(
    population: Population, deadline_s: float | None, in_time: int
) -> None:
    """Each job takes 10 seconds of a clock that stands still otherwise; after the deadline none is begun."""
    now, done = [100.0], []

    def look(client: Client) -> Agreement:
        now[0] += 10
        done.append(now[0])
        return counted(client)

    engine = InProcess(population, clock=lambda: now[0])
    replies = list(engine.ask(dict.fromkeys(range(3), Look(look)), deadline_s))
    assert [reply.client for reply in replies] == list(range(in_time))
    assert len(done) == min(in_time + 1, 3)


class Hearing(Patience[Agreement]):
    """Hears those that are late; has enough at once."""

    def __init__(self) -> None:
        self.late: list[Reply[Agreement]] = []

    def is_enough(self) -> bool:
        return True

    def awaits(self, client: ClientId) -> bool:  # noqa: ARG002
        return True

    def take_late(self, reply: Reply[Agreement]) -> None:
        self.late.append(reply)


def test_what_was_under_way_at_the_deadline_is_heard_by_whoever_hears_late_ones(population: Population) -> None:
    now, hearing = [0.0], Hearing()

    def look(client: Client) -> Agreement:
        now[0] += 10
        return counted(client)

    engine = InProcess(population, clock=lambda: now[0])
    assert [reply.client for reply in engine.ask(dict.fromkeys(range(3), Look(look)), 15.0, hearing)] == [0]
    assert [(reply.client, type(reply.value)) for reply in hearing.late] == [(1, Agreement)]


def test_simulated_clients_all_answer_though_fewer_were_enough(population: Population) -> None:
    """Who is first here is chance."""
    jobs = dict.fromkeys(range(3), Look(counted))
    assert [reply.client for reply in InProcess(population).ask(jobs, None, Hearing())] == [0, 1, 2]
