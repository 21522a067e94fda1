"""Every shipped profile: complete, honest about what was not measured, and true to the figures it was deduced from.

The reference networks are those of the published tables, layer by layer, as the benchmarks run them.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest

from fedsup_deploy import registry
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.predictor import predict_interval, predictor_for
from fedsup_deploy.device.profile import DeviceProfile, load_profile
from fedsup_deploy.resources import find, shipped_names
from fedsup_deploy.space.cost import LayerCosts, costs, costs_of
from fedsup_deploy.space.search_space import SearchSpace

NAMES = shipped_names("profiles")

Row = tuple[str, int, int]


def layer(op: str, inputs: int, outputs: int, size: int, kernel: int = 1, stride: int = 1) -> Row:
    """Return (kind, MACs, moved elements) of a layer that reads `size` x `size` maps."""
    out_size = -(-size // stride)
    if op in {"pool", "global_pool"}:
        return op, 0, inputs * size**2 + (inputs if op == "global_pool" else inputs * out_size**2)
    if op in {"add", "scale"}:
        return op, 0, (3 if op == "add" else 2) * inputs * size**2
    weights = outputs * (1 if op == "depthwise" else inputs) * kernel**2
    return op, weights * out_size**2, inputs * size**2 + outputs * out_size**2 + weights + outputs


def mobilenet_v1() -> list[Row]:
    rows, width, size = [layer("conv", 3, 32, 224, 3, 2)], 32, 112
    for outputs, stride in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]:
        rows.append(layer("depthwise", width, width, size, 3, stride))
        size = -(-size // stride)
        rows.append(layer("pointwise", width, outputs, size))
        width = outputs
    return [*rows, layer("global_pool", 1024, 1024, 7), layer("linear", 1024, 1000, 1)]


def mobilenet_v2(expands_first: bool = False) -> list[Row]:
    """The ncnn file has a 1x1 convolution before the first depthwise one, the original has not."""
    rows, width, size = [layer("conv", 3, 32, 224, 3, 2)], 32, 112
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, outputs, depth, first_stride in stages:
        for index in range(depth):
            stride, hidden = (first_stride if index == 0 else 1), width * expand
            if expand > 1 or expands_first:
                rows.append(layer("pointwise", width, hidden, size))
            rows.append(layer("depthwise", hidden, hidden, size, 3, stride))
            size = -(-size // stride)
            rows.append(layer("pointwise", hidden, outputs, size))
            if stride == 1 and width == outputs:
                rows.append(layer("add", outputs, outputs, size))
            width = outputs
    head = [layer("pointwise", 320, 1280, 7), layer("global_pool", 1280, 1280, 7), layer("linear", 1280, 1000, 1)]
    return rows + head


def mobilenet_v2_ncnn() -> list[Row]:
    return mobilenet_v2(expands_first=True)


def resnet_18() -> list[Row]:
    rows, width, size = [layer("conv", 3, 64, 224, 7, 2), layer("pool", 64, 64, 112, 3, 2)], 64, 56
    for outputs, first_stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        for stride in (first_stride, 1):
            if stride > 1:
                rows.append(layer("pointwise", width, outputs, size, 1, stride))
            rows.append(layer("conv", width, outputs, size, 3, stride))
            size = -(-size // stride)
            rows += [layer("conv", outputs, outputs, size, 3), layer("add", outputs, outputs, size)]
            width = outputs
    return [*rows, layer("global_pool", 512, 512, 7), layer("linear", 512, 1000, 1)]


def resnet_50() -> list[Row]:
    """With the stride in the first 1x1 convolution, as in the ncnn file."""
    rows, width, size = [layer("conv", 3, 64, 224, 7, 2), layer("pool", 64, 64, 112, 3, 2)], 64, 56
    for hidden, depth, first_stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for index in range(depth):
            stride, outputs = (first_stride if index == 0 else 1), 4 * hidden
            if index == 0:
                rows.append(layer("pointwise", width, outputs, size, 1, stride))
            rows.append(layer("pointwise", width, hidden, size, 1, stride))
            size = -(-size // stride)
            rows += [layer("conv", hidden, hidden, size, 3), layer("pointwise", hidden, outputs, size)]
            rows.append(layer("add", outputs, outputs, size))
            width = outputs
    return [*rows, layer("global_pool", 2048, 2048, 7), layer("linear", 2048, 1000, 1)]


def nas_bench_201_net_0() -> list[Row]:
    """A ReLU before a convolution cannot be fused into it: it counts as a layer that only moves elements."""
    rows = [layer("conv", 3, 16, 32, 3)]
    for width, size in ((16, 32), (32, 16), (64, 8)):
        if width > 16:
            before, before_size = width // 2, size * 2
            rows += [layer("scale", before, before, before_size), layer("conv", before, width, before_size, 3, 2)]
            rows += [layer("scale", width, width, size), layer("conv", width, width, size, 3)]
            rows += [layer("pool", before, before, before_size, 2, 2), layer("pointwise", before, width, size)]
            rows.append(layer("add", width, width, size))
        cell = [layer("pool", width, width, size), *[layer("add", width, width, size)] * 3]
        cell += [layer("scale", width, width, size), layer("pointwise", width, width, size)] * 2
        rows += cell * 5
    return [*rows, layer("scale", 64, 64, 8), layer("global_pool", 64, 64, 8), layer("linear", 64, 10, 1)]


def predicted_ms(profile: DeviceProfile, rows: list[Row]) -> float:
    ops, macs, moved = zip(*rows, strict=True)
    one = LayerCosts(ops, np.ones((1, len(ops)), np.bool_), np.array([macs]), np.array([moved]))
    return float(predictor_for(profile).predict(one)[0])


def paper_space() -> SearchSpace:
    return validate(load_yaml(find("configs/spaces", "fedsup-mobilenet")), SearchSpace)


@pytest.mark.parametrize(
    ("network", "num_macs"),
    [
        (mobilenet_v1, 568_740_352),
        (mobilenet_v2, 300_774_272),
        (resnet_18, 1_814_073_344),
        (resnet_50, 3_857_973_248),
        (nas_bench_201_net_0, 15_647_360),
    ],
)
def test_the_reference_networks_have_their_known_number_of_macs(
    network: Callable[[], list[Row]], num_macs: int
) -> None:
    assert sum(macs for _, macs, _ in network()) == num_macs


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_is_complete(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.formats) <= set(registry.names("exporter"))
    assert profile.limits.latency_ms is not None
    assert json.loads(json.dumps(profile.summary()))["name"] == name
    assert len(profile.profile_hash) == 64


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_that_was_not_measured_claims_no_error_and_says_so(name: str) -> None:
    profile = load_profile(name)
    assert not profile.is_measured
    assert profile.error == "none"
    assert predict_interval(profile, np.array([1.0])) is None
    assert "measure before promising" in profile.description


@pytest.mark.parametrize("name", NAMES)
def test_costs_and_limits_make_sense_for_the_paper_space(name: str) -> None:
    """The limit lies inside the space's range or above it, and a larger subnet never is predicted faster."""
    space, profile = paper_space(), load_profile(name)
    corners = costs_of(space, [space.smallest, space.largest])
    smallest_ms, largest_ms = predictor_for(profile).predict(corners.layers)
    assert profile.limits.latency_ms is not None
    assert smallest_ms < min(profile.limits.latency_ms, largest_ms)


