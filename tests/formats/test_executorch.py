"""ExecuTorch: what XNNPACK computes on a phone, in its own runtime here."""

import json
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from random_networks import FACTS, SCHEMES, TEN_OF_EACH_FAMILY, checked, checked_in_int8, in_int8, random_network
from small_bundles import exported, signed, verified
from small_runs import NETWORK, trained

from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.config.device import Int8Scheme
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export import executorch
from fedsup_deploy.export.executorch import DELEGATED, MOST_IMAGES, RELEASE, ExecuTorchExporter
from fedsup_deploy.export.exporter import counted_in
from fedsup_deploy.ondevice.bundle_outputs import INT8_TOLERANCE
from fedsup_deploy.supernet.deployable import FoldedNetwork

with warnings.catch_warnings():  # of its own use of others
    warnings.simplefilter("ignore")
    from executorch.backends.xnnpack import serialization
    from executorch.backends.xnnpack.partition import xnnpack_partitioner
    from executorch.exir._serialize._flatbuffer import _flatc_decompile
    from executorch.exir._serialize._program import deserialize_pte_binary

EXPORTER = ExecuTorchExporter()
SIGNED = Int8Scheme(activations="s8", is_symmetric=False, per_channel=True, reduce_range=False)


def convolutions_of_xnnpack(path: Path, folder: Path) -> list[str]:
    """Return the element types that XNNPACK's convolutions read, as its own graphs in a file say."""
    program = deserialize_pte_binary(path.read_bytes()).program
    assert not [each.name for plan in program.execution_plan for each in plan.operators if "conv" in each.name]
    schema = Path(serialization.__path__[0]) / "schema.fbs"
    found = []
    for data in program.backend_delegate_data:
        content = bytes(data.data)
        start, size = (int.from_bytes(content[at : at + 4], "little") for at in (10, 14))
        (folder / "graph.bin").write_bytes(content[start : start + size])
        _flatc_decompile(str(folder), str(schema), str(folder / "graph.bin"))
        graph = json.loads(re.sub(r"\binf\b", "Infinity", (folder / "graph.json").read_text(encoding="utf-8")))
        values = [each["xvalue_union"].get("tensor_value", each["xvalue_union"]) for each in graph["xvalues"]]
        types = {value["id_out"]: value["datatype"] for value in values}
        nodes = [each for each in graph["xnodes"] if each["xnode_union_type"] in {"XNNConv2d", "XNNDepthwiseConv2d"}]
        found += [types[node["xnode_union"]["input1_id"]] for node in nodes]
    return found


def num_convolutions(network: FoldedNetwork) -> int:
    return sum(isinstance(each, torch.nn.Conv2d) for each in network.module().modules())


