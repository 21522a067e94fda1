"""How many bytes of an ONNX file are no parameters: nodes, names, shapes and, in int8, scales. Needs no onnx.

Counted are the nodes that `onnx_graph` would write, and what `quantization` would make of them. It is an upper bound,
whose nodes are as large for every number of channels: a layer is taken to have 16,383, and what it reads to have a long
name. In int8 nobody knows beforehand how many bytes a zero point takes, which follows from the range of an activation.
Of the shipped spaces it is up to 13 % above the graph in float32, which is at most 1 % of the file, and 6 % in int8.
Not in it is what a file says of itself, such as its classes.
"""

import dataclasses
import functools
from typing import Final

import numpy as np

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.space import int8_size
from fedsup_deploy.space.layers.kind import folded_shapes, kind_of, owned_weights
from fedsup_deploy.space.layers.layer import Layer, Number
from fedsup_deploy.space.node_size import CountedNodes, tensor_bytes
from fedsup_deploy.space.plan import IntArray, NetworkPlan

#: What a file has besides its layers, at most: versions, names, and the shapes of input and output.
FRAME_BYTES: Final = 160
# The largest numbers of channels and pixels that their fields have room for here.
_CHANNELS: Final = 2**14 - 1
_SIDE: Final = 2**7 - 1
# Names of values that are longer than their layer's end with this.
_SUFFIX: Final = ".relu"
# By so much another layer's name may be longer: `mb10.10.depthwise.relu` is read by `mb10.10.add`.
_LONGER: Final = 12


def graph_bytes(plan: NetworkPlan, count: int, scheme: Int8Scheme | None = None) -> IntArray:
    """Return how many bytes the layers of N networks add to a file besides their parameters, at most, shape (N,).

    Args:
        plan: Layers of N networks at once, or of one in plain integers.
        count: N.
        scheme: Of an int8 file, of whose parameters each counts elsewhere as one byte; None for float32.
    """
    one = [plan.stem, *(layer for block in plan.blocks for layer in (*block.main, *block.shortcut)), *plan.head]
    reads = [*((layer, 1) for layer in one), *((block.add, 2) for block in plan.blocks)]
    total_N = np.zeros(count, np.int64)
    for layer, num_read in reads:
        if np.any(layer.is_active):
            num_bytes = _layer_bytes(_wide(layer), num_read) if scheme is None else _in_int8(layer, num_read, scheme)
            total_N += np.asarray(layer.is_active, np.int64) * num_bytes
    if scheme is not None:
        total_N += np.asarray(plan.stem.is_active, np.int64) * int8_size.input_bytes(scheme)
    return total_N


def _wide(layer: Layer, in_size: int = _SIDE) -> Layer:
    """Return a layer of which every field takes as many bytes as it may, so that all architectures cost the same."""
    return dataclasses.replace(
        layer, in_channels=_CHANNELS, out_channels=_CHANNELS, in_size=in_size, kernel_size=_SIDE, is_active=True
    )


@functools.lru_cache(maxsize=4096)
def _layer_bytes(layer: Layer, num_read: int) -> int:
    nodes = _nodes_of(layer, num_read)
    tensors = sum(tensor_bytes(name, shape) for name, shape in folded_shapes(layer).items())
    return nodes.constant_bytes + sum(node.num_bytes for node in nodes.noted) + tensors


def _in_int8(layer: Layer, num_read: int, scheme: Int8Scheme) -> Number:
    """Return what a layer adds to an int8 file, of each architecture."""
    # Where a window of a pool overhangs the map, another operation takes the means.
    sizes = [_int8_layer_size(_wide(layer, side), num_read, scheme) for side in (_SIDE - 1, _SIDE)]
    is_odd = np.asarray(layer.in_size) % 2
    fixed, of_a_mean = (np.choose(is_odd, of_both) for of_both in zip(*sizes, strict=True))
    num_rows = sum(shape[0] for shape in owned_weights(layer).values())
    return fixed + of_a_mean * kind_of(layer).written_channels(layer) + int8_size.row_bytes(scheme) * num_rows


@functools.lru_cache(maxsize=4096)
def _int8_layer_size(layer: Layer, num_read: int, scheme: Int8Scheme) -> tuple[int, int]:
    """Return what it adds whatever its channels, and for each channel where it takes means of windows."""
    return int8_size.layer_size(layer, _nodes_of(layer, num_read), _read_by(layer), scheme)


def _nodes_of(layer: Layer, num_read: int) -> CountedNodes:
    nodes = CountedNodes()
    value = kind_of(layer).add_nodes(nodes, layer, *[_read_by(layer)] * num_read)
    if layer.has_activation:
        nodes.add("Relu", f"{layer.name}{_SUFFIX}", [value])
    return nodes


def _read_by(layer: Layer) -> str:
    """Return a name as long as that of what it reads, of another layer, which is known only of one architecture."""
    return "x" * (len(layer.name) + _LONGER)