def test_default_limits_of_the_fleet_admit_different_shares_of_the_paper_space() -> None:
    space = paper_space()
    work = costs(space, space.enumerate_genes())
    largest = {}
    for name in ("jetson-nano", "raspberry-pi-4", "pixel-class-phone"):
        profile = load_profile(name)
        fits = predictor_for(profile).predict(work.layers) <= profile.limits.latency_ms
        if profile.limits.storage_mib is not None:
            fits &= work.num_params * 4 <= profile.limits.storage_mib * 2**20
        largest[name] = int(work.num_macs[fits].max())
    assert len(set(largest.values())) == 3


# Published times in ms. Those in fp16 count twice for fp32, as the profile says.
PUBLISHED = [
    ("raspberry-pi-4", mobilenet_v2_ncnn, 93.5),
    ("raspberry-pi-4", resnet_18, 191.1),
    ("raspberry-pi-4", resnet_50, 534.1),
    ("raspberry-pi-4", nas_bench_201_net_0, 10.48),
    ("jetson-nano", mobilenet_v2_ncnn, 94.0),
    ("jetson-nano", resnet_18, 221.6),
    ("jetson-nano", resnet_50, 624.8),
    ("raspberry-pi-5", mobilenet_v2_ncnn, 2 * 16.4),
    ("raspberry-pi-5", resnet_18, 2 * 29.7),
    ("raspberry-pi-5", resnet_50, 2 * 89.4),
    ("jetson-orin-nano", mobilenet_v2_ncnn, 2 * 19.4),
    ("jetson-orin-nano", resnet_18, 2 * 48.8),
    ("jetson-orin-nano", resnet_50, 2 * 138.5),
    ("pixel-class-phone", mobilenet_v1, 88.0),
    ("pixel-class-phone", mobilenet_v2, 55.0),
    ("pixel-class-phone", nas_bench_201_net_0, 3.61),
    ("x86-laptop", resnet_18, 20.7),
    ("x86-laptop", resnet_50, 55.5),
]


@pytest.mark.parametrize(("name", "network", "published_ms"), PUBLISHED)
def test_a_profile_gives_back_the_times_it_was_deduced_from(
    name: str, network: Callable[[], list[Row]], published_ms: float
) -> None:
    assert predicted_ms(load_profile(name), network()) == pytest.approx(published_ms, rel=0.01)


@pytest.mark.parametrize(
    ("name", "network", "published_ms"),
    [("raspberry-pi-4", mobilenet_v1, 124.3), ("x86-laptop", mobilenet_v2_ncnn, 7.9)],
)
def test_a_profile_is_within_half_of_a_time_it_was_not_deduced_from(
    name: str, network: Callable[[], list[Row]], published_ms: float
) -> None:
    assert 1 / 1.5 < predicted_ms(load_profile(name), network()) / published_ms < 1.5


def test_every_profile_that_deduces_costs_is_checked() -> None:
    assert {name for name, _, _ in PUBLISHED} == set(NAMES)
