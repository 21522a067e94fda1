"""pymoo on the genes of a space: what is found is within the limits, and what is kept of a front has room around it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedsup_deploy import rng
from fedsup_deploy.events import EventLog
from fedsup_deploy.searchers.methods import nsga
from fedsup_deploy.searchers.methods.nsga import evolve, most_promising
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import Problem, pose
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace

MakeTarget = Callable[..., Target]


@pytest.fixture(scope="module")
def attentive_space() -> SearchSpace:
    """A space that nobody can list, in which any block may have squeeze-and-excitation."""
    stage = {"widths": (16, 24, 32), "depths": (3, 4), "kernel_sizes": (3, 5), "squeeze_excite": (False, True)}
    return SearchSpace.model_validate(
        {
            "schema": 1,
            "name": "attentive",
            "family": "mobilenet",
            "resolutions": (8, 16),
            "choices": "per-block",
            "stem": {"widths": (8,)},
            "stages": ({"name": "mb1", **stage}, {"name": "mb2", "stride": 2, **stage}),
        }
    )


def problem_of(space: SearchSpace, target: Target) -> Problem:
    return pose(make_pool(space, seed=0), [target], EventLog())[0]


def all_choices_large(genes_NG: Any, prices: Any) -> Any:
    """Latency down, the sum of the genes up."""
    return np.stack([prices.latency_ms, -genes_NG.sum(axis=1).astype(float)], axis=1)


def and_wide(genes_NG: Any, prices: Any) -> Any:
    """A third objective: the width of the first block up."""
    return np.column_stack([all_choices_large(genes_NG, prices), -genes_NG[:, 3]])


def evolved(problem: Problem, objectives: Any, seed: int = 0) -> Any:
    first_NG = problem.genes[:50]
    num_objectives = objectives(first_NG, problem.admits(first_NG)[1]).shape[1]
    return evolve(problem, first_NG, objectives, num_objectives, seed)


def has_attention(space: SearchSpace, genes: Any) -> bool:
    return any(block.has_se for stage in space.decode(genes).stages for block in stage)


@pytest.mark.parametrize("objectives", [all_choices_large, and_wide])
def test_what_evolves_is_in_the_space_and_within_all_limits(
    attentive_space: SearchSpace, make_target: MakeTarget, objectives: Any
) -> None:
    """Though every objective but the latency pulls beyond them; with two objectives and with three."""
    problem = problem_of(attentive_space, make_target(macs=1_500_000, params=6_000, resolution=8))
    found_NG = evolved(problem, objectives)
    assert len(found_NG) > 50
    assert found_NG.dtype == np.int64
    assert len(np.unique(found_NG, axis=0)) == len(found_NG)
    for genes in found_NG:
        assert attentive_space.encode(attentive_space.decode(genes)).tolist() == genes.tolist()
    fits_N, prices = problem.admits(found_NG)
    assert fits_N.all()
    assert set(prices.resolution.tolist()) == {8}
    assert prices.num_params.max() > 0.9 * 6_000, "the limit is what stops it"


def test_a_layer_that_the_device_cannot_run_is_a_constraint(
    attentive_space: SearchSpace, make_target: MakeTarget
) -> None:
    """Nearly no random architecture is without it, and each block with it would raise the second objective."""
    able = make_target()
    profile = able.profile.model_copy(update={"unsupported_ops": ("scale",)})
    unable = dataclasses.replace(able, profile=profile)
    drawn = random_genes(attentive_space, rng.generator(0), 1_000)
    assert sum(has_attention(attentive_space, genes) for genes in drawn) > 900
    found = {}
    for target in (able, unable):
        found_NG = evolved(problem_of(attentive_space, target), all_choices_large)
        found[target.profile.unsupported_ops] = {has_attention(attentive_space, genes) for genes in found_NG}
    assert True in found[()]
    assert found[("scale",)] == {False}


def test_both_ends_of_the_front_grow_away_from_the_first_generation(
    attentive_space: SearchSpace, make_target: MakeTarget
) -> None:
    """The largest sum of genes is 35, the smallest 0."""
    problem = problem_of(attentive_space, make_target())
    first_NG = problem.genes[10_000:10_050]
    found_NG = evolve(problem, first_NG, all_choices_large, 2, seed=0)
    assert found_NG.sum(axis=1).max() > first_NG.sum(axis=1).max() + 3
    fastest_ms = [problem.admits(genes_NG)[1].latency_ms.min() for genes_NG in (first_NG, found_NG)]
    assert fastest_ms[1] < 0.9 * fastest_ms[0]


@pytest.mark.parametrize("objectives", [all_choices_large, and_wide])
def test_the_seed_decides(
    attentive_space: SearchSpace, make_target: MakeTarget, objectives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nsga, "_GENERATIONS", 10)
    problem = problem_of(attentive_space, make_target(macs=1_500_000))
    first, again, other = (evolved(problem, objectives, seed).tolist() for seed in (5, 5, 6))
    assert first == again != other


def test_three_objectives_take_another_algorithm_than_two(
    attentive_space: SearchSpace, make_target: MakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def watched(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: taken.append(name) or make(*args, **options)

    for name in ("NSGA2", "NSGA3"):
        monkeypatch.setattr(nsga, name, watched(name, getattr(nsga, name)))
    problem = problem_of(attentive_space, make_target())
    monkeypatch.setattr(nsga, "_GENERATIONS", 1)
    evolved(problem, all_choices_large)
    evolved(problem, and_wide)
    assert taken == ["NSGA2", "NSGA3"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, set()),
        # Of the front's five the ends, then (7, -8), around which there is most room.
        (2, {0, 4}),
        (3, {0, 3, 4}),
        (5, {0, 1, 2, 3, 4}),
        # The front as a whole, and of the second the ends.
        (7, {0, 1, 2, 3, 4, 5, 7}),
        (8, {0, 1, 2, 3, 4, 5, 6, 7}),
        (99, {0, 1, 2, 3, 4, 5, 6, 7, 8}),
    ],
)
def test_the_most_promising_come_front_after_front(count: int, expected: set[int]) -> None:
    """Rows 0 to 4 beat all others, 5 to 7 are beaten by these alone, 8 by those as well."""
    first = [(1, -1), (2, -2), (3, -3), (7, -8), (9, -10)]
    second = [(2, -1), (4, -2.5), (10, -9)]
    objectives_NM = np.array([*first, *second, (11, 0)], np.float64)
    chosen = most_promising(objectives_NM, count, rng.generator(0)).tolist()
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == expected


def test_what_is_as_good_is_as_promising() -> None:
    """Equal rows are on one front; they do not push each other out while there is room."""
    objectives_NM = np.array([[1.0, -1.0]] * 3 + [[2.0, -1.0]])
    assert sorted(most_promising(objectives_NM, 3, rng.generator(0)).tolist()) == [0, 1, 2]


def test_between_those_with_as_much_room_the_seed_decides() -> None:
    """A front of 40 at equal distances: 38 of them have the same room."""
    objectives_NM = np.array([(step, -step) for step in range(40)], np.float64)
    found = [sorted(most_promising(objectives_NM, 20, rng.generator(seed)).tolist()) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
