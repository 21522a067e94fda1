"""`Layout`: tensors of a supernet, coverage of its subnets, and its way to another process."""

import pickle

import torch

from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout


def test_whole_takes_every_tensor_as_it_is(tiny_space: SearchSpace) -> None:
    layout = Layout(tiny_space, "batch")
    assert layout.whole.keys() == layout.shapes.keys()
    for name, shape in layout.shapes.items():
        assert torch.zeros(shape)[layout.whole[name]].shape == shape


def test_plans_and_slices_are_computed_once(tiny_space: SearchSpace) -> None:
    layout = Layout(tiny_space, "batch")
    assert layout.plan(tiny_space.smallest) is layout.plan(tiny_space.smallest)
    assert layout.slices(tiny_space.smallest) is layout.slices(tiny_space.smallest)


def test_subnets_that_cover_everything_leave_no_partial_tensor(tiny_space: SearchSpace) -> None:
    layout = Layout(tiny_space, "batch")
    architectures = tuple(tiny_space.decode(genes) for genes in tiny_space.enumerate_genes())
    assert layout.partial_coverage(architectures) == {}


def test_largest_alone_may_leave_tensors_uncovered(detour_space: SearchSpace) -> None:
    masks = Layout(detour_space, "batch").partial_coverage((detour_space.largest,))
    shortcut = "s1.0.shortcut"
    assert masks.keys() == {f"{shortcut}.weight", f"{shortcut}.norm.gamma", f"{shortcut}.norm.beta"}
    assert not any(mask.any() for mask in masks.values())


def test_partly_used_tensor_has_a_mask_of_what_is_used(detour_space: SearchSpace) -> None:
    masks = Layout(detour_space, "batch").partial_coverage((detour_space.smallest,))
    expected = {"s1.0.project.weight", "s1.0.project.norm.gamma", "s1.0.project.norm.beta", "head.weight"}
    assert masks.keys() == expected
    assert masks["s1.0.project.norm.beta"].tolist() == [True] * 8 + [False] * 8
    assert masks["head.weight"].tolist() == [[True] * 8 + [False] * 8] * 3


def test_layout_travels_without_its_caches(tiny_space: SearchSpace) -> None:
    layout = Layout(tiny_space, "parametric")
    empty = len(pickle.dumps(layout))
    for genes in tiny_space.enumerate_genes():
        layout.slices(tiny_space.decode(genes))
    assert len(pickle.dumps(layout)) <= empty * 1.01
    again = pickle.loads(pickle.dumps(layout))  # noqa: S301  our own bytes
    assert again.shapes == layout.shapes
    assert again.slices(tiny_space.smallest) == layout.slices(tiny_space.smallest)
