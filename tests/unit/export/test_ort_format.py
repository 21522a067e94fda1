"""ORT format: it computes what the networks do, in one order of its tables, and only where a release loads it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from endless import IMAGE, endless_model
from random_networks import FACTS, SCHEMES, TEN_OF_EACH_FAMILY, checked, checked_in_int8, random_network

from fedsup_deploy.device.acceptance import Accepts
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.export.ort_format import OrtExporter
from fedsup_deploy.export.ort_order import in_one_order
from fedsup_deploy.ondevice import inference


@pytest.mark.parametrize("seed", TEN_OF_EACH_FAMILY)
def test_ten_networks_of_each_family_pass_the_gates(seed: int, tmp_path: Path) -> None:
    gate = checked(OrtExporter(), seed, tmp_path)
    assert (gate.batches, gate.tolerance, gate.argmax_agreement) == ((1, 3, 8), 1e-5, 1.0)
    assert 0 < checked_in_int8(OrtExporter(), seed, SCHEMES[seed // 2 % 2], tmp_path).max_scaled_diff < 0.2


def test_what_is_in_order_stays_as_it_is_and_what_is_none_is_refused(tmp_path: Path) -> None:
    network, _ = random_network(0)
    OrtExporter().export(network, FACTS, tmp_path)
    content = (tmp_path / "model.ort").read_bytes()
    assert in_one_order(content) == content
    with pytest.raises(GateError, match="another form than that of version 6"):
        in_one_order(content[:4] + b"ORTX" + content[8:])


def test_file_says_what_it_is_told_to_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    network, _ = random_network(1)
    OrtExporter().export(network, FACTS, tmp_path)
    path = tmp_path / "model.ort"
    session = inference.open_session(str(path), threads=1)
    assert session.get_modelmeta().custom_metadata_map == FACTS  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match=r"^model\.ort: not loadable by onnxruntime: "):
        OrtExporter().load(path)


def test_a_model_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph is read off these files before they are run, as it is off those of ONNX."""
    onnx.save(endless_model(), tmp_path / "model.onnx")
    options = inference.session_options(threads=1)
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    inference.session_with(options, str(tmp_path / "model.onnx"))
    model = OrtExporter().load(tmp_path / "model.ort")
    monkeypatch.setattr(inference, "MOST_SECONDS", 0.2)
    with pytest.raises(GateError, match=r"^model\.ort: onnxruntime fails on shape .*terminate flag"):
        model(np.zeros((1, *IMAGE), np.float32))


@pytest.mark.parametrize(("opset", "is_refused"), [(15, True), (19, True), (20, False), (28, False), (None, False)])
def test_a_runtime_that_would_not_load_it_is_refused(opset: int | None, is_refused: bool) -> None:
    refusal = OrtExporter().refusal(Accepts(onnx_opset=opset))
    assert (refusal is not None) == is_refused
    assert not is_refused or f"accepts ONNX opset {opset} at most" in str(refusal)
