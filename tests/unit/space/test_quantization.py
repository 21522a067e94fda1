"""int8 files: what onnxruntime's quantiser makes of a graph and of the ranges of its activations."""

import collections
import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import random_weights, ranges_on_a_random_image
from fedsup_deploy.export.int8_gate import count_float_convolutions
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.onnx_graph import IR_VERSION, OPSET, build_model, observable, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.quantization import quantized

SCHEMES = {
    f"{activations}{' symmetric' * is_symmetric}{' per tensor' * (not per_channel)}{' 7 bits' * reduce_range}": (
        Int8Scheme(
            activations=activations, is_symmetric=is_symmetric, per_channel=per_channel, reduce_range=reduce_range
        )
    )
    for activations, is_symmetric, per_channel, reduce_range in (
        ("u8", False, True, False),
        ("u8", False, True, True),
        ("u8", False, False, False),
        ("s8", False, True, False),
        ("s8", True, True, False),
    )
}
with_every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


@pytest.fixture(scope="session")
def model(space_of):
    """Of a network with every kind of layer, and a pool of an odd map."""
    stage = {"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    space = space_of(stage, resolutions=[7])
    parts = parts_of(space.plan(space.largest))
    return build_model(parts, random_weights(parts, seed=0))


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).normal(size=(200, 1, 7, 7)).astype(np.float32)


@pytest.fixture(scope="session")
def ranges_V2(model, images):
    """Of all values on all images."""
    watched, names = observable(model)
    values = [images, *inference.open_session(to_bytes(watched), 1).run(list(names), {"input": images})]
    return np.array([(each.min(), each.max()) for each in values], dtype=np.float32)


def answers(content, images):
    return inference.bind(inference.open_session(content, 1), images)()


def test_a_range_is_asked_of_each_value_of_the_graph(model, ranges_V2):
    sizes = value_sizes(model)
    assert (next(iter(sizes)), list(sizes)[-1]) == ("input", "logits")
    with pytest.raises(ValueError, match="shorter"):
        quantized(model, ranges_V2[:-1], SCHEMES["u8"])


@with_every_scheme
def test_an_int8_file_is_nearly_right_and_loads_where_the_fp32_file_does(model, ranges_V2, images, scheme):
    found = quantized(model, ranges_V2, scheme)
    onnx.checker.check_model(found, full_check=True)
    assert [(each.domain, each.version) for each in found.opset_import] == [("", OPSET)]
    assert found.ir_version == IR_VERSION
    assert {node.op_type for node in found.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    fp32, int8 = answers(to_bytes(model), images), answers(to_bytes(found), images)
    assert int8.dtype == np.float32
    scale = np.abs(fp32).max()
    assert 0 < np.abs(int8 - fp32).max() <= 0.15 * scale
    assert np.sqrt(np.mean((int8 - fp32) ** 2)) <= 0.03 * scale


@with_every_scheme
def test_types_and_zero_points_are_those_of_the_scheme(model, ranges_V2, scheme):
    found = quantized(model, ranges_V2, scheme)
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in found.graph.initializer}
    zeros = {node.input[0]: arrays[node.input[2]] for node in found.graph.node if node.op_type == "QuantizeLinear"}
    assert {each.dtype.name for each in zeros.values()} == {"uint8" if scheme.activations == "u8" else "int8"}
    if scheme.is_symmetric:
        assert {int(each) for each in zeros.values()} == {0}
    weights = {name: array for name, array in arrays.items() if name.endswith(".weight_quantized")}
    most = 64 if scheme.reduce_range else 127
    assert weights
    for name, array in weights.items():
        assert array.dtype == np.int8
        assert np.abs(array.astype(int)).max() <= most
        scales = arrays[name.replace("_quantized", "_scale")]
        assert scales.shape == ((array.shape[0],) if scheme.per_channel else ())
        assert not arrays[name.replace("_quantized", "_zero_point")].any()


@with_every_scheme
def test_no_convolution_is_left_in_float32(model, ranges_V2, scheme):
    found = to_bytes(quantized(model, ranges_V2, scheme))
    assert count_float_convolutions(found, scheme) == 0
    num_convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert count_float_convolutions(to_bytes(model), scheme) == num_convolutions > 0


@pytest.mark.parametrize(("side", "expected"), [(7, {"AveragePool": 1, "Conv": 0}), (8, {"AveragePool": 0, "Conv": 1})])
def test_a_pool_becomes_a_convolution_where_no_window_overhangs(space_of, images, side, expected):
    """It computes the same means, so nothing but the rounding of activations is between int8 and fp32."""
    stage = {"widths": [4], "depths": [1], "expand_ratios": [1], "stride": 2}
    space = space_of(stage, resolutions=[side])
    parts = parts_of(space.plan(space.largest))
    model = build_model(parts, random_weights(parts, seed=0))
    found = quantized(model, ranges_on_a_random_image(model, seed=0), SCHEMES["u8"])
    before, after = (collections.Counter(node.op_type for node in each.graph.node) for each in (model, found))
    assert before["AveragePool"] == 1
    assert {"AveragePool": after["AveragePool"], "Conv": after["Conv"] - before["Conv"]} == expected
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in found.graph.initializer}
    means = [array for name, array in arrays.items() if ".pool" in name and name.endswith("weight_quantized")]
    assert [(each.shape, set(each.ravel())) for each in means] == [((4, 1, 2, 2), {127})] * expected["Conv"]


def test_an_activation_that_is_always_zero_is_no_obstacle(model, ranges_V2, images):
    """As behind a ReLU that never lets anything pass."""
    nothing_V2 = ranges_V2.copy()
    nothing_V2[2] = 0.0
    found = quantized(model, nothing_V2, SCHEMES["u8"])
    assert np.isfinite(answers(to_bytes(found), images)).all()


CODE = """
import hashlib, sys
import numpy as np
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.space.onnx_graph import build_model, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.quantization import quantized
from fedsup_deploy.commands.profile_build import load_space

space = load_space("digits")
plan = space.plan(space.largest)
model = build_model(parts_of(plan), random_weights(parts_of(plan), seed=0))
ranges_V2 = np.array([[-3, 3]] * len(value_sizes(model)), np.float32)
scheme = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False)
print(hashlib.sha256(to_bytes(quantized(model, ranges_V2, scheme))).hexdigest())
"""


def test_the_same_bytes_come_out_in_every_process():
    """Whatever order sets of texts have there."""
    said = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert len(said.pop().strip()) == len(hashlib.sha256().hexdigest())
