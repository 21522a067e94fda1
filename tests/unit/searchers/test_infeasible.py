"""What a user reads when nothing fits. Costs as counted in conftest.py."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.held_latency import HeldLatency
from fedsup_deploy.errors import InfeasibleError
from fedsup_deploy.events import EventLog
from fedsup_deploy.resources import find
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import Target
from fedsup_deploy.searchers.problem import pose
from fedsup_deploy.space.search_space import SearchSpace

MIB = 2**20
MakeTarget = Callable[..., Target]


def message(space: SearchSpace, *targets: Target) -> str:
    with pytest.raises(InfeasibleError) as caught:
        pose(make_pool(space, seed=0), targets, EventLog())
    return str(caught.value)


def arch_ids(space: SearchSpace) -> list[str]:
    return [space.decode(genes).arch_id for genes in space.enumerate_genes()]


def rising_us(macs_N: Any, _layers_N: Any) -> Any:
    """A latency model in which more MACs are faster: 1.356 ms for `narrow`, 1.16 ms for `wide`."""
    return 2 - macs_N / 1e3


def test_a_single_limit_is_named_with_the_best_and_the_closest(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    narrow, _ = arch_ids(toy_space)
    assert message(toy_space, make_target(latency_ms=0.5)) == (
        "no subnet fits raspberry-pi-4: latency_ms <= 0.5 (p50, assumed), fastest predicted 0.644; "
        f"closest is {narrow} with latency_ms 0.644; raise the limit or widen the space (all 2 tried)"
    )


def test_the_interval_of_the_prediction_is_given_where_there_is_one(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    target = make_target(latency_ms=0.5, interval=lambda latency_ms_N: (latency_ms_N - 0.1, latency_ms_N + 0.2))
    assert "latency_ms <= 0.5 (p50, assumed), fastest predicted 0.644 (0.544 to 0.844); " in message(toy_space, target)


def test_the_interval_of_a_prediction_says_nothing_of_another_percentile(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    """What is held to the limit is 1.5 times what is predicted, with a risk twice."""
    target = make_target(latency_ms=0.5, interval=lambda latency_ms_N: (latency_ms_N - 0.1, latency_ms_N + 0.2))
    p90 = dataclasses.replace(target, held=HeldLatency("p90", 1.5, is_assumed=False))
    assert "latency_ms <= 0.5 (p90), fastest predicted 0.966; closest" in message(toy_space, p90)
    risky = dataclasses.replace(target, held=HeldLatency("p90", 1.5, False, 0.95, 2.0))
    expected = "latency_ms <= 0.5 (p90) with a probability of 0.95, lowest bound 1.288; closest"
    assert expected in message(toy_space, risky)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"macs": 600}, "macs <= 600, fewest 644; closest"),
        ({"params": 50.5}, "params <= 50.5, fewest 52; closest"),
        ({"memory_mib": 1e-4}, "memory_mib <= 0.0001, least 0.0005646; closest"),
        ({"activation_mib": 1e-4}, "activation_mib <= 0.0001, least 0.0003663; closest"),
        ({"storage_mib": 1e-4}, "storage_mib <= 0.0001, least 0.001434; closest"),
    ],
)
def test_every_limit_is_named_in_its_own_words(
    toy_space: SearchSpace, make_target: MakeTarget, limits: dict[str, float], expected: str
) -> None:
    assert expected in message(toy_space, make_target(**limits))


def test_a_device_that_can_run_no_subnet_is_told_apart_from_one_with_tight_limits(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    target = make_target()
    profile = target.profile.model_copy(update={"unsupported_ops": ("depthwise",)})
    assert message(toy_space, dataclasses.replace(target, profile=profile)) == (
        "no subnet fits raspberry-pi-4: every one has a layer its runtime cannot run (depthwise); "
        "widen the space by choices without such layers (all 2 tried)"
    )


def test_the_closest_is_one_that_the_device_can_run(make_target: MakeTarget) -> None:
    """Without squeeze-excitation the space is smaller, and its smallest subnet stands at another row."""
    stage = {"name": "mb1", "widths": (8, 16), "depths": (1,), "squeeze_excite": (False, True)}
    space = SearchSpace.model_validate(
        {"schema": 1, "name": "se", "family": "mobilenet", "resolutions": (8,), "stem": {"widths": (8,)}}
        | {"stages": (stage,)}
    )
    target = make_target(predict=lambda *work: 1e6 + rising_us(*work), latency_ms=0.001)
    profile = target.profile.model_copy(update={"unsupported_ops": ("scale",)})
    closest = space.decode(space.enumerate_genes()[2])
    assert not any(block.has_se for stage in closest.stages for block in stage)
    assert f"closest is {closest.arch_id} " in message(space, dataclasses.replace(target, profile=profile))


def test_all_limits_that_cannot_be_met_alone_are_named_and_no_other(
    toy_space: SearchSpace, make_target: MakeTarget
) -> None:
    narrow, _ = arch_ids(toy_space)
    assert message(toy_space, make_target(latency_ms=0.7, macs=600, params=40)) == (
        "no subnet fits raspberry-pi-4: macs <= 600, fewest 644 and params <= 40, fewest 52; "
        f"closest is {narrow} with latency_ms 0.644, macs 644, params 52; "
        "raise a limit or widen the space (all 2 tried)"
    )


def test_limits_that_can_only_be_met_apart_are_named(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    """`wide` is too large by 840 / 700 and `narrow` too slow by 1.356 / 1.2, which is less. The storage is enough."""
    narrow, _ = arch_ids(toy_space)
    target = make_target(predict=rising_us, latency_ms=1.2, macs=700, storage_mib=1)
    assert message(toy_space, target) == (
        "no subnet fits raspberry-pi-4: latency_ms <= 1.2 (p50, assumed) and macs <= 700 cannot be met together; "
        f"closest is {narrow} with latency_ms 1.356, macs 644, storage_mib 0.001434; "
        "raise a limit or widen the space (all 2 tried)"
    )


def test_all_smallest_conflicts_are_named(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    target = make_target(predict=rising_us, latency_ms=1.2, macs=700, params=60)
    limit = "latency_ms <= 1.2 (p50, assumed)"
    expected = f"{limit} and macs <= 700 or {limit} and params <= 60 cannot be met together"
    assert expected in message(toy_space, target)


def test_a_price_never_looks_like_its_limit(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    target = make_target(latency_ms=0.64399999)
    assert "latency_ms <= 0.64399999 (p50, assumed), fastest predicted 0.644;" in message(toy_space, target)
    just_above = make_target(latency_ms=0.64401, predict=lambda macs_N, _: macs_N / 1e3 + 2e-5)
    assert "latency_ms <= 0.64401 (p50, assumed), fastest predicted 0.6441;" in message(toy_space, just_above)


def test_other_devices_that_nothing_fits_are_named_too(toy_space: SearchSpace, make_target: MakeTarget) -> None:
    targets = [
        make_target("raspberry-pi-4"),
        make_target("jetson-nano", latency_ms=0.1),
        make_target("x86-laptop", latency_ms=0.5),
        make_target("raspberry-pi-5", macs=1),
    ]
    text = message(toy_space, *targets)
    assert text.startswith("no subnet fits jetson-nano: latency_ms <= 0.1 (p50, assumed), fastest predicted 0.644; ")
    assert text.endswith("(all 2 tried); nor does any fit x86-laptop, raspberry-pi-5")


def test_a_space_of_444_528_is_tried_as_a_whole(make_target: MakeTarget) -> None:
    space = validate(load_yaml(find("configs/spaces", "fedsup-mobilenet-per-block")), SearchSpace)
    text = message(space, make_target(macs=1000))
    assert text.startswith("no subnet fits raspberry-pi-4: macs <= 1,000, fewest ")
    assert text.endswith("(all 444,528 tried)")


def test_a_space_too_large_to_list_is_sampled_and_the_message_says_so(
    huge_space: SearchSpace, make_target: MakeTarget
) -> None:
    text = message(huge_space, make_target(params=10))
    smallest = huge_space.smallest.arch_id
    assert text.startswith("found no subnet that fits raspberry-pi-4: params <= 10, fewest ")
    assert f"closest is {smallest} with" in text
    assert "(20,000 sampled of " in text
