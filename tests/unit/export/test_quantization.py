"""int8 files: what onnxruntime's quantiser makes of a graph and of what was counted of its activations."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.export.onnx import OnnxExporter
from fedsup_deploy.export.quantization import count_float_convolutions, quantized
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.space.onnx_graph import IR_VERSION, OPSET, build_model, observable, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.supernet import ranges
from fedsup_deploy.supernet.deployable import Quantization

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
def model(network):
    return build_model(parts_of(network.plan), {name: tensor.numpy() for name, tensor in network.weights.items()})


@pytest.fixture(scope="session")
def images(network):
    stem = network.plan.stem
    shape = (200, stem.in_channels, stem.in_size, stem.in_size)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="session")
def counts(model, images):
    """Of all values on all images."""
    watched, names = observable(model)
    values = [images, *inference.open_session(to_bytes(watched), 1).run(list(names), {"input": images})]
    extremes_V2 = np.array([(each.min(), each.max()) for each in values], dtype=np.float32)
    return ranges.ActivationCounts(np.stack([ranges.count(each) for each in values]), extremes_V2)


def answers(content, images):
    return inference.bind(inference.open_session(content, 1), images)()


def test_what_is_counted_are_the_values_of_the_graph(model, counts, images):
    sizes = value_sizes(model)
    assert next(iter(sizes)) == "input"
    assert list(sizes)[-1] == "logits"
    assert counts.reason_to_reject(sizes, len(images)) is None


@with_every_scheme
def test_an_int8_file_is_nearly_right_and_loads_where_the_fp32_file_does(model, counts, images, scheme):
    found = quantized(model, Quantization(counts, scheme))
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
def test_types_and_zero_points_are_those_of_the_scheme(model, counts, scheme):
    found = quantized(model, Quantization(counts, scheme))
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
def test_no_convolution_is_left_in_float32(model, counts, scheme):
    found = to_bytes(quantized(model, Quantization(counts, scheme)))
    assert count_float_convolutions(found, scheme) == 0
    num_convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert count_float_convolutions(to_bytes(model), scheme) == num_convolutions > 0


def test_the_exporter_writes_int8_beside_fp32_and_says_the_same_of_it(network, counts, tmp_path):
    scheme = SCHEMES["u8"]
    names = [
        OnnxExporter().export(each, {"arch_id": "a0"}, tmp_path)
        for each in (network, dataclasses.replace(network, quantization=Quantization(counts, scheme)))
    ]
    assert names == [(bundle_files.MODEL,), (bundle_files.INT8_MODEL,)]
    found = [onnx.load(tmp_path / name) for (name,) in names]
    assert {(each.producer_name, each.metadata_props[0].value) for each in found} == {("fedsup-deploy", "a0")}
    for of_graph in ("input", "output"):
        assert len({str(getattr(each.graph, of_graph)) for each in found}) == 1


def test_an_activation_that_is_always_zero_is_no_obstacle(model, counts, images):
    """As behind a ReLU that never lets anything pass."""
    nothing_VB = counts.counts_VB.copy()
    extremes_V2 = counts.extremes_V2.copy()
    nothing_VB[2], extremes_V2[2] = 0, 0.0
    nothing_VB[2, ranges.NUM_BINS // 2] = counts.counts_VB[2].sum()
    found = quantized(model, Quantization(ranges.ActivationCounts(nothing_VB, extremes_V2), SCHEMES["u8"]))
    assert np.isfinite(answers(to_bytes(found), images)).all()


CODE = """
import hashlib, sys
import numpy as np
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.export.quantization import quantized
from fedsup_deploy.space.onnx_graph import build_model, to_bytes, value_sizes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.commands.profile_build import load_space
from fedsup_deploy.supernet import ranges
from fedsup_deploy.supernet.deployable import Quantization

space = load_space("digits")
plan = space.plan(space.largest)
model = build_model(parts_of(plan), random_weights(parts_of(plan), seed=0))
numbers = np.linspace(-3, 3, 50, dtype=np.float32)
size = len(value_sizes(model))
counts = ranges.ActivationCounts(np.stack([ranges.count(numbers)] * size), np.array([[-3, 3]] * size, np.float32))
scheme = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False)
print(hashlib.sha256(to_bytes(quantized(model, Quantization(counts, scheme)))).hexdigest())
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
