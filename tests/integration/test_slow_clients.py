"""Rounds whose clients are slow, late and absent, in simulated time: who is waited for, and what becomes of others."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from timed import Seconds, Timed, opening

from fedsup_deploy import registry, rng
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.errors import FederationError
from fedsup_deploy.events import read_events
from fedsup_deploy.federation.client import ClientId, ClientInfo
from fedsup_deploy.federation.jobs.statistics import CalibrationDraw, TakeStatistics
from fedsup_deploy.federation.jobs.train import ClientUpdate, LocalTraining, Train
from fedsup_deploy.federation.messages import Reply, num_bytes
from fedsup_deploy.federation.server.cohort import QuorumError, Terms
from fedsup_deploy.federation.server.federation import Federation
from fedsup_deploy.federation.server.late import MOST_ROUNDS_LATE, staleness_weight
from fedsup_deploy.federation.server.rounds import RoundParams, RoundResult, SkippedRound, run_rounds
from fedsup_deploy.federation.server.strategy import FedAvg, ServerState
from fedsup_deploy.runs.run import BEST, EVENTS, SUPERNET
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import Supernet, initial_weights

SPACE = SearchSpace.model_validate(
    {
        "schema": 1,
        "name": "tiny",
        "family": "mobilenet",
        "in_channels": 1,
        "num_classes": 3,
        "resolutions": [8],
        "stem": {"widths": [4]},
        "stages": [{"name": "s1", "widths": [4, 8], "depths": [1]}],
    }
)
PARAMS = RoundParams(
    rounds=3,
    clients_per_round=4,
    learning_rate=0.1,
    warmup_rounds=0,
    final_learning_rate=0.0,
    training=LocalTraining(1, 4, 0.0, 0.0, None, has_logit_adjustment=False),
    augmentation=Augmentation(),
)
NEVER = math.inf
#: Every client has so many images, so that in an average all count the same.
IMAGES = 10

Move = Callable[[ClientId, Train], float]


def moving(move: Move) -> Callable[[ClientId, Any], Reply[Any]]:
    """Return clients that add a number to all that they are sent."""

    def answer(client: ClientId, job: Train) -> Reply[ClientUpdate]:
        weights = {name: tensor + move(client, job) for name, tensor in job.weights.tensors.items()}
        return Reply(client, ClientUpdate(IMAGES, float(client), weights, num_macs=1))

    return answer


@dataclasses.dataclass
class Played:
    results: list[Any]
    engine: Timed
    absences: list[Mapping[ClientId, str]]
    start: ServerState
    pauses: list[float] = dataclasses.field(default_factory=list)

    def level(self, index: int) -> float:
        """Return by how much the weights lie above the initial ones after a round."""
        name = "head.bias"
        moved = self.results[index].state.supernet.weights[name] - self.start.supernet.weights[name]
        assert torch.allclose(moved, moved[0].expand_as(moved), atol=1e-6)
        return float(moved[0])


@pytest.fixture
def play() -> Callable[..., Played]:
    layout = Layout(SPACE, "batch")

    def play(
        seconds: Seconds,
        *,
        move: Move = lambda *_: 1.0,
        answer: Any = None,
        num_clients: int = 4,
        terms: Terms = Terms(0.0, 10.0),  # noqa: B008  a constant
        backwards: bool = False,
        **changes: Any,
    ) -> Played:
        infos = [ClientInfo(client, IMAGES) for client in range(num_clients)]
        engine = Timed(infos, answer or moving(move), seconds, backwards=backwards)
        absences: list[Mapping[ClientId, str]] = []
        federation = Federation(
            clients=engine,
            own={},
            preprocessing=Preprocessing((0.5,), (0.25,), 8, 8, 8),
            calibration=CalibrationDraw(8, 8),
            calibration_clients=None,
            terms=terms,
            seed=0,
            on_absences=lambda _what, _asked, absent, *_: absences.append(absent),
        )
        start = ServerState(Supernet(layout, initial_weights(layout, 0)))
        params = dataclasses.replace(PARAMS, **changes)
        played = Played([], engine, absences, start)
        strategy = FedAvg(SPACE, params.rounds, "largest")
        for result in run_rounds(federation, start, strategy, params, pause=played.pauses.append):
            played.results.append(result)
        return played

    return play


def slow(who: ClientId, seconds: float, exchange: int = 0) -> Seconds:
    """Return that one client is slow in one exchange, and all others take a second."""
    return lambda number, _job, client: seconds if (number, client) == (exchange, who) else 1.0


# --- one deadline


def test_a_round_ends_with_its_deadline_and_says_who_was_late(play) -> None:
    played = play(slow(2, 11.0), rounds=2)
    first, second = played.results
    assert (first.late, first.absent) == ((2,), {2: "no answer within 10 s"})
    assert (second.late, second.absent) == ((), {})
    assert played.engine.ended == [10.0, 11.0]
    assert played.level(0) == pytest.approx(1.0)


def test_without_a_deadline_the_slowest_is_waited_for_and_nobody_is_late(play) -> None:
    played = play(slow(2, 1e6), terms=Terms(0.0, None), rounds=1)
    assert played.results[0].late == ()
    assert played.engine.ended == [1e6]


# --- asking more than are wanted


def test_a_round_ends_when_as_many_have_answered_as_are_wanted(play) -> None:
    """Of six asked for four one takes 7 s and one for ever."""
    seconds = {4: 7.0, 5: NEVER}
    played = play(lambda _number, _job, client: seconds.get(client, 1.0), num_clients=6, oversample=0.5, rounds=2)
    for result in played.results:
        assert result.sampled == tuple(range(6))
        assert result.late == (4, 5)
        assert set(result.absent.values()) == {"no answer before enough others had come"}
    assert played.engine.ended == [1.0, 2.0]


def test_whoever_is_there_when_enough_have_answered_counts_too(play) -> None:
    """All six come at one moment: all count, in any order, and nobody is late."""
    outcomes = [
        play(
            lambda *_: 1.0,
            num_clients=6,
            oversample=0.5,
            rounds=1,
            move=lambda client, _: 0.1 * client,
            backwards=backwards,
        )
        for backwards in (False, True)
    ]
    weights = [played.results[0].state.supernet.weights for played in outcomes]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert outcomes[0].results[0].late == ()
    assert outcomes[0].level(0) == pytest.approx(0.1 * sum(range(6)) / 6)


def test_those_asked_beyond_make_no_higher_quorum_and_help_to_reach_it(play) -> None:
    """Four of four must answer; of six that are asked two never do."""
    seconds = {0: NEVER, 5: NEVER}
    played = play(
        lambda _number, _job, client: seconds.get(client, 1.0),
        num_clients=6,
        oversample=0.5,
        rounds=1,
        terms=Terms(1.0, 10.0),
    )
    assert played.results[0].late == (0, 5)
    with pytest.raises(QuorumError, match=r"3 of 6 clients answered, 4 must \(client 0: no answer within 10 s\)"):
        play(
            lambda _number, _job, client: NEVER if client < 3 else 1.0,
            num_clients=6,
            oversample=0.5,
            rounds=1,
            terms=Terms(1.0, 10.0),
        )


def test_the_clients_that_are_wanted_are_the_same_with_and_without_others(play) -> None:
    alone, beside = (play(lambda *_: 1.0, num_clients=12, oversample=share, rounds=3) for share in (0.0, 0.3))
    for few, more in zip(alone.results, beside.results, strict=True):
        assert set(few.sampled) < set(more.sampled)
        assert len(more.sampled) == 4 + 2
    everyone = play(lambda *_: 1.0, num_clients=5, oversample=10.0, rounds=1)
    assert everyone.results[0].sampled == tuple(range(5))


# --- late updates


def test_a_late_update_is_discarded_unless_it_is_accepted(play) -> None:
    """It comes in round 1, half a second after that has begun."""
    played = play(slow(2, 10.5), move=lambda client, _: 5.0 if client == 2 else 1.0, rounds=2)
    assert played.level(0) == pytest.approx(1.0)
    assert played.level(1) == pytest.approx(1.0 + (3 * 1.0 + 5.0) / 4)
    assert played.results[1].joined == {}


def test_an_accepted_late_update_joins_the_next_average_with_its_weight(play) -> None:
    """Client 2 is asked in round 0 and answers in round 1, in which it never answers anew: (1 + 1)^-0.5 of its move."""

    def seconds(number: int, _job: Train, client: ClientId) -> float:
        return {(0, 2): 10.5, (1, 2): NEVER}.get((number, client), 1.0)

    def move(client: ClientId, _job: Train) -> float:
        return 5.0 if client == 2 else 1.0

    played = play(seconds, move=move, rounds=3, accepts_late=True)
    assert (played.results[0].late, played.results[1].late) == ((2,), (2,))
    assert [result.joined for result in played.results] == [{}, {2: 1}, {}]
    assert played.level(0) == pytest.approx(1.0)
    assert played.level(1) - played.level(0) == pytest.approx((3 * 1.0 + 5.0 / math.sqrt(2)) / 4, abs=1e-5)
    assert played.results[1].client_macs == 4
    size = num_bytes(played.start.supernet.weights)
    assert [result.bytes_up for result in played.results] == [3 * size, 4 * size, 4 * size]
    stated = play(seconds, move=move, rounds=3, accepts_late=True, late_weight=0.25)
    assert stated.level(1) - stated.level(0) == pytest.approx((3 * 1.0 + 0.25 * 5.0) / 4, abs=1e-5)


def test_who_has_answered_in_time_since_does_not_count_twice(play) -> None:
    played = play(slow(2, 10.5), rounds=2, accepts_late=True)
    assert played.results[1].refused == {2: "has answered in time since"}
    assert played.level(1) == pytest.approx(2.0)


def test_of_one_client_the_last_late_update_counts(play) -> None:
    """Asked in rounds 0 and 1, it answers both in round 2, in the order opposite to that of asking."""

    def seconds(number: int, _job: Train, client: ClientId) -> float:
        return {(0, 2): 20.5, (1, 2): 10.2, (2, 2): NEVER}.get((number, client), 1.0)

    def move(client: ClientId, job: Train) -> float:
        return 0.0 if client != 2 else (5.0 if job.learning_rate == rates[0] else 9.0)

    rates = [job[0].learning_rate for job in play(lambda *_: 1.0, rounds=3).engine.asked]
    played = play(seconds, move=move, rounds=3, accepts_late=True)
    assert played.results[2].joined == {2: 1}
    assert played.level(2) == pytest.approx(9.0 / math.sqrt(2) / 4, abs=1e-5)


@pytest.mark.parametrize("rounds_late", [MOST_ROUNDS_LATE, MOST_ROUNDS_LATE + 1])
def test_after_some_rounds_nobody_waits_for_a_late_update(play, rounds_late: int) -> None:
    def seconds(number: int, _job: Train, client: ClientId) -> float:
        late_s = 10.0 * rounds_late + 0.5
        return (late_s if number == 0 else NEVER) if client == 2 else 1.0

    def move(client: ClientId, _job: Train) -> float:
        return 1.0 if client == 2 else 0.0

    played = play(seconds, move=move, rounds=7, accepts_late=True)
    is_heard = rounds_late == MOST_ROUNDS_LATE
    assert played.results[rounds_late].joined == ({2: rounds_late} if is_heard else {})
    assert played.level(6) == pytest.approx(staleness_weight(rounds_late) / 4 if is_heard else 0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_samples": IMAGES + 1}, "more images than it has announced"),
        ({"num_samples": 0}, "no images, or more than a round has"),
        ({"loss": math.nan}, "loss is not finite"),
        ({"weights": {}}, "other tensors than it was sent"),
    ],
)
def test_a_late_update_is_checked_as_any_other(play, changes: dict[str, Any], reason: str) -> None:
    def answer(client: ClientId, job: Train) -> Reply[Any]:
        reply = moving(lambda *_: 1.0)(client, job)
        return Reply(client, dataclasses.replace(reply.value, **changes)) if client == 2 else reply

    def seconds(number: int, _job: Train, client: ClientId) -> float:
        return {(0, 2): 10.5, (1, 2): NEVER}.get((number, client), 1.0)

    played = play(seconds, answer=answer, rounds=2, accepts_late=True)
    assert played.results[1].refused == {2: reason}
    assert played.level(1) == pytest.approx(2.0)


@pytest.mark.parametrize("largest", [math.inf, math.nan, 65.0])
def test_late_weights_are_checked_as_any_other(play, largest: float) -> None:
    def seconds(number: int, _job: Train, client: ClientId) -> float:
        return {(0, 2): 10.5, (1, 2): NEVER}.get((number, client), 1.0)

    def move(client: ClientId, _job: Train) -> float:
        return largest if client == 2 else 1.0

    played = play(seconds, move=move, rounds=2, accepts_late=True)
    assert played.results[1].refused.keys() == {2}
    assert "tensor" in played.results[1].refused[2]
    assert played.level(1) == pytest.approx(2.0)


def test_whoever_failed_late_is_no_longer_expected(play) -> None:
    def answer(client: ClientId, job: Train) -> Reply[Any]:
        return Reply(client, None, "battery") if client == 2 else moving(lambda *_: 1.0)(client, job)

    played = play(slow(2, 10.5), answer=answer, rounds=2, accepts_late=True)
    assert (played.results[1].joined, played.results[1].refused) == ({}, {})


def test_many_late_updates_at_once_count_once_for_each_client(play) -> None:
    """In each of three rounds three of four are late, and all come at once in the fourth."""

    def seconds(number: int, _job: Train, client: ClientId) -> float:
        if client == 0 or number > 3:
            return 1.0
        return NEVER if number == 3 else 30.5 - 10.0 * number

    played = play(seconds, rounds=5, accepts_late=True)
    assert [len(result.late) for result in played.results] == [3, 3, 3, 3, 0]
    assert played.results[3].joined == {1: 1, 2: 1, 3: 1}


# --- rounds under the quorum


def nobody_in(*exchanges: int) -> Seconds:
    return lambda number, _job, _client: NEVER if number in exchanges else 1.0


def test_a_round_under_the_quorum_changes_nothing_and_the_next_goes_on(play) -> None:
    played = play(nobody_in(1), rounds=3, most_skipped=1)
    assert [type(result) for result in played.results] == [RoundResult, SkippedRound, RoundResult]
    assert [played.level(index) for index in range(3)] == pytest.approx([1.0, 1.0, 2.0])
    skipped = played.results[1]
    assert (skipped.round_index, skipped.late) == (1, (0, 1, 2, 3))
    assert skipped.reason.startswith("training in round 1: 0 of 4 clients answered, 1 must (client 0: no answer")
    assert played.absences == [], "the round's event says it"


def test_a_round_that_is_skipped_at_once_lasts_until_its_deadline(play) -> None:
    """Nobody is connected in round 1: that is known at once, and would be so in the next."""

    def answer(client: ClientId, job: Train) -> Reply[Any]:
        is_gone = job.seed == rng.derive(0, "client", 1, client)
        return Reply(client, None, "not connected") if is_gone else moving(lambda *_: 1.0)(client, job)

    played = play(lambda *_: 0.0, answer=answer, rounds=3, most_skipped=1)
    (pause,) = played.pauses
    assert 0 < pause == 10.0 - played.results[1].seconds
    assert play(lambda *_: 0.0, answer=answer, rounds=3, most_skipped=1, terms=Terms(0.0, None)).pauses == []
    assert play(lambda *_: 0.0).pauses == []
    assert play(lambda *_: 0.0, answer=answer, rounds=2, most_skipped=1).pauses == [], "no round comes after it"


def test_as_many_rounds_in_a_row_as_are_not_skipped_end_the_run(play) -> None:
    assert len(play(nobody_in(0, 1, 3, 4), rounds=6, most_skipped=2).results) == 6
    with pytest.raises(QuorumError, match=r"^training in round 3: 0 of 4 .*; so it was in 3 rounds in a row$"):
        play(nobody_in(1, 2, 3), rounds=6, most_skipped=2)
    with pytest.raises(QuorumError, match=r"^training in round 1: 0 of 4 .* raise federation.deadline_s$"):
        play(nobody_in(1), rounds=3, most_skipped=0)


def test_a_run_in_which_nobody_has_trained_does_not_come_to_its_end(play) -> None:
    with pytest.raises(QuorumError, match="so it was in 2 rounds in a row"):
        play(nobody_in(0, 1), rounds=2, most_skipped=9)


def test_late_updates_outlast_a_round_that_is_skipped(play) -> None:
    """Of round 0, they come in round 1, which is skipped, and count in round 2, two rounds late."""

    def seconds(number: int, _job: Train, client: ClientId) -> float:
        if number == 1 or (number, client) == (2, 3):
            return NEVER
        return 10.5 if (number, client) == (0, 3) else 1.0

    played = play(seconds, rounds=3, most_skipped=1, accepts_late=True)
    assert played.results[2].joined == {3: 2}


# --- the command

CONFIG = """
schema: 1
name: slow
space: digits
data: {dataset: digits, validation_fraction: 0.03}
partition: {kind: iid, num_clients: 12}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}]}
training: {rounds: 5, clients_per_round: 4, warmup_rounds: 1, batch_size: 128, checkpoint_every: 2, evaluate_every: 5}
engine: {name: timed, workers: 1}
federation: {deadline_s: 10}
calibration: {samples_per_client: 1, batch_size: 1, schedule: one-shot, clients: 4}
"""


@pytest.fixture
def train_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Train with clients that take as long as a test says."""

    def call(seconds: Seconds, *overrides: str, **options: Any) -> Any:
        path = tmp_path / "slow.yaml"
        path.write_text(CONFIG, encoding="utf-8")
        monkeypatch.setitem(registry.TABLES["engine"], "timed", "timed:opened")
        monkeypatch.setattr("timed.opened", opening(seconds), raising=False)
        monkeypatch.setattr("time.sleep", lambda _: None)
        return train(load_train_config(path, overrides), tmp_path / "run", **options)

    return call


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / EVENTS) if event["event"] == kind]


