"""`measure --trtexec`: what trtexec said on a device comes into a bundle, with the engine's outputs compared."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedsup_deploy.artifact.manifest import ManifestDraft
from fedsup_deploy.artifact.measured import MeasuredLatency
from fedsup_deploy.artifact.store import (
    ModelWriter,
    Vectors,
    WrittenFiles,
    load_manifest,
    load_measured,
    record_measurement,
    verify_bundle,
    write_bundle,
)
from fedsup_deploy.artifact.variants import ParityGate, PredictedLatency
from fedsup_deploy.cli.main import main
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.variant import MAIN

LOG = Path(__file__).parents[1] / "data" / "trtexec" / "8-jetson-nano.log"
DRAFT = Path(__file__).parents[1] / "unit" / "artifact" / "draft.json"
WEIGHT = (np.arange(64 * 3).reshape(64, 3) % 7 - 3).astype(np.float32) / 8
IMAGES = (np.arange(16 * 64).reshape(16, 1, 8, 8) % 11).astype(np.float32) / 11


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a real ONNX file: one convolution over the whole image."""
    kernels = np.ascontiguousarray(WEIGHT.T).reshape(3, 1, 8, 8)
    nodes = [helper.make_node("Conv", ["input", "m"], ["sums"]), helper.make_node("Flatten", ["sums"], ["logits"])]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "linear", [image], [logits], [numpy_helper.from_array(kernels, "m")])
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)

    def write(partial: Path) -> tuple[str, ...]:
        (partial / "model.onnx").write_bytes(model.SerializeToString())
        return ("model.onnx",)

    def gate(partial: Path, _written: WrittenFiles, vectors: Vectors) -> dict[str, ParityGate]:
        return check_parity(vectors.outputs_VK, {MAIN.name: exporter_for("onnx").load(partial / "model.onnx")}, IMAGES)

    predicted = PredictedLatency(value_ms=1.5, interval_ms=None, kind="roofline", provenance=("published",))
    draft = json.loads(DRAFT.read_text(encoding="utf-8"))
    limits = {"latency_ms": {"limit": 60.0, "cost": 1.5, "is_exceeded": False, "percentile": None, "risk": None}}
    folder = tmp_path / draft["arch_id"]
    write_bundle(
        folder,
        ManifestDraft.model_validate_json(json.dumps({**draft, "limits": limits})),
        [ModelWriter(MAIN, write, 0.9, predicted)],
        Vectors(IMAGES, IMAGES.reshape(16, 64) @ WEIGHT),
        gate,
    )
    return folder


def exported(folder: Path, values_NK: np.ndarray) -> str:
    """Write outputs as trtexec does, and return the file's path."""
    dimensions = "x".join(str(size) for size in values_NK.shape)
    values = [float(f"{value:.6g}") for value in values_NK.ravel()]
    path = folder / "outputs.json"
    path.write_text(json.dumps([{"name": "logits", "dimensions": dimensions, "values": values}]), encoding="utf-8")
    return str(path)


