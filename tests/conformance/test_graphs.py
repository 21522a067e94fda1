"""The graphs that are timed are those that would be exported: the same nodes, weights and outputs."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fedsup_deploy import resources, rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.device.building.graph import build_graph
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.sampling import random_architecture
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import DeployableNet

#: What no shipped space has: squeeze-excitation, and maps of odd size that a 2x2 average overhangs.
ODD = {
    "schema": 1,
    "name": "odd",
    "family": "mobilenet",
    "resolutions": [7],
    "stem": {"widths": [4]},
    "stages": [{"name": "s1", "widths": [8], "depths": [2], "squeeze_excite": [True], "stride": 2}],
}


def space_of(name: str) -> SearchSpace:
    if name == "odd":
        return SearchSpace.model_validate(ODD)
    return validate(load_yaml(resources.find("configs/spaces", name)), SearchSpace)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def shapes_of(model: onnx.ModelProto) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tensor.dims) for tensor in model.graph.initializer)


@pytest.mark.parametrize("name", ["odd", *resources.shipped_names("configs/spaces")])
def test_a_timed_network_is_the_exported_one(name: str, tmp_path: Path) -> None:
    space = space_of(name)
    architecture = random_architecture(space, rng.generator(0, "graphs", name))
    plan = space.plan(architecture)
    timed = build_graph(parts_of(plan), seed=3)
    weights = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in timed.graph.initializer
    }
    images_BCHW = np.asarray(
        rng.generator(1, "images").standard_normal(
            (3, space.in_channels, architecture.resolution, architecture.resolution)
        ),
        np.float32,
    )
    exporter = exporter_for("onnx")
    exporter.export(DeployableNet(plan, weights), torch.from_numpy(images_BCHW), tmp_path / "model.onnx")
    exported = onnx.load(tmp_path / "model.onnx")

    assert [node.op_type for node in timed.graph.node] == [node.op_type for node in exported.graph.node]
    for ours, theirs in zip(timed.graph.node, exported.graph.node, strict=True):
        all_of_theirs = attributes_of(theirs)
        for key, value in attributes_of(ours).items():
            assert all_of_theirs[key] == pytest.approx(value), f"{key} of {ours.op_type}"
    assert shapes_of(timed) == shapes_of(exported)
    onnx.save(timed, tmp_path / "timed.onnx")
    expected = exporter.load(tmp_path / "model.onnx")(images_BCHW)
    np.testing.assert_array_equal(exporter.load(tmp_path / "timed.onnx")(images_BCHW), expected)
    assert expected.shape == (3, space.num_classes)
