"""What is kept of a search, what a fleet of it says, and what makes search.json hold together."""

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import files
from fedsup_deploy.device.held_latency import HeldLatency
from fedsup_deploy.errors import ArtifactError, ConfigError
from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers.methods.choice import open_search
from fedsup_deploy.searchers.noise import AccuracyNoise
from fedsup_deploy.searchers.objective import front
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import pose
from fedsup_deploy.searchers.recording import ACCURATE, CHEAPER, check_fleet, record
from fedsup_deploy.searchers.result import SCHEMA, AccuracyModel, NamedHash, SearchedRun, SearchResult, load_result
from fedsup_deploy.searchers.scoring.known import KnownAccuracy
from fedsup_deploy.searchers.scoring.predictor import fit
from fedsup_deploy.searchers.scoring.score import Scores
from fedsup_deploy.searchers.searcher import Outcome, run_searches
from fedsup_deploy.space.sampling import random_genes, row_keys
from fedsup_deploy.space.search_space import SearchSpace

MakeTarget = Callable[..., Target]
CAMERA, PHONE, LAPTOP = "raspberry-pi-4", "jetson-nano", "x86-laptop"


class BySum:
    """Predicts 1/100 for each gene that is not 0."""

    def predict(self, genes_NG: Any) -> Any:
        return np.count_nonzero(genes_NG, axis=1) / 100


def outcomes_of(
    space: SearchSpace, targets: Sequence[Target], predictor: Any = None, method: str = "exact", **options: Any
) -> list[Outcome]:
    """Search with the accuracies of `BySum`, or with a predictor, and what was measured of `measured_KG`."""
    measured_KG = options.get("measured_KG", np.empty((0, len(space.num_choices)), np.int64))
    known = None if predictor is None else KnownAccuracy(predictor, measured_KG, Scores(measured(measured_KG)))
    problems = pose(make_pool(space, seed=0), targets, EventLog(), known)
    searches = [open_search(problem, method, options.get("evaluations"), 0) for problem in problems]
    worst = options.get("worst_decile", lambda _: None)
    if known is not None:
        return run_searches(searches, lambda genes_KG, _: known.scores(genes_KG))
    return run_searches(searches, lambda genes_KG, _: Scores(BySum().predict(genes_KG), worst(genes_KG)))


def sampled(outcome: Outcome, num_images: int = 100) -> Outcome:
    """The same outcome, of which it is known on how many images it was measured."""
    images_K = np.where(outcome.scores.is_measured(), num_images, 0)
    return dataclasses.replace(outcome, scores=dataclasses.replace(outcome.scores, num_images_K=images_K))


def measured(genes_NG: Any) -> Any:
    """Accuracies far below what `BySum` predicts."""
    return BySum().predict(genes_NG) / 10


def result_of(
    outcomes: Sequence[Outcome],
    max_artifacts: int | None = None,
    noise: AccuracyNoise | None = None,
    prefer: Any = ACCURATE,
    **fields: Any,
) -> SearchResult:
    results, fleet = record(outcomes, max_artifacts, noise, prefer)
    hashed = NamedHash(name="made-up", hash="0" * 64)
    run = SearchedRun(name="made-up", hash="0" * 64)
    document = {"run": run, "space": hashed, "seed": 0, "results": results, "fleet": fleet, "seconds": 1.5}
    return SearchResult(schema=SCHEMA, **{**document, **fields})


@pytest.fixture(scope="module")
def fleet_outcomes(digits_space: SearchSpace, make_target: MakeTarget) -> list[Outcome]:
    """Three devices; what fits a smaller one fits the larger."""
    limits = {CAMERA: 300_000, PHONE: 500_000, LAPTOP: 900_000}
    return outcomes_of(digits_space, [make_target(name, macs=macs) for name, macs in limits.items()])


@pytest.fixture
def document(fleet_outcomes: list[Outcome]) -> dict[str, Any]:
    """search.json of these, with two architectures allowed."""
    return result_of(fleet_outcomes, 2).to_dict()


