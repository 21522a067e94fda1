"""`fedsup-deploy demo` as it is, and what it promises of the bundles it makes."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.data.preprocess import Preprocessing


@pytest.fixture(scope="module")
def shown(tmp_path_factory, shell_in):
    """A shell in the folder of the demo, and its document."""
    shell = shell_in(tmp_path_factory.mktemp("demo"))
    return shell, shell.json("demo")


def accuracy_of(bundle) -> float:
    """Return the share of the test images that ONNX Runtime gets right."""
    test = load_dataset("digits", None).test
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    inputs = Preprocessing.from_dict(manifest["preprocessing"]).apply(test.images_NHWC)
    [logits] = onnxruntime.InferenceSession(bundle / "model.onnx").run(None, {"input": inputs})
    return float(np.mean(logits.argmax(axis=1) == test.labels_N))


@pytest.mark.slow
def test_every_device_class_gets_a_bundle_that_is_good_enough(shown):
    shell, result = shown
    accuracies = {made["profile"]: accuracy_of(shell.folder / made["folder"]) for made in result["devices"]}
    assert len(accuracies) >= 3
    assert accuracies == {made["profile"]: made["accuracy"] for made in result["devices"]}
    assert min(accuracies.values()) >= 0.94


@pytest.mark.slow
def test_the_smallest_subnet_keeps_up_with_the_largest(shown):
    shell, _ = shown
    least, whole = (shell.json("evaluate", "runs/demo", "--arch", name)["accuracy"] for name in ("smallest", "largest"))
    assert least >= whole - 0.04


@pytest.mark.slow
def test_every_device_is_within_its_limit_and_recalibration_helps(shown):
    _, result = shown
    for made in result["devices"]:
        assert made["latency_ms_predicted"] <= made["latency_ms_limit"]
        assert made["accuracy"] > made["accuracy_not_recalibrated"]


@pytest.mark.slow
def test_the_commands_it_names_next_work(shown):
    shell, result = shown
    for line in result["next"]:
        program, *words = line.split()
        if program == "python":
            subprocess.run(
                [sys.executable, *words, "--skip-latency"], cwd=shell.folder, check=True, capture_output=True
            )
        else:
            assert program == "fedsup-deploy"
            assert shell.json(*words)


@pytest.mark.slow
def test_its_search_can_be_exported_by_names_of_profiles(shown):
    shell, result = shown
    words = ("export", "--search", result["search"], "--profile", "jetson-nano", "--out", "again")
    [made] = shell.json(*words)["bundles"]
    assert made["arch_id"] in {device["arch_id"] for device in result["devices"] if device["profile"] == "jetson-nano"}


@pytest.mark.slow
def test_the_demo_may_be_run_again(shown):
    """It replaces its own run, and what it made is the same to the byte. A person reads what was made."""
    shell, first = shown
    models = {made["folder"]: (shell.folder / made["folder"] / "model.onnx").read_bytes() for made in first["devices"]}
    ended = shell.run("demo")
    assert ended.exit_code == 0
    for folder, content in models.items():
        assert (shell.folder / folder / "model.onnx").read_bytes() == content
        assert folder in ended.out
    for line in first["next"]:
        assert line in ended.out


@pytest.mark.slow
def test_its_page_shows_all_of_it(shown):
    shell, result = shown
    page = (shell.folder / result["report"]).read_text(encoding="utf-8")
    for made in result["devices"]:
        assert made["arch_id"] in page
        assert f"<h3>{made['profile']}</h3>" in page
    assert result["report"] == "report.html"
