"""Networks of published latency tables, layer by layer, as the benchmarks run them: what a profile is checked with.

Owns the shapes of those networks, from the files the tables were made with where there are such, else from the papers.
It never runs one. A layer that is none of `OP_KINDS` (a concatenation, an activation that nothing fuses) counts as the
kind that moves as many elements.
"""

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from fedsup_deploy.errors import ConfigError
from fedsup_deploy.registry import nearest
from fedsup_deploy.space.cost import LayerCosts


class _Row(NamedTuple):
    """One layer."""

    op: str
    num_macs: int
    moved_elements: int


def names() -> list[str]:
    """Return the names of the networks, sorted."""
    return sorted(_NETWORKS)


def layer_costs(name: str) -> LayerCosts:
    """Return the work of each layer of a network at batch 1, for N = 1.

    Raises:
        ConfigError: There is no network of that name.
    """
    if name not in _NETWORKS:
        raise ConfigError(f"unknown reference network {name!r}{nearest(name, _NETWORKS)}")
    rows = list(_NETWORKS[name]())
    num_macs_NL = np.array([[row.num_macs for row in rows]], np.int64)
    moved_elements_NL = np.array([[row.moved_elements for row in rows]], np.int64)
    is_active_NL = np.ones(num_macs_NL.shape, np.bool_)
    return LayerCosts(tuple(row.op for row in rows), is_active_NL, num_macs_NL, moved_elements_NL)


