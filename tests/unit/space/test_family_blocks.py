"""Which layers the blocks of each family consist of."""

from typing import Any

import pytest

from fedsup_deploy.space.families.mobilenet import MobileNetFamily
from fedsup_deploy.space.families.resnet import ResNetFamily
from fedsup_deploy.space.layers.layer import Layer
from fedsup_deploy.space.plan import BlockInput, BlockPlan


def block(family: Any, **changes: Any) -> BlockPlan:
    inputs = {
        "name": "b",
        "stride": 1,
        "is_active": True,
        "in_channels": 8,
        "in_size": 7,
        "width": 8,
        "kernel_size": 5,
        "expand_ratio": 1,
        "has_se": False,
    }
    return family.block(BlockInput(**{**inputs, **changes}))


def active(path: tuple[Layer, ...]) -> list[tuple[str, str, int, int, int, int]]:
    """Return (part of the name, op, channels in and out, kernel size, size of the result) of the active layers."""
    return [
        (
            layer.name.removeprefix("b."),
            layer.op,
            int(layer.in_channels),
            int(layer.out_channels),
            int(layer.kernel_size),
            int(layer.out_size),
        )
        for layer in path
        if layer.is_active
    ]


def test_mobilenet_block_with_the_identity_as_shortcut() -> None:
    plain = block(MobileNetFamily())
    assert active(plain.main) == [("depthwise", "depthwise", 8, 8, 5, 7), ("project", "pointwise", 8, 8, 1, 7)]
    assert active(plain.shortcut) == []
    assert not plain.add.has_activation


@pytest.mark.parametrize("family", [MobileNetFamily(), ResNetFamily()])
def test_a_strided_shortcut_has_its_convolution_between_equal_numbers_of_channels(family: Any) -> None:
    strided = block(family, stride=2)
    assert active(strided.shortcut) == [("pool", "pool", 8, 8, 2, 4), ("shortcut", "pointwise", 8, 8, 1, 4)]


def test_mobilenet_block_with_everything() -> None:
    full = block(MobileNetFamily(), stride=2, width=12, expand_ratio=2, has_se=True)
    assert active(full.main) == [
        ("expand", "pointwise", 8, 16, 1, 7),
        ("depthwise", "depthwise", 16, 16, 5, 4),
        ("se", "squeeze_excite", 16, 4, 1, 4),
        ("project", "pointwise", 16, 12, 1, 4),
    ]
    assert active(full.shortcut) == [("pool", "pool", 8, 8, 2, 4), ("shortcut", "pointwise", 8, 12, 1, 4)]


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ("has_norm", {"expand", "depthwise", "project", "shortcut"}),
        ("has_activation", {"expand", "depthwise"}),
        ("ends_residual", {"project"}),
    ],
)
def test_mobilenet_norms_and_activations(has: str, expected: set[str]) -> None:
    """The last norm of the main path starts damped."""
    full = block(MobileNetFamily(), stride=2, width=12, expand_ratio=2, has_se=True)
    layers = (*full.main, *full.shortcut, full.add)
    assert {layer.name.removeprefix("b.") for layer in layers if getattr(layer, has)} == expected


@pytest.mark.parametrize(
    ("ratio", "has_expand", "inner"), [(1, False, 8), (1.0, False, 8), (0.5, True, 4), (0.01, True, 1), (6, True, 48)]
)
def test_mobilenet_inner_width(ratio: float, has_expand: bool, inner: int) -> None:
    layers = {layer.name.removeprefix("b."): layer for layer in block(MobileNetFamily(), expand_ratio=ratio).main}
    assert bool(layers["expand"].is_active) is has_expand
    assert int(layers["depthwise"].out_channels) == inner


def test_resnet_block_with_the_identity_as_shortcut() -> None:
    plain = block(ResNetFamily(), width=32, in_channels=32, expand_ratio=0.25)
    assert active(plain.main) == [
        ("reduce", "pointwise", 32, 8, 1, 7),
        ("spatial", "conv", 8, 8, 5, 7),
        ("expand", "pointwise", 8, 32, 1, 7),
    ]
    assert active(plain.shortcut) == []
    assert plain.add.has_activation


def test_resnet_block_with_everything() -> None:
    full = block(ResNetFamily(), stride=2, width=64, expand_ratio=0.5, has_se=True)
    assert active(full.main) == [
        ("reduce", "pointwise", 8, 32, 1, 7),
        ("spatial", "conv", 32, 32, 5, 4),
        ("se", "squeeze_excite", 32, 8, 1, 4),
        ("expand", "pointwise", 32, 64, 1, 4),
    ]
    assert active(full.shortcut) == [("pool", "pool", 8, 8, 2, 4), ("shortcut", "pointwise", 8, 64, 1, 4)]
    normed = {layer.name.removeprefix("b.") for layer in (*full.main, *full.shortcut) if layer.has_norm}
    assert normed == {"reduce", "spatial", "expand", "shortcut"}
    assert [layer.name for layer in full.main if layer.ends_residual] == ["b.expand"]


@pytest.mark.parametrize(("ratio", "inner"), [(0.01, 8), (0.1, 8), (0.3, 16), (0.35, 24), (1, 64)])
def test_resnet_inner_width_is_a_multiple_of_eight(ratio: float, inner: int) -> None:
    assert int(block(ResNetFamily(), width=64, expand_ratio=ratio).main[0].out_channels) == inner


@pytest.mark.parametrize("family", [MobileNetFamily(), ResNetFamily()])
def test_layers_of_an_inactive_block_are_inactive(family: Any) -> None:
    absent = block(family, is_active=False, stride=2, width=16, expand_ratio=2, has_se=True)
    assert not any(layer.is_active for layer in (*absent.main, *absent.shortcut, absent.add))