def in_half(num_images: int) -> np.ndarray:
    """Return the outputs computed in half precision, as an engine of --fp16 might."""
    sums = np.zeros((num_images, 3), dtype=np.float16)
    for pixel in range(64):
        sums += IMAGES[:num_images].reshape(-1, 64)[:, pixel, None].astype(np.float16) * WEIGHT[pixel].astype(
            np.float16
        )
    return sums


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """Return the exit code, the document or text on stdout, and stderr."""
    code = main([*words, "--quiet"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if "--json" in words else out, err


def test_a_log_is_recorded_and_shown(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = run(capsys, "measure", str(bundle), "--trtexec", str(LOG), "--json")
    assert code == 0
    assert found["engine"]["latency"]["p50_ms"] == 52.6539
    assert found["limit"] == {"limit_ms": 60.0, "percentile": "p50", "measured_ms": 52.6539, "verdict": "met"}
    assert found["to_compare"][1].startswith("trtexec --loadEngine=model.engine --shapes=input:1x1x8x8 --loadInputs=")

    verify_bundle(bundle)
    engine = load_measured(bundle).engine
    assert engine is not None
    assert engine.model_dump(mode="json") == found["engine"]
    _, text, _ = run(capsys, "inspect", str(bundle))
    assert (
        "TensorRT engine   52.65 ms in the median on an unknown GPU, TensorRT 8.2.1, fp16; outputs not compared" in text
    )
    _, inspected, _ = run(capsys, "inspect", str(bundle), "--json")
    assert (inspected["engine"], inspected["measured"]) == (found["engine"], None)


def test_outputs_in_half_precision_pass(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = exported(tmp_path, in_half(16))
    code, found, _ = run(capsys, "measure", str(bundle), "--trtexec", str(LOG), "--outputs", outputs, "--json")
    assert (code, found["to_compare"]) == (0, [])
    compared = found["engine"]["outputs"]
    assert compared["num_inputs"] == 16
    assert 0 < compared["max_scaled_diff"] < 0.005
    _, text, _ = run(capsys, "measure", str(bundle), "--trtexec", str(LOG), "--outputs", outputs)
    assert "outputs: those of fp32 on 16 recorded inputs, off by at most" in text
    assert "limit of 60 ms (p50): met, 52.65 ms" in text


def test_other_outputs_fail_and_are_not_recorded(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = exported(tmp_path, in_half(16)[::-1])
    code, _, err = run(capsys, "measure", str(bundle), "--trtexec", str(LOG), "--outputs", outputs)
    assert code == 6
    assert "the engine does not compute what the network does" in err
    assert not (bundle / "measured.json").exists()


def test_each_measurement_leaves_the_other(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(bundle), "--quiet"]) == 0
    first = load_measured(bundle)
    assert isinstance(first.latency, MeasuredLatency)
    assert first.engine is None
    assert main(["measure", str(bundle), "--trtexec", str(LOG), "--quiet"]) == 0
    second = load_measured(bundle)
    assert second.latency == first.latency
    assert second.engine is not None
    record_measurement(bundle, first.latency)
    assert load_measured(bundle) == second
    capsys.readouterr()


def test_what_is_measured_of_a_bundle_can_lie_elsewhere_and_come_into_it_later(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    out = tmp_path / "elsewhere" / "mine.json"
    for more in (["--trtexec", str(LOG)], []):
        code, text, _ = run(capsys, "measure", str(bundle), "--out", str(out), *more)
        assert code == 0
        assert f"recorded in {out}, in the bundle's place" in text.splitlines()
        assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    code, found, _ = run(capsys, "measure", str(bundle), "--out", str(out), "--json")
    assert (code, found["is_recorded"], found["out"]) == (0, False, str(out))
    (bundle / "measured.json").write_bytes(out.read_bytes())
    assert verify_bundle(bundle).measured.statistics.p50_ms == found["statistics"]["p50_ms"]
    assert load_measured(bundle).engine is not None, "from the first time"


def test_what_is_not_of_the_bundle_is_not_replaced(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    for out, reason in (
        (tmp_path / "mine.json", "it is there and holds no measurement of the bundle; choose another --out"),
        (tmp_path, "it is there and holds no measurement of the bundle; choose another --out"),
        (bundle / "mine.json", "a bundle has no room for other files; choose another --out"),
    ):
        for more in (["--trtexec", str(LOG)], []):
            code, _, err = run(capsys, "measure", str(bundle), "--out", str(out), *more)
            assert (code, err) == (8, f"error: cannot write {out}: {reason}\n")
    code, _, err = run(capsys, "measure", str(bundle / "model.onnx"), "--out", str(tmp_path / "x.json"))
    assert code == 2
    assert "--out keeps what is measured of a bundle; of a model --json prints it" in err
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == "{}"


def test_a_log_comes_through_a_pipe(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOG.read_bytes())))
    code, found, _ = run(capsys, "measure", str(bundle), "--trtexec", "-", "--json")
    assert (code, found["engine"]["version"]) == (0, "8.2.1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, _, err = run(capsys, "measure", str(bundle), "--trtexec", "-")
    assert code == 4
    assert err.startswith("error: standard input: no whole log of trtexec")


def test_a_log_comes_through_a_pipe_of_a_shell(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of `--trtexec <(cat log)`; a pipe with a name, which may have no writer, is not waited for."""
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, LOG.read_bytes())
    finally:
        os.close(write_end)
    try:
        code, found, _ = run(capsys, "measure", str(bundle), "--trtexec", f"/dev/fd/{read_end}", "--json")
    finally:
        os.close(read_end)
    assert (code, found["engine"]["version"]) == (0, "8.2.1")
    os.mkfifo(bundle.parent / "pipe")
    code, _, err = run(capsys, "measure", str(bundle), "--trtexec", str(bundle.parent / "pipe"))
    assert code == 4
    assert "it is no regular file" in err


def test_what_nobody_knows_of_an_engine_is_said(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle's profile names no command for TensorRT, and the log neither its version nor a shape."""
    log = tmp_path / "some.log"
    log.write_bytes(LOG.read_bytes().replace(b" [TensorRT v8201]", b""))
    code, text, _ = run(capsys, "measure", str(bundle), "--trtexec", str(log))
    assert code == 0
    assert "engine on an unknown GPU, TensorRT of an unknown version, fp16: trtexec --onnx=model.onnx" in text
    assert "that the engine is of this model, only the name of a file says\n" in text
    profile = load_manifest(bundle).profile.name
    assert f"profile {profile} has no build_on_device: the device is not known to have TensorRT\n" in text
    log.write_bytes(LOG.read_bytes().replace(b"--fp16", b"--fp16 --shapes=input:1x1x8x8"))
    _, text, _ = run(capsys, "measure", str(bundle), "--trtexec", str(log))
    assert "only the name of a file" not in text
    engine = load_measured(bundle).engine
    assert engine is not None
    assert engine.input == "1x1x8x8"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("failed", 10),
        ("6-without-summary", 4),
        ("8.4-batch-of-16", 4),
        ("10-other-model", 4),
        ("10-thor", 4),
        ("8.5-orin", 4),
    ],
)
def test_what_is_no_measurement_of_it_is_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    found, _, err = run(capsys, "measure", str(bundle), "--trtexec", str(LOG.with_name(f"{name}.log")))
    assert (found, err.count("error: ")) == (code, 1)
    assert not (bundle / "measured.json").exists()


def test_an_altered_bundle_keeps_nothing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "vectors.npz").write_bytes(b"another")
    code, _, err = run(capsys, "measure", str(bundle), "--trtexec", str(LOG))
    assert code == 4
    assert "vectors.npz was altered" in err
    assert not (bundle / "measured.json").exists()


def test_options_of_timing_do_not_go_with_a_log(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (
        ["--threads", "1"],
        ["--protocol", "quick"],
        ["--on", "ssh://x"],
        ["--save-to-profile"],
        ["--install"],
    ):
        code, _, err = run(capsys, "measure", str(bundle), "--trtexec", str(LOG), *more)
        assert code == 2
        assert f"{more[0]} is about timing, and --trtexec about what was timed" in err
    code, _, err = run(capsys, "measure", str(bundle), "--outputs", str(LOG))
    assert code == 2
    assert "--outputs goes with what trtexec printed; add --trtexec LOG" in err
    code, _, err = run(capsys, "measure", str(bundle / "model.onnx"), "--trtexec", str(LOG))
    assert code == 4
    assert "expected the folder of a bundle" in err
