"""`export --precision int8` on a real, if briefly trained, run: from clients' activations to a verified bundle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.export import Exported, ExportRequest, export
from fedsup_deploy.commands.train import train
from fedsup_deploy.commands.verify import verify
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ArtifactError, GateError
from fedsup_deploy.ondevice import bundle_files

SETTINGS = """
schema: 1
name: small
space: digits
data: {dataset: digits, validation_fraction: 0.2}
partition: {kind: dirichlet, num_clients: 8}
strategy: {name: fedavg, architecture: smallest}
training: {rounds: 4, clients_per_round: 8, warmup_rounds: 0, local_epochs: 2}
engine: {workers: 1}
calibration: {samples_per_client: 32}
"""
BOTH = ("fp32", "int8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(SETTINGS, encoding="utf-8")
    train(load_train_config(folder / "small.yaml"), folder / "small")
    return folder / "small"


def exported(run: Path, out: Path, profile: str = "raspberry-pi-4", **changes: object) -> Exported:
    given = {"formats": ("onnx",), "precisions": BOTH, **changes}
    return export(ExportRequest(run, "smallest", None, (profile,), out=out, **given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(run, tmp_path_factory.mktemp("out")).bundles[0].folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def seal(folder: Path) -> None:
    """Make size and hash of every file right again."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for record in manifest["models"].values():
        record["files"] = {name: (folder / name).stat().st_size for name in record["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    names = bundle_files.list_files(folder)
    names = [name for name in names if name != bundle_files.SUMS]
    (folder / bundle_files.SUMS).write_text("".join(bundle_files.sha256sums(folder, names)))


def run_py(folder: Path, *words: str) -> tuple[int, dict[str, object]]:
    ended = subprocess.run(
        [sys.executable, "run.py", "--json", "--skip-latency", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, json.loads(ended.stdout)


def test_an_int8_file_stands_beside_the_fp32_file_and_is_smaller(bundle):
    manifest = load_manifest(bundle)
    assert list(manifest.models) == ["onnx-fp32", "onnx-int8"]
    fp32, int8 = manifest.models.values()
    assert list(int8.files) == [bundle_files.INT8_MODEL]
    assert int8.num_bytes < 0.8 * fp32.num_bytes, "of a network this small the graph is most of the file"
    assert int8.latency.predicted is None, "the profile is about fp32"
    assert {each.domain for each in onnx.load(bundle / bundle_files.INT8_MODEL).opset_import} == {""}


def test_its_gate_looked_at_validation_images_and_its_accuracy_is_of_test_images(bundle):
    manifest = load_manifest(bundle)
    int8 = manifest.models["onnx-int8"]
    gate = int8.gate
    assert (gate.kind, gate.split) == ("int8", "validation")
    assert gate.num_images == pytest.approx(0.2 * 1348, abs=3)
    assert gate.accuracy_drop <= gate.max_accuracy_drop == 0.01
    assert gate.accuracy_drop_interval[0] < gate.accuracy_drop < gate.accuracy_drop_interval[1]
    assert gate.scheme.activations == "s8", "as the profile says of its runtime"
    assert manifest.accuracy.split == "test"
    assert int8.accuracy == pytest.approx(manifest.accuracy.recalibrated, abs=0.02)
    assert round(int8.accuracy * manifest.accuracy.num_samples, 6).is_integer()


def test_verify_and_run_py_compute_it_again(bundle):
    found = verify(bundle)
    assert found.int8 is not None
    assert found.int8["max_scaled_diff"] == 0.0, "the machine that made it"
    assert found.not_executed == ()
    code, report = run_py(bundle)
    assert (code, report["int8"]) == (0, found.int8)
    assert 0 < found.int8["num_classes_compared"] <= found.int8["num_inputs"] == 32


def test_a_bundle_without_int8_says_nothing_of_it(run, tmp_path):
    folder = exported(run, tmp_path, precisions=("fp32",)).bundles[0].folder
    assert verify(folder).int8 is None
    assert "int8" not in run_py(folder)[1]
    with np.load(folder / "vectors.npz") as arrays:
        assert set(arrays) == {"inputs", "outputs"}


def test_the_same_run_gives_the_same_bytes(run, bundle, tmp_path):
    again = exported(run, tmp_path).bundles[0].folder
    for name in (bundle_files.INT8_MODEL, bundle_files.VECTORS):
        assert (again / name).read_bytes() == (bundle / name).read_bytes()


def test_a_changed_weight_is_a_wrong_result_and_a_damaged_file_cannot_be_loaded(copy):
    path = copy / bundle_files.INT8_MODEL
    content = path.read_bytes()
    model = onnx.load_model_from_string(content)
    [bias] = [each for each in model.graph.initializer if each.name == "head.weight_quantized"]
    weights = onnx.numpy_helper.to_array(bias).copy()
    weights[0] = -weights[0]
    bias.CopyFrom(onnx.numpy_helper.from_array(weights, bias.name))
    path.write_bytes(model.SerializeToString())
    assert run_py(copy)[0] == bundle_files.ALTERED
    seal(copy)
    code, report = run_py(copy)
    assert code == bundle_files.PARITY
    assert str(report["reason"]).startswith("outputs of int8 at batch 1: scaled difference ")
    with pytest.raises(GateError, match="outputs of int8"):
        verify(copy)
    path.write_bytes(content[: len(content) // 2])
    seal(copy)
    code, report = run_py(copy)
    assert code == bundle_files.UNRUNNABLE
    assert bundle_files.INT8_MODEL in str(report["reason"])


def test_a_manifest_that_allows_any_difference_is_altered(copy):
    text = (copy / "manifest.json").read_text(encoding="utf-8")
    assert text.count('"tolerance": 0.1') == 1
    (copy / "manifest.json").write_text(text.replace('"tolerance": 0.1', '"tolerance": 9.5'), encoding="utf-8")
    seal(copy)
    assert run_py(copy)[0] == bundle_files.ALTERED
    with pytest.raises(ArtifactError, match="tolerance"):
        verify(copy)


def test_int8_that_loses_too_much_is_not_shipped_and_the_reason_stands_everywhere(run, tmp_path):
    """Whatever it loses: more than 100 points less than nothing is always more than allowed."""
    [made] = exported(run, tmp_path, max_accuracy_drop=-1.5).bundles
    assert list(made.bytes) == ["onnx-fp32"]
    assert made.int8_accuracy is None
    manifest = load_manifest(made.folder)
    assert manifest.left_out == made.left_out
    [reason] = made.left_out.values()
    assert reason.startswith("int8: right about ")
    assert reason in (made.folder / "MODEL_CARD.md").read_text(encoding="utf-8").replace("\\", "")
    assert not (made.folder / bundle_files.INT8_MODEL).exists()
    verify(made.folder)


def test_of_a_device_that_computes_in_int8_such_a_bundle_does_not_come_about(run, tmp_path):
    [made] = exported(run, tmp_path / "good", "stm32h7", precisions=(), over_limit=True).bundles
    manifest = load_manifest(made.folder)
    assert list(manifest.models) == ["onnx-fp32", "onnx-int8"]
    assert manifest.models["onnx-int8"].latency.predicted is not None
    assert manifest.models["onnx-int8"].gate.scheme.reduce_range, "nobody knows more: what is right on any processor"
    with pytest.raises(GateError, match=r"for stm32h7: int8: right about "):
        exported(run, tmp_path / "bad", "stm32h7", precisions=(), over_limit=True, max_accuracy_drop=-1.5)
    assert not (tmp_path / "bad").exists()


def test_the_command_takes_the_allowed_drop_in_points(run, tmp_path, capsys):
    words = ["export", str(run), "--arch", "smallest", "--profile", "x86-laptop", "--format", "onnx"]
    both = ["--precision", "fp32", "--precision", "int8"]
    assert main([*words, *both, "--max-accuracy-drop", "2.5", "--out", str(tmp_path / "out"), "--json"]) == 0
    [made] = json.loads(capsys.readouterr().out)["bundles"]
    gate = load_manifest(Path(made["folder"])).models["onnx-int8"].gate
    assert gate.max_accuracy_drop == 0.025
    assert (gate.scheme.activations, gate.scheme.reduce_range) == ("u8", True)
