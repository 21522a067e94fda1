"""Clients as they are: a folder of photographs per client, from training to a device. Nothing is dropped in silence."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from fedsup_deploy import rng

#: Photographs by client and class: 80 : 15 : 5 in all, two clients with one class, one with a single photograph.
CLASSES = ("china", "flower", "night")
PHOTOGRAPHS = {
    "caf\u00e9": (40, 6, 4),
    "depot": (30, 0, 0),
    "entrance": (28, 9, 2),
    "garden": (34, 8, 3),
    "loading-bay": (40, 7, 2),
    "new": (0, 1, 0),
    "roof": (25, 5, 2),
    "tower": (20, 0, 0),
    "yard": (23, 9, 2),
}
UNSEEN = ("yard", "tower")
CONFIG = """\
schema: 1
name: mine
space: space.yaml
data: {dataset: image-folder, root: cameras, image_size: 20}
partition: {kind: natural, unseen: [yard, tower]}
strategy: {name: fedavg}
training: {rounds: 6, batch_size: 16}
calibration: {samples_per_client: 32, schedule: one-shot}
"""


def photograph(client: str, label: int, number: int) -> "Image.Image":
    """Return a part of a photograph; at night it is dark."""
    generator = rng.generator(0, client, label, number)
    whole = Image.fromarray(load_sample_images().images[label % 2])
    side = int(generator.integers(120, 300))
    left, top = (int(generator.integers(0, border - side + 1)) for border in whole.size)
    part = whole.crop((left, top, left + side, top + side)).resize((64, 48))
    return part.point(lambda level: level // 5) if CLASSES[label] == "night" else part


def write_clients(root: Path, photographs: dict[str, tuple[int, ...]], below: str = "") -> None:
    for client, counts in photographs.items():
        for label, count in enumerate(counts):
            folder = root / client / below / CLASSES[label]
            for number in range(count):
                folder.mkdir(parents=True, exist_ok=True)
                photograph(client + below, label, number).save(folder / f"{number:02}.png")


@pytest.fixture(scope="module")
def shell(shell_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A shell in a folder with a run whose clients are cameras, and with a search of it."""
    shell = shell_in(tmp_path_factory.mktemp("natural"))
    write_clients(shell.folder / "cameras", PHOTOGRAPHS)
    shell.configure(CONFIG)
    return shell


@pytest.fixture(scope="module")
def trained(shell: Any) -> Any:
    ended = shell.run("train", "--config", "mine.yaml", "--json")
    assert ended.exit_code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def exported(shell: Any, trained: Any) -> Any:
    shell.json("search", "--run", "runs/mine", "--profile", "x86-laptop", "--evaluations", "4")
    return shell.json("export", "--search", "runs/mine/search.json", "--format", "onnx")["bundles"][0]


def test_there_are_300_photographs() -> None:
    totals = [sum(counts[label] for counts in PHOTOGRAPHS.values()) for label in range(3)]
    assert totals == [240, 45, 15]


def test_training_says_who_the_clients_are(trained: Any) -> None:
    notes = [line.removeprefix("note: ") for line in trained.err.splitlines() if line.startswith("note: ")]
    assert notes[0].startswith("300 images made 20x20 pixels (crop)")
    assert notes[1:] == [
        "clients left out, with fewer than partition.min_samples (2) images to train on: 1 (new), their images: 1",
        "clients: 6, with 30 to 50 images to train on (median 42)",
        "clients with images of one class only: 1 (depot)",
        "classes that clients have no images of: 2 (flower at 1, night at 1)",
        "unseen clients, which only evaluate asks: 2 (tower, yard), their images: 54",
    ]
    assert trained.document["unseen"] == ["tower", "yard"]


def test_every_photograph_is_accounted_for(shell: Any, trained: Any) -> None:
    """Those of clients that take part, of those that are unseen, and of the one that was left out."""
    lines = (shell.folder / "runs/mine/events.jsonl").read_text(encoding="utf-8").splitlines()
    started = json.loads(lines[0])
    assert (started["num_clients"], started["num_unseen_clients"]) == (6, 2)
    assert started["num_images"] == 300 - 54 - 1
    facts = json.loads((shell.folder / "runs/mine/data.json").read_text(encoding="utf-8"))
    names = [name for name in sorted(PHOTOGRAPHS) if name != "new"]
    assert facts["clients"] == {"num_clients": 6, "unseen": ["tower", "yard"], "names": names}
    asked = {client for line in lines for client in json.loads(line).get("clients", ())}
    assert {names[client] for client in asked} == set(names) - set(UNSEEN)


def test_evaluate_tells_clients_that_were_never_seen_from_those_that_were(shell: Any, trained: Any) -> None:
    report = shell.json("evaluate", "runs/mine", "--arch", "largest")
    assert report["split"] == "held-out"
    assert (report["clients"]["num_clients"], report["clients"]["images"]) == (6, "held out")
    assert report["clients"]["num_images"] == report["num_images"] == 49
    unseen = report["unseen"]
    assert (unseen["num_clients"], unseen["num_images"], unseen["images"]) == (2, 54, "all")


def test_a_bundle_is_as_often_right_about_unseen_clients_as_evaluate_says(shell: Any, exported: Any) -> None:
    manifest = json.loads((shell.folder / exported["folder"] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["accuracy"]["split"] == "held-out"
    assert tuple(manifest["classes"]) == CLASSES
    report = shell.json("evaluate", "runs/mine", "--arch", manifest["arch_id"])
    files = {client: sorted((shell.folder / "cameras" / client).glob("*/*.png")) for client in UNSEEN}
    names = [str(file) for client in UNSEEN for file in files[client]]
    command = [sys.executable, "-B", "run.py", "--json", "--classify", *names]
    ended = subprocess.run(command, cwd=shell.folder / exported["folder"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    answers = iter(json.loads(ended.stdout)["images"])
    shares = [np.mean([next(answers)["class"] == file.parent.name for file in files[client]]) for client in UNSEEN]
    # On the device and in the federation: a mean over two clients, and the worse of them.
    assert report["unseen"]["accuracy_mean"] == pytest.approx(np.mean(shares))
    assert report["unseen"]["worst_decile"] == pytest.approx(min(shares))
