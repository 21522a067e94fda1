"""Every shipped search space: it is what its comment says, and small enough to be searched as is promised."""

import re

import numpy as np
import pytest

from fedsup_deploy import resources, rng
from fedsup_deploy.commands.search import target_for
from fedsup_deploy.config.load import dump, load_yaml, validate
from fedsup_deploy.device.profile import load_profile
from fedsup_deploy.searchers.limits import within
from fedsup_deploy.searchers.pool import make_pool
from fedsup_deploy.searchers.pricing import price
from fedsup_deploy.searchers.scoring.additive import AdditiveAccuracy
from fedsup_deploy.searchers.stages.front import front_over_stages
from fedsup_deploy.space import cost, sampling
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet import slices as rule

SPACES = resources.shipped_names("configs/spaces")


@pytest.fixture(params=SPACES)
def space(request) -> SearchSpace:
    return validate(load_yaml(resources.find("configs/spaces", request.param)), SearchSpace)


def test_it_is_the_same_after_being_written_down(space, tmp_path):
    (tmp_path / "again.yaml").write_text(dump(space), encoding="utf-8")
    assert validate(load_yaml(tmp_path / "again.yaml"), SearchSpace) == space


def test_its_corners_are_in_it_and_differ_in_every_cost(space):
    small, large = (cost.costs_of(space, [corner]).row(0) for corner in (space.smallest, space.largest))
    assert {name for name, value in small.items() if value < large[name]} == set(small)
    assert (space.resolve("smallest"), space.resolve("largest")) == (space.smallest, space.largest)


def test_every_subnet_has_the_tensors_of_the_smallest(space):
    """So that clients of a federation train the smallest within whatever they are sent."""
    smallest, generator = set(rule.shapes(space.plan(space.smallest), "batch")), rng.generator(0, "subnets")
    for _ in range(50):
        subnet = sampling.random_architecture(space, generator)
        assert smallest <= set(rule.shapes(space.plan(subnet), "batch")), subnet


def test_the_number_of_architectures_is_what_its_comment_says(space):
    comment = resources.find("configs/spaces", space.name).read_text(encoding="utf-8").partition("schema:")[0]
    told = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) architectures", comment)]
    assert all(number == space.num_architectures for number in told)
    assert told or space.name not in {"fedsup-mobilenet", "fedsup-mobilenet-per-block", "large-mobilenet"}


def test_a_space_too_large_to_list_is_searched_over_stages(space):
    """The front of any accuracy that is a sum: no subnet of a sample that fits is better than all of it."""
    if make_pool(space, 0).is_complete:
        assert space.name != "large-mobilenet"
        return
    draw = rng.generator(0, "accuracy")
    accuracy = AdditiveAccuracy(0.7, tuple(draw.normal(0, 0.01, count) for count in space.num_choices))
    target = target_for(load_profile("jetson-nano"), {"latency_ms": 4.0, "params": 600_000})
    front_KG = front_over_stages(space, target, accuracy)
    sample_NG = sampling.random_genes(space, rng.generator(0, "sample"), 5_000)
    (front, sample) = (price(space, genes, [target])[0] for genes in (front_KG, sample_NG))
    assert within(front.by_limit(), target.limits).all()
    fits_N = within(sample.by_limit(), target.limits)
    assert 500 < fits_N.sum() < 5_000
    best_N = accuracy.of(front_KG)[np.searchsorted(front.latency_ms, sample.latency_ms[fits_N], side="right") - 1]
    assert (np.diff(accuracy.of(front_KG)) > 0).all()
    assert front.latency_ms[0] <= sample.latency_ms[fits_N].min()
    assert (best_N >= accuracy.of(sample_NG[fits_N]) - 1e-11).all()


def test_it_takes_images_of_any_number_of_channels_and_classes(space):
    for channels, classes in ((1, 2), (3, 100)):
        fitted = space.with_data(channels, classes)
        assert (fitted.in_channels, fitted.num_classes) == (channels, classes)
        assert fitted.num_architectures == space.num_architectures