def round_of(job: Any, client: ClientId) -> int | None:
    """Return the number of the round that a job of training is of, by its seed; None of other jobs."""
    if not isinstance(job, Train):
        return None
    return next(index for index in range(9) if rng.derive(0, "client", index, client) == job.seed)


def test_the_log_and_the_summary_count_late_updates(train_with, tmp_path: Path) -> None:
    """The first of the cohort of round 0 comes in the middle of round 1; nobody else is late."""
    first: list[ClientId] = []

    def seconds(_number: int, job: Any, client: ClientId) -> float:
        if round_of(job, client) != 0:
            return 1.0
        first.append(client)
        return 10.5 if client == first[0] else 1.0

    summary = train_with(seconds, "federation.stale=accept", "federation.oversample=0.25", "federation.quorum=0.1")
    rounds = events_of(tmp_path / "run", "round")
    assert [len(event["clients"]) for event in rounds] == [5] * 5
    assert rounds[0]["late"] == [first[0]]
    assert not any("late" in event for event in rounds[1:])
    assert (summary.late, summary.skipped_rounds) == (1, None)
    told = {**rounds[1].get("late_joined", {}), **rounds[1].get("late_refused", {})}
    assert told.keys() <= {str(first[0])}
    assert summary.to_dict().keys() >= {"late"}


