"""Closed-form costs of networks small enough to add up by hand."""

import numpy as np
import pytest

from fedsup_deploy.space import cost
from fedsup_deploy.space.search_space import SearchSpace


def row_of(space: SearchSpace, bytes_per_element: int = 1) -> dict[str, int]:
    return cost.costs_of(space, [space.largest], bytes_per_element).row(0)


def test_plain_network(space_of) -> None:
    """8x8 input, 1 channel; stem 3x3 to 4; depthwise 3x3 and 1x1, both on 4 channels; 3 classes."""
    pixels = 64
    expected_macs = 4 * 9 * pixels + 4 * 9 * pixels + 4 * 4 * pixels + 4 * 3
    expected_params = (4 * 9 + 4) + (4 * 9 + 4) + (4 * 4 + 4) + (4 * 3 + 3)
    weights_read = expected_params
    moved = (1 + 4) * pixels + 2 * (4 + 4) * pixels + 3 * 4 * pixels + (4 * pixels + 4) + (4 + 3) + weights_read
    # Depthwise holds input, which is also the block's, and output; the 1x1 convolution holds the block's input as well.
    peak = (4 + 4 + 4) * pixels
    assert row_of(space_of({"widths": [4], "depths": [1]})) == {
        "num_macs": expected_macs,
        "num_params": expected_params,
        "moved_bytes": moved,
        "peak_activation_bytes": peak,
    }


def test_network_with_stride_shortcut_expansion_and_squeeze_excite(space_of) -> None:
    """7x7 input; 4 channels expanded to 8, halved to 4x4 pixels, gated through 2 hidden channels, projected to 6."""
    stage = {"widths": [6], "depths": [1], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    before, after = 49, 16
    stem = (4 * 9, 4, before)
    expand, depthwise, project, shortcut = (8 * 4, 8, before), (8 * 9, 8, after), (8 * 6, 6, after), (4 * 6, 6, after)
    gates = [(8 * 2, 2, 1), (8 * 2, 8, 1)]
    head = (6 * 3, 3, 1)
    layers = [stem, expand, depthwise, project, shortcut, *gates, head]
    row = row_of(space_of(stage, resolutions=[7]))
    assert row["num_macs"] == sum(weights * pixels for weights, _, pixels in layers)
    assert row["num_params"] == sum(weights + biases for weights, biases, _ in layers)
    # Depthwise: 8 channels in and out, while the block's 4 input channels wait for the shortcut.
    assert row["peak_activation_bytes"] == 8 * before + 8 * after + 4 * before


def test_moved_elements_of_every_operation(space_of) -> None:
    stage = {"widths": [6], "depths": [1], "squeeze_excite": [True], "stride": 2}
    space = space_of(stage, resolutions=[7])
    layers = cost.costs_of(space, [space.largest]).layers
    assert layers.is_active_NL[0].tolist() == [True, False] + [True] * 11
    moved = [
        (op, int(elements))
        for op, elements, is_active in zip(layers.ops, layers.moved_elements_NL[0], layers.is_active_NL[0], strict=True)
        if is_active
    ]
    assert moved == [
        ("conv", 49 + 4 * 49 + 40),
        ("depthwise", 4 * 49 + 4 * 16 + 40),
        ("global_pool", 4 * 16 + 4),
        ("pointwise", 4 + 1 + 5),
        ("pointwise", 1 + 4 + 8),
        ("scale", 4 * 16 + 4 + 4 * 16),
        ("pointwise", 4 * 16 + 6 * 16 + 30),
        ("pool", 4 * 49 + 4 * 16),
        ("pointwise", 4 * 16 + 6 * 16 + 30),
        ("add", 3 * 6 * 16),
        ("global_pool", 6 * 16 + 6),
        ("linear", 6 + 3 + 21),
    ]
    assert set(layers.ops) <= set(cost.OP_KINDS)


def test_bytes_follow_the_element_size_and_counts_do_not(tiny_space: SearchSpace) -> None:
    one, four = row_of(tiny_space, 1), row_of(tiny_space, 4)
    assert (four["num_macs"], four["num_params"]) == (one["num_macs"], one["num_params"])
    assert four["moved_bytes"] == 4 * one["moved_bytes"]
    assert four["peak_activation_bytes"] == 4 * one["peak_activation_bytes"]


def test_costs_of_many_are_those_of_each(tiny_space: SearchSpace) -> None:
    genes_NG = tiny_space.enumerate_genes()
    together = cost.costs(tiny_space, genes_NG)
    assert together.num_macs.shape == (64,)
    for index in (0, 21, 63):
        alone = cost.costs_of(tiny_space, [tiny_space.decode(genes_NG[index])])
        assert together.row(index) == alone.row(0)
        for name in ("is_active_NL", "num_macs_NL", "moved_elements_NL", "working_set_elements_N"):
            assert np.array_equal(getattr(together.layers, name)[index], getattr(alone.layers, name)[0]), name


def test_the_working_set_is_all_weights_and_the_most_activations_alive(tiny_space: SearchSpace) -> None:
    found = cost.costs(tiny_space, tiny_space.enumerate_genes(), bytes_per_element=1)
    assert np.array_equal(found.layers.working_set_elements_N, found.num_params + found.peak_activation_bytes)


def test_totals_are_the_sums_over_layers(tiny_space: SearchSpace) -> None:
    totals = cost.costs(tiny_space, tiny_space.enumerate_genes(), bytes_per_element=2)
    assert np.array_equal(totals.layers.num_macs_NL.sum(axis=1), totals.num_macs)
    assert np.array_equal(2 * totals.layers.moved_elements_NL.sum(axis=1), totals.moved_bytes)
    assert not totals.layers.num_macs_NL[~totals.layers.is_active_NL].any()


@pytest.mark.parametrize("choices", ["per-stage", "per-block"])
def test_inactive_block_costs_nothing(space_of, choices: str) -> None:
    deep = space_of({"widths": [4], "depths": [1, 2]}, choices=choices)
    flat = space_of({"widths": [4], "depths": [1]}, choices=choices)
    assert cost.costs_of(deep, [deep.smallest]).row(0) == cost.costs_of(flat, [flat.largest]).row(0)


def test_counts_beyond_32_bits_are_exact(space_of) -> None:
    """A 3x3 convolution from 1 to 4096 channels at 1024 x 1024 pixels: 3.9e10 MACs; the 1x1: 1.8e13."""
    space = space_of({"widths": [4096], "depths": [1]}, stem={"widths": [4096]}, resolutions=[1024])
    expected = (4096 * 9 + 4096 * 9 + 4096 * 4096) * 1024**2 + 4096 * 3
    assert row_of(space)["num_macs"] == expected
