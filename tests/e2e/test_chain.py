"""From training to a verified bundle, one command after the other, each with the words a user would type."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from packaging.requirements import Requirement
from sklearn.datasets import load_digits

from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.resources import shipped_names


def run_model(path: Path, inputs_NCSS: np.ndarray) -> np.ndarray:
    """Return the logits ONNX Runtime computes, nothing of ours being involved."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs_NCSS})[0]


def manifest_of(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))


def prepare(images_NHWC: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    """Do what the manifest says, in plain NumPy: for images that need no resizing."""
    assert how["layout"] == "NCHW"
    assert how["padded_size"] == how["size"]
    pad = how["padding"]
    pixels = images_NHWC.astype(np.float32) / np.float32(how["pixel_max"])
    margins = ((0, 0), (pad["top"], pad["bottom"]), (pad["left"], pad["right"]), (0, 0))
    pixels = np.pad(pixels, margins, constant_values=pad["value"])
    normal = (pixels - np.array(how["mean"], np.float32)) / np.array(how["std"], np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=how["dtype"])


def bare_environment(folder: Path, *names: str) -> Path:
    """Make a virtual environment that has these distributions and what they require, linked from here.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    waiting, linked = list(names), set()
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        if distribution.name in linked:
            continue
        linked.add(distribution.name)
        for top in {path.parts[0] for path in distribution.files or () if path.parts[0] not in {"..", "__pycache__"}}:
            (packages / top).symlink_to(distribution.locate_file(top))
        needed = [Requirement(text) for text in distribution.requires or ()]
        waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return folder / "bin" / "python"


#: What commands after the training leave in a run's folder.
LATER = {"search.json", "statistics", "evaluations"}


def test_a_run_says_what_was_done(workshop):
    run = workshop.folder / "runs" / "digits"
    assert sorted(path.name for path in run.iterdir() if path.name not in LATER) == [
        "checkpoint",
        "command.json",
        "config.resolved.yaml",
        "data.json",
        "events.jsonl",
        "space.yaml",
        "supernet.safetensors",
    ]
    command = json.loads((run / "command.json").read_text(encoding="utf-8"))["command"]
    assert command[:4] == ["fedsup-deploy", "train", "--config", "digits"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["round"] for event in events if event["event"] == "round"] == [0, 1, 2]


def test_evaluate_says_how_good_a_subnet_is_overall_and_to_clients(workshop):
    report = workshop.json("evaluate", "runs/digits", "--arch", "smallest", "--per-client")
    again = workshop.json("evaluate", "runs/digits", "--arch", report["arch_id"], "--per-client")
    assert report == again
    assert report["num_images"] == 449
    assert (report["accuracy"] * 449) % 1 == pytest.approx(0, abs=1e-6)
    assert report["accuracy"] > 0.12, "a guess is right for one image in ten"
    assert report["clients"]["num_clients"] == 6
    assert 0 <= report["clients"]["worst_decile"] <= report["clients"]["accuracy_mean"] <= 1


def test_search_takes_the_newest_run_and_the_limits_of_the_profile(workshop, searched):
    assert searched["out"] == "runs/digits/search.json"
    assert not (workshop.folder / "runs" / "older" / "search.json").exists()
    [found] = searched["results"]
    assert found["profile"]["name"] == "jetson-nano"
    assert found["limits"] == {"latency_ms": 3.5}
    best = max(candidate["accuracy"] for candidate in found["candidates"])
    pick = next(candidate for candidate in found["candidates"] if candidate["arch_id"] == found["pick"])
    assert pick["accuracy"] == best
    assert pick["latency_ms_predicted"] <= 3.5


def test_a_person_reads_the_pick_and_what_its_prediction_is_worth(workshop, searched):
    words = ["--profile", "jetson-nano", "--method", "random", "--evaluations", "3", "--out", "table.json"]
    ended = workshop.run("search", *words)
    assert ended.exit_code == 0, ended.err
    [found] = json.loads((workshop.folder / "table.json").read_text(encoding="utf-8"))["results"]
    for word in ("jetson-nano", found["pick"], "latency_ms <= 3.5", "not measured", "table.json"):
        assert word in ended.out
    assert "evaluation 3/3" in ended.err


@pytest.mark.slow
def test_where_everything_is_measured_a_search_predicts_nothing(workshop, shell_in, tmp_path):
    """Of a space of 128 subnets all are measured; the run is the newest, and named."""
    shutil.copytree(workshop.folder / "runs" / "digits", tmp_path / "runs" / "digits")
    shell = shell_in(tmp_path)
    fitted = shell.run("fit-accuracy")
    assert fitted.exit_code == 0, fitted.err
    assert "run: runs/digits (3 rounds)" in fitted.out
    assert "every subnet is measured" in fitted.out
    assert "measure more" not in fitted.out
    words = ["search", "--profile", "jetson-nano", "--max-latency-ms", "0.7"]
    shown = shell.run(*words)
    assert "run: runs/digits (3 rounds)" in shown.out
    assert "predicted (" not in shown.out
    auto, measured = shell.json(*words), shell.json(*words, "--accuracy", "measured", "--out", "measured.json")
    assert auto["accuracy_model"] == measured["accuracy_model"]
    assert auto["results"][0]["pick"] == measured["results"][0]["pick"]
    assert auto["results"][0]["certified_relative_to"] == measured["results"][0]["certified_relative_to"]
    made = shell.json("export", "--search", "measured.json")["bundles"]
    assert [bundle["arch_id"] for bundle in made] == [measured["results"][0]["pick"]]


def test_a_bundle_has_every_file_its_manifest_lists(bundle, exported):
    manifest = manifest_of(bundle)
    models = {name for record in manifest["models"].values() for name in record["files"]}
    assert models == {"model.onnx", "model.ts.pt"}
    others = {"manifest.json", "vectors.npz", "run.py", "install.py", "MODEL_CARD.md", "SHA256SUMS"}
    assert {path.name for path in bundle.iterdir()} == models | others
    assert bundle.parts[-3:] == ("exports", "jetson-nano", manifest["arch_id"])
    assert exported["accuracy"] == manifest["accuracy"]["recalibrated"]


def test_nothing_in_a_bundle_or_search_tells_where_it_was_made(workshop, bundle):
    files = [*bundle.iterdir(), workshop.folder / "runs" / "digits" / "search.json"]
    places = [workshop.folder, Path(sys.prefix), Path(__file__).parents[2], Path.home()]
    traces = [str(place).encode() for place in places]
    assert [(path.name, trace) for path in files for trace in traces if trace in path.read_bytes()] == []


def test_the_runner_of_the_bundle_passes(bundle):
    command = [sys.executable, "run.py", "--json", "--seconds", "0.2"]
    ran = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    report = json.loads(ran.stdout)
    assert report["arch_id"] == manifest_of(bundle)["arch_id"]
    assert report["parity"]["max_scaled_diff"] <= 1e-5
    assert report["latency"]["statistics"]["p50_ms"] > 0


def test_onnxruntime_alone_computes_the_recorded_vectors(bundle):
    with np.load(bundle / "vectors.npz", allow_pickle=False) as vectors:
        inputs, expected = vectors["inputs"], vectors["outputs"]
    assert len(inputs) >= 16
    for size in (1, 3, 8, len(inputs)):
        parts = [run_model(bundle / "model.onnx", inputs[at : at + size]) for at in range(0, len(inputs), size)]
        scale = np.abs(expected).max(axis=1, keepdims=True).clip(1)
        np.testing.assert_allclose(np.concatenate(parts) / scale, expected / scale, rtol=0, atol=1e-5)


def test_the_manifest_is_enough_to_get_the_accuracy_it_states(bundle):
    """Pixels straight from scikit-learn; which of them are the test images is the one thing asked of the package."""
    manifest = manifest_of(bundle)
    test = load_dataset("digits", None).test
    raw = {image.tobytes() for image in (load_digits().images * 15).astype(np.uint8)}
    assert {image.tobytes() for image in test.images_NHWC} <= raw
    logits = run_model(bundle / "model.onnx", prepare(test.images_NHWC, manifest["preprocessing"]))
    right = logits.argmax(axis=1) == test.labels_N
    assert manifest["accuracy"]["num_samples"] == len(right) == 449
    assert right.mean() == manifest["accuracy"]["recalibrated"]


@pytest.mark.slow
def test_another_export_in_another_process_is_the_same_to_the_byte(workshop, searched, bundle, monkeypatch):
    """All but the measurement, which stands in the manifest and the card."""
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    words = ("export", "--search", searched["out"], "--format", "torchscript", "--out", "again")
    again = workshop.json(*words)["bundles"][0]
    folder = workshop.folder / again["folder"]
    for name in ("model.onnx", "model.ts.pt", "vectors.npz", "run.py"):
        assert (folder / name).read_bytes() == (bundle / name).read_bytes(), name
    first, second = manifest_of(bundle), manifest_of(folder)
    for manifest in (first, second):
        assert manifest["models"]["onnx-fp32"]["latency"].pop("measured") is not None
    assert first == second


def test_verify_and_measure(workshop, exported, bundle):
    verified = workshop.json("verify", exported["folder"])
    assert (verified["verdict"], verified["arch_id"]) == ("ok", exported["arch_id"])
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    measured = workshop.json("measure", exported["folder"])
    assert (measured["profile"], measured["is_recorded"]) == ("jetson-nano", True)
    assert 0 < measured["statistics"]["min_ms"] <= measured["statistics"]["p50_ms"]
    assert workshop.json("measure", f"{exported['folder']}/model.onnx")["statistics"]["num_runs"] >= 200
    assert before.items() <= {path.name: path.read_bytes() for path in bundle.iterdir()}.items(), "nothing changes"
    assert workshop.json("verify", exported["folder"])["measured"]["statistics"] == measured["statistics"]
    assert verified["not_executed"] == ["model.ts.pt"]
    (bundle / "measured.json").unlink()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("runs/digits", "run"),
        ("runs/digits/search.json", "search"),
        ("runs/digits/space.yaml", "search space"),
        ("runs/digits/supernet.safetensors", "supernet"),
        ("runs/digits/checkpoint/state.safetensors", "checkpoint"),
        ("runs/digits/command.json", "command that made a run"),
        ("runs/digits/data.json", "what a run knows of its images and clients"),
        ("runs/digits/events.jsonl", "what happened in a run"),
        ("exports/jetson-nano/{arch_id}", "bundle"),
        ("exports/jetson-nano/{arch_id}/SHA256SUMS", "hashes of the files of a bundle"),
    ],
)
def test_inspect_knows_what_each_step_left(workshop, exported, path, kind):
    found = workshop.json("inspect", path.format(arch_id=exported["arch_id"]))
    assert found["kind"] == kind


def test_inspect_tells_the_lineage_of_a_bundle(workshop, searched, exported):
    found = workshop.json("inspect", exported["folder"])
    assert found["lineage"]["search"] is not None
    assert workshop.json("inspect", "runs/digits")["supernet_sha256"] == searched["run"]["hash"]


def test_extract_and_recalibrate_write_a_subnet(workshop, tmp_path):
    extracted = workshop.json("extract", "runs/digits", "--arch", "smallest", "--out", tmp_path / "plain.safetensors")
    calibrated = workshop.json(
        "recalibrate",
        "runs/digits",
        "--arch",
        "smallest",
        "--schedule",
        "one-shot",
        "--out",
        tmp_path / "c.safetensors",
    )
    assert extracted["arch_id"] == calibrated["arch_id"]
    plain, whole = (workshop.json("inspect", tmp_path / name) for name in ("plain.safetensors", "c.safetensors"))
    assert (plain["kind"], plain["is_calibrated"]) == ("subnet", False)
    assert (whole["kind"], whole["is_calibrated"]) == ("subnet", True)
    assert plain["architecture"] == whole["architecture"]


def test_profiles(workshop, repository):
    listed = workshop.json("profile", "list")["profiles"]
    assert [profile["name"] for profile in listed] == shipped_names("profiles")
    assert workshop.json("profile", "show", "jetson-nano")["name"] == "jetson-nano"
    path = repository / "profiles" / "jetson-nano.yaml"
    assert workshop.json("profile", "validate", path)["valid"] == [{"file": str(path), "name": "jetson-nano"}]


def test_a_bundle_runs_in_an_environment_with_only_numpy_and_onnxruntime(bundle, tmp_path):
    """A new virtual environment. The two packages and what they need are linked from here, so nothing is fetched."""
    python = bare_environment(tmp_path / "venv", "numpy", "onnxruntime")
    search = (
        "from importlib.util import find_spec; print([name for name in ('torch', 'fedsup_deploy') if find_spec(name)])"
    )
    found = subprocess.run([python, "-c", search], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
    command = [python, "run.py", "--skip-latency"]
    ran = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("PASS\n")