def test_a_run_without_late_clients_says_nothing_of_them(train_with, tmp_path: Path) -> None:
    summary = train_with(lambda *_: 1.0)
    assert not {"late", "late_joined", "skipped_rounds"} & summary.to_dict().keys()
    assert not any(key.startswith("late") for event in events_of(tmp_path / "run", "round") for key in event)


def test_skipped_rounds_are_events_and_an_ended_run_repeats_them(train_with, tmp_path: Path) -> None:
    """Round 1 is skipped; rounds 3 to 5 have nobody, which ends the run. Resumed, it trains from 3 on."""
    with pytest.raises(FederationError, match=r"in 3 rounds in a row; then go on after round 2 with --resume$"):
        train_with(
            lambda _number, job, client: NEVER if round_of(job, client) in {1, 3, 4, 5} else 1.0, "training.rounds=7"
        )
    skipped = events_of(tmp_path / "run", "round_skipped")
    assert [event["round"] for event in skipped] == [1, 3, 4]
    assert skipped[0]["notes"][0].endswith("; the round is skipped")
    assert len(skipped[0]["absent"]) == len(skipped[0]["late"]) == 4
    summary = train_with(lambda *_: 1.0, "training.rounds=7", resume=True)
    assert [event["round"] for event in events_of(tmp_path / "run", "round")] == [0, 2, 3, 4, 5, 6]
    assert (summary.rounds, summary.skipped_rounds, summary.late) == (6, 1, 4)
    assert (tmp_path / "run" / SUPERNET).exists()


