"""Layers of a network: one architecture, many at once, and leading parts."""

import numpy as np
import pytest

from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockPlan, concrete, largest_over
from fedsup_deploy.space.search_space import SearchSpace


@pytest.mark.parametrize(("size", "stride", "expected"), [(8, 1, 8), (8, 2, 4), (7, 2, 4), (1, 2, 1)])
def test_result_has_the_rounded_up_size(size: int, stride: int, expected: int) -> None:
    assert Layer("x", "conv", 1, 1, size, 3, stride).out_size == expected
    assert Layer("x", "conv", 1, 1, np.array([size]), 3, stride).out_size.tolist() == [expected]


def test_layers_come_in_the_order_they_run(tiny_space: SearchSpace) -> None:
    plan = tiny_space.plan(tiny_space.largest)
    expected = [
        "stem",
        *("s1.0.depthwise", "s1.0.project", "s1.0.shortcut", "s1.0.add"),
        *("s1.1.depthwise", "s1.1.project", "s1.1.add"),
        *("s2.0.depthwise", "s2.0.project", "s2.0.pool", "s2.0.shortcut", "s2.0.add"),
        *("head.pool", "head"),
    ]
    assert [layer.name for layer in plan.layers()] == expected
    normed = [name for name in expected if name == "stem" or name.endswith((".depthwise", ".project", ".shortcut"))]
    assert [layer.name for layer in plan.norm_layers()] == normed


def test_plan_of_one_architecture_is_in_plain_integers(tiny_space: SearchSpace) -> None:
    for layer in tiny_space.plan(tiny_space.largest).layers():
        numbers = (layer.in_channels, layer.out_channels, layer.in_size, layer.kernel_size)
        assert {type(number) for number in numbers} == {int}
        assert layer.is_active is True


def test_plan_of_many_is_the_plans_of_each(tiny_space: SearchSpace) -> None:
    genes_NG = tiny_space.enumerate_genes()
    together = tiny_space.plan_many(genes_NG)
    for index in (0, 17, 63):
        alone = tiny_space.plan(tiny_space.decode(genes_NG[index]))
        row = [
            (layer.name, *(int(np.broadcast_to(value, len(genes_NG))[index]) for value in numbers))
            for layer in together.layers()
            for numbers in [(layer.in_channels, layer.out_channels, layer.in_size, layer.kernel_size)]
            if np.broadcast_to(layer.is_active, len(genes_NG))[index]
        ]
        assert row == [
            (layer.name, layer.in_channels, layer.out_channels, layer.in_size, layer.kernel_size)
            for layer in alone.layers()
        ]


def test_concrete_drops_inactive_blocks_and_layers(tiny_space: SearchSpace) -> None:
    many = tiny_space.plan_many(tiny_space.encode(tiny_space.smallest)[None])
    assert [block.name for block in many.blocks] == ["s1.0", "s1.1", "s2.0"]
    plan = concrete(many)
    assert [block.name for block in plan.blocks] == ["s1.0", "s2.0"]
    assert [layer.name for layer in plan.blocks[0].main] == ["s1.0.depthwise", "s1.0.project"]
    assert plan.blocks[0].shortcut == ()


def test_until_is_the_shortest_leading_part_with_the_layer(tiny_space: SearchSpace) -> None:
    plan = tiny_space.plan(tiny_space.largest)
    assert plan.until("stem").blocks == ()
    assert [block.name for block in plan.until("s1.0.project").blocks] == ["s1.0"]
    assert [block.name for block in plan.until("s2.0.shortcut").blocks] == ["s1.0", "s1.1", "s2.0"]
    assert plan.until("s2.0.shortcut").head == ()
    with pytest.raises(KeyError):
        plan.until("s3.0.project")


def test_largest_over_takes_each_number_among_the_architectures_that_have_the_layer() -> None:
    """The second architecture's 99 channels do not count: it has no shortcut."""
    have, all_have = np.array([True, False, True]), np.array([True] * 3)
    shortcut = Layer("b.shortcut", "pointwise", np.array([4, 99, 6]), np.array([8, 99, 2]), 5, is_active=have)
    nobody = Layer("b.se", "squeeze_excite", 4, 1, 5, is_active=np.array([False] * 3))
    add = Layer("b.add", "add", np.array([8, 99, 2]), 8, np.array([5]), is_active=all_have)
    block = largest_over(BlockPlan("b", (nobody,), (shortcut,), add))
    (largest,) = block.shortcut
    assert (largest.in_channels.tolist(), largest.out_channels.tolist(), largest.in_size.tolist()) == ([6], [8], [5])
    assert largest.is_active.tolist() == [True]
    assert block.main[0].is_active.tolist() == [False]
    assert block.add.in_channels.tolist() == [99]