def said_by(path: Path, names: Mapping[str, Any]) -> dict[str, Any]:
    program = executorch._program(path)
    return {name: executorch._computed(program, name)[0] for name in names}


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_xnnpack_computes_every_convolution_and_the_file_passes_the_gate(seed, tmp_path):
    gate = checked(EXPORTER, seed, tmp_path)
    assert (gate.batches, gate.tolerance, gate.argmax_agreement) == ((1, 3, 8), 1e-5, 1.0)
    num = num_convolutions(random_network(seed)[0])
    assert counted_in(EXPORTER, tmp_path / "model.pte") == {DELEGATED: num}
    assert convolutions_of_xnnpack(tmp_path / "model.pte", tmp_path) == ["xnn_datatype_fp32"] * num


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_in_int8_each_has_8_bits_and_the_file_computes_what_that_of_onnx_does(seed, tmp_path):
    gate = checked_in_int8(EXPORTER, seed, SCHEMES[seed // 2 % 2], tmp_path)
    assert 0 < gate.max_scaled_diff < 0.2
    num = num_convolutions(random_network(seed)[0])
    assert counted_in(EXPORTER, tmp_path / "model.int8.pte") == {DELEGATED: num}
    assert convolutions_of_xnnpack(tmp_path / "model.int8.pte", tmp_path) == ["xnn_datatype_qint8"] * num


def test_a_scheme_of_symmetric_activations_and_one_step_for_all_channels_is_written_as_well(tmp_path):
    scheme = Int8Scheme(activations="s8", is_symmetric=True, per_channel=False, reduce_range=False)
    assert 0 < checked_in_int8(EXPORTER, 1, scheme, tmp_path).max_scaled_diff < 0.2


def test_ranges_decide_what_a_file_in_int8_can_tell_apart(tmp_path):
    """Ranges of activations a hundred times as large leave a few steps only."""
    network, inputs = random_network(1)
    wide = in_int8(network, 100 * inputs, SIGNED)
    (name,) = EXPORTER.export(wide, FACTS, tmp_path)
    expected = network.module()(torch.from_numpy(inputs)).numpy()
    assert np.abs(EXPORTER.load(tmp_path / name)(inputs[:8]) - expected[:8]).max() > INT8_TOLERANCE


def test_a_file_says_what_it_is_told_to_and_which_release_it_is_for(tmp_path):
    (name,) = EXPORTER.export(random_network(0)[0], FACTS, tmp_path)
    found = said_by(tmp_path / name, {**FACTS, RELEASE: None})
    assert found == {**FACTS, RELEASE: version("executorch")}


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_a_convolution_that_xnnpack_would_not_compute_is_refused(form, tmp_path, monkeypatch):
    network, inputs = random_network(1)

    class WithoutConvolutions(xnnpack_partitioner.XnnpackPartitioner):
        def __init__(self) -> None:
            super().__init__()
            for each in list(self.target_partitioner_configs):
                if "conv" in each:
                    del self.target_partitioner_configs[each]

    monkeypatch.setattr(xnnpack_partitioner, "XnnpackPartitioner", WithoutConvolutions)
    network = network if form == "fp32" else in_int8(network, inputs, SIGNED)
    with pytest.raises(GateError, match=r"got 0 convolutions delegated to XNNPACK.*, expected all 17; use a tested"):
        EXPORTER.export(network, FACTS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_images_than_memory_is_planned_for_are_refused_and_do_no_harm(tmp_path):
    network, inputs = random_network(0)
    (name,) = EXPORTER.export(network, FACTS, tmp_path)
    model = EXPORTER.load(tmp_path / name)
    before = model(inputs[:MOST_IMAGES])
    with pytest.raises(RuntimeError):
        model(inputs[: MOST_IMAGES + 1])
    assert np.array_equal(model(inputs[:MOST_IMAGES]), before)


@pytest.mark.parametrize("content", [b"", b"no program", None])
def test_what_is_no_program_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "model.pte").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"^model\.pte: not loadable by ExecuTorch: "):
        EXPORTER.load(tmp_path / "model.pte")


def test_nothing_of_the_libraries_reaches_the_terminal(tmp_path, capfd):
    network, inputs = random_network(0)
    (name,) = EXPORTER.export(network, FACTS, tmp_path)
    EXPORTER.load(tmp_path / name)(inputs[:1])
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    return exported(trained(NETWORK, folder), folder / "out", "executorch", "fp32", "int8")[0]


def test_a_bundle_says_what_ran_it_and_that_all_convolutions_are_delegated(bundle):
    models = load_manifest(bundle).models
    assert list(models) == ["onnx-fp32", "executorch-fp32", "onnx-int8", "executorch-int8"]
    of_pte = [models["executorch-fp32"], models["executorch-int8"]]
    assert [list(each.files) for each in of_pte] == [["model.pte"], ["model.int8.pte"]]
    assert {(each.ran_by.name, each.ran_by.version) for each in of_pte} == {("executorch", version("executorch"))}
    num = sum(node.op_type == "Conv" for node in onnx.load(bundle / "model.onnx").graph.node)
    assert [each.counted for each in of_pte] == [{DELEGATED: num}] * 2
    assert models["onnx-fp32"].counted == {}
    assert of_pte[1].num_bytes < 0.8 * of_pte[0].num_bytes
    assert f"{num} {DELEGATED}" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8").replace("\\", "")


def test_verify_runs_it_where_a_key_has_proved_who_made_it_and_names_it_elsewhere(bundle, tmp_path, capsys):
    before = verified(bundle, capsys)
    assert (before["executed"], before["not_executed"]) == ([], ["model.int8.pte", "model.pte"])
    after = verified(bundle, capsys, "--key", str(signed(bundle, tmp_path)))
    assert after["not_executed"] == []
    assert {(each["file"], each["ran_by"]) for each in after["executed"]} == {
        ("model.pte", "executorch"),
        ("model.int8.pte", "executorch"),
    }