def test_an_evaluation_under_the_quorum_is_skipped_unless_it_is_the_last(train_with, tmp_path: Path) -> None:
    statistics = 0

    def seconds(_number: int, job: Any, _client: ClientId) -> float:
        nonlocal statistics
        statistics += isinstance(job, TakeStatistics)
        return NEVER if isinstance(job, TakeStatistics) and statistics <= 4 else 1.0

    train_with(seconds, "training.evaluate_every=2")
    assert [event["round"] for event in events_of(tmp_path / "run", "evaluation_skipped")] == [1]
    assert [event["round"] for event in events_of(tmp_path / "run", "evaluation")] == [3, 4]


def test_absences_of_a_round_that_ended_the_run_are_forgotten_when_it_is_repeated(train_with, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"^training in round 1: 0 of 4"):
        train_with(lambda _n, job, client: NEVER if round_of(job, client) == 1 else 1.0, "federation.skipped_rounds=0")
    (told,) = events_of(tmp_path / "run", "absences")
    assert (told["what"], told["round"]) == ("training in round 1", 1)
    train_with(lambda *_: 1.0, "federation.skipped_rounds=0", resume=True)
    assert events_of(tmp_path / "run", "absences") == []


def test_a_run_whose_first_evaluation_was_skipped_can_be_resumed_to_its_best(train_with, tmp_path: Path) -> None:
    statistics = 0

    def seconds(_number: int, job: Any, _client: ClientId) -> float:
        nonlocal statistics
        statistics += isinstance(job, TakeStatistics)
        return NEVER if isinstance(job, TakeStatistics) and statistics <= 4 else 1.0

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 1:
            raise KeyboardInterrupt

    keep = ("training.keep=best", "training.evaluate_every=1", "training.checkpoint_every=1")
    with pytest.raises(KeyboardInterrupt):
        train_with(seconds, *keep, listeners=(stop,))
    assert events_of(tmp_path / "run", "evaluation_skipped")
    assert not (tmp_path / "run" / BEST).exists()
    assert train_with(lambda *_: 1.0, *keep, resume=True).kept_after is not None


