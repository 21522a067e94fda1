"""Which images of its clients a network is recalibrated on, and what comes of clients with very few."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsup_deploy.commands.evaluate import evaluate
from fedsup_deploy.commands.train import train
from fedsup_deploy.config.schema import TrainConfig, load_train_config
from fedsup_deploy.data.dataset import load_dataset
from fedsup_deploy.errors import ConfigError
from fedsup_deploy.runs.run import CONFIG, load_data

ORDERED = """
schema: 1
name: ordered
space: digits
data: {dataset: npz, root: ordered.npz}
partition: {kind: iid, num_clients: 6}
strategy: {name: fedavg}
training: {rounds: 5, clients_per_round: 6, warmup_rounds: 0, batch_size: 32}
engine: {name: local, workers: 1}
calibration: {samples_per_client: 16, batch_size: 16}
"""


@pytest.mark.parametrize("schedule", ["one-shot", "layer-wise"])
def test_images_that_stand_class_by_class_are_recalibrated_as_well_as_any(
    ordered_run: Path, tmp_path: Path, schedule: str
) -> None:
    """Sixteen images of each client stand for all of them: the first sixteen would be of one or two classes."""
    few = evaluate(ordered_run, "largest", schedule=schedule).accuracy
    shutil.copytree(ordered_run, tmp_path / "run")
    config = tmp_path / "run" / CONFIG
    all_of_them = config.read_text(encoding="utf-8").replace("samples_per_client: 16", "samples_per_client: 999")
    config.write_text(all_of_them, encoding="utf-8")
    everything = evaluate(tmp_path / "run", "largest", schedule=schedule).accuracy
    assert everything > 0.7
    assert abs(few - everything) <= 0.02


@pytest.fixture(scope="module")
def ordered_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, sorted by class."""
    folder = tmp_path_factory.mktemp("ordered")
    digits = load_dataset("digits", None)
    arrays = {}
    for name, images in (("train", digits.train), ("test", digits.test)):
        by_class = images.take(np.argsort(images.labels_N, kind="stable"))
        arrays |= {f"{name}_images": by_class.images_NHWC, f"{name}_labels": by_class.labels_N}
    np.savez(folder / "ordered.npz", **arrays)
    (folder / "ordered.yaml").write_text(ORDERED, encoding="utf-8")
    train(load_train_config(folder / "ordered.yaml", []), folder / "run")
    return folder / "run"


DEEP = """
schema: 1
name: deep
family: mobilenet
resolutions: [8]
stem: {widths: [8], kernel_size: 3, stride: 2}
stages:
  - {name: a, widths: [8, 16], depths: [1], kernel_sizes: [3], stride: 2}
  - {name: b, widths: [16, 24], depths: [1], kernel_sizes: [3], stride: 2}
"""
SMALL_CLIENTS = """
schema: 1
name: small-clients
space: deep.yaml
data: {dataset: digits}
partition: {kind: dirichlet, num_clients: 60, beta: 0.5}
strategy: {name: e-fedsup, tiers: [{random: true}]}
training: {rounds: 1, clients_per_round: 5, warmup_rounds: 0, batch_size: 16}
engine: {workers: 1}
calibration: {samples_per_client: 64, batch_size: 16}
"""


@pytest.fixture
def small_clients(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Clients of a few images, in a space whose last maps are one pixel."""
    (tmp_path / "deep.yaml").write_text(DEEP, encoding="utf-8")
    (tmp_path / "small.yaml").write_text(SMALL_CLIENTS, encoding="utf-8")
    return lambda *overrides: load_train_config(tmp_path / "small.yaml", overrides)


@pytest.mark.parametrize("schedule", ["one-shot", "layer-wise"])
def test_a_last_batch_of_one_image_is_no_obstacle(
    small_clients: Callable[..., TrainConfig], tmp_path: Path, schedule: str
) -> None:
    config = small_clients(f"calibration.schedule={schedule}")
    sizes = [len(indices) for indices in load_data(config).clients]
    assert any(size % 16 == 1 for size in sizes), "else this test says nothing"
    assert train(config, tmp_path / "run").rounds == 1
    assert 0 < evaluate(tmp_path / "run", "smallest").accuracy < 1


def test_clients_of_one_image_are_refused_before_the_first_round(
    small_clients: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = small_clients("partition.num_clients=300", "partition.beta=0.1", "partition.min_samples=1")
    with pytest.raises(ConfigError, match=r"^client \d+ has 1 image to train on, .*; raise partition.min_samples$"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
