"""What travels between server and devices, counted where it travels: on the interfaces of their links."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet import FarFleet
from hosts import Hosts, missing
from test_deployment import NAMES, nginx

from fedsup_deploy.data.dataset import load_dataset

pytestmark = pytest.mark.slow

#: As `configs/fashion-mnist.yaml` has it, for two devices and few rounds.
CONFIG = """
schema: 1
name: fashion
space: fedsup-mobilenet
partition: {kind: natural}
supernet: {normalization: batch}
strategy: {name: e-fedsup, tiers: [{architecture: smallest}, {architecture: largest}]}
training: {rounds: 4, warmup_rounds: 1, batch_size: 32, checkpoint_every: 4, evaluate_every: 4}
calibration: {samples_per_client: 8, batch_size: 8, schedule: one-shot}
federation: {quorum: 1.0}
"""
IMAGES_PER_DEVICE = 32
#: Seconds over which the rest of the traffic is counted, while nobody is asked: looks for messages, signs of life.
IDLE_S = 20
TOLERANCE = 0.03


@pytest.fixture
def fleet(children_type: Any, eventually: Callable[..., bool], sample_images: Path) -> Iterator[FarFleet]:
    if why := missing():
        pytest.skip(why)
    if nginx() is None:
        pytest.skip("nginx (install nginx-light)")

    def write_fashion(folder: Path) -> None:
        images = load_dataset("fashion-mnist", sample_images).train
        for number, name in enumerate(NAMES):
            own = slice(number * IMAGES_PER_DEVICE, (number + 1) * IMAGES_PER_DEVICE)
            arrays = {}
            for kind in ("train", "val", "test"):
                arrays |= {f"{kind}_images": images.images_NHWC[own], f"{kind}_labels": images.labels_N[own]}
            np.savez(folder / f"{name}.npz", classes=np.array(images.classes), **arrays)

    folder = Path(tempfile.mkdtemp(prefix="test-", dir="/tmp"))
    with children_type() as children, Hosts(NAMES, children) as hosts:
        fleet = FarFleet(children, folder, hosts, eventually, CONFIG)
        fleet.set_up(write_fashion)
        yield fleet
    shutil.rmtree(folder)


def test_what_travels_is_the_slices(fleet: FarFleet, eventually: Callable[..., bool]) -> None:
    """Between the ends of the second round and the fourth, when one device trains the smallest, one the largest."""
    process = fleet.start_ours("run", "train", "--config", "server.yaml", "--out", "run")
    counted = []
    for rounds in (2, 4):
        assert eventually(lambda rounds=rounds: len(fleet.rounds("run")) >= rounds)
        counted.append((time.monotonic(), np.array([fleet.hosts.bytes_of(name) for name in NAMES]).sum(axis=0)))
    assert process.wait(timeout=900) == 0, fleet.log("run")
    before = np.array([fleet.hosts.bytes_of(name) for name in NAMES]).sum(axis=0)
    time.sleep(IDLE_S)
    idle_per_s = (np.array([fleet.hosts.bytes_of(name) for name in NAMES]).sum(axis=0) - before) / IDLE_S
    (begun, first), (ended, last) = counted
    travelled = last - first - idle_per_s * (ended - begun)
    rounds = fleet.rounds("run")[2:4]
    slices = np.array([sum(event[key] for event in rounds) for key in ("bytes_down", "bytes_up")])
    assert np.all(slices > 1e6)
    assert np.all(np.abs(travelled / slices - 1) < TOLERANCE), f"{travelled} of {slices}, idle {idle_per_s} a second"
