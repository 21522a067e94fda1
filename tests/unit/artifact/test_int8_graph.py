"""What an int8 file is, and whether it is a given fp32 file in 8 bits: every scheme and every kind of layer."""

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fedsup_deploy.artifact.graph import read_graph
from fedsup_deploy.artifact.int8_graph import Int8Graph
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.device.building.graph import random_weights, ranges_on_a_random_image
from fedsup_deploy.space.onnx_graph import build_model, to_bytes
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.quantization import quantized

SCHEMES = [
    Int8Scheme(activations=activations, is_symmetric=is_symmetric, per_channel=per_channel, reduce_range=reduce_range)
    for activations, is_symmetric, per_channel, reduce_range in itertools.product(("u8", "s8"), *[(False, True)] * 3)
]
OF_TESTS = Int8Scheme(activations="u8", is_symmetric=False, per_channel=True, reduce_range=False)


@pytest.fixture(scope="module", params=[7, 8], ids=["a pool that overhangs", "a pool that is a convolution"])
def model(space_of, request):
    """Of a network with every kind of layer."""
    stage = {"widths": [6], "depths": [2], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    space = space_of(stage, resolutions=[request.param])
    parts = parts_of(space.plan(space.largest))
    return build_model(parts, random_weights(parts, seed=0))


def in_int8(model: onnx.ModelProto, scheme: Int8Scheme = OF_TESTS) -> onnx.ModelProto:
    return quantized(model, ranges_on_a_random_image(model, seed=0), scheme)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_the_quantiser_writes_is_the_model_by_its_scheme(model, scheme):
    found = Int8Graph(in_int8(model, scheme))
    assert found.scheme() == scheme
    assert found.num_float_convolutions() == 0
    assert list(found.differences(model)) == []


def test_macs_parameters_inputs_and_outputs_are_those_of_the_fp32_file(model, tmp_path):
    """A mean of windows is no layer, also where it is a convolution."""
    graphs = []
    for name, content in (("fp32", model), ("int8", in_int8(model))):
        (tmp_path / name).write_bytes(to_bytes(content))
        graphs.append(read_graph(tmp_path / name))
    fp32, int8 = graphs
    assert (fp32.scheme, int8.scheme) == (None, OF_TESTS)
    for name in ("inputs", "outputs", "num_macs", "num_params", "first_width", "opset"):
        assert getattr(int8, name) == getattr(fp32, name), name


def test_an_fp32_file_has_no_scheme_and_float_convolutions(model):
    found = Int8Graph(model)
    assert found.scheme() is None
    assert found.num_float_convolutions() == sum(node.op_type == "Conv" for node in model.graph.node) > 0
    assert list(found.differences(model))


def _tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def _changed(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = _tensor(model, name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.name == name)


def _one_step_off(model: onnx.ModelProto) -> None:
    def change(codes: np.ndarray) -> np.ndarray:
        codes.ravel()[0] += 1 if codes.ravel()[0] < 100 else -1
        return codes

    _changed(model, "stem.weight_quantized", change)


def _other_bias(model: onnx.ModelProto) -> None:
    _changed(model, "head.bias_quantized", lambda codes: codes + 2)


def _other_stride(model: onnx.ModelProto) -> None:
    next(each for each in _node(model, "stem").attribute if each.name == "strides").ints[:] = [3, 3]


def _convolution_in_float(model: onnx.ModelProto) -> None:
    _node(model, "stem").input[0] = "input"


def _more_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["more"], "more"))


def _without_its_end(model: onnx.ModelProto) -> None:
    model.graph.node.remove(_node(model, "head"))


def _without_a_relu_that_is_needed(model: onnx.ModelProto) -> None:
    """The numbers of 8 bits begin at 0 no longer."""
    [name] = [each.input[2] for each in model.graph.node if each.op_type == "QuantizeLinear" and "stem" in each.name]
    _changed(model, name, lambda zero: zero + 5)


def _another_input(model: onnx.ModelProto) -> None:
    adding = next(node for node in model.graph.node if node.op_type == "Add" and len(set(node.input)) == 2)
    adding.input[0] = adding.input[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_one_step_off, "other numbers for stem.weight, "),
        (_other_bias, "other numbers for head.bias, "),
        (_other_stride, "another stem, "),
        (_convolution_in_float, "another stem, "),
        (_more_nodes, "a node more, "),
        (_without_its_end, "no node head, "),
        (_without_a_relu_that_is_needed, "no node stem.relu, "),
        (_another_input, "another input of "),
    ],
)
def test_what_is_no_longer_the_model_is_told(model, change, said):
    found = in_int8(model)
    change(found)
    assert next(Int8Graph(found).differences(model)).startswith(said)


def test_weights_of_another_network_are_not_those_of_the_model(model, space_of):
    other = onnx.ModelProto()
    other.CopyFrom(model)
    _changed(other, "stem.weight", lambda weights: weights[::-1].copy())
    assert next(Int8Graph(in_int8(other)).differences(model)).startswith("other numbers for stem.weight")


def test_a_step_for_more_numbers_than_there_are_is_refused_before_it_takes_memory(model):
    found = in_int8(model)
    _changed(found, "stem.weight_scale", lambda step: np.full(10**6, step[0]))
    with pytest.raises(ValueError, match="reshape"):
        Int8Graph(found)