def test_a_resumed_run_says_where_other_clients_count_from_there_on(train_with, tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_with(lambda *_: 1.0, listeners=(stop,))
    train_with(lambda *_: 1.0, "federation.oversample=0.5", "federation.quorum=0.1", resume=True)
    notes = events_of(tmp_path / "run", "train_started")[-1]["notes"]
    told = "federation.oversample is 0.5, the run was started with 0.0; it ends otherwise than if undisturbed"
    assert notes.count(told) == 1
    assert not any("quorum" in note for note in notes)


def test_a_resumed_run_says_whose_late_updates_of_a_skipped_round_are_lost(train_with, tmp_path: Path) -> None:
    def seconds(_number: int, job: Any, client: ClientId) -> float:
        return 500.0 if round_of(job, client) == 1 else 1.0

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_with(seconds, "federation.stale=accept", listeners=(stop,))
    (skipped,) = events_of(tmp_path / "run", "round_skipped")
    train_with(lambda *_: 1.0, "federation.stale=accept", resume=True)
    (note,) = (each for each in events_of(tmp_path / "run", "train_started")[-1]["notes"] if "are lost" in each)
    assert all(f"client {client}" in note for client in skipped["late"])


def test_a_resumed_run_says_whose_late_updates_are_lost(train_with, tmp_path: Path) -> None:
    """One client is late in round 1, and the run is stopped after it."""
    asked: list[ClientId] = []

    def seconds(_number: int, job: Any, client: ClientId) -> float:
        if round_of(job, client) != 1:
            return 1.0
        asked.append(client)
        return 500.0 if client == asked[0] else 1.0

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_with(seconds, "federation.stale=accept", listeners=(stop,))
    train_with(lambda *_: 1.0, "federation.stale=accept", resume=True)
    started = events_of(tmp_path / "run", "train_started")[-1]
    told = f"late updates that were under way when the run was stopped are lost: 1 (client {asked[0]})"
    assert told in started["notes"]
