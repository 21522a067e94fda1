"""Fits, on data whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsup_deploy import rng
from fedsup_deploy.device.building.calibrate import Line, fit_line, fit_operations, fit_table, rounded
from fedsup_deploy.device.latency import FittedLatency
from fedsup_deploy.device.predictor import FittedPredictor, miss_share
from fedsup_deploy.space import cost
from fedsup_deploy.space.cost import LayerCosts
from fedsup_deploy.space.search_space import SearchSpace


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0123456789, 0.012346), (123456.7, 123460.0), (-2.5, -2.5), (0.0, 0.0)]
)
def test_rounding_keeps_significant_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected


def test_a_line_is_found() -> None:
    found = fit_line(np.array([1e6, 2e6, 5e6]), np.array([12.0, 22.0, 52.0]))
    assert found == pytest.approx((1e-5, 2.0))
    assert found.at(np.array([3e6])) == pytest.approx([32.0])


def test_a_line_has_no_negative_offset() -> None:
    """The points lie on 2 x - 1; through the origin, relative errors are least for 1.5."""
    found = fit_line(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    expected = Line((1 + 2 / 3) / (1 + 4 / 9), 0.0)
    assert found == pytest.approx(expected)


def test_networks_of_one_size_give_a_line_through_the_origin() -> None:
    assert fit_line(np.array([2.0, 2.0]), np.array([4.0, 4.0])) == (2.0, 0.0)


def test_a_small_network_counts_as_much_as_a_large_one() -> None:
    """One takes 1 per unit, the other 2: relative errors of a slope a are a - 1 and a / 2 - 1."""
    assert fit_line(np.array([1.0, 1000.0]), np.array([1.0, 2000.0])) == pytest.approx((1.5 / 1.25, 0.0))


@settings(max_examples=10)
@given(
    scale=st.floats(0.8, 1.2),
    cached=st.floats(0.0, 4.0),
    uncached=st.floats(0.0, 20.0),
    where=st.tuples(st.integers(4, 6), st.integers(10, 12)),
    seed=st.integers(0, 99),
)
def test_a_device_of_the_tables_form_is_recovered(
    scale: float, cached: float, uncached: float, where: tuple[int, int], seed: int
) -> None:
    """Forty networks from a dozen: where the cache begins and ceases to miss is found roughly, which costs some."""
    random = rng.generator(seed, "table")
    num_parts_N = random.integers(5, 10, size=40)
    size_mib_N = np.geomspace(0.5, 8.0, 40)
    sizes = np.geomspace(0.5 / 1.1, 8.0 * 1.1, 17)
    cached_N = 15.0 * num_parts_N + 40.0 * size_mib_N * random.uniform(0.7, 1.3, 40)
    uncached_N = cached_N + 30.0 * num_parts_N + 20.0 * size_mib_N
    share_N = miss_share(size_mib_N, sizes[where[0]], sizes[where[1]])
    truth_N = (1 - share_N) * (scale * cached_N - cached * num_parts_N)
    truth_N += share_N * (scale * uncached_N - uncached * num_parts_N)
    fitted_on = np.arange(1, 40, 3)
    found = fit_table(*(values[fitted_on] for values in (cached_N, uncached_N, num_parts_N, size_mib_N, truth_N)))
    share_N = miss_share(size_mib_N, found.fits_mib, found.misses_mib)
    predicted_N = (1 - share_N) * (found.scale * cached_N - found.cached_overhead_us * num_parts_N)
    predicted_N += share_N * (found.scale * uncached_N - found.uncached_overhead_us * num_parts_N)
    predicted_N += found.network_overhead_us
    off_N = np.abs(predicted_N / truth_N - 1)
    assert off_N.mean() < 0.03
    assert off_N.max() < 0.12


def test_networks_that_all_fit_the_cache_leave_nothing_undecided() -> None:
    """As many parts in each, and no difference between cached and uncached: features that say the same."""
    cached_N = np.array([100.0, 200.0, 300.0, 400.0])
    found = fit_table(cached_N, cached_N, np.full(4, 6), np.array([0.1, 0.2, 0.3, 0.4]), cached_N - 30.0)
    assert found.scale == pytest.approx(1.0, abs=1e-3)
    assert found.cached_overhead_us * 6 - found.network_overhead_us == pytest.approx(30.0, abs=0.1)
    assert found.num_networks == 4


TRUTH = FittedLatency.model_validate(
    {
        "kind": "fitted",
        "dtype": "float32",
        "bytes_per_element": 4,
        "network_overhead_us": 3.0,
        "ops": {
            op: {"us_per_mmac": 40.0 * (index % 3), "us_per_kelement": 0.5 * (index % 2), "us_per_layer": 1.0}
            for index, op in enumerate(cost.OP_KINDS)
        },
        "num_networks": 1,
    }
)


def layers_of(space: SearchSpace) -> LayerCosts:
    return cost.costs(space, space.enumerate_genes()).layers


@pytest.mark.parametrize("cache", [None, {"us_per_kelement": 2.0, "fits_mib": 0.004, "misses_mib": 0.008}])
def test_a_device_of_linear_costs_is_recovered(tiny_space: SearchSpace, cache: dict[str, float] | None) -> None:
    """From half of the architectures; the rest is predicted. Which of several equal costs it is, nobody can tell."""
    truth = FittedLatency.model_validate({**TRUTH.model_dump(), "cache": cache})
    truth_us_N = FittedPredictor(truth).predict(layers_of(tiny_space)) * 1e3
    genes_NG = tiny_space.enumerate_genes()
    half = np.random.default_rng(0).permutation(len(genes_NG))[: len(genes_NG) // 2]
    found = fit_operations(cost.costs(tiny_space, genes_NG[half]).layers, truth_us_N[half], "float32")
    predicted_us_N = FittedPredictor(found).predict(layers_of(tiny_space)) * 1e3
    np.testing.assert_allclose(predicted_us_N, truth_us_N, rtol=0.03 if cache else 0.005)
    assert found.num_networks == 32


def test_the_width_of_a_runtimes_channel_blocks_is_found(space_of: Callable[..., SearchSpace]) -> None:
    """Widths of 4 and 8, of 12 and 16 cost the same there; no costs of single channels explain that."""
    widths = {"widths": [4, 8, 12, 16, 20, 24], "depths": [1, 2], "kernel_sizes": [3, 5]}
    space = space_of(widths, {**widths, "stride": 2}, stem={"widths": [8]})
    truth = FittedLatency.model_validate({**TRUTH.model_dump(), "channel_block": 8})
    truth_us_N = FittedPredictor(truth).predict(layers_of(space)) * 1e3
    found = fit_operations(cost.costs(space, space.enumerate_genes()[::4]).layers, truth_us_N[::4], "float32")
    assert found.channel_block == 8
    np.testing.assert_allclose(FittedPredictor(found).predict(layers_of(space)) * 1e3, truth_us_N, rtol=0.005)


def test_operations_that_no_network_has_get_no_cost(tiny_space: SearchSpace) -> None:
    layers = layers_of(tiny_space)
    assert "scale" in layers.ops, "the family has squeeze-excitation, the space does not"
    found = fit_operations(layers, np.full(len(layers.num_macs_NL), 50.0), "int8")
    assert set(found.ops) == set(cost.OP_KINDS) - {"scale"}
    assert (found.dtype, found.bytes_per_element) == ("int8", 1)
