"""Bundles of a device whose runtime takes files for one image at a time: `accepts.batch: static` of its profile."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_runs
import yaml

from fedsup_deploy.api import Artifact
from fedsup_deploy.artifact.store import load_manifest
from fedsup_deploy.cli.main import main
from fedsup_deploy.commands.export import ExportRequest, export
from fedsup_deploy.commands.inspect import inspect
from fedsup_deploy.commands.verify import verify
from fedsup_deploy.data.digits import load_digits
from fedsup_deploy.errors import ArtifactError
from fedsup_deploy.ondevice import bundle_files, inference
from fedsup_deploy.ondevice.bundle_outputs import BATCHES
from fedsup_deploy.runs.run import Run

FILES = {"model.onnx", "model.int8.onnx", "model.ts.pt"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_runs.trained(small_runs.NETWORK, tmp_path_factory.mktemp("runs"))


def profile_of(repository: Path, folder: Path, name: str, **accepts: str) -> Path:
    """Return the file of a profile like that of the Raspberry Pi 4, whose runtime accepts something else."""
    document = yaml.safe_load((repository / "profiles" / "raspberry-pi-4.yaml").read_text(encoding="utf-8"))
    document["accepts"] |= accepts
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**document, "name": name}, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bundles(run: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of the same network for either kind of device, by one command."""
    out = tmp_path_factory.mktemp("out")
    profiles = [str(profile_of(repository, out, batch, batch=batch)) for batch in ("static", "dynamic")]
    request = ExportRequest(run, "smallest", None, profiles, ("onnx", "torchscript"), ("fp32", "int8"), out / "bundles")
    return {made.profile: made.folder for made in export(request).bundles}


@pytest.fixture
def static(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(bundles["static"], tmp_path / "static"))


def batches_of(path: Path) -> list[int | str]:
    graph = onnx.load(path).graph
    sizes = [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]
    return [size.dim_value or size.dim_param for size in sizes]


def run_py(folder: Path) -> Any:
    command = [sys.executable, "run.py", "--json", "--skip-latency"]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout)


def test_only_files_of_onnx_are_for_one_image_and_only_where_that_is_asked_for(bundles: dict[str, Path]) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        assert batches_of(bundles["static"] / name) == [1, 1]
        assert batches_of(bundles["dynamic"] / name) == ["batch", "batch"]
        static, dynamic = (onnx.load(bundles[kind] / name).graph for kind in ("static", "dynamic"))
        assert static.initializer == dynamic.initializer
        assert static.node == dynamic.node
    for folder in bundles.values():
        assert {path.name for path in folder.iterdir()} >= FILES
    torchscript = [(bundles[kind] / "model.ts.pt").read_bytes() for kind in ("static", "dynamic")]
    assert torchscript[0] == torchscript[1], "libtorch takes any number all the same"


def test_gates_and_the_manifest_say_how_many_images_a_file_takes(bundles: dict[str, Path]) -> None:
    for kind, size, batches in (("static", 1, (1,)), ("dynamic", "batch", BATCHES)):
        manifest = load_manifest(bundles[kind])
        assert manifest.inputs[0].shape[0] == manifest.outputs[0].shape[0] == size
        assert manifest.batches == manifest.parity.batches == batches
        torchscript = manifest.models["torchscript-fp32"].gate
        assert torchscript.kind == "parity"
        assert torchscript.batches == BATCHES
        found = inspect(bundles[kind] / "model.onnx").to_dict()
        assert found["inputs"] == {"input": [size, 1, 8, 8]}


def test_it_is_checked_image_by_image_everywhere(bundles: dict[str, Path]) -> None:
    """`verify` here and `run.py` on a device: both files run all recorded images, one at a time."""
    for kind, batches in (("static", [1]), ("dynamic", [1, 3, 8])):
        checked, report = verify(bundles[kind]), run_py(bundles[kind])
        assert (report["exit_code"], report["reason"]) == (0, None)
        assert checked.int8 is not None
        for found in (checked.parity, checked.int8, report["parity"], report["int8"]):
            assert found["batches"] == batches
            assert found["num_inputs"] >= 16


