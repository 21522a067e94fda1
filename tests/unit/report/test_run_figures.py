"""Figures of a run: what is counted, and that long runs stay small."""

import dataclasses
from collections.abc import Callable
from typing import Any

from fedsup_deploy.report import absences, progress
from fedsup_deploy.report.figure import MOST_ROWS
from fedsup_deploy.report.run_figures import (
    MOST_CLIENTS,
    MOST_POINTS,
    RunMaterial,
    figures,
    turns_of,
    warnings,
)
from fedsup_deploy.run_events import HealthWarning

MakeRun = Callable[..., RunMaterial]


def by_name(material: RunMaterial) -> dict[str, Any]:
    return {figure.name: figure for figure in figures(material)}


def values(figure: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = figure.spec["data"]["values"]
    return found


def test_a_curve_has_a_point_for_each_round_counted_from_1(run_of: MakeRun) -> None:
    figure = by_name(run_of([([0, 1], {}), ([2], {})]))["loss"]
    assert [(point["round"], point["value"]) for point in values(figure)] == [(1, 0.0), (2, 1.0)]
    assert figure.table.rows == (("1", "0"), ("2", "1")), "no column of what nobody has said"


def test_the_loss_that_a_round_began_with_is_a_line_of_its_own(run_of: MakeRun) -> None:
    material = run_of([([0, 1], {}), ([2], {})])
    first, second = material.history.rounds
    began = (first, second.model_copy(update={"loss_before": 2.5}))
    figure = by_name(dataclasses.replace(material, history=dataclasses.replace(material.history, rounds=began)))["loss"]
    assert [(point["what"], point["value"]) for point in values(figure)] == [
        ("while they trained", 0.0),
        ("while they trained", 1.0),
        ("with what they were sent", 2.5),
    ]
    assert figure.table.rows[1] == ("2", "1", "2.5")


def test_what_training_has_warned_of_is_told_with_its_round(run_of: MakeRun) -> None:
    material = run_of([([0], {})])
    assert warnings(material) is None
    warned = dataclasses.replace(
        material.history,
        health=(HealthWarning(round=4, kind="tier-starved", subject="1", words="tier 1: starved", figures={}),),
    )
    found = warnings(dataclasses.replace(material, history=warned))
    assert found is not None
    assert found.rows == (("5", "tier 1: starved"),)


def test_who_took_part_is_drawn_where_it_changes(run_of: MakeRun) -> None:
    assert "participation" not in by_name(run_of([([0, 1], {}), ([1, 2], {})]))
    assert "participation" in by_name(run_of([([0, 1], {}), ([1, 2], {"1": "late"})]))


def test_equal_bytes_are_one_line_and_a_jump_is_explained(run_of: MakeRun) -> None:
    """By the config: all clients train the smallest subnet in the first 30 % of the rounds."""
    plain = run_of([([0], {})] * 10)
    training = plain.run.config.training.model_copy(update={"rounds": 10})
    run = dataclasses.replace(plain.run, config=plain.run.config.model_copy(update={"training": training}))
    plain = dataclasses.replace(plain, run=run)
    figure = by_name(plain)["bytes"]
    assert {each["what"] for each in values(figure)} == {"to clients", "from clients"}
    assert "To round 3 all clients train the smallest subnet only; from round 4 on all sizes travel." in figure.says
    rounds = tuple(each.model_copy(update={"bytes_up": each.bytes_down}) for each in plain.history.rounds)
    same = dataclasses.replace(plain, history=dataclasses.replace(plain.history, rounds=rounds))
    assert len({each["what"] for each in values(by_name(same)["bytes"])}) == 1
    strategy = run.config.strategy.model_copy(update={"smallest_first": 0.0})
    other = dataclasses.replace(run, config=run.config.model_copy(update={"strategy": strategy}))
    assert "smallest" not in by_name(dataclasses.replace(plain, run=other))["bytes"].says


def test_sizes_beside_each_other_say_whether_that_is_good(run_of: MakeRun) -> None:
    """Whoever reads that they cannot be told apart has to know whether something is wrong."""
    material = run_of([([0], {})] * 3)
    [last] = material.history.evaluations
    told = {}
    for largest, smallest in ((0.5, 0.5), (0.5, 0.25), (0.25, 0.5)):
        kept = last.model_copy(update={"accuracy_largest": largest, "accuracy_smallest": smallest})
        history = dataclasses.replace(material.history, evaluations=(kept,))
        told[largest, smallest] = progress.sizes(dataclasses.replace(material, history=history)) or ""
    assert told[0.5, 0.5].endswith(
        "cannot be told apart, which is good for small devices: they lose nothing that these images can tell: "
        "50.0 % (40.4 to 59.6) and 50.0 % (40.4 to 59.6)"
    )
    assert "as they should be where size counts" in told[0.5, 0.25]
    assert "the wrong way round: the largest is worse" in told[0.25, 0.5]


def test_what_a_client_moves_is_told_with_the_weights_of_both_sizes(run_of: MakeRun) -> None:
    """Of all that it is asked for: two clients are sent a MiB together, and one of them answers with half of one."""
    material = run_of([([0, 1], {"1": "late"})])
    of_one, together = progress.traffic(material)
    assert of_one.startswith("each time it is asked it is sent 512 KiB in the mean and sends as much; the weights of ")
    assert "the smallest subnet are" in of_one
    assert together == "all clients together: 1 MiB to them and 512 KiB from them"
    nobody = dataclasses.replace(material.history, rounds=())
    assert list(progress.traffic(dataclasses.replace(material, history=nobody))) == []


def test_the_line_of_bytes_is_one_way_and_its_title_says_so(run_of: MakeRun) -> None:
    """Who adds it up gets what goes to clients, not all there is."""
    plain = run_of([([0, 1], {})])
    rounds = tuple(each.model_copy(update={"bytes_up": each.bytes_down}) for each in plain.history.rounds)
    figure = by_name(dataclasses.replace(plain, history=dataclasses.replace(plain.history, rounds=rounds)))["bytes"]
    assert figure.spec["encoding"]["y"]["title"] == "MiB per round, one way"
    assert figure.says.startswith("The line is one way: as much comes from clients as goes to them.")
    assert "in all 1 MiB to them, 1 MiB from them" in figure.says
    assert figure.table.rows == (("1", "1 MiB", "1 MiB", "512 KiB"),)


def test_a_long_run_is_drawn_by_means_and_says_so(run_of: MakeRun) -> None:
    figure = by_name(run_of([([0], {})] * (2 * MOST_POINTS + 1)))["loss"]
    points = values(figure)
    assert len(points) <= MOST_POINTS
    assert points[0] == {"round": 3, "value": 1.0, "what": "while they trained"}
    assert points[-1]["round"] == 2 * MOST_POINTS + 1
    assert "mean of 3 rounds" in figure.says
    assert len(figure.table.rows) == MOST_ROWS
    assert figure.table.num_left_out == 2 * MOST_POINTS + 1 - MOST_ROWS


def test_accuracies_have_their_intervals(run_of: MakeRun) -> None:
    figure = by_name(run_of([([0], {})]))["accuracy"]
    assert [(each["what"], each["low"], each["high"]) for each in values(figure)] == [
        ("largest subnet", 0.403832, 0.596168),
        ("smallest subnet", 0.175452, 0.343045),
    ]


def test_whoever_never_took_part_is_counted_and_unseen_clients_are_not(run_of: MakeRun) -> None:
    material = run_of([([0, 1, 5], {"5": "late"}), ([0], {})], num_clients=6, unseen=("3",))
    assert turns_of(material) == {0: 2, 1: 1, 2: 0, 4: 0, 5: 0}
    assert [(each["times"], each["clients"]) for each in values(by_name(material)["clients"])] == [
        ("0", 3),
        ("1", 1),
        ("2", 1),
    ]


def test_many_turns_share_bars(run_of: MakeRun) -> None:
    bars = values(by_name(run_of([([0], {})] * 99, num_clients=2))["clients"])
    assert bars[0] == {"times": "0 to 4", "clients": 1}
    assert bars[-1] == {"times": "95 to 99", "clients": 1}
    assert len(bars) <= 24


def test_tiers_are_equal_runs_of_the_clients_that_are_seen(run_of: MakeRun) -> None:
    """Four tiers, as in the config; client 0 takes no part, so 1 and 2 are the first of them."""
    material = run_of([([1, 2, 3, 8], {}), ([1], {})], num_clients=9, unseen=("0",))
    figure = by_name(material)["tiers"]
    assert [(each["clients"], each["updates"]) for each in values(figure)] == [(2, 3), (2, 1), (2, 0), (2, 1)]
    assert [row[3] for row in figure.table.rows] == [
        "the smallest subnet",
        "the largest subnet",
        "a random subnet of any size",
        "a random subnet of any size",
    ]
    assert figure.says.endswith(
        "Tier 0: the smallest subnet; Tier 1: the largest subnet; Tiers 2 and 3: a random subnet of any size."
    )


def test_devices_have_names_and_tiers_of_their_own(run_of: MakeRun) -> None:
    """Which tier one is of it has announced; the run does not know it, so nothing is drawn."""
    material = run_of([([0, 1], {"1": "late"})], num_clients=2)
    first = material.history.rounds[0].model_copy(update={"absent_names": {"1": "cam-2"}})
    engine = material.run.config.engine.model_copy(update={"superlink": "127.0.0.1:9093"})
    run = dataclasses.replace(material.run, config=material.run.config.model_copy(update={"engine": engine}))
    devices = dataclasses.replace(material, run=run, history=dataclasses.replace(material.history, rounds=(first,)))
    found = absences.figure(devices)
    assert found is not None
    assert found.table.rows == (("cam-2", "1 of 1", "late, in round 1"),)
    assert "tiers" in by_name(material)
    assert "tiers" not in by_name(devices)


def test_a_number_of_clients_that_nobody_has_is_told_and_not_listed(run_of: MakeRun) -> None:
    """Whoever wrote it; else a page would take all of the memory."""
    for number in (MOST_CLIENTS + 1, 10**15):
        material = run_of([([0, 1], {})], num_clients=number)
        assert material.seen == ()
        assert "that did" in by_name(material)["clients"].says
        assert "tiers" not in by_name(material)


def test_of_the_best_supernet_its_own_evaluation_counts(run_of: MakeRun) -> None:
    material = run_of([([0], {})] * 3)
    last = material.history.evaluations[0]
    better = last.model_copy(update={"round": 0, "accuracy_largest": 0.75})
    both = dataclasses.replace(material, history=dataclasses.replace(material.history, evaluations=(better, last)))
    assert both.kept == last
    assert dataclasses.replace(both, kept_after=1).kept == better
    assert dataclasses.replace(both, kept_after=2).kept is None
