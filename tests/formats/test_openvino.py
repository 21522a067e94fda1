"""OpenVINO IR on random networks, in a bundle, and damaged. In `.venv-openvino`: `make test-formats`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import random_networks
from endless import endless_model
from random_networks import FACTS, SCHEMES, TEN_OF_EACH_FAMILY, checked, checked_in_int8, random_network
from small_bundles import exported, verified
from small_runs import NETWORK, trained

from fedsup_deploy.artifact.variants import Int8Gate, ParityGate
from fedsup_deploy.cli.main import main
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export import openvino_ir
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.openvino_ir import OpenVinoExporter, count_float_convolutions
from fedsup_deploy.ondevice import bundle_files


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_ten_networks_of_each_family_pass_the_gate_alone_and_in_batches(seed: int, tmp_path: Path) -> None:
    gate = checked(OpenVinoExporter(), seed, tmp_path)
    assert (gate.batches, gate.tolerance, gate.argmax_agreement) == ((1, 3, 8), 1e-5, 1.0)


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_the_same_networks_in_int8_compute_what_the_onnx_file_does(seed: int, tmp_path: Path) -> None:
    """Five of each family as ARM computes, and five as x86 does. A convolution in floats would have been refused."""
    gate = checked_in_int8(OpenVinoExporter(), seed, SCHEMES[seed // 2 % 2], tmp_path)
    assert 0 < gate.max_scaled_diff < 0.2


def test_convolutions_in_floats_are_seen_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = random_network(0)
    OpenVinoExporter().export(network, FACTS, tmp_path)
    assert count_float_convolutions(tmp_path / "model.xml") > 10
    OpenVinoExporter().export(random_networks.in_int8(network, inputs, SCHEMES[1]), FACTS, tmp_path)
    assert count_float_convolutions(tmp_path / "model.int8.xml") == 0
    # What says of itself that it is in int8, and is written in float32.
    fp32 = random_networks.in_int8(network, inputs, SCHEMES[0])
    monkeypatch.setattr("fedsup_deploy.export.onnx.quantized", lambda model, *_: model)
    with pytest.raises(GateError, match=r"model\.int8\.xml: OpenVINO would compute \d\d convolutions in float32"):
        OpenVinoExporter().export(fp32, FACTS, tmp_path)


def test_files_say_what_they_are_told_to_and_name_no_folder(tmp_path: Path) -> None:
    import openvino

    network, _ = random_network(0)
    graph, weights = OpenVinoExporter().export(network, FACTS, tmp_path)
    model = openvino.Core().read_model(tmp_path / graph)
    assert {key: model.get_rt_info(["framework", key]).astype(str) for key in FACTS} == FACTS
    assert str(tmp_path).encode() not in (tmp_path / graph).read_bytes()
    assert (graph, weights) == ("model.xml", "model.bin")


def test_a_graph_that_names_a_folder_of_this_machine_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for classes and the like, which are its owner's words."""

    def named_by_place(model: Any) -> None:
        for place, node in enumerate(model.get_ordered_ops()):
            node.set_friendly_name(f"/home/me/model/{place}")

    network, _ = random_network(0)
    assert "/home/user" in FACTS["classes"]
    OpenVinoExporter().export(network, FACTS, tmp_path)
    monkeypatch.setattr(openvino_ir, "_name_anew", named_by_place)
    (tmp_path / "other").mkdir()
    with pytest.raises(GateError, match=r"^model\.xml: got the machine path '/home/me'"):
        OpenVinoExporter().export(network, FACTS, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_damaged_files_are_refused_on_one_line(tmp_path: Path) -> None:
    network, inputs = random_network(1)
    OpenVinoExporter().export(network, FACTS, tmp_path)
    text, numbers = ((tmp_path / name).read_bytes() for name in ("model.xml", "model.bin"))
    for graph, weights in (
        (text[: len(text) // 2], numbers),
        (b"", numbers),
        (text.replace(b'type="Convolution"', b'type="Plugin"', 1), numbers),
        (text.replace(b"offset=", b'offset="99999999999" was=', 1), numbers),
        (text, numbers[: len(numbers) // 2]),
        (text, b""),
    ):
        (tmp_path / "model.xml").write_bytes(graph)
        (tmp_path / "model.bin").write_bytes(weights)
        with pytest.raises((ArtifactError, GateError), match=r"^model\.xml: ") as caught:
            OpenVinoExporter().load(tmp_path / "model.xml")(inputs)
        assert "\n" not in str(caught.value)


def test_a_graph_that_may_not_end_is_not_loaded(tmp_path: Path) -> None:
    import openvino

    onnx.save(endless_model(), tmp_path / "model.onnx")
    model = openvino.Core().read_model(tmp_path / "model.onnx")
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    with pytest.raises(ArtifactError, match=r"^model\.xml: not loaded: it has control flow"):
        OpenVinoExporter().load(tmp_path / "model.xml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(NETWORK, tmp_path_factory.mktemp("runs"))


def test_a_bundle_records_and_verify_repeats_what_ran_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import openvino

    folder, manifest = exported(run, tmp_path / "out", "openvino", "fp32", "int8")
    for name, kind, files in (
        ("openvino-fp32", ParityGate, ["model.xml", "model.bin"]),
        ("openvino-int8", Int8Gate, ["model.int8.xml", "model.int8.bin"]),
    ):
        record = manifest.models[name]
        assert isinstance(record.gate, kind)
        assert list(record.files) == files
        assert record.ran_by is not None
        assert record.ran_by.name == "openvino"
        assert openvino.__version__.startswith(record.ran_by.version)
    assert manifest.versions["openvino"] == manifest.models["openvino-fp32"].ran_by.version  # type: ignore[union-attr]
    assert "run by openvino 2" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")

    found = verified(folder, capsys)
    assert [(each["file"], each["ran_by"]) for each in found["executed"]] == [
        ("model.xml", "openvino"),
        ("model.int8.xml", "openvino"),
    ]
    assert (found["not_executed"], found["not_installed"]) == ([], {})


def test_another_network_under_right_hashes_fails_its_gate(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = exported(run, tmp_path / "out", "openvino", "fp32")
    altered = Path(shutil.copytree(folder, tmp_path / "altered"))
    numbers = np.frombuffer((altered / "model.bin").read_bytes(), np.float32).copy()
    numbers[:8] += 1
    (altered / "model.bin").write_bytes(numbers.tobytes())
    names = [name for name in bundle_files.list_files(altered) if name != bundle_files.SUMS]
    (altered / bundle_files.SUMS).write_text("".join(bundle_files.sha256sums(altered, names)))
    capsys.readouterr()
    assert main(["verify", str(altered)]) == 6
    assert "model.xml, batch 1: max scaled difference from the reference" in capsys.readouterr().err


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    made = [exported(run, tmp_path / name, "openvino", "fp32", "int8")[0] for name in ("one", "two")]
    for name in ("model.xml", "model.bin", "model.int8.xml", "model.int8.bin"):
        assert len({(folder / name).read_bytes() for folder in made}) == 1
    assert json.loads((made[0] / "manifest.json").read_text(encoding="utf-8"))["left_out"] == {}
    assert exporter_for("openvino").runtime == "openvino"
