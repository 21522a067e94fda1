"""Photographs of any size in numbers that no memory holds: what their training takes, against arrays.

    python benchmarks/photographs.py
    python benchmarks/photographs.py 1000 10000 100000

First, one client's training in one thread, in turn: on squares in memory, on photographs decoded in an earlier pass, on
photographs decoded now; and their decoding alone. Then, for each number N, two rounds of a whole run: N hard links to
some hundred photographs (parts of the two that scikit-learn brings, as JPEG, PNG and WebP, 160 to 640 pixels wide),
divided among clients of 50, of whom 20 train in each round, with statistics, pixel moments and evaluations of a sample
of 10; and the same with as many squares in an `.npz`. Tells the largest sum of resident memory of the processes (shared
pages count in each) and the time until training starts.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from interleaved import ratio_of_medians, time_in_turn
from PIL import Image
from sklearn.datasets import load_sample_images

from fedsup_deploy import rng
from fedsup_deploy.config.load import load_yaml, validate
from fedsup_deploy.data.augment import Augmentation
from fedsup_deploy.data.dataset import ImageDataset, LabelledImages, Reading, load_dataset
from fedsup_deploy.data.preprocess import Preprocessing
from fedsup_deploy.federation.client import TRAINED, Client
from fedsup_deploy.federation.jobs.train import Assignment, LocalTraining, Train
from fedsup_deploy.federation.messages import Blob
from fedsup_deploy.ondevice.source_resize import SourceResize
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.layout import Layout
from fedsup_deploy.supernet.model import initial_weights

CLASSES = ("china", "flower")
WRITTEN = (("jpg", {"quality": 90}), ("jpg", {"quality": 75}), ("png", {}), ("webp", {"quality": 80}))
NUM_PHOTOGRAPHS, SIDE, IMAGES_PER_CLIENT, NUM_TEST, ROUNDS = 300, 64, 50, 40, 7
SPACE = """\
schema: 1
name: photographs
family: mobilenet
resolutions: [64]
choices: per-stage
stem: {widths: [16], kernel_size: 3, stride: 2}
stages:
  - {name: a, widths: [24, 32], depths: [2], kernel_sizes: [3], stride: 2}
  - {name: b, widths: [48], depths: [1, 2], kernel_sizes: [3], stride: 2}
"""
CONFIG = """\
schema: 1
name: photographs
space: space.yaml
data: {{dataset: {dataset}, root: {root}, server_images: false, client_validation_fraction: 0.1{more}}}
partition: {{kind: iid, num_clients: {clients}}}
strategy: {{name: fedavg}}
training:
  {{rounds: 2, clients_per_round: 20, warmup_rounds: 0, learning_rate: 0.05, evaluate_every: 2}}
