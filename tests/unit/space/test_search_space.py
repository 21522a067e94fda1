"""`SearchSpace`: what it accepts, its genes, its corners. The laws are in tests/property."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.cost import costs_of
from fedsup_deploy.space.search_space import SearchSpace

#: resolution, stem width; s1: depth, width, kernel, expand, SE; s2: the same.
LARGEST_GENES = [1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0]


def test_corners_have_the_extreme_choice_everywhere(tiny_space: SearchSpace) -> None:
    assert tiny_space.smallest == Architecture(6, 4, ((Block(4, 3),), (Block(8, 3),)))
    assert tiny_space.largest == Architecture(8, 6, ((Block(8, 5), Block(8, 5)), (Block(12, 3),)))


def test_genes_are_indices_of_choices(tiny_space: SearchSpace) -> None:
    assert tiny_space.encode(tiny_space.smallest).tolist() == [0] * 12
    assert tiny_space.encode(tiny_space.largest).tolist() == LARGEST_GENES
    assert tiny_space.decode(np.array(LARGEST_GENES)) == tiny_space.largest
    assert tiny_space.num_choices == (2, 2, 2, 2, 2, 1, 1, 1, 2, 1, 1, 1)


def test_space_counts_its_architectures(tiny_space: SearchSpace) -> None:
    expected = 2 * 2 * (2 * 2 * 2) * 2
    assert tiny_space.num_architectures == expected == len(tiny_space.enumerate_genes())


def test_per_block_space_counts_each_depth_on_its_own(space_of) -> None:
    """With 2 widths and 3 kernels a block has 6 forms: 6 + 6^2 + 6^3 for depths 1 to 3."""
    space = space_of({"widths": [4, 8], "depths": [1, 2, 3], "kernel_sizes": [3, 5, 7]}, choices="per-block")
    assert space.num_architectures == 6 + 36 + 216
    assert len(space.enumerate_genes()) == 258


def test_huge_space_is_counted_exactly_and_not_enumerated(space_of) -> None:
    stage = {"widths": [4, 8], "depths": [20], "kernel_sizes": [3, 5, 7]}
    space = space_of(stage, stage, choices="per-block")
    assert space.num_architectures == 6**40
    with pytest.raises(ConfigError, match=r"space tiny has 13,367,[\d,]+ architectures, too many to enumerate"):
        space.enumerate_genes()


def test_genes_of_inactive_blocks_are_zero_and_ignored(space_of) -> None:
    space = space_of({"widths": [4, 8], "depths": [1, 2]}, choices="per-block")
    genes = np.array([[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]])
    before = genes.copy()
    expected = [[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]]
    assert space.canonical(genes).tolist() == expected
    assert np.array_equal(genes, before)
    assert space.decode(genes[0]) == Architecture(8, 4, ((Block(8, 3),),))
    assert space.decode(genes[1]) == Architecture(8, 4, ((Block(8, 3), Block(8, 3)),))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture(7, 4, ((Block(4, 3),), (Block(8, 3),))), r"resolution: got 7, expected one of \[6, 8\] of space"),
        (Architecture(8, 5, ((Block(4, 3),), (Block(8, 3),))), "stem_width: got 5, expected one of"),
        (Architecture(8, 4, ((Block(4, 3),),)), "got 1 stages, expected 2 of space tiny"),
        (Architecture(8, 4, ((), (Block(8, 3),))), "depth of s1: got 0, expected one of"),
        (Architecture(8, 4, ((Block(5, 3),), (Block(8, 3),))), "width of a block of s1: got 5"),
        (Architecture(8, 4, ((Block(4, 7),), (Block(8, 3),))), r"kernel_size of a block of s1: got 7, .*\[3, 5\]"),
        (Architecture(8, 4, ((Block(4, 3),), (Block(8, 3, 2),))), "expand_ratio of a block of s2: got 2"),
        (Architecture(8, 4, ((Block(4, 3),), (Block(8, 3, 1, has_se=True),))), "has_se of a block of s2: got True"),
        (Architecture(8, 4, ((Block(4, 3), Block(8, 3)), (Block(8, 3),))), "blocks of s1 differ, but space tiny"),
    ],
)
def test_choice_outside_the_space_is_named(tiny_space: SearchSpace, architecture: Architecture, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_space.encode(architecture)
    assert not tiny_space.contains(architecture)


def test_space_contains_its_corners(tiny_space: SearchSpace) -> None:
    assert tiny_space.contains(tiny_space.smallest)
    assert tiny_space.contains(tiny_space.largest)


def test_resolve_knows_corners_and_arch_ids(tiny_space: SearchSpace) -> None:
    middle = tiny_space.decode(tiny_space.enumerate_genes()[31])
    assert tiny_space.resolve("largest") == tiny_space.largest
    assert tiny_space.resolve("smallest") == tiny_space.smallest
    assert tiny_space.resolve(middle.arch_id) == middle
    with pytest.raises(ConfigError, match="no architecture 'a00000000000' in space tiny: expected largest, smallest"):
        tiny_space.resolve("a00000000000")


def test_space_of_other_data_has_other_tensors(space_of) -> None:
    """Also when the layers were asked for before: they are computed once per space."""
    space = space_of({"widths": [4], "depths": [1]})
    assert space.full_plan.stem.in_channels == 1
    other = space.with_data(in_channels=3, num_classes=7)
    assert other.full_plan.stem.in_channels == 3
    assert other.full_plan.head[-1].out_channels == 7
    assert other.plan(other.largest).stem.in_channels == 3
    assert space.full_plan.stem.in_channels == 1


def test_document_round_trips(tiny_space: SearchSpace) -> None:
    assert SearchSpace.model_validate(tiny_space.to_dict()) == tiny_space
    assert tiny_space.to_dict()["schema"] == 1


def test_full_plan_is_as_large_as_any_architecture_needs(detour_space: SearchSpace) -> None:
    """The largest subnet has no shortcut convolution, the other one has."""
    names = {layer.name for layer in detour_space.plan(detour_space.largest).layers()}
    full = {layer.name: layer for layer in detour_space.full_plan.layers()}
    assert full.keys() - names == {"s1.0.shortcut"}
    assert (full["s1.0.shortcut"].in_channels, full["s1.0.shortcut"].out_channels) == (16, 8)
    assert full["s1.0.project"].out_channels == 16


def test_full_plan_of_a_per_stage_space_has_no_shortcut_between_equal_blocks(space_of) -> None:
    stage = {"widths": [4, 8], "depths": [2]}
    names = {layer.name for layer in space_of(stage).full_plan.layers()}
    assert "s1.0.shortcut" in names
    assert "s1.1.shortcut" not in names
    per_block = {layer.name for layer in space_of(stage, choices="per-block").full_plan.layers()}
    assert {"s1.0.shortcut", "s1.1.shortcut"} < per_block


def test_plan_of_an_elastic_stem_follows_it(tiny_space: SearchSpace) -> None:
    plan = tiny_space.plan(tiny_space.smallest)
    assert (plan.stem.out_channels, plan.stem.in_size) == (4, 6)
    assert plan.blocks[0].main[0].in_channels == 4
    assert [block.name for block in plan.blocks] == ["s1.0", "s2.0"]
    assert plan.blocks[1].main[-1].out_size == 3


STAGE = {"widths": [4], "depths": [1]}


@pytest.mark.parametrize(
    ("stage", "fields", "message"),
    [
        ({"widths": [8, 4]}, {}, r"got \[8, 4\], expected ascending choices without repetition"),
        ({"widths": [4, 4]}, {}, "expected ascending"),
        ({"widths": []}, {}, "at least 1 item"),
        ({"widths": [0]}, {}, "greater than or equal to 1"),
        ({"widths": ["4"]}, {}, "valid integer"),
        ({"depths": [0, 1]}, {}, "greater than or equal to 1"),
        ({"kernel_sizes": [3, 4]}, {}, "expected odd kernel sizes"),
        ({"expand_ratios": [0, 1]}, {}, "expected ratios > 0"),
        ({"expand_ratios": [-0.5]}, {}, "expected ratios > 0"),
        ({"expand_ratios": [float("nan")]}, {}, "finite number"),
        ({"expand_ratios": [1.0, float("inf")]}, {}, "finite number"),
        ({"expand_ratios": [1, 1.0]}, {}, "expected ascending"),
        ({"squeeze_excite": [True, False]}, {}, "expected ascending"),
        ({"squeeze_excite": [1]}, {}, "valid boolean"),
        ({"stride": 3}, {}, "1 or 2"),
        ({"name": "Stage"}, {}, "should match pattern"),
        ({"name": "a.b"}, {}, "should match pattern"),
        ({"name": "head"}, {}, "expected distinct names other than stem and head"),
        ({"width": [4]}, {}, "Extra inputs"),
        ({}, {"stem": {"widths": [4], "kernel_size": 2}}, "got 2, expected an odd kernel size"),
        ({}, {"stem": {"widths": [4, 2]}}, "expected ascending"),
        ({}, {"resolutions": [16, 8]}, "expected ascending"),
        ({}, {"num_classes": 1}, "greater than or equal to 2"),
        ({}, {"stages": []}, "at least 1 item"),
        ({}, {"stages": [{"name": "a", **STAGE}, {"name": "a", **STAGE}]}, "expected distinct names"),
        ({}, {"family": "mobilnet"}, r"unknown family 'mobilnet'; did you mean 'mobilenet'\?"),
        ({}, {"schema": 2}, "Input should be 1"),
        ({}, {"choices": "per-layer"}, "'per-stage' or 'per-block'"),
        ({}, {"depth": 1}, "Extra inputs"),
    ],
)
def test_impossible_space_is_refused(space_of, stage: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    space_of(STAGE)
    with pytest.raises(ValidationError, match=message):
        space_of({**STAGE, **stage}, **fields)


@pytest.mark.parametrize(
    ("stages", "fields", "problem"),
    [
        ([{"widths": [16_385]}], {}, "less than or equal to 16384"),
        ([{"widths": [2**63 - 1]}], {}, "less than or equal to 16384"),
        ([{"widths": list(range(1, 34))}], {}, "at most 32 items"),
        ([{"kernel_sizes": [33]}], {}, "less than or equal to 31"),
        ([{"depths": [65]}], {}, "less than or equal to 64"),
        ([{"depths": [10**11]}], {}, "less than or equal to 64"),
        ([{"expand_ratios": [32.5]}], {}, "less than or equal to 32"),
        ([{"expand_ratios": [10**300]}], {}, "less than or equal to 32"),
        ([{}], {"resolutions": [2049]}, "less than or equal to 2048"),
        ([{}], {"stem": {"widths": [4], "kernel_size": 33}}, "less than or equal to 31"),
        ([{}], {"in_channels": 1025}, "less than or equal to 1024"),
        ([{}], {"num_classes": 1_000_001}, "less than or equal to 1000000"),
        ([{}], {"name": "a" * 65}, "at most 64 characters"),
        ([{}] * 33, {}, "at most 32 items"),
        ([{"depths": [64]}] * 5, {}, "got 320 blocks in all, expected at most 256"),
        (
            [
                {
                    "widths": list(range(1, 33)),
                    "expand_ratios": list(range(1, 33)),
                    "kernel_sizes": list(range(1, 32, 2)),
                }
            ],
            {},
            "got 16,384 combinations of a block's choices, expected at most 1,000",
        ),
        (
            [{"widths": [16_384], "kernel_sizes": [31], "expand_ratios": [32]}] * 2,
            {"family": "resnet"},
            r"got a supernet of [\d,]{15,} parameters, expected at most 17,179,869,184",
        ),
    ],
)
def test_what_no_machine_could_hold_is_refused(
    space_of, stages: list[dict[str, Any]], fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        space_of(*({"widths": [4], "depths": [1], **stage} for stage in stages), **fields)


def test_parameters_are_those_of_the_supernet(space_of) -> None:
    """In a space of one architecture these are the network's; else as many as any needs."""
    one = space_of({"widths": [8], "depths": [2], "kernel_sizes": [5]})
    assert one.num_params == costs_of(one, [one.largest]).row(0)["num_params"]
    detour = space_of({"widths": [8, 16], "depths": [1]}, stem={"widths": [16]})
    assert detour.num_params > costs_of(detour, [detour.largest]).row(0)["num_params"]
