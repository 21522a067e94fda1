"""Networks cut into parts, and the names of parts."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsup_deploy import resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.space.parts import is_name, layers_of, name_of, part_names, parts_of
from fedsup_deploy.space.sampling import random_genes
from fedsup_deploy.space.search_space import SearchSpace


def shipped(name: str) -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)


def test_parts_are_the_first_convolution_the_blocks_and_the_head(tiny_space: SearchSpace) -> None:
    names = [name_of(part) for part in parts_of(tiny_space.plan(tiny_space.smallest))]
    expected = [
        "conv 3x3 1-4@6",
        "depthwise 3x3 4@6, pointwise 4-4@6 | identity",
        "depthwise 3x3/2 4@6, pointwise 4-8@3 | pool 2x2/2 4@6, pointwise 4-8@3",
        "global_pool 3x3 8@3, linear 8-3@1",
    ]
    assert names == expected


def test_the_layers_of_the_parts_are_those_of_the_network(tiny_space: SearchSpace) -> None:
    plan = tiny_space.plan(tiny_space.largest)
    assert [layer for part in parts_of(plan) for layer in layers_of(part)] == list(plan.layers())


def test_a_relu_after_the_sum_is_part_of_the_name() -> None:
    """A bottleneck has one, an inverted residual has none; they cost differently."""
    resnet, mobilenet = (shipped(name) for name in ("elastic-resnet", "fedsup-mobilenet"))
    assert name_of(parts_of(resnet.plan(resnet.largest))[1]).endswith(" | relu")
    assert "relu" not in name_of(parts_of(mobilenet.plan(mobilenet.largest))[1])


@given(st.sampled_from(resources.shipped_names("configs/spaces")), st.integers(0, 2**32))
def test_many_at_once_are_named_as_one_by_one(space_name: str, seed: int) -> None:
    space = shipped(space_name)
    genes_NG = random_genes(space, rng.generator(seed), 5)
    found = part_names(space.plan_many(genes_NG), len(genes_NG))
    for row, genes in enumerate(genes_NG):
        expected = [name_of(part) for part in parts_of(space.plan(space.decode(genes)))]
        assert [part.names[part.index_N[row]] for part in found if part.index_N[row] >= 0] == expected
        assert all(is_name(name) for name in expected)


def test_squeeze_excitation_has_its_hidden_channels_in_the_name(space_of: Callable[..., SearchSpace]) -> None:
    space = space_of({"widths": [16], "depths": [1], "squeeze_excite": [True]}, stem={"widths": [16]})
    name = name_of(parts_of(space.plan(space.largest))[1])
    assert "squeeze_excite 16-" in name
    assert is_name(name)


@pytest.mark.parametrize(
    "text",
    ["", "conv", "softmax 3@1", "conv 3x3 3-4@8,pointwise 4-4@8", "conv 3x3/3 3-4@8", "identity", "conv 3x3 3-4@8 |"],
)
def test_other_text_is_no_name(text: str) -> None:
    assert not is_name(text)