def _weighted(op: str, inputs: int, outputs: int, size: int, kernel: int = 1, stride: int = 1) -> _Row:
    """Return a convolution or linear layer that reads `size` x `size` maps and pads them."""
    out_size = -(-size // stride)
    weights = outputs * (1 if op == "depthwise" else inputs) * kernel**2
    moved = inputs * size**2 + outputs * out_size**2 + weights + outputs
    return _Row(op, weights * out_size**2, moved)


def _pool(channels: int, size: int, out_size: int) -> _Row:
    return _Row("pool", 0, channels * (size**2 + out_size**2))


def _add(channels: int, size: int) -> _Row:
    return _Row("add", 0, 3 * channels * size**2)


def _map(channels: int, size: int) -> _Row:
    """Return a layer that reads and writes every element once."""
    return _Row("scale", 0, 2 * channels * size**2)


def _classifier(channels: int, size: int, classes: int) -> Iterator[_Row]:
    yield _Row("global_pool", 0, channels * size**2 + channels)
    yield _weighted("linear", channels, classes, 1)


def _mobilenet_v1(size: int = 224, divisor: int = 1, classes: int = 1000) -> Iterator[_Row]:
    """Source: Howard et al., arXiv 1704.04861, table 1. All widths are divided by `divisor`."""
    width, size = 32 // divisor, size // 2
    yield _weighted("conv", 3, width, 2 * size, 3, 2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for full_width, stride in blocks:
        yield _weighted("depthwise", width, width, size, 3, stride)
        size //= stride
        yield _weighted("pointwise", width, full_width // divisor, size)
        width = full_width // divisor
    yield from _classifier(width, size, classes)


def _mobilenet_v1_vww() -> Iterator[_Row]:
    """The network of MLPerf Tiny for visual wake words."""
    return _mobilenet_v1(96, divisor=4, classes=2)


def _inverted_residuals(stages: list[tuple[int, int, int, int, int]], size: int, width: int) -> Iterator[_Row]:
    """Yield blocks of (kernel, expand, width, depth, stride of the first). An expand of 0 has no first 1x1."""
    for kernel, expand, outputs, depth, first_stride in stages:
        for index in range(depth):
            stride, hidden = (first_stride if index == 0 else 1), width * max(expand, 1)
            if expand:
                yield _weighted("pointwise", width, hidden, size)
            yield _weighted("depthwise", hidden, hidden, size, kernel, stride)
            size //= stride
            yield _weighted("pointwise", hidden, outputs, size)
            if stride == 1 and width == outputs:
                yield _add(outputs, size)
            width = outputs


def _mobilenet_v2(first_expand: int = 0) -> Iterator[_Row]:
    """Source: Sandler et al., arXiv 1801.04381, table 2."""
    yield _weighted("conv", 3, 32, 224, 3, 2)
    stages = [(3, first_expand, 16, 1, 1), (3, 6, 24, 2, 2), (3, 6, 32, 3, 2), (3, 6, 64, 4, 2)]
    stages += [(3, 6, 96, 3, 1), (3, 6, 160, 3, 2), (3, 6, 320, 1, 1)]
    yield from _inverted_residuals(stages, 112, 32)
    yield _weighted("pointwise", 320, 1280, 7)
    yield from _classifier(1280, 7, 1000)


def _mobilenet_v2_ncnn() -> Iterator[_Row]:
    """The file of ncnn has a 1x1 convolution before the first depthwise one, the paper has not."""
    return _mobilenet_v2(first_expand=1)


def _mnasnet_ncnn() -> Iterator[_Row]:
    """MnasNet-B1, as in the file of ncnn. Source: Tan et al., arXiv 1807.11626."""
    yield _weighted("conv", 3, 32, 224, 3, 2)
    stages = [(3, 0, 16, 1, 1), (3, 3, 24, 3, 2), (5, 3, 40, 3, 2), (5, 6, 80, 3, 2)]
    stages += [(3, 6, 96, 2, 1), (5, 6, 192, 4, 2), (3, 6, 320, 1, 1)]
    yield from _inverted_residuals(stages, 112, 32)
    yield _weighted("pointwise", 320, 1280, 7)
    yield from _classifier(1280, 7, 1000)


def _squeezenet_ncnn() -> Iterator[_Row]:
    """SqueezeNet 1.1 at 227x227, as in the file of ncnn: pools round up; the halves of a block are concatenated."""
    # The first convolution does not pad: 226 of 227 pixels are what a padding one would read to give 113.
    yield _weighted("conv", 3, 64, 226, 3, 2)
    yield _pool(64, 113, 56)
    width, size = 64, 56
    for squeeze, depth, pooled in [(16, 2, 28), (32, 2, 14), (48, 2, None), (64, 2, None)]:
        for _ in range(depth):
            half = 4 * squeeze
            yield _weighted("pointwise", width, squeeze, size)
            yield _weighted("pointwise", squeeze, half, size)
            yield _weighted("conv", squeeze, half, size, 3)
            width = 2 * half
            yield _map(width, size)
        if pooled is not None:
            yield _pool(width, size, pooled)
            size = pooled
    yield _weighted("pointwise", width, 1000, size)
    yield _Row("global_pool", 0, 1000 * size**2 + 1000)


def _vgg_16() -> Iterator[_Row]:
    """Source: Simonyan and Zisserman, arXiv 1409.1556, configuration D."""
    width, size = 3, 224
    for outputs, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(depth):
            yield _weighted("conv", width, outputs, size, 3)
            width = outputs
        yield _pool(width, size, size // 2)
        size //= 2
    for inputs, outputs in [(512 * 7 * 7, 4096), (4096, 4096), (4096, 1000)]:
        yield _weighted("linear", inputs, outputs, 1)


def _basic_blocks(stages: list[tuple[int, int]], depth: int, size: int, width: int) -> Iterator[_Row]:
    """Yield residual blocks of two 3x3 convolutions; the first of a stage of (width, stride) may have a shortcut."""
    for outputs, first_stride in stages:
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            if stride > 1:
                yield _weighted("pointwise", width, outputs, size, 1, stride)
            yield _weighted("conv", width, outputs, size, 3, stride)
            size //= stride
            yield _weighted("conv", outputs, outputs, size, 3)
            yield _add(outputs, size)
            width = outputs


def _resnet_8() -> Iterator[_Row]:
    """The network of MLPerf Tiny for image classification, 32x32."""
    yield _weighted("conv", 3, 16, 32, 3)
    yield from _basic_blocks([(16, 1), (32, 2), (64, 2)], 1, 32, 16)
    yield from _classifier(64, 8, 10)


def _resnet_18() -> Iterator[_Row]:
    """Source: He et al., arXiv 1512.03385, table 1."""
    yield _weighted("conv", 3, 64, 224, 7, 2)
    yield _pool(64, 112, 56)
    yield from _basic_blocks([(64, 1), (128, 2), (256, 2), (512, 2)], 2, 56, 64)
    yield from _classifier(512, 7, 1000)


def _resnet_50(image_size: int = 224) -> Iterator[_Row]:
    """With the stride in the first 1x1 convolution, as in the file of ncnn and in Keras. Source: as of ResNet-18."""
    halved = -(-image_size // 2)
    width, size = 64, -(-halved // 2)
    yield _weighted("conv", 3, width, image_size, 7, 2)
    yield _pool(width, halved, size)
    for hidden, depth, first_stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for index in range(depth):
            stride, outputs = (first_stride if index == 0 else 1), 4 * hidden
            if index == 0:
                yield _weighted("pointwise", width, outputs, size, 1, stride)
            yield _weighted("pointwise", width, hidden, size, 1, stride)
            size = -(-size // stride)
            yield _weighted("conv", hidden, hidden, size, 3)
            yield _weighted("pointwise", hidden, outputs, size)
            yield _add(outputs, size)
            width = outputs
    yield from _classifier(2048, size, 1000)


def _resnet_50_at_299() -> Iterator[_Row]:
    return _resnet_50(299)


def _nas_bench_201_net_0() -> Iterator[_Row]:
    """A ReLU before a convolution cannot be fused into it. Source: Dong and Yang, arXiv 2001.00326."""
    yield _weighted("conv", 3, 16, 32, 3)
    for width, size in ((16, 32), (32, 16), (64, 8)):
        if width > 16:
            before, before_size = width // 2, size * 2
            yield _map(before, before_size)
            yield _weighted("conv", before, width, before_size, 3, 2)
            yield _map(width, size)
            yield _weighted("conv", width, width, size, 3)
            yield _pool(before, before_size, size)
            yield _weighted("pointwise", before, width, size)
            yield _add(width, size)
        for _ in range(5):
            yield _pool(width, size, size)
            yield from [_add(width, size)] * 3
            yield from [_map(width, size), _weighted("pointwise", width, width, size)] * 2
    yield _map(64, 8)
    yield from _classifier(64, 8, 10)


_NETWORKS: Final = MappingProxyType[str, Callable[[], Iterator[_Row]]](
    {
        "mnasnet-ncnn": _mnasnet_ncnn,
        "mobilenet-v1": _mobilenet_v1,
        "mobilenet-v1-vww": _mobilenet_v1_vww,
        "mobilenet-v2": _mobilenet_v2,
        "mobilenet-v2-ncnn": _mobilenet_v2_ncnn,
        "nas-bench-201-net-0": _nas_bench_201_net_0,
        "resnet-18": _resnet_18,
        "resnet-50": _resnet_50,
        "resnet-50-at-299": _resnet_50_at_299,
        "resnet-8": _resnet_8,
        "squeezenet-ncnn": _squeezenet_ncnn,
        "vgg-16": _vgg_16,
    }
)
