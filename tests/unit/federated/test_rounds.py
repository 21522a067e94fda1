"""The round loop with engines that record what they are asked and answer what they are told."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from fedsup_deploy.errors import FederationError
from fedsup_deploy.federated.assignment import Tier
from fedsup_deploy.federated.rounds import RoundParams, RoundResult, num_bytes, run_rounds
from fedsup_deploy.federated.schedule import learning_rate
from fedsup_deploy.federated.strategy import EFedSup, FedAvg, FedSup
from fedsup_deploy.federated.tasks import ClientFailure, ClientUpdate, TrainTask
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights

PARAMS = RoundParams(rounds=4, clients_per_round=3, learning_rate=0.1, warmup_rounds=1, final_learning_rate=0.01)
Answer = Callable[[TrainTask], ClientUpdate | ClientFailure]


class RecordingEngine:
    """Keeps the tasks and gives each to a function."""

    def __init__(self, answer: Answer) -> None:
        self.tasks: list[TrainTask] = []
        self._answer = answer

    def run(self, tasks: Iterable[TrainTask]) -> Iterator[ClientUpdate | ClientFailure]:
        for task in tasks:
            self.tasks.append(task)
            yield self._answer(task)

    def close(self) -> None:
        """Nothing to release."""


def plus_one(task: TrainTask) -> ClientUpdate:
    """Pretend that training adds 1 to every weight; client k has k + 1 images and loss k."""
    weights = {name: tensor + 1 for name, tensor in task.weights.items()}
    return ClientUpdate(task.client, task.client + 1, float(task.client), weights)


@pytest.fixture
def supernet(tiny_space: SearchSpace) -> Supernet:
    layout = Layout(tiny_space, "batch")
    return Supernet(layout, initial_weights(layout, 0))


def play(supernet: Supernet, answer: Answer = plus_one, **changes) -> tuple[list[RoundResult], list[TrainTask]]:
    engine = RecordingEngine(answer)
    params = dataclasses.replace(PARAMS, **{k: v for k, v in changes.items() if k != "first_round"})
    strategy = FedSup(supernet.layout.space, 8, 4, 3, 0.0, paper=False)
    results = list(run_rounds(supernet, strategy, engine, params, 0, changes.get("first_round", 0)))
    return results, engine.tasks


def test_every_round_has_its_cohort_and_its_rate(supernet: Supernet) -> None:
    results, tasks = play(supernet)
    assert [result.round_index for result in results] == [0, 1, 2, 3]
    for result in results:
        assert len(set(result.sampled)) == 3
        assert list(result.sampled) == sorted(result.sampled)
        assert set(result.sampled) <= set(range(8))
        own = [task for task in tasks if task.round_index == result.round_index]
        assert [task.client for task in own] == list(result.sampled)
        assert {task.learning_rate for task in own} == {result.learning_rate}
    assert len({result.sampled for result in results}) > 1


def test_only_clients_of_the_strategy_are_sampled(supernet: Supernet) -> None:
    engine = RecordingEngine(plus_one)
    strategy = FedAvg(supernet.layout.space, 8, 4, "largest", [(1, 2), (5, 6)])
    results = list(run_rounds(supernet, strategy, engine, PARAMS, 0))
    assert {client for result in results for client in result.sampled} == {1, 2, 5, 6}
    assert all(len(set(result.sampled)) == 3 for result in results)


def test_the_schedule_reaches_the_clients(supernet: Supernet) -> None:
    """Half of 0.1, then cosines of 0, 60 and 120 degrees between 0.1 and 0.01."""
    _, tasks = play(supernet)
    expected = [0.05, 0.1, 0.01 + 0.09 * 0.75, 0.01 + 0.09 * 0.25]
    assert [task.learning_rate for task in tasks[::3]] == pytest.approx(expected, rel=1e-12)
    assert tasks[0].learning_rate == learning_rate(0, 4, 1, 0.1, 0.01)


def test_weights_of_a_round_are_those_the_next_one_sends(supernet: Supernet) -> None:
    results, tasks = play(supernet)
    for index, result in enumerate(results):
        for name, tensor in result.supernet.weights.items():
            assert torch.allclose(tensor, supernet.weights[name] + index + 1, atol=1e-5), name
    sent = [task for task in tasks if task.round_index == 2]
    assert all(torch.equal(sent[0].weights[name], results[1].supernet.weights[name]) for name in sent[0].weights)


def test_loss_is_weighted_by_images(supernet: Supernet) -> None:
    (result, *_), _ = play(supernet)
    expected = sum(k * (k + 1) for k in result.sampled) / sum(k + 1 for k in result.sampled)
    assert result.loss == pytest.approx(expected)


def test_bytes_are_those_of_the_tensors_that_travel(supernet: Supernet, tiny_space: SearchSpace) -> None:
    """With E-FedSup the smallest subnet's tensors, 4 bytes a number, down to 2 clients and up again."""
    engine = RecordingEngine(plus_one)
    params = dataclasses.replace(PARAMS, rounds=1, clients_per_round=2)
    strategy = EFedSup(tiny_space, 2, 4, (Tier("smallest"),), 0.0, paper=False)
    (result,) = run_rounds(supernet, strategy, engine, params, 0)
    smallest = supernet.extract(tiny_space.smallest).weights
    expected = 2 * 4 * sum(tensor.numel() for tensor in smallest.values())
    assert (result.bytes_down, result.bytes_up) == (expected, expected)
    assert num_bytes(engine.tasks[0].weights) == expected // 2
    assert engine.tasks[0].weights.keys() == smallest.keys()
    assert all(torch.equal(engine.tasks[0].weights[name], tensor) for name, tensor in smallest.items())