# What is kept


def test_what_was_measured_is_all_kept(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    (outcome,) = outcomes_of(digits_space, [make_target()], method="random", evaluations=30)
    ((result,), fleet) = record([outcome])
    expected = [digits_space.decode(genes).arch_id for genes in outcome.genes_KG]
    assert [candidate.arch_id for candidate in result.candidates] == expected
    assert all(each.accuracy is not None and each.accuracy_predicted is None for each in result.candidates)
    assert fleet is None


def test_of_predicted_accuracies_only_the_front_is_kept(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    """128 were predicted; what is on the front and what is picked is the same as with all of them."""
    (predicted,) = outcomes_of(digits_space, [make_target()], BySum())
    (measured,) = outcomes_of(digits_space, [make_target()])
    ((result,), _), ((whole,), _) = record([predicted]), record([measured])
    assert result.num_evaluated == whole.num_evaluated == 128
    assert (result.front, result.pick) == (whole.front, whole.pick)
    assert {candidate.arch_id for candidate in result.candidates} == set(result.front)
    assert len(result.front) < 20
    assert all(each.accuracy is None and each.accuracy_predicted is not None for each in result.candidates)
    assert result.picked.best_known_accuracy == whole.picked.accuracy


def test_a_pick_that_is_not_on_the_front_is_kept(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    """Devices on which all is equally fast: of equals the first by name, while the front holds all of them."""
    target = make_target(predict=lambda macs_N, _: np.ones(len(macs_N)))
    (outcome,) = outcomes_of(digits_space, [target], BySum())
    ((result,), _) = record([outcome])
    assert result.pick == min(result.front)
    assert result.picked.accuracy_predicted == max(BySum().predict(digits_space.enumerate_genes()))


def test_what_a_fleet_assigns_is_kept_as_well(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    """The camera's best is not on the front of a phone on which whatever is larger is faster."""
    targets = [make_target(CAMERA, macs=300_000), make_target(PHONE, predict=lambda macs_N, _: 1e9 / macs_N)]
    outcomes = outcomes_of(digits_space, targets, BySum())
    alone, (together, fleet) = record(outcomes)[0], record(outcomes, 1)
    assert fleet is not None
    for before, after in zip(alone, together, strict=True):
        kept, assigned = ({each.arch_id for each in result.candidates} for result in (before, after))
        names = {option.assigned[after.profile.name] for option in fleet.options}
        assert assigned == kept | names
        assert (before.front, before.pick) == (after.front, after.pick)
    assert any(len(after.candidates) > len(before.candidates) for before, after in zip(alone, together, strict=True))


def test_worst_deciles_are_recorded_and_part_of_the_front(digits_space: SearchSpace, make_target: MakeTarget) -> None:
    (outcome,) = outcomes_of(digits_space, [make_target()], worst_decile=lambda genes_KG: genes_KG[:, 1] / 2)
    ((result,), _) = record([outcome])
    values = outcome.scores.worst_decile_K
    assert values is not None
    assert [candidate.worst_decile for candidate in result.candidates] == values.tolist()
    latency_ms_K = np.array([candidate.latency_ms_predicted for candidate in result.candidates])
    objectives_KM = np.stack([latency_ms_K, -outcome.scores.accuracy_K, -values], axis=1)
    assert result.front == tuple(result.candidates[index].arch_id for index in front(objectives_KM))
    assert len(result.front) > len(front(objectives_KM[:, :2]))


# What is certified, and relative to what


@pytest.mark.parametrize(
    ("method", "evaluations", "is_predicted", "expected"),
    [
        ("exact", None, False, "the accuracy measured on held-out images and the profile's latency model"),
        ("exact", None, True, "the accuracy predictor and the profile's latency model"),
        ("evolution", 128, False, "the accuracy measured on held-out images and the profile's latency model"),
        ("random", 127, False, None),
        ("evolution", 127, True, None),
    ],
)
def test_what_is_certified_says_relative_to_what(
    digits_space: SearchSpace,
    make_target: MakeTarget,
    method: str,
    evaluations: int | None,
    is_predicted: bool,
    expected: str | None,
) -> None:
    """Whatever the method: all that fits was evaluated, or it was not."""
    predictor = BySum() if is_predicted else None
    outcomes = outcomes_of(digits_space, [make_target()], predictor, method, evaluations=evaluations)
    ((result,), _) = record(outcomes)
    assert (result.certified, result.certified_relative_to) == (expected is not None, expected)


def test_a_front_found_stage_by_stage_is_certified_though_little_was_predicted(
    huge_space: SearchSpace, make_target: MakeTarget
) -> None:
    genes_TG = random_genes(huge_space, np.random.default_rng(0), 40)
    predictor = fit(huge_space, genes_TG, 0.5 + genes_TG.sum(axis=1) / 200, "ridge", 0)
    target = make_target(macs=1_500_000)
    (predicted,) = outcomes_of(huge_space, [target], predictor)
    ((result,), _) = record([predicted])
    assert result.certified
    assert result.certified_relative_to == "the accuracy predictor and the profile's latency model"
    assert result.num_evaluated < 5_000 < result.num_priced < result.num_architectures

    # Measured ones are proposed too. The best is proven as long as the sum predicts none of them to be on the front.
    fitting_FG = predicted.search.problem.genes
    beaten_KG = fitting_FG[~np.isin(row_keys(fitting_FG), row_keys(predicted.genes_KG))][:1]
    ((mixed,), _) = record(outcomes_of(huge_space, [target], predictor, measured_KG=beaten_KG))
    assert (mixed.certified, mixed.num_measured, mixed.num_evaluated) == (True, 1, result.num_evaluated + 1)
    assert str(mixed.certified_relative_to).startswith("the accuracy measured on held-out images, of what was not ")
    best = huge_space.encode(result.picked.to_architecture())
    ((doubtful,), _) = record(outcomes_of(huge_space, [target], predictor, measured_KG=best[None]))
    assert (doubtful.certified, doubtful.certified_relative_to, doubtful.num_measured) == (False, None, 1)
    assert doubtful.pick != result.pick


def test_what_was_measured_is_ranked_by_that_and_recorded_as_that(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    """The three that are predicted best were measured, and are far worse: a prediction is the pick."""
    genes_NG = digits_space.enumerate_genes()
    best_KG = genes_NG[np.argsort(-BySum().predict(genes_NG), kind="stable")[:3]]
    ((result,), _) = record(outcomes_of(digits_space, [make_target()], BySum(), measured_KG=best_KG))
    kept = {candidate.arch_id: candidate for candidate in result.candidates}
    for genes in best_KG:
        candidate = kept[digits_space.decode(genes).arch_id]
        assert (candidate.accuracy, candidate.accuracy_predicted) == (measured(genes[None])[0], None)
    assert result.picked.accuracy is None
    assert (result.num_measured, result.num_evaluated) == (3, 128)
    assert result.certified
    assert "of what was not measured the accuracy predictor" in str(result.certified_relative_to)


# What is as accurate within noise


def test_the_cheapest_within_noise_is_named_and_picked_where_it_is_preferred(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    """Shares of 100 images: against a brute force over all 128, by the rule of `AccuracyNoise`."""
    (outcome,) = (sampled(each) for each in outcomes_of(digits_space, [make_target()]))
    ((plain,), _), ((cheap,), _) = (record([outcome], None, AccuracyNoise(), prefer) for prefer in (ACCURATE, CHEAPER))
    best = plain.picked
    right = round(best.accuracy * 100)
    as_accurate = []
    for each in plain.candidates:
        shares = [(count + 1) / 102 for count in (right, round(each.accuracy * 100))]
        error = math.sqrt(sum(share * (1 - share) / 102 for share in shares))
        if shares[0] - shares[1] <= 1.959963984540054 * error:
            as_accurate.append(each)
    noise = plain.within_noise
    assert noise is not None
    assert noise.num_candidates == len(as_accurate) - 1 > 0
    expected = min(as_accurate, key=lambda each: (each.num_macs, each.latency_ms_predicted, each.arch_id))
    assert noise.cheapest == expected.arch_id != best.arch_id
    assert (plain.pick, plain.most_accurate, plain.prefer) == (best.arch_id, best.arch_id, ACCURATE)
    assert (cheap.pick, cheap.most_accurate, cheap.prefer) == (expected.arch_id, best.arch_id, CHEAPER)
    assert (cheap.front, cheap.within_noise) == (plain.front, noise)
    about = "the accuracy measured on 100 held-out images and the profile's latency model"
    assert plain.certified_relative_to == about
    assert cheap.certified_relative_to == (
        f"{about}; certified is the accuracy of {best.arch_id}, and the pick is the cheapest within noise of it"
    )


def test_of_predictions_the_cheapest_within_the_error_is_kept(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    """It need not be on the front; with an error of nothing there is no noise."""
    (outcome,) = (sampled(each) for each in outcomes_of(digits_space, [make_target()], BySum()))
    ((result,), _) = record([outcome], None, AccuracyNoise(0.02), CHEAPER)
    noise = result.within_noise
    assert noise is not None
    assert noise.cheapest == result.pick in {each.arch_id for each in result.candidates}
    assert noise.num_candidates > len(result.candidates)
    ((exact,), _) = record([outcome], None, AccuracyNoise(0.0), CHEAPER)
    assert exact.within_noise is not None
    assert exact.pick == exact.most_accurate == result.most_accurate
    assert exact.within_noise.cheapest is None


def test_a_fleet_gets_the_cheapest_within_noise_of_what_it_would_get(
    digits_space: SearchSpace, make_target: MakeTarget
) -> None:
    limits = {CAMERA: 300_000, PHONE: 500_000, LAPTOP: 900_000}
    targets = [make_target(name, macs=macs) for name, macs in limits.items()]
    outcomes = [sampled(each) for each in outcomes_of(digits_space, targets)]
    plain, cheap = (result_of(outcomes, 2, noise=AccuracyNoise(), prefer=prefer) for prefer in (ACCURATE, CHEAPER))
    assert plain.fleet is not None
    assert cheap.fleet is not None
    for before, after in zip(plain.fleet.options, cheap.fleet.options, strict=True):
        assert len(set(after.assigned.values())) == after.num_artifacts == before.num_artifacts
        for name in limits:
            found = cheap.for_profile(name)
            old, new = (found.candidate(option.assigned[name]) for option in (before, after))
            assert new.num_macs <= old.num_macs
            assert new.latency_ms_predicted <= old.latency_ms_predicted
            accuracies = np.array([old.accuracy, new.accuracy])
            assert AccuracyNoise().as_accurate(Scores(accuracies, num_images_K=np.array([100, 100])), 0).all()
            best = found.candidate(found.most_accurate)
            assert after.lost[name] == pytest.approx(best.accuracy - new.accuracy, abs=1e-12)
    one = cheap.fleet.options[0]
    assert any(one.assigned[name] != plain.fleet.options[0].assigned[name] for name in limits)


def test_what_is_within_noise_is_checked_when_a_file_is_read(
    digits_space: SearchSpace, make_target: MakeTarget, tmp_path: Path
) -> None:
    (outcome,) = (sampled(each) for each in outcomes_of(digits_space, [make_target()]))
    document = result_of([outcome], noise=AccuracyNoise(), prefer=CHEAPER).to_dict()
    assert load_result(written(document, tmp_path)).to_dict() == document
    file = written(changed(document, "results", 0, "prefer", to=ACCURATE), tmp_path)
    with pytest.raises(ArtifactError, match="front and pick: got pick"):
        load_result(file)
    document["results"][0]["candidates"][3] |= {"num_images": None, "accuracy_interval": None}
    with pytest.raises(
        ArtifactError, match="within_noise: expected null, as the noise of some candidates is not known"
    ):
        load_result(written(document, tmp_path))


# Fleets


def test_a_fleet_lists_the_best_for_each_number_and_what_it_costs(fleet_outcomes: list[Outcome]) -> None:
    """Checked against the picks: the loss of a device is what its assignment is less accurate than its pick."""
    result = result_of(fleet_outcomes, 2)
    fleet = result.fleet
    assert fleet is not None
    assert [option.num_artifacts for option in fleet.options] == [1, 2, 3]
    assert (fleet.max_artifacts, fleet.chosen) == (2, 2)
    assert fleet.option is fleet.options[1]
    totals = []
    for option in fleet.options:
        assert set(option.assigned) == set(option.lost) == {CAMERA, PHONE, LAPTOP}
        assert len(set(option.assigned.values())) == option.num_artifacts
        for found in result.results:
            accuracies = {each.arch_id: each.accuracy for each in found.candidates}
            name = found.profile.name
            loss = accuracies[found.pick] - accuracies[option.assigned[name]]
            assert option.lost[name] == pytest.approx(loss, abs=1e-12)
        totals.append(sum(option.lost.values()))
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 0
    assert totals[-1] == 0


@pytest.mark.parametrize(("max_artifacts", "expected"), [(1, 1), (2, 2), (3, 3), (50, 3)])
def test_the_option_in_force_is_the_largest_allowed(
    fleet_outcomes: list[Outcome], max_artifacts: int, expected: int
) -> None:
    fleet = result_of(fleet_outcomes, max_artifacts).fleet
    assert fleet is not None
    assert (fleet.max_artifacts, fleet.chosen) == (max_artifacts, expected)


def test_each_device_gets_what_the_fleet_assigns_and_without_one_its_pick(fleet_outcomes: list[Outcome]) -> None:
    alone, one = result_of(fleet_outcomes), result_of(fleet_outcomes, 1)
    picks = {found.profile.name: found.pick for found in alone.results}
    assert {name: alone.chosen_for(name).arch_id for name in picks} == picks
    shared = {one.chosen_for(name).arch_id for name in picks}
    assert shared == {picks[CAMERA]} != set(picks.values())
    with pytest.raises(ConfigError, match="no result for profile 'x86-laptob'; did you mean 'x86-laptop'"):
        one.chosen_for("x86-laptob")


def test_fewer_architectures_than_can_serve_all_devices_are_refused_in_one_line(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    """Two devices, neither of which runs what fits the other."""
    problems = pose(make_pool(toy_space, 0), [make_target(CAMERA), make_target(LAPTOP)], EventLog())
    outcomes = [
        Outcome(open_search(problem, "random", 1, 0), genes[None], Scores(np.array([0.5])), 0.0)
        for problem, genes in zip(problems, toy_space.enumerate_genes(), strict=True)
    ]
    with pytest.raises(ConfigError) as caught:
        record(outcomes, 1)
    assert str(caught.value) == (
        f"max-artifacts: got 1, but no 1 of the architectures found fit all of {CAMERA}, {LAPTOP}; expected at least 2"
    )
    _, fleet = record(outcomes, 2)
    assert fleet is not None
    assert [option.num_artifacts for option in fleet.options] == [2]


def disjoint(space: SearchSpace, make_target: MakeTarget) -> list[Target]:
    """A camera that runs `narrow` only, and a laptop whose runtime needs `wide`: there `narrow` would be slow."""
    slow_if_narrow = make_target(LAPTOP, predict=lambda macs_N, _: 1e6 / macs_N, latency_ms=1_200)
    return [make_target(CAMERA, macs=700), slow_if_narrow]


def test_a_fleet_that_cannot_be_served_is_refused_before_anything_is_evaluated(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    problems = pose(make_pool(toy_space, 0), disjoint(toy_space, make_target), EventLog())
    assert [problem.num_feasible for problem in problems] == [1, 1]
    with pytest.raises(ConfigError) as caught:
        check_fleet(problems, 1)
    assert str(caught.value) == (
        f"max-artifacts: got 1, but no 1 of the architectures of space toy fit all of {CAMERA}, {LAPTOP}; "
        "expected at least 2"
    )
    for possible in (None, 2, 3):
        check_fleet(problems, possible)
    check_fleet(problems[:1], 1)


def test_of_a_sampled_space_nobody_knows_what_a_fleet_can_share(
    huge_space: SearchSpace, make_target: MakeTarget
) -> None:
    """The smallest and the largest of the samples have nothing in common, but other architectures may fit both."""
    (loose,) = pose(make_pool(huge_space, 0), [make_target()], EventLog())
    split = float(np.median(loose.prices.latency_ms))
    fast = make_target(CAMERA, latency_ms=split)
    slow = make_target(LAPTOP, predict=lambda macs_N, _: 1e9 / macs_N, latency_ms=1e6 / (split * 1.001))
    problems = pose(make_pool(huge_space, 0), [fast, slow], EventLog())
    assert not set(problems[0].feasible_F) & set(problems[1].feasible_F)
    check_fleet(problems, 1)


# search.json


def changed(document: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return document


def written(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "search.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_a_fleet_and_its_accuracy_model_are_read_back(fleet_outcomes: list[Outcome], tmp_path: Path) -> None:
    model = AccuracyModel(
        kind="predicted",
        fitted_on="clients",
        predictor="ridge",
        hash="a" * 64,
        num_measured=200,
        kendall_tau=0.75,
        mae=0.0125,
    )
    result = result_of(fleet_outcomes, 2, accuracy_model=model, request="b" * 64)
    files.write_json(tmp_path / "search.json", result.to_dict())
    assert load_result(tmp_path / "search.json") == result


OPTION = ("fleet", "options", 0)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("fleet", "chosen"), 4, "fleet: got chosen 4, expected the number of one of the options"),
        (("fleet", "chosen"), 0, "fleet.chosen: got 0: input should be greater than or equal to 1"),
        (("fleet", "max_artifacts"), 0, "fleet.max_artifacts: got 0"),
        (("fleet", "options"), [], "fleet.options: got .*: tuple should have at least 1 item"),
        ((*OPTION, "assigned", PHONE), "a00000000000", f"fleet: expected a candidate of {PHONE} assigned to it"),
        ((*OPTION, "assigned"), {}, f"fleet: expected a candidate of {CAMERA} assigned to it"),
        ((*OPTION, "assigned", PHONE), "phone", f"fleet.options.0.assigned.{PHONE}: got 'phone': string should match"),
        ((*OPTION, "lost", PHONE), -0.1, f"fleet.options.0.lost.{PHONE}: got -0.1: input should be greater"),
        (("accuracy_model", "kind"), "guessed", "accuracy_model.kind: got 'guessed': input should be 'measured'"),
        (("accuracy_model", "mae"), -1.0, "accuracy_model.mae: got -1.0"),
        (("accuracy_model", "hash"), "abc", "accuracy_model.hash: got 'abc'"),
        (("accuracy_model", "surplus"), 1, "accuracy_model.surplus: unknown key"),
        (("request",), "abc", "request: got 'abc': string should match pattern"),
        (("results", 0, "risk"), 1.0, "results.0.risk: got 1.0: input should be less than 1"),
        (
            ("results", 0, "candidates", 0, "accuracy_predicted"),
            0.5,
            "expected either accuracy or accuracy_predicted",
        ),
        (("results", 0, "candidates", 0, "accuracy"), None, "expected either accuracy or accuracy_predicted"),
        (("results", 0, "candidates", 0, "worst_decile"), 1.5, "worst_decile: got 1.5"),
    ],
)
def test_a_damaged_or_altered_file_is_refused_in_one_line(
    document: dict[str, Any], tmp_path: Path, path: tuple[Any, ...], value: Any, expected: str
) -> None:
    file = written(changed(document, *path, to=value), tmp_path)
    with pytest.raises(ArtifactError, match=expected) as caught:
        load_result(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).endswith("; search again")
    assert "\n" not in str(caught.value)


def test_more_candidates_than_were_evaluated_are_refused(
    digits_space: SearchSpace, make_target: MakeTarget, tmp_path: Path
) -> None:
    """Of predictions fewer may be kept than were made, but not more."""
    result = result_of(outcomes_of(digits_space, [make_target()], BySum(), "evolution", evaluations=40))
    count = len(result.results[0].candidates)
    assert count < 40
    load_result(written(changed(result.to_dict(), "results", 0, "num_evaluated", to=count), tmp_path))
    file = written(changed(result.to_dict(), "results", 0, "num_evaluated", to=count - 1), tmp_path)
    with pytest.raises(ArtifactError, match=f"num_evaluated: got {count - 1}, expected {count} candidates"):
        load_result(file)


def test_a_bound_is_what_the_limit_on_latency_is_about(
    toy_space: SearchSpace, make_target: MakeTarget, tmp_path: Path
) -> None:
    """`narrow` is predicted to take 0.644 ms, but is within twice that only."""
    plain = make_target(latency_ms=1.5)
    target = dataclasses.replace(plain, held=HeldLatency("p50", 1.5, False, 0.95, 2.0))
    result = result_of(outcomes_of(toy_space, [target]))
    (candidate,) = result.results[0].candidates
    assert (candidate.latency_ms_predicted, candidate.latency_upper_ms) == (0.644, 1.288)
    assert candidate.latency_percentile_ms == 0.644 * 1.5
    assert candidate.price("latency_ms") == 1.288
    file = written(changed(result.to_dict(), "results", 0, "limits", "latency_ms", to=1.0), tmp_path)
    with pytest.raises(ArtifactError, match=r"latency_ms is 1\.288, expected at most 1\.0"):
        load_result(file)


def test_a_percentile_that_does_not_follow_from_the_prediction_is_refused(
    toy_space: SearchSpace, make_target: MakeTarget, tmp_path: Path
) -> None:
    """0.644 ms predicted are 0.966 ms at p90, by a ratio of 1.5."""
    target = dataclasses.replace(make_target(latency_ms=1.0), held=HeldLatency("p90", 1.5, is_assumed=False))
    document = result_of(outcomes_of(toy_space, [target])).to_dict()
    (candidate,) = document["results"][0]["candidates"]
    assert candidate["latency_percentile_ms"] == 0.644 * 1.5
    for place, value in (
        (("percentile", "ratio"), 1.25),
        (("percentile",), None),
        (("candidates", 0, "latency_percentile_ms"), 0.7),
    ):
        file = written(changed(document, "results", 0, *place, to=value), tmp_path)
        with pytest.raises(ArtifactError, match=f"{candidate['arch_id']}: latency_percentile_ms: expected"):
            load_result(file)


def test_a_file_from_before_there_were_fleets_is_read(document: dict[str, Any], tmp_path: Path) -> None:
    """Schema 1 as first written: no predicted accuracies, worst deciles, bounds, risk, fleet, request or model."""
    for name in ("request", "accuracy_model", "fleet"):
        del document[name]
    for found in document["results"]:
        del found["risk"]
        for candidate in found["candidates"]:
            for name in ("accuracy_predicted", "worst_decile", "latency_upper_ms", "activation_mib"):
                del candidate[name]
    result = load_result(written(document, tmp_path))
    assert (result.accuracy_model.kind, result.request, result.fleet) == ("measured", None, None)
    for found in result.results:
        assert result.chosen_for(found.profile.name) == found.picked
        assert found.picked.best_known_accuracy == found.picked.accuracy
