"""Training on folders of a user's own images: what is passed over is said, and validation images are used."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIG = """\
schema: 1
name: mine
space: digits
data: {dataset: image-folder, root: images}
partition: {kind: iid, num_clients: 2}
strategy: {name: fedavg}
training: {rounds: 1, clients_per_round: 2, warmup_rounds: 0}
engine: {workers: 1}
calibration: {samples_per_client: 8, schedule: one-shot}
"""


@pytest.fixture
def images(shell) -> Path:
    """Two classes of twelve images for training and as many for testing; a config that names them."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("caf\u00e9", "b"):
            folder = shell.folder / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (shell.folder / "mine.yaml").write_text(CONFIG, encoding="utf-8")
    return shell.folder / "images"


def events(shell) -> list[dict]:
    lines = (shell.folder / "runs/mine/events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_what_is_passed_over_is_said_once_and_kept(shell, images):
    (images / "train" / "b" / "2021").mkdir()
    for number in range(4, 12):
        name = f"{number:02}.png"
        (images / "train" / "b" / name).rename(images / "train" / "b" / "2021" / name)
    (images / "train" / "b" / "list.txt").write_text("no image", encoding="utf-8")
    ended = shell.run("train", "--config", "mine.yaml")
    assert ended.exit_code == 0, ended.err
    notes = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: passed over in train, folders within those of classes: 1 (b/2021), files in them: 8",
        "note: passed over in train, files of kinds that are not read: 1 (b/list.txt)",
    ]
    assert [f"note: {note}" for note in events(shell)[0]["notes"]] == notes


def test_images_for_validation_are_not_taken_from_those_for_training(shell, images):
    (images / "test").rename(images / "val")
    (images / "test" / "b").mkdir(parents=True)
    (images / "val" / "b" / "00.png").rename(images / "test" / "b" / "00.png")
    ended = shell.run("train", "--config", "mine.yaml")
    assert ended.exit_code == 0, ended.err
    assert "note: " not in ended.err
    assert events(shell)[0]["num_images"] == 24
    report = shell.json("evaluate", "runs/mine", "--arch", "smallest", "--split", "validation")
    assert report["num_images"] == 23


def test_a_fraction_that_was_asked_for_and_is_not_needed_is_said(shell, images):
    (images / "val" / "b").mkdir(parents=True)
    (images / "test" / "b" / "00.png").rename(images / "val" / "b" / "00.png")
    ended = shell.run("train", "--config", "mine.yaml", "--set", "data.validation_fraction=0.2")
    assert ended.exit_code == 0, ended.err
    assert (
        "note: data.validation_fraction is not used: image-folder brings validation images of its own (1)" in ended.err
    )
    assert events(shell)[0]["num_images"] == 24


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_file_is_named_whenever_it_is_met(shell, images, workers):
    """No client is absent for it; once it is mended, or removed, training goes on."""
    path = images / "train" / "b" / "05.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    words = ("train", "--config", "mine.yaml", "--set", f"engine.workers={workers}")
    ended = shell.run(*words)
    assert ended.exit_code == 3
    (error,) = ended.errors
    assert error.startswith(f"error: cannot read {path}: ")
    assert error.endswith("; get the file again")
    path.write_bytes(whole)
    assert shell.run(*words, "--resume").exit_code == 0


def test_a_server_without_images_has_no_validation_images_either(shell, images):
    (images / "val" / "b").mkdir(parents=True)
    (images / "test" / "b" / "00.png").rename(images / "val" / "b" / "00.png")
    settings = ("data.server_images=false", "data.client_validation_fraction=0.25")
    ended = shell.run("train", "--config", "mine.yaml", *(word for text in settings for word in ("--set", text)))
    assert ended.exit_code == 0, ended.err
    report = shell.json("evaluate", "runs/mine", "--arch", "smallest", "--split", "held-out")
    assert report["num_images"] == 6


def test_a_class_whose_name_is_not_utf_8_is_refused_at_once(shell, images):
    for split in ("train", "test"):
        (images / split / "b").rename(images / split / "caf\udce9")
    ended = shell.run("train", "--config", "mine.yaml")
    assert ended.exit_code == 3
    (error,) = ended.errors
    assert error.endswith(r"/images/train/caf\xe9: the name is not UTF-8; rename it")
    assert not (shell.folder / "runs" / "mine").exists()


def test_the_locale_does_not_decide_which_names_can_be_used(shell, images):
    """Where Python takes names of files for ASCII, a class is called what it is called elsewhere."""
    (images / "test" / "caf\u00e9").rename(images / "test" / "cafe\u0301")
    shell.environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = shell.run("train", "--config", "mine.yaml")
    assert ended.exit_code == 0, ended.err
    facts = json.loads((shell.folder / "runs/mine/data.json").read_text(encoding="utf-8"))
    assert facts["classes"] == ["b", "caf\u00e9"]


@pytest.mark.slow
def test_a_class_may_have_any_name_of_utf_8_in_its_bundle_too_and_in_any_locale(shell, images):
    name = "a|b \u201cc\u201d 'd' \u732b"
    for split in ("train", "test"):
        (images / split / "b").rename(images / split / name)
    shell.environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = shell.run("train", "--config", "mine.yaml", "--quiet")
    assert ended.exit_code == 0, ended.err
    words = ("export", "runs/mine", "--arch", "smallest", "--profile", "x86-laptop", "--format", "onnx", "--quiet")
    ended = shell.run(*words)
    assert ended.exit_code == 0, ended.err
    (bundle,) = (shell.folder / "exports" / "x86-laptop").iterdir()
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["classes"] == [name, "caf\u00e9"]
    assert "\u732b, caf\u00e9" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    for command in ("verify", "inspect"):
        ended = shell.run(command, bundle)
        assert ended.exit_code == 0, ended.err