def test_failed_and_rejected_clients_are_reported_and_do_not_count(supernet: Supernet) -> None:
    def answer(task: TrainTask) -> ClientUpdate | ClientFailure:
        update = plus_one(task)
        if task.client == sampled[0]:
            return ClientFailure(task.client, "battery")
        if task.client == sampled[1]:
            return dataclasses.replace(update, weights={**update.weights, "head.bias": torch.full((3,), torch.inf)})
        return update

    sampled = play(supernet, rounds=1)[0][0].sampled
    (result,), _ = play(supernet, answer, rounds=1)
    assert result.sampled == sampled
    assert result.failed == {sampled[0]: "battery"}
    assert result.rejected == {sampled[1]: "tensor head.bias is not finite"}
    assert result.loss == sampled[2]
    assert result.bytes_down == 3 * num_bytes(supernet.weights)
    assert result.bytes_up == 2 * num_bytes(supernet.weights)
    assert torch.allclose(result.supernet.weights["head.bias"], supernet.weights["head.bias"] + 1)


def test_round_without_a_usable_update_is_an_error_that_says_why(supernet: Supernet) -> None:
    message = r"^round 0: none of 3 clients returned a usable update \(client \d: battery\); lower training"
    with pytest.raises(FederationError, match=message):
        play(supernet, lambda task: ClientFailure(task.client, "battery"))
    with pytest.raises(FederationError, match=r"\(client \d: 0 samples\)"):
        play(supernet, lambda task: dataclasses.replace(plus_one(task), num_samples=0))


def test_weights_before_are_left_alone(supernet: Supernet) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.weights.items()}
    play(supernet)
    assert all(torch.equal(supernet.weights[name], tensor) for name, tensor in before.items())


def test_run_continued_from_saved_weights_is_one_that_was_never_interrupted(supernet: Supernet) -> None:
    whole, tasks = play(supernet)
    rest, later = play(whole[1].supernet, first_round=2)
    assert [(task.client, task.round_index, task.learning_rate) for task in later] == [
        (task.client, task.round_index, task.learning_rate) for task in tasks[6:]
    ]
    final = rest[-1].supernet.weights
    assert all(torch.equal(final[name], tensor) for name, tensor in whole[-1].supernet.weights.items())


def test_finished_run_has_no_more_rounds(supernet: Supernet) -> None:
    assert play(supernet, first_round=4) == ([], [])


def test_all_clients_take_part_when_the_cohort_is_everyone(supernet: Supernet) -> None:
    results, _ = play(supernet, clients_per_round=8)
    assert all(result.sampled == tuple(range(8)) for result in results)


def test_caller_that_stops_early_gets_what_was_done(supernet: Supernet, tiny_space: SearchSpace) -> None:
    engine = RecordingEngine(plus_one)
    rounds = run_rounds(supernet, FedAvg(tiny_space, 8, 4, "largest"), engine, PARAMS, 0)
    assert next(rounds).round_index == 0
    rounds.close()
    assert {task.round_index for task in engine.tasks} == {0}
