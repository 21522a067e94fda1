"""Prices, on the architectures that conftest.py counts by hand."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedsup_deploy.device.profile import DeviceProfile, Energy
from fedsup_deploy.searchers.pricing import Target, price
from fedsup_deploy.space.search_space import SearchSpace

MIB = 2**20
#: What the files of `narrow` and `wide` have besides their numbers; tests/property holds it against files.
GRAPH_BYTES = (1295, 1562)
#: The same of int8 files, with a scale of each channel and unsigned activations: far more than the numbers.
INT8_GRAPH_BYTES = (6064, 7517)


def test_prices_are_those_counted_by_hand(toy_space: SearchSpace, make_target: Callable[..., Target]) -> None:
    (prices,) = price(toy_space, toy_space.enumerate_genes(), [make_target()])
    expected = {
        "latency_ms": [0.644, 0.840],
        "macs": [644, 840],
        "params": [52, 74],
        "memory_mib": [(52 + 96) * 4 / MIB, (74 + 160) * 4 / MIB],
        "activation_mib": [96 * 4 / MIB, 160 * 4 / MIB],
        "storage_mib": [(52 * 4 + GRAPH_BYTES[0]) / MIB, (74 * 4 + GRAPH_BYTES[1]) / MIB],
        "resolution": [4, 4],
    }
    for name, values in expected.items():
        assert prices.by_limit()[name].tolist() == pytest.approx(values, rel=1e-12), name


def test_energy_is_estimated_as_power_times_latency(toy_space: SearchSpace, make_target: Callable[..., Target]) -> None:
    target = with_profile(make_target(), energy=Energy(active_power_w=5.0))
    (prices,) = price(toy_space, toy_space.enumerate_genes(), [target])
    expected = [5.0 * 0.644, 5.0 * 0.840]
    assert prices.by_limit()["energy_mj"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("unsupported", "expected"), [(("scale",), [True, True]), (("depthwise",), [False, False])])
def test_an_architecture_with_a_layer_that_cannot_run_is_told(
    toy_space: SearchSpace, make_target: Callable[..., Target], unsupported: tuple[str, ...], expected: list[bool]
) -> None:
    (prices,) = price(
        toy_space, toy_space.enumerate_genes(), [with_profile(make_target(), unsupported_ops=unsupported)]
    )
    assert prices.is_supported.tolist() == expected


def with_profile(target: Target, **changes: Any) -> Target:
    return dataclasses.replace(target, profile=target.profile.model_copy(update=changes))


def as_int8(target: Target) -> Target:
    document = target.profile.model_dump(by_alias=True)
    document["runtime"]["dtype"] = document["latency"]["dtype"] = "int8"
    document["latency"]["bytes_per_element"] = 1
    return dataclasses.replace(target, profile=DeviceProfile.model_validate(document))


def test_each_device_counts_bytes_in_its_own_number_format(
    toy_space: SearchSpace, make_target: Callable[..., Target]
) -> None:
    float32, int8 = price(toy_space, toy_space.enumerate_genes(), [make_target(), as_int8(make_target())])
    assert (float32.by_limit()["memory_mib"] / int8.by_limit()["memory_mib"]).tolist() == [4, 4]
    assert int8.by_limit()["storage_mib"].tolist() == [
        (52 + INT8_GRAPH_BYTES[0]) / MIB,
        (74 + INT8_GRAPH_BYTES[1]) / MIB,
    ]
    assert int8.num_params.tolist() == float32.num_params.tolist()


def test_rows_priced_in_parts_cost_what_each_costs_alone(
    digits_space: SearchSpace, make_target: Callable[..., Target]
) -> None:
    """139,997 rows are two whole parts and the beginning of a third."""
    genes_NG = np.resize(digits_space.enumerate_genes(), (139_997, len(digits_space.num_choices)))
    calls: list[tuple[int, int]] = []
    (prices,) = price(digits_space, genes_NG, [make_target()], lambda done, total: calls.append((done, total)))
    assert calls == [(65_536, 139_997), (131_072, 139_997), (139_997, 139_997)]
    for index in (0, 65_535, 65_536, 139_996):
        (alone,) = price(digits_space, genes_NG[index : index + 1], [make_target()])
        for name, values in alone.by_limit().items():
            assert prices.by_limit()[name][index] == values[0]


def test_the_price_of_nothing_is_empty(toy_space: SearchSpace, make_target: Callable[..., Target]) -> None:
    (prices,) = price(toy_space, toy_space.enumerate_genes()[:0], [make_target()])
    assert {len(values) for values in prices.by_limit().values()} == {0}


def test_some_of_the_prices_can_be_taken(toy_space: SearchSpace, make_target: Callable[..., Target]) -> None:
    (prices,) = price(toy_space, toy_space.enumerate_genes(), [make_target()])
    assert prices.take(np.array([1])).num_macs.tolist() == [840]
