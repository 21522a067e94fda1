"""Photographs of any size in numbers that no memory holds: what two rounds of training take, against arrays.

Makes N hard links to some hundred photographs (parts of the two that scikit-learn brings, as JPEG, PNG and WebP, 160
to 640 pixels wide), divides them among 100 clients, and trains two rounds in which all clients take part, with
statistics, pixel moments and evaluations of a sample. So round 0 decodes and round 1 reads what was kept. Then the same
with the squares in an `.npz`, which are arrays in memory. Prints the largest sum of resident memory of the processes
(shared pages count in each), the time until training starts, and images/s of either round.

    python benchmarks/photographs.py 1000 10000 100000
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from fedsup_deploy import rng
from fedsup_deploy.data.dataset import Reading, load_dataset
from fedsup_deploy.ondevice.source_resize import SourceResize

CLASSES = ("china", "flower")
WRITTEN = (("jpg", {"quality": 90}), ("jpg", {"quality": 75}), ("png", {}), ("webp", {"quality": 80}))
NUM_PHOTOGRAPHS, SIDE, NUM_CLIENTS, NUM_TEST = 300, 64, 100, 40
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
training: {{rounds: 2, clients_per_round: {clients}, warmup_rounds: 0, learning_rate: 0.05, evaluate_every: 2}}
engine: {{workers: 2}}
calibration: {{clients: 10, samples_per_client: 16, schedule: one-shot}}
"""


class Measured(NamedTuple):
    """What a training took.

    `peak_mib` is of all processes together, `start_s` until the first round, `rates` images/s of each round.
    """

    peak_mib: float
    start_s: float
    rates: list[float]


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
    config.write_text(CONFIG.format(dataset=dataset, root=root, clients=NUM_CLIENTS, more=more))
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
    rounds = [event for event in events if event["event"] == "round"]
    num_images = round(count * 0.9)
    begin = next(event["unix_time_s"] for event in events if event["event"] == "train_started")
    return Measured(peaks[0], begin - started, [num_images / each["seconds"] for each in rounds])


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


def as_arrays(photographs: Sequence[tuple[str, Path]], folder: Path, count: int) -> float:
    """Write as many squares of the photographs as an `.npz`; returns the seconds that one takes to decode."""
    link(photographs, folder / "once", len(photographs))
    images = load_dataset("image-folder", folder / "once", Reading(SourceResize(SIDE, "crop"), 0)).train
    started = time.perf_counter()
    squares_NHWC = images.images_NHWC
    decode_s = (time.perf_counter() - started) / len(images)
    arrays = {}
    for split, number in (("train", count), ("test", NUM_TEST)):
        chosen = np.arange(number) % len(images)
        arrays |= {f"{split}_images": squares_NHWC[chosen], f"{split}_labels": images.labels_N[chosen]}
    np.savez(folder / "squares.npz", **arrays)
    return decode_s


def row(count: int, folder: Path) -> list[str]:
    """Return the cells of a number of photographs."""
    (folder / "files").mkdir()
    (folder / "space.yaml").write_text(SPACE)
    photographs = write_photographs(folder / "files")
    link(photographs, folder / "images", count)
    files = trained(folder, "of-files", "image-folder", folder / "images", count, f", image_size: {SIDE}")
    decode_s = as_arrays(photographs, folder, count)
    arrays = trained(folder, "of-arrays", "npz", folder / "squares.npz", count)
    # Two workers share the decoding as they share the training.
    sum_of_both = 1 / (1 / arrays.rates[0] + decode_s / 2)
    return [
        *(f"{count:,}", f"{files.peak_mib:,.0f}", f"{arrays.peak_mib:,.0f}", f"{files.start_s:.0f}"),
        *(f"{files.rates[0]:,.0f}", f"{sum_of_both:,.0f}", f"{files.rates[1]:,.0f}", f"{arrays.rates[1]:,.0f}"),
        f"{files.rates[1] / arrays.rates[1]:.2f}",
    ]


def main(counts: list[int]) -> None:
    """Print a row for each number of photographs."""
    head = (
        *("photographs", "peak MiB", "of arrays", "s to start"),
        *("images/s, round 0", "decoding + training", "images/s, round 1", "of arrays", "ratio"),
    )
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            print(f"| {' | '.join(row(count, Path(name)))} |", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1000, 10_000])
