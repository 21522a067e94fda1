"""The round loop with engines that record what they are asked and answer what they are told."""

import dataclasses
from typing import Any

import pytest
import torch

from fedsup_deploy import rng
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.errors import ConfigError, FederationError
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.train import ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import num_bytes
from fedsup_deploy.federation.server.assignment import Tier
from fedsup_deploy.federation.server.client_sampling import cohort_size
from fedsup_deploy.federation.server.cohort import Terms
from fedsup_deploy.federation.server.fedavgm import FedAvgM
from fedsup_deploy.federation.server.rounds import RoundParams, RoundResult, run_rounds
from fedsup_deploy.federation.server.schedule import learning_rate
from fedsup_deploy.federation.server.strategy import EFedSup, FedAvg, FedSup, ServerState, Strategy
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights

TRAINING = LocalTraining(
    epochs=1, batch_size=4, momentum=0.0, weight_decay=0.0, clip_value=None, has_logit_adjustment=False
)
PARAMS = RoundParams(
    rounds=4,
    clients_per_round=3,
    learning_rate=0.1,
    warmup_rounds=1,
    final_learning_rate=0.01,
    training=TRAINING,
    augmentation=Augmentation(flip=True),
)
#: The last client of the first cohort of seed 0.
LAST = int(max(rng.generator(0, "cohort", 0).choice(range(8), 3, replace=False)))
Jobs = list[dict[ClientId, Train]]


def plus_one(client: ClientId, job: Train) -> ClientUpdate:
    """Pretend that training adds 1 to every weight; client k has k + 1 images, loss k and counts 10 k."""
    weights = {name: tensor + 1 for name, tensor in job.weights.tensors.items()}
    return ClientUpdate(client + 1, float(client), weights, 10 * client)


@pytest.fixture
def state(tiny_space: SearchSpace) -> ServerState:
    layout = Layout(tiny_space, "batch")
    return ServerState(Supernet(layout, initial_weights(layout, 0)))


@pytest.fixture
def play(state: ServerState, scripted, federation_over):
    """Play rounds with eight clients; return their results and what was asked in each."""

    def play(
        answer=plus_one,
        strategy: Strategy | None = None,
        first_round: int = 0,
        start: ServerState = state,
        terms: Terms = Terms(0.0, None),  # noqa: B008  a constant
        **changes: Any,
    ) -> tuple[list[RoundResult], Jobs]:
        engine = scripted([ClientInfo(client, client + 1) for client in range(8)], answer)
        federation = federation_over(engine, terms=terms)
        strategy = strategy or FedSup(state.supernet.layout.space, 4, 3, 0.0, paper=False)
        params = dataclasses.replace(PARAMS, **changes)
        results = list(run_rounds(federation, start, strategy, params, first_round))
        assert set(engine.deadlines) <= {terms.deadline_s}
        return results, engine.asked

    return play


def test_every_round_has_its_cohort_and_its_rate(play) -> None:
    results, asked = play()
    assert [result.round_index for result in results] == [0, 1, 2, 3]
    for result, jobs in zip(results, asked, strict=True):
        assert len(set(result.sampled)) == 3
        assert list(result.sampled) == sorted(result.sampled)
        assert set(result.sampled) <= set(range(8))
        assert tuple(jobs) == result.sampled
        assert {job.learning_rate for job in jobs.values()} == {result.learning_rate}
    assert len({result.sampled for result in results}) > 1


def test_clients_get_all_they_need_and_seeds_of_their_own(play, state: ServerState) -> None:
    """A seed below the run's that tells nothing of it: other clients and other rounds have others."""
    _, asked = play(strategy=FedSup(state.supernet.layout.space, 4, 3, 0.0, paper=True))
    seeds = set()
    for index, jobs in enumerate(asked):
        for client, job in jobs.items():
            assert job.layout is state.supernet.layout
            assert (job.training, job.augmentation) == (TRAINING, PARAMS.augmentation)
            assert (job.preprocessing.mean, job.preprocessing.size) == ((0.5,), 8)
            assert (job.assignment.num_subnets, job.assignment.is_distilled) == (3, True)
            assert job.seed == rng.derive(0, "client", index, client)
            seeds.add(job.seed)
    assert len(seeds) == 12


def test_only_clients_of_the_strategy_are_sampled(play, tiny_space: SearchSpace) -> None:
    results, _ = play(strategy=FedAvg(tiny_space, 4, "largest", [(1, 2), (5, 6)]))
    assert {client for result in results for client in result.sampled} == {1, 2, 5, 6}
    assert all(len(set(result.sampled)) == 3 for result in results)


def test_the_schedule_reaches_the_clients(play) -> None:
    """Half of 0.1, then cosines of 0, 60 and 120 degrees between 0.1 and 0.01."""
    _, asked = play()
    expected = [0.05, 0.1, 0.01 + 0.09 * 0.75, 0.01 + 0.09 * 0.25]
    rates = [next(iter(jobs.values())).learning_rate for jobs in asked]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert rates[0] == learning_rate(0, 4, 1, 0.1, 0.01)


