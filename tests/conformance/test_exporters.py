"""Every registered exporter on random networks: the laws that let a bundle exist.

The networks have every kind of layer, pools of odd maps among them.
"""

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fedsup_deploy import registry, rng
from fedsup_deploy.device.building.graph import random_weights
from fedsup_deploy.export.exporter import exporter_for
from fedsup_deploy.export.parity import check_parity
from fedsup_deploy.space.parts import parts_of
from fedsup_deploy.space.search_space import SearchSpace
from fedsup_deploy.supernet.deployable import FoldedNetwork

EXPORTERS = registry.names("exporter")
SEEDS = [0, 1, 2]
FACTS = {"arch_id": "a0123456789a", "classes": '["cat", "/home/user/dog"]', "preprocessing": "{}"}


def random_network(seed: int) -> tuple[FoldedNetwork, np.ndarray]:
    """Return a random network and ten random inputs."""
    choose = rng.generator(seed, "network")
    stages = [
        {
            "name": f"s{index}",
            "widths": [8 * int(choose.integers(1, 4))],
            "depths": [int(choose.integers(1, 3))],
            "kernel_sizes": [int(choose.choice([3, 5, 7]))],
            "expand_ratios": [int(choose.integers(1, 3))],
            "squeeze_excite": [bool(choose.integers(2)) or index == 0],
            "stride": stride,
        }
        for index, stride in enumerate([1, 2, 1] if seed % 2 else [2, 1, 2])
    ]
    document = {
        "schema": 1,
        "name": "random",
        "family": ("mobilenet", "resnet")[seed % 2],
        "in_channels": (1, 3)[seed % 2],
        "num_classes": int(choose.integers(2, 11)),
        "resolutions": [(9, 12, 16)[seed % 3]],
        "stem": {"widths": [8 * int(choose.integers(1, 4))]},
        "stages": stages,
    }
    space = SearchSpace.model_validate(document)
    plan = space.plan(space.largest)
    weights = {name: torch.from_numpy(array) for name, array in random_weights(parts_of(plan), seed).items()}
    shape = (10, plan.stem.in_channels, plan.stem.in_size, plan.stem.in_size)
    return FoldedNetwork(plan, weights), choose.standard_normal(shape, dtype=np.float32)


def export_all(folder: Path, seed: int) -> dict[str, bytes]:
    """Return the bytes of every format of one network."""
    network, _ = random_network(seed)
    content = {}
    for name in EXPORTERS:
        exporter_for(name).export(network, FACTS, folder / exporter_for(name).filename)
        content[name] = (folder / exporter_for(name).filename).read_bytes()
    return content


def test_file_names_differ():
    filenames = {exporter_for(name).filename for name in EXPORTERS}

    assert len(filenames) == len(EXPORTERS)


@pytest.mark.parametrize("name", EXPORTERS)
def test_exporter_knows_its_registered_name(name):
    assert exporter_for(name).name == name


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", EXPORTERS)
def test_file_computes_what_the_network_does_alone_and_in_a_batch(name, seed, tmp_path):
    network, inputs = random_network(seed)
    exporter = exporter_for(name)

    exporter.export(network, FACTS, tmp_path / exporter.filename)

    expected = network.module()(torch.from_numpy(inputs)).numpy()
    report = check_parity(expected, {name: exporter.load(tmp_path / exporter.filename)}, inputs)
    assert np.ptp(expected) > 0.1, "a network that says the same of every image proves nothing"
    assert report.formats[name].argmax_agreement == 1.0
    assert report.formats[name].max_scaled_diff <= report.tolerance
    assert report.formats[name].batch_invariance_max_scaled_diff <= report.batch_tolerance
    assert [path.name for path in tmp_path.iterdir()] == [exporter.filename]


def test_bytes_are_the_same_again_and_in_another_process(tmp_path):
    """Elsewhere: another working folder, temporary folder, hash seed, and another network exported before."""
    first, second = export_all(tmp_path / "first", 0), export_all(tmp_path / "second" / "deeper", 0)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = (
        "import pathlib, runpy, sys\n"
        "names = runpy.run_path(sys.argv[1])\n"
        "names['export_all'](pathlib.Path('other'), 1)\n"
        "names['export_all'](pathlib.Path('same'), 0)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TMPDIR": str(elsewhere)}
    subprocess.run([sys.executable, "-c", script, __file__], cwd=elsewhere, env=environment, check=True)

    third = {name: (elsewhere / "same" / exporter_for(name).filename).read_bytes() for name in EXPORTERS}
    assert [name for name in EXPORTERS if not first[name] == second[name] == third[name]] == []


@pytest.mark.parametrize("name", EXPORTERS)
def test_file_says_what_it_is_told_to(name, tmp_path):
    """A file that lies alone still says what its classes are; any text may be among them, a path for instance."""
    network, _ = random_network(0)
    path = tmp_path / exporter_for(name).filename
    exporter_for(name).export(network, FACTS, path)
    found: dict[str, str | bytes] = dict.fromkeys(FACTS, "")
    if name == "onnx":
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif name == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.load(path, _extra_files=found)
    else:
        torch.export.load(path, extra_files=found)
    assert {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()} == FACTS


@pytest.mark.parametrize("name", EXPORTERS)
def test_export_leaves_the_network_and_the_process_as_they_were(name, tmp_path):
    network, inputs = random_network(1)
    path = tmp_path / exporter_for(name).filename
    exporter_for(name).export(network, FACTS, path)  # what torch imports then adds warning filters
    before = snapshot(network)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    exporter_for(name).export(network, FACTS, path)
    exporter_for(name).load(path)(inputs)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]
    after = snapshot(network)
    assert [key for key in before if str(before[key]) != str(after[key])] == []


def snapshot(network: FoldedNetwork) -> dict[str, object]:
    """Return what an export might change: the network, switches of torch, warning filters."""
    return {
        "weights": {key: tensor.tolist() for key, tensor in network.weights.items()},
        "grad mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
    }
