"""`train --resume` where the images are no longer those the run was begun with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedsup_deploy import rng
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import load_train_config
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.runs.run import DATA

CONFIG = """
schema: 1
name: small
space: digits
data: {dataset: image-folder, root: cameras, server_images: false, client_validation_fraction: 0.25}
partition: {kind: natural}
strategy: {name: fedavg}
training: {rounds: 2, clients_per_round: 2, warmup_rounds: 0, batch_size: 4, checkpoint_every: 1}
engine: {name: local, workers: 1}
calibration: {samples_per_client: 2, batch_size: 2, schedule: one-shot}
"""
CHANGED = "the images are not those the run was begun with (some were added, removed or changed"


def photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.generator(seed, path.name).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def stop_after_a_round(event: dict[str, Any]) -> None:
    if event["event"] == "round" and event["round"] == 1:
        raise KeyboardInterrupt


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run of three cameras that was stopped after its first round."""
    for client in ("gate", "roof", "yard"):
        for label in ("cat", "dog"):
            for number in range(4):
                photograph(tmp_path / "cameras" / client / label / f"{number}.png", number)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        train(load_train_config(tmp_path / "small.yaml"), tmp_path / "run", listeners=(stop_after_a_round,))
    return tmp_path


def resumed(folder: Path) -> list[str]:
    """Return the notes of a run that is gone on with."""
    events: list[dict[str, Any]] = []
    train(load_train_config(folder / "small.yaml"), folder / "run", resume=True, listeners=(events.append,))
    [started] = [event for event in events if event["event"] == "train_started"]
    assert started["round"] > 0
    return [str(note) for note in started["notes"]]


def of_images(notes: list[str]) -> list[str]:
    return [note for note in notes if "begun with" in note]


def test_the_same_images_are_no_news(begun: Path) -> None:
    assert of_images(resumed(begun)) == []


def add_one(cameras: Path) -> None:
    photograph(cameras / "gate" / "cat" / "new.png", 9)


def replace_one(cameras: Path) -> None:
    photograph(cameras / "gate" / "cat" / "1.png", 9)


def replace_a_class(cameras: Path) -> None:
    for path in cameras.glob("*/dog/*.png"):
        photograph(path, 9)


@pytest.mark.parametrize("change", [add_one, replace_one, replace_a_class])
def test_other_images_are_said_and_gone_on_with(change: Callable[[Path], None], begun: Path) -> None:
    """A damaged file can be mended. What the run was begun with stays known."""
    before = (begun / "run" / DATA).read_bytes()
    change(begun / "cameras")
    [note] = of_images(resumed(begun))
    assert note.startswith(CHANGED)
    assert (begun / "run" / DATA).read_bytes() == before


def rename_a_client(cameras: Path) -> None:
    (cameras / "yard").rename(cameras / "attic")


def remove_a_client(cameras: Path) -> None:
    shutil.rmtree(cameras / "roof")


def rename_a_class(cameras: Path) -> None:
    for path in cameras.glob("*/dog"):
        path.rename(path.parent / "bird")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (rename_a_client, r"the clients are not .* \(gone 1 \(yard\), new 1 \(attic\)\); put the images back or"),
        (remove_a_client, r"the clients are not .* \(gone 1 \(roof\)\): 2 take part, 3 did; put the images back or"),
        (rename_a_class, r"the classes are not .* \(gone 1 \(dog\), new 1 \(bird\)\); put the images back or"),
    ],
)
def test_other_clients_and_classes_are_refused(change: Callable[[Path], None], what: str, begun: Path) -> None:
    change(begun / "cameras")
    before = {path: path.read_bytes() for path in (begun / "run").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=f"cannot resume .*: {what}"):
        resumed(begun)
    assert {path: path.read_bytes() for path in (begun / "run").rglob("*") if path.is_file()} == before


def test_of_a_run_that_was_begun_before_images_were_known_nothing_is_said(begun: Path) -> None:
    path = begun / "run" / DATA
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["fingerprint"], facts["clients"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    add_one(begun / "cameras")
    assert of_images(resumed(begun)) == []
    assert "fingerprint" not in path.read_text(encoding="utf-8")