def test_weights_of_a_round_are_those_the_next_one_sends(play, state: ServerState) -> None:
    results, asked = play()
    for index, result in enumerate(results):
        for name, tensor in result.state.supernet.weights.items():
            assert torch.allclose(tensor, state.supernet.weights[name] + index + 1, atol=1e-5), name
    for job in asked[2].values():
        for name, tensor in results[1].state.supernet.weights.items():
            assert torch.equal(job.weights.tensors[name], tensor)


def test_clients_with_the_same_subnet_are_sent_the_same_blob(play, tiny_space: SearchSpace) -> None:
    """Which travels once to whoever computes for several of them."""
    strategy = EFedSup(tiny_space, 4, (Tier(architecture="smallest"),), 0.0, paper=False)
    _, asked = play(strategy=strategy)
    names = [{job.weights.name for job in jobs.values()} for jobs in asked]
    assert [len(each) for each in names] == [1] * 4
    assert len(set.union(*names)) == 4


def test_loss_is_weighted_by_images_and_macs_add_up(play) -> None:
    (result, *_), _ = play()
    expected = sum(k * (k + 1) for k in result.sampled) / sum(k + 1 for k in result.sampled)
    assert result.loss == pytest.approx(expected)
    assert result.client_macs == 10 * sum(result.sampled)


def test_loss_before_training_is_weighted_by_images_of_those_that_say_it(play) -> None:
    def answer(client: ClientId, job: Train) -> ClientUpdate:
        return dataclasses.replace(plus_one(client, job), loss_before=None if client == LAST else 2.0 * client)

    (result, *_), _ = play(answer)
    said = [client for client in result.sampled if client != LAST]
    assert result.loss_before == pytest.approx(sum(2 * k * (k + 1) for k in said) / sum(k + 1 for k in said))
    (silent, *_), _ = play()
    assert silent.loss_before is None


def test_bytes_are_those_of_the_tensors_that_travel(play, state: ServerState, tiny_space: SearchSpace) -> None:
    """With E-FedSup the smallest subnet's tensors, 4 bytes a number, down to 2 clients and up again."""
    strategy = EFedSup(tiny_space, 4, (Tier(architecture="smallest"),), 0.0, paper=False)
    (result,), (jobs,) = play(strategy=strategy, rounds=1, clients_per_round=2)
    smallest = state.supernet.extract(tiny_space.smallest).weights
    expected = 2 * 4 * sum(tensor.numel() for tensor in smallest.values())
    assert (result.bytes_down, result.bytes_up) == (expected, expected)
    for job in jobs.values():
        assert job.weights.num_bytes == expected // 2
        assert job.weights.tensors.keys() == smallest.keys()
        assert all(torch.equal(job.weights.tensors[name], tensor) for name, tensor in smallest.items())


def test_failed_silent_and_refused_clients_are_reported_and_do_not_count(play, state: ServerState) -> None:
    """Of five: one fails, one is silent, one sends infinity, one says it has more images than it announced."""

    def answer(client: ClientId, job: Train) -> ClientUpdate | str | None:
        update = plus_one(client, job)
        weights = {**update.weights, "head.bias": torch.full((3,), torch.inf)}
        return {
            sampled[0]: "battery",
            sampled[1]: None,
            sampled[2]: dataclasses.replace(update, weights=weights),
            sampled[3]: dataclasses.replace(update, num_samples=client + 2),
        }.get(client, update)

    sampled = play(rounds=1, clients_per_round=5)[0][0].sampled
    (result,), _ = play(answer, rounds=1, clients_per_round=5, terms=Terms(0.2, 30.0))
    assert result.sampled == sampled
    assert list(result.absent.items()) == [
        (sampled[0], "battery"),
        (sampled[1], "no answer within 30 s"),
        (sampled[2], "tensor head.bias is not finite"),
        (sampled[3], "more images than it has announced"),
    ]
    assert result.rejected == sampled[2:4]
    assert result.loss == sampled[4]
    assert result.client_macs == 10 * sampled[4]
    size = num_bytes(state.supernet.weights)
    assert (result.bytes_down, result.bytes_up) == (5 * size, 3 * size)
    bias = result.state.supernet.weights["head.bias"]
    torch.testing.assert_close(bias, state.supernet.weights["head.bias"] + 1)


