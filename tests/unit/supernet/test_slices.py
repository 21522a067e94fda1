"""The weight-sharing rule on tensors small enough to write out."""

import pytest
import torch

from fedsup_deploy.space.architecture import Architecture, Block
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule


@pytest.fixture(scope="module")
def space(space_of) -> SearchSpace:
    """One stage with everything elastic."""
    return space_of(
        {
            "widths": [4, 8],
            "depths": [1, 2],
            "kernel_sizes": [3, 5],
            "expand_ratios": [1, 2],
            "squeeze_excite": [False, True],
        },
        stem={"widths": [2, 4]},
    )


def slices_of(space: SearchSpace, architecture: Architecture, normalization: str = "batch") -> rule.Slices:
    return rule.slices(space.full_plan, space.plan(architecture), normalization)


def test_shapes_of_the_supernet(space: SearchSpace) -> None:
    """The widest block input is 4 for the first block and 8 for the second."""
    shapes = rule.shapes(space.full_plan, "batch")
    assert shapes["stem.weight"] == (4, 1, 3, 3)
    assert shapes["stem.norm.gamma"] == (4,)
    assert shapes["s1.0.expand.weight"] == (8, 4, 1, 1)
    assert shapes["s1.0.depthwise.weight"] == (8, 1, 5, 5)
    assert shapes["s1.0.project.weight"] == (8, 8, 1, 1)
    assert shapes["s1.1.depthwise.weight"] == (16, 1, 5, 5)
    assert shapes["s1.1.se.reduce.weight"] == (4, 16, 1, 1)
    assert shapes["s1.1.se.expand.weight"] == (16, 4, 1, 1)
    assert (shapes["s1.1.se.reduce.bias"], shapes["s1.1.se.expand.bias"]) == ((4,), (16,))
    assert (shapes["head.weight"], shapes["head.bias"]) == ((3, 8), (3,))
    assert "stem.bias" not in shapes
    assert "s1.1.shortcut.weight" not in shapes


def test_parametric_normalisation_has_a_centre_as_well(space: SearchSpace) -> None:
    batch, parametric = (rule.shapes(space.full_plan, kind) for kind in ("batch", "parametric"))
    normed = [layer.name for layer in space.full_plan.norm_layers()]
    assert parametric.keys() - batch.keys() == {f"{name}.norm.alpha" for name in normed}
    assert all(parametric[name] == shape for name, shape in batch.items())


def test_smallest_takes_first_channels_centre_kernels_and_first_blocks(space: SearchSpace) -> None:
    where = slices_of(space, space.smallest)
    first = slice(0, 2)
    assert where["stem.weight"] == (first, slice(0, 1), slice(0, 3), slice(0, 3))
    assert where["s1.0.depthwise.weight"] == (first, slice(0, 1), slice(1, 4), slice(1, 4))
    assert where["s1.0.project.weight"] == (slice(0, 4), first, slice(0, 1), slice(0, 1))
    assert where["s1.0.shortcut.weight"] == (slice(0, 4), first, slice(0, 1), slice(0, 1))
    assert where["head.weight"] == (slice(0, 3), slice(0, 4))
    assert where["s1.0.depthwise.norm.gamma"] == (first,)
    assert not any(name.startswith(("s1.1.", "s1.0.se.", "s1.0.expand.")) for name in where)


def test_centre_of_a_kernel_is_its_middle(space: SearchSpace) -> None:
    kernel = torch.arange(25.0).reshape(1, 1, 5, 5).expand(8, 1, 5, 5)
    name = "s1.0.depthwise.weight"
    part = rule.gather({name: kernel}, {name: slices_of(space, space.smallest)[name]})
    expected = torch.tensor([[6.0, 7.0, 8.0], [11.0, 12.0, 13.0], [16.0, 17.0, 18.0]])
    assert torch.equal(part[name][0, 0], expected)


def test_largest_takes_everything_it_has(space: SearchSpace) -> None:
    shapes = rule.shapes(space.full_plan, "batch")
    for name, index in slices_of(space, space.largest).items():
        assert torch.zeros(shapes[name])[index].shape == shapes[name], name


def test_squeeze_excite_is_cut_on_both_sides(space: SearchSpace) -> None:
    gated = Architecture(8, 2, ((Block(4, 3, 2, has_se=True),),))
    where = slices_of(space, gated)
    assert where["s1.0.se.reduce.weight"] == (slice(0, 1), slice(0, 4), slice(0, 1), slice(0, 1))
    assert where["s1.0.se.expand.weight"] == (slice(0, 4), slice(0, 1), slice(0, 1), slice(0, 1))
    assert where["s1.0.se.reduce.bias"] == (slice(0, 1),)
    assert where["s1.0.se.expand.bias"] == (slice(0, 4),)


def test_gathered_parts_are_views_through_which_gradients_flow() -> None:
    shared = torch.ones(3, 3, requires_grad=True)
    part = rule.gather({"x": shared}, {"x": (slice(0, 2), slice(0, 1))})["x"]
    assert part.untyped_storage().data_ptr() == shared.untyped_storage().data_ptr()
    (2 * part).sum().backward()
    expected = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert shared.grad is not None
    assert torch.equal(shared.grad, expected)


def test_scatter_add_adds_weighted_parts_in_place() -> None:
    target = {"x": torch.ones(2, 3), "y": torch.zeros(2)}
    rule.scatter_add(target, {"x": torch.tensor([[1.0, 2.0]])}, {"x": (slice(0, 1), slice(0, 2))}, 10.0)
    assert target["x"].tolist() == [[11.0, 21.0, 1.0], [1.0, 1.0, 1.0]]
    assert target["y"].tolist() == [0.0, 0.0]


def test_coverage_is_the_union_of_parts() -> None:
    masks = rule.coverage(
        {"x": (2, 3), "y": (1,)},
        [{"x": (slice(0, 1), slice(0, 2))}, {"x": (slice(0, 2), slice(0, 1))}],
    )
    assert masks["x"].tolist() == [[True, True, False], [True, False, False]]
    assert masks["y"].tolist() == [False]