engine: {{workers: 2}}
calibration: {{clients: 10, pixel_clients: 10, samples_per_client: 16, schedule: one-shot}}
"""


class Measured(NamedTuple):
    """What a training took: `peak_mib` of all processes together, `start_s` until the first round."""

    peak_mib: float
    start_s: float


def write_photographs(folder: Path) -> list[tuple[str, Path]]:
    """Write some hundred photographs and return each with its class."""
    wholes = [Image.fromarray(image) for image in load_sample_images().images]
    made = []
    for number in range(NUM_PHOTOGRAPHS):
        generator = rng.generator(0, "photographs", number)
        width = int(generator.integers(160, 641))
        height, side = width * 3 // 4, int(generator.integers(200, 420))
        whole = wholes[number % 2]
        left, top = (int(generator.integers(0, border - side + 1)) for border in whole.size)
        suffix, options = WRITTEN[number // 2 % len(WRITTEN)]
        path = folder / f"{number}.{suffix}"
        whole.crop((left, top, left + side, top + side)).resize((width, height)).save(path, **options)
        made.append((CLASSES[number % 2], path))
    return made


def link(photographs: Sequence[tuple[str, Path]], root: Path, count: int) -> None:
    """Make hard links to the photographs, in turn, as a data set of so many training images."""
    for split, number in (("train", count), ("test", NUM_TEST)):
        for index in range(number):
            label, path = photographs[index % len(photographs)]
            folder = root / split / label / ""
            folder.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / f"{index:06}{path.suffix}")


def trained(folder: Path, name: str, dataset: str, root: Path, count: int, more: str = "") -> Measured:
    """Train in a process of its own and return what that took."""
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(dataset=dataset, root=root, clients=count // IMAGES_PER_CLIENT, more=more))
    program = Path(sys.executable).with_name("fedsup-deploy")
    command = [str(program), "train", "--config", str(config), "--out", str(folder / name)]
    started = time.time()
    with subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL) as process:
        peaks = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, peaks))
        watcher.start()
        if process.wait() != 0:
            raise SystemExit(f"{name}: training failed")
        watcher.join()
    events = [json.loads(line) for line in (folder / name / "events.jsonl").read_text().splitlines()]
    begin = next(event["unix_time_s"] for event in events if event["event"] == "train_started")
    return Measured(peaks[0], begin - started)


def _watch(process: "subprocess.Popen[bytes]", peaks: list[float]) -> None:
    while process.poll() is None:
        peaks[0] = max(peaks[0], sum(_resident_mib(number) for number in _family(process.pid)))
        time.sleep(0.1)


def _family(root: int) -> list[int]:
    """Return a process and those that it started."""
    try:
        children = Path(f"/proc/{root}/task").glob("*/children")
        return [
            root,
            *(number for path in children for each in path.read_text().split() for number in _family(int(each))),
        ]
    except OSError:
        return []


def _resident_mib(number: int) -> float:
    try:
        return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def in_turn(folder: Path) -> None:
    """Print images/s of one client, and how much of those from arrays."""
    (folder / "files").mkdir()
    (folder / "space.yaml").write_text(SPACE)
    link(write_photographs(folder / "files"), folder / "images", NUM_PHOTOGRAPHS)
    resize = SourceResize(SIDE, "crop")
    kept, decoded = (load_dataset("image-folder", folder / "images", Reading(resize, size)).train for size in (None, 0))
    arrays = ImageDataset("squares", kept.images_NHWC, kept.labels_N, kept.classes)
    layout = Layout(validate(load_yaml(folder / "space.yaml"), SearchSpace).with_data(3, 2), "batch")
    blob, preprocessing = Blob(initial_weights(layout, 0)), Preprocessing.fit(arrays, SIDE)
    params = LocalTraining(1, 32, 0.9, 1e-4, 1.0, has_logit_adjustment=True)
    job = Train(layout, Assignment(layout.space.largest), blob, 0.01, params, preprocessing, Augmentation(), seed=0)

    def training(images: LabelledImages) -> Callable[[], object]:
        return lambda: Client({TRAINED: images}).perform(job)

    passes = {"arrays": training(arrays), "photographs, decoded before": training(kept)}
    seconds = time_in_turn(passes, 6 * ROUNDS)
    for name, values in seconds.items():
        rates = [NUM_PHOTOGRAPHS / each for each in (statistics.median(values), min(values))]
        print(f"{name}: {rates[0]:,.0f} images/s in the median, {rates[1]:,.0f} at best", flush=True)
    print(f"ratio of medians {ratio_of_medians(seconds, *passes):.2f}", flush=True)
    first = {
        "arrays": training(arrays),
        "decoding alone": lambda: decoded.images_NHWC,
        "photographs, decoded now": training(decoded),
    }
    median_s = [statistics.median(values) for values in time_in_turn(first, ROUNDS).values()]
    for name, each in zip(first, median_s, strict=True):
        print(f"{name}: {NUM_PHOTOGRAPHS / each:,.0f} images/s")
    print(f"decoded now: {median_s[2] / sum(median_s[:2]):.2f} of decoding and training", flush=True)


def as_arrays(photographs: Sequence[tuple[str, Path]], folder: Path, count: int) -> None:
    """Write as many squares of the photographs as an `.npz`."""
    link(photographs, folder / "once", len(photographs))
    images = load_dataset("image-folder", folder / "once", Reading(SourceResize(SIDE, "crop"), 0)).train
    squares_NHWC = images.images_NHWC
    arrays = {}
    for split, number in (("train", count), ("test", NUM_TEST)):
        chosen = np.arange(number) % len(images)
        arrays |= {f"{split}_images": squares_NHWC[chosen], f"{split}_labels": images.labels_N[chosen]}
    np.savez(folder / "squares.npz", **arrays)


def row(count: int, folder: Path) -> list[str]:
    """Return the cells of a number of photographs."""
    (folder / "files").mkdir()
    (folder / "space.yaml").write_text(SPACE)
    photographs = write_photographs(folder / "files")
    link(photographs, folder / "images", count)
    files = trained(folder, "of-files", "image-folder", folder / "images", count, f", image_size: {SIDE}")
    as_arrays(photographs, folder, count)
    arrays = trained(folder, "of-arrays", "npz", folder / "squares.npz", count)
    return [f"{each:,.0f}" for each in (count, *files, *arrays)]


def main(counts: list[int]) -> None:
    """Print a line for each form of training, and a row for each number of photographs."""
    with tempfile.TemporaryDirectory() as name:
        in_turn(Path(name))
    head = ("photographs", "peak MiB", "s to start", "of arrays: peak MiB", "s to start")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            print(f"| {' | '.join(row(count, Path(name)))} |", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