@pytest.mark.parametrize("strategy", ["fedavg", "fedsup", "e-fedsup"])
def test_more_work_than_a_clients_images_take_is_rejected(play, tiny_space: SearchSpace, strategy: str) -> None:
    """In two epochs: on one subnet, on three of the whole supernet, none larger than all of it, or on two at once."""
    layout, images = Layout(tiny_space, "batch"), 2 * (LAST + 1)
    macs = layout.num_macs(tiny_space.largest)
    made, most = {
        "fedavg": (FedAvg(tiny_space, 1, "largest"), macs),
        "fedsup": (FedSup(tiny_space, 1, 3, 0.0, paper=False), 3 * layout.most_macs),
        "e-fedsup": (
            EFedSup(tiny_space, 1, (Tier(architecture="largest"),), 0.0, paper=False),
            macs + layout.num_macs(tiny_space.smallest),
        ),
    }[strategy]
    training = dataclasses.replace(TRAINING, epochs=2)
    for more in (0, 1):

        def answer(client: ClientId, job: Train, more: int = more) -> ClientUpdate:
            work = images * most + more if client == LAST else 0
            return dataclasses.replace(plus_one(client, job), num_macs=work)

        (result,), _ = play(answer, made, rounds=1, warmup_rounds=0, training=training)
        assert result.absent == ({LAST: "more multiply-accumulates than its images take"} if more else {})


def test_client_that_trained_on_fewer_images_than_it_announced_counts_with_those(play) -> None:
    def answer(client: ClientId, job: Train) -> ClientUpdate:
        return dataclasses.replace(plus_one(client, job), num_samples=1)

    (result,), _ = play(answer, rounds=1)
    assert result.absent == {}
    assert result.loss == pytest.approx(sum(result.sampled) / 3)


def test_round_with_too_few_usable_updates_is_an_error_that_says_why(play) -> None:
    message = r"^training in round 0: 0 of 3 clients answered, 1 must \(client \d: battery\); mend that$"
    with pytest.raises(FederationError, match=message):
        play(lambda *_: "battery")
    with pytest.raises(FederationError, match=r"\(client \d: no images, or more than a round has\)"):
        play(lambda client, job: dataclasses.replace(plus_one(client, job), num_samples=0))
    with pytest.raises(FederationError, match=r"^training in round 0: 1 of 3 clients answered, 2 must"):
        play(lambda client, job: plus_one(client, job) if client == LAST else "battery", terms=Terms(0.5, None))


def test_the_others_go_on_where_enough_have_answered(play) -> None:
    results, _ = play(
        lambda client, job: "battery" if client == LAST else plus_one(client, job), terms=Terms(0.5, None)
    )
    assert len(results) == 4
    assert results[0].absent == {LAST: "battery"}


def test_weights_before_are_left_alone(play, state: ServerState) -> None:
    before = {name: tensor.clone() for name, tensor in state.supernet.weights.items()}
    play()
    assert all(torch.equal(state.supernet.weights[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["fedsup", "fedavgm"])
def test_run_continued_from_a_saved_state_is_one_that_was_never_interrupted(
    play, state: ServerState, name: str
) -> None:
    """Also of a strategy that keeps something between rounds."""
    space, layout = state.supernet.layout.space, state.supernet.layout
    strategy: Strategy = FedSup(space, 4, 3, 0.5, paper=False)
    if name == "fedavgm":
        strategy = FedAvgM(space, 4, "largest", momentum=0.5)
    start = ServerState(state.supernet, strategy.initial(layout))
    whole, asked = play(strategy=strategy, start=start)
    rest, later = play(strategy=strategy, start=whole[1].state, first_round=2)
    assert [list(jobs) for jobs in later] == [list(jobs) for jobs in asked[2:]]
    for jobs, before in zip(later, asked[2:], strict=True):
        for client, job in jobs.items():
            assert (job.learning_rate, job.seed) == (before[client].learning_rate, before[client].seed)
            assert job.weights.name == before[client].weights.name
    final = rest[-1].state.supernet.weights
    assert all(torch.equal(final[key], tensor) for key, tensor in whole[-1].state.supernet.weights.items())
    assert whole[-1].state.kept.keys() == (layout.shapes.keys() if name == "fedavgm" else set())


def test_finished_run_has_no_more_rounds(play) -> None:
    assert play(first_round=4) == ([], [])


def test_all_clients_take_part_when_the_cohort_is_everyone(play) -> None:
    results, _ = play(clients_per_round=8)
    assert all(result.sampled == tuple(range(8)) for result in results)


def test_caller_that_stops_early_gets_what_was_done(state: ServerState, scripted, federation_over) -> None:
    engine = scripted([ClientInfo(client, client + 1) for client in range(8)], plus_one)
    strategy = FedAvg(state.supernet.layout.space, 4, "largest")
    rounds = run_rounds(federation_over(engine), state, strategy, PARAMS)
    assert next(rounds).round_index == 0
    rounds.close()
    assert len(engine.asked) == 1


@pytest.mark.parametrize(("wanted", "eligible", "size"), [(None, 4, 4), (None, 25, 10), (3, 4, 3), (12, 25, 12)])
def test_where_nobody_says_how_many_train_it_is_ten_or_all(wanted: int | None, eligible: int, size: int) -> None:
    assert cohort_size(wanted, eligible) == size


@pytest.mark.parametrize(("wanted", "eligible"), [(5, 4), (None, 0)])
def test_a_round_has_no_more_clients_than_take_part(wanted: int | None, eligible: int) -> None:
    with pytest.raises(ConfigError, match=rf"training.clients_per_round: got (5|null), {eligible} can take part"):
        cohort_size(wanted, eligible)