def test_inspect_and_the_runner_tell_in_words_how_many_images_they_take(bundles: dict[str, Path], capsys: Any) -> None:
    for kind, folder in bundles.items():
        assert main(["inspect", str(folder)]) == 0
        assert ("images at once    1, in files of ONNX\n" in capsys.readouterr().out) == (kind == "static")
    for kind, words in (("static", "images, batch 1: scaled"), ("dynamic", "images, batch 1, 3, 8: scaled")):
        command = [sys.executable, "run.py", "--skip-latency"]
        ran = subprocess.run(command, cwd=bundles[kind], capture_output=True, text=True, check=True)
        assert words in ran.stdout


def test_many_images_are_predicted_all_the_same_and_it_is_timed(bundles: dict[str, Path]) -> None:
    images = load_digits(None).test.images_NHWC[:20]
    static, dynamic = (Artifact(folder, load_manifest(folder)).predict(images) for folder in bundles.values())
    np.testing.assert_allclose(static, dynamic, atol=1e-5)
    assert static.shape == (20, 10)
    assert load_manifest(bundles["static"]).main.latency.measured is not None


def test_the_card_says_so_and_its_program_runs(bundles: dict[str, Path]) -> None:
    outputs = {}
    for kind, folder in bundles.items():
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        program = card.partition("```python\n")[2].partition("```")[0]
        ran = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
        outputs[kind] = ran.stdout
        assert ("ONNX files take one image at a time" in card) == (kind == "static")
    assert outputs["static"] == outputs["dynamic"] != ""
    card = (bundles["static"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "inputs onnx-fp32 at batch 1; torchscript-fp32 at batch 1, 3, 8." in card


def test_a_manifest_that_says_another_number_of_images_than_the_file_is_refused(
    bundles: dict[str, Path], static: Path, tmp_path: Path
) -> None:
    """Whoever says that a file takes one image alone has it checked less."""

    def forged(folder: Path, size: Any, batches: list[int]) -> Path:
        document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for tensor in (document["inputs"][0], document["outputs"][0]):
            tensor["shape"][0] = size
        document["models"]["onnx-fp32"]["gate"]["batches"] = batches
        (folder / "manifest.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        names = [name for name in bundle_files.list_files(folder) if name != bundle_files.SUMS]
        (folder / bundle_files.SUMS).write_text("".join(bundle_files.sha256sums(folder, names)))
        return folder

    dynamic = Path(shutil.copytree(bundles["dynamic"], tmp_path / "dynamic"))
    with pytest.raises(ArtifactError, match=r"inputs: got .*1, 1, 8, 8.* expected .*batch"):
        verify(forged(dynamic, 1, [1]))
    with pytest.raises(ArtifactError, match=r"inputs: got .*batch.* expected .*\(1, 1, 8, 8\)"):
        verify(forged(static, "batch", [1, 3, 8]))
    with pytest.raises(ArtifactError, match=r"got the batches \[1\], expected 1, 3, 8 among them"):
        verify(forged(static, "batch", [1]))
    with pytest.raises(ArtifactError, match="got batches 4 and 4, expected `batch` or 1 for both"):
        verify(forged(static, 4, [1]))
    assert run_py(static)["reason"].endswith("the model takes 4 images at once, expected any number or 1")


def test_the_file_itself_takes_no_more(bundles: dict[str, Path]) -> None:
    session = inference.open_session(str(bundles["static"] / "model.onnx"), threads=1)
    with pytest.raises(inference.runtime_errors(), match="invalid dimensions"):
        session.run(None, {"input": np.zeros((2, 1, 8, 8), np.float32)})


def test_a_layout_that_nothing_is_written_in_is_refused_on_one_line_before_an_image_is_read(
    run: Path, repository: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: object) -> None:
        raise AssertionError("images were read")

    monkeypatch.setattr(Run, "data", property(read))
    own = profile_of(repository, tmp_path, "own", layout="nhwc")
    for profile, formats in (("coral-edge-tpu", []), (str(own), ["--format", "torchscript", "--format", "onnx"])):
        words = ["--arch", "smallest", "--profile", profile, "--out", str(tmp_path / "out"), *formats]
        assert main(["export", str(run), *words]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == 1
        assert "its runtime takes images as NHWC, and files of this format" in told.err
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]
    with pytest.raises(AssertionError, match="images were read"):
        export(ExportRequest(run, "smallest", None, ("raspberry-pi-4",), ("onnx",), ("fp32",), tmp_path / "out"))
