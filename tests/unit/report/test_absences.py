"""When clients were absent, or refused."""

from collections.abc import Callable

from fedsup_deploy.report import absences
from fedsup_deploy.report.run_figures import MOST_POINTS, RunMaterial

MakeRun = Callable[..., RunMaterial]


def test_absent_clients_by_name_the_most_frequent_first_with_every_round(run_of: MakeRun) -> None:
    rounds = [([0, 1], {"1": "late"}), ([0, 1], {"1": "not finite", "0": "late"}), ([0], {})]
    found = absences.figure(run_of(rounds, num_clients=2, names=("anna", "bert")))
    assert found is not None
    assert found.table.rows == (("bert", "2 of 2", "not finite, in round 2"), ("anna", "1 of 3", "late, in round 2"))
    assert found.spec["data"]["values"] == [
        {"client": "bert", "round": 1, "why": "late"},
        {"client": "bert", "round": 2, "why": "not finite"},
        {"client": "anna", "round": 2, "why": "late"},
    ]
    assert absences.figure(run_of([([0], {})])) is None


def test_rare_reasons_share_a_colour_and_rare_absences_are_counted(run_of: MakeRun) -> None:
    reasons = ["late", "late", "lost", "lost", "refused", "refused", "odd"]
    found = absences.figure(run_of([([0], {"0": reason}) for reason in reasons]))
    assert found is not None
    assert {row["why"] for row in found.spec["data"]["values"]} == {"late", "lost", "refused", "another reason"}
    many = absences.figure(run_of([(list(range(13)), {str(client): "late" for client in range(13)})], num_clients=13))
    assert many is not None
    assert (len(many.table.rows), many.table.num_left_out) == (10, 3)
    assert "3 clients more" in many.says


def test_a_long_run_is_drawn_in_part(run_of: MakeRun) -> None:
    found = absences.figure(run_of([([0], {"0": "late"})] * (3 * MOST_POINTS)))
    assert found is not None
    assert len(found.spec["data"]["values"]) == MOST_POINTS
    assert found.table.rows[0][1] == f"{3 * MOST_POINTS} of {3 * MOST_POINTS}"
