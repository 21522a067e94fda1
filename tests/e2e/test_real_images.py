"""Trainings from files of real images as their authors publish them, in the cheapest combination of everything else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

CONFIG = """\
schema: 1
name: brief
space: {space}
data: {{dataset: {dataset}, root: {root}, validation_fraction: 0.02, augmentation: {{crop_padding: 4, flip: true}}}}
partition: {{kind: {partition}}}
supernet: {{normalization: {normalization}}}
strategy: {strategy}
training: {{rounds: 1, clients_per_round: 2, warmup_rounds: 0, batch_size: 32, learning_rate: 0.02}}
calibration: {{samples_per_client: 4, schedule: {schedule}}}
engine: {{workers: 1}}
"""

E_FEDSUP = "{name: e-fedsup, tiers: [{architecture: smallest}, {random: true}]}"

# What a run is of, and the subnet that is exported from it.
RUNS = {
    "fashion-mnist": ("fedsup-mobilenet", "iid, num_clients: 20", "batch", "{name: fedavg}", "smallest"),
    "cifar10-resnet": (
        "elastic-resnet",
        "shards, num_clients: 20",
        "batch",
        "{name: fedsup, num_subnets: 2}",
        "smallest",
    ),
    "cifar10-per-block": (
        "fedsup-mobilenet-per-block",
        "dirichlet, num_clients: 20",
        "parametric",
        E_FEDSUP,
        "largest",
    ),
}


@pytest.fixture(scope="module")
def cifar10(full_data: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 60 images of every file, in the official binary layout."""
    source, out = tmp_path_factory.mktemp("sheets"), tmp_path_factory.mktemp("cifar10")
    (source / "cifar10").symlink_to(full_data / "cifar10")
    tool = [sys.executable, repository / "tools" / "unpack_image_sheets.py", source, out]
    subprocess.run([*tool, "--layout", "binary", "--limit", "60"], check=True, capture_output=True)
    return out


def config_of(name: str, root: Path) -> str:
    space, partition, normalization, strategy, _ = RUNS[name]
    return CONFIG.format(
        space=space,
        dataset="fashion-mnist" if name == "fashion-mnist" else "cifar10",
        root=root,
        partition=partition,
        normalization=normalization,
        strategy=strategy,
        schedule="one-shot" if name == "fashion-mnist" else "layer-wise",
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "fashion-mnist" else pytest.mark.slow) for name in RUNS]
)
def test_from_published_files_to_a_bundle(name, request, shell):
    root = request.getfixturevalue("sample_images" if name == "fashion-mnist" else "cifar10")
    (shell.folder / "mine.yaml").write_text(config_of(name, root), encoding="utf-8")
    arch, classes = RUNS[name][-1], 10

    trained = shell.json("train", "--config", "mine.yaml", "--set", f"name={name}")
    evaluated = shell.json("evaluate", f"runs/{name}", "--arch", arch)
    made = shell.json("export", f"runs/{name}", "--arch", arch, "--profile", "x86-laptop", "--format", "onnx")

    assert trained["rounds"] == 1
    assert trained["bytes_up"] > 0
    [bundle] = made["bundles"]
    assert bundle["arch_id"] == evaluated["arch_id"]
    assert bundle["accuracy"] == evaluated["accuracy"]
    assert shell.json("verify", bundle["folder"])["verdict"] == "ok"
    session = onnxruntime.InferenceSession(shell.folder / bundle["folder"] / "model.onnx")
    assert session.get_inputs()[0].shape[1:] == [1 if name == "fashion-mnist" else 3, *[resolution(evaluated)] * 2]
    with np.load(shell.folder / bundle["folder"] / "vectors.npz") as vectors:
        [logits] = session.run(None, {"input": vectors["inputs"]})
        assert logits.shape == (len(vectors["inputs"]), classes)
        assert len(np.unique(logits.round(4), axis=0)) == len(logits), "different images, different answers"


def resolution(evaluated: dict) -> int:
    return evaluated["architecture"]["resolution"]
