"""The whole road, training to verified bundle, with a server that holds no image."""

import json
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def shell(shell_in, tmp_path_factory):
    """A shell in a folder with a run whose images are all with the clients."""
    shell = shell_in(tmp_path_factory.mktemp("no-images"))
    shell.train(data__server_images="false", data__client_validation_fraction=0.2)
    return shell


@pytest.fixture(scope="module")
def exported(shell) -> Any:
    shell.json("search", "--profile", "jetson-nano", "--evaluations", "6")
    return shell.json("export", "--search", "runs/digits/search.json")["bundles"][0]


def test_the_clients_share_all_training_images(shell):
    events = [json.loads(line) for line in (shell.folder / "runs/digits/events.jsonl").read_text().splitlines()]
    assert events[0]["num_images"] == 1348, "with validation images it would be 1,146"


def test_a_search_asks_the_clients_without_being_told(shell, exported):
    found = json.loads((shell.folder / "runs/digits/search.json").read_text(encoding="utf-8"))
    assert found["accuracy_model"]["kind"] == "clients"


def test_a_bundle_says_that_its_accuracy_is_that_of_what_clients_hold_out(shell, exported):
    """A fifth of the images of each client, rounded for each."""
    manifest = json.loads((shell.folder / exported["folder"] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["accuracy"]["split"] == "held-out"
    assert manifest["accuracy"]["num_samples"] == pytest.approx(1348 / 5, abs=10)
    report = shell.json("evaluate", "runs/digits", "--arch", manifest["arch_id"], "--split", "held-out")
    assert report["num_images"] == manifest["accuracy"]["num_samples"]
    assert report["accuracy"] == manifest["accuracy"]["recalibrated"]


def test_the_bundle_is_verified_and_was_compared_on_images_of_nobody(shell, exported):
    """As many as there would be validation images; those that travel with it are random as ever."""
    verified = shell.run("verify", exported["folder"])
    assert verified.exit_code == 0, verified.err
    manifest = json.loads((shell.folder / exported["folder"] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["models"]["onnx-fp32"]["gate"]["num_inputs"] >= 200
    with np.load(shell.folder / exported["folder"] / "vectors.npz") as vectors:
        assert len(vectors["inputs"]) == 32


def test_evaluate_and_fit_accuracy_go_by_what_clients_hold_out_without_being_told(shell):
    report = shell.json("evaluate", "runs/digits", "--arch", "smallest")
    assert report["split"] == "held-out"
    assert shell.json("fit-accuracy", "runs/digits", "--evaluations", "20")["num_measured"] == 20


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("evaluate", "runs/digits", "--arch", "smallest", "--split", "test"),
            "the server has no test images; evaluate with --split held-out",
        ),
        (("search", "--profile", "jetson-nano", "--accuracy", "measured"), "ask clients with --accuracy clients"),
        (("fit-accuracy", "runs/digits", "--accuracy", "measured"), "ask clients with --accuracy clients"),
    ],
    ids=["evaluate", "search", "fit-accuracy"],
)
def test_what_needs_images_of_the_server_says_so_in_one_line(shell, words, expected):
    ended = shell.run(*words)
    assert ended.exit_code == 2
    assert ended.err.count("\n") == 1
    assert expected in ended.err


def test_somebody_must_have_images_to_evaluate_on(shell):
    settings = {"data__server_images": "false", "data__client_validation_fraction": 0}
    ended = shell.run(*shell.training(**settings), "--out", "other")
    assert ended.exit_code == 2
    assert "no client holds images out to evaluate subnets on; train with --set data.client_validation" in ended.err
    assert not (shell.folder / "other").exists()
