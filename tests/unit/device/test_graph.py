"""Graphs of parts, as onnxruntime runs them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from fedsup_deploy.device.building.graph import random_weights, write_graph
from fedsup_deploy.ondevice import inference
from fedsup_deploy.space.onnx_graph import build_model, to_bytes
from fedsup_deploy.space.parts import Part, layers_of, parts_of
from fedsup_deploy.space.plan import BlockPlan
from fedsup_deploy.space.search_space import SearchSpace


@pytest.fixture
def blocks(space_of: Callable[..., SearchSpace]) -> tuple[Part, ...]:
    """All parts of a network with everything that a block can have."""
    space = space_of(
        {"widths": [6], "depths": [2], "kernel_sizes": [5], "expand_ratios": [2], "squeeze_excite": [True], "stride": 2}
    )
    return parts_of(space.plan(space.largest))


def test_each_part_runs_alone_on_what_the_one_before_writes(blocks: tuple[Part, ...], tmp_path: Path) -> None:
    values = np.ones((2, 1, 8, 8), np.float32)
    for index, part in enumerate(blocks):
        path = tmp_path / f"{index}.onnx"
        write_graph((part,), path)
        values = inference.bind(inference.open_session(str(path), 1), values)()
        last = layers_of(part)[-1]
        expected = (2, last.out_channels) if last.op == "linear" else (2, last.out_channels, *[last.out_size] * 2)
        assert values.shape == expected
        assert np.isfinite(values).all()


def test_activations_keep_their_order_of_size(blocks: tuple[Part, ...], tmp_path: Path) -> None:
    """Values that vanish or explode would take a processor another time than those of a trained network."""
    write_graph(blocks, tmp_path / "whole.onnx")
    logits_BK = inference.bind(
        inference.open_session(str(tmp_path / "whole.onnx"), 1), np.ones((1, 1, 8, 8), np.float32)
    )()
    assert 1e-3 < np.abs(logits_BK).max() < 1e3


def test_weights_have_the_names_of_the_supernet(blocks: tuple[Part, ...]) -> None:
    assert isinstance(blocks[1], BlockPlan)
    names = {tensor.name for tensor in build_model(blocks[1:2], random_weights(blocks[1:2], 0)).graph.initializer}
    owners = [layer.name for layer in layers_of(blocks[1]) if layer.op in {"depthwise", "pointwise"}]
    assert {f"{owner}.{what}" for owner in owners for what in ("weight", "bias")} <= names
    assert {name for name in names if ".reduce." in name or ".expand." in name}


def test_a_graph_depends_on_its_seed_alone(blocks: tuple[Part, ...]) -> None:
    first, again, other = (to_bytes(build_model(blocks, random_weights(blocks, seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_graph_is_valid_onnx_and_has_an_open_batch(blocks: tuple[Part, ...]) -> None:
    model = build_model(blocks, random_weights(blocks, 0))
    onnx.checker.check_model(model, full_check=True)
    batch, *rest = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert [size.dim_value for size in rest] == [1, 8, 8]
